/* contraction.c - matrix products.
 * In: nodes of these operators. Out: their types, reference values, expansions or kernel expressions. */
#include "ops.h"

const cmz_op cmz_ops_contraction[] = {
    {.name = NULL},
};
