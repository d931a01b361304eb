/* pooling.c - pooling.
 * In: nodes of these operators. Out: their types, reference values, expansions or kernel expressions. */
#include "ops.h"

const cmz_op cmz_ops_pooling[] = {
    {.name = NULL},
};
