/* runtime_ops.c - ops that the runtime does in C.
 * In: nodes of these operators. Out: their types, reference values, expansions or kernel expressions. */
#include "ops.h"

const cmz_op cmz_ops_runtime_ops[] = {
    {.name = NULL},
};
