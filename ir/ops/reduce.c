/* reduce.c - reductions over axes.
 * In: nodes of these operators. Out: their types, reference values, expansions or kernel expressions. */
#include "ops.h"

const cmz_op cmz_ops_reduce[] = {
    {.name = NULL},
};
