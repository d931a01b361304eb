/* generate.c - tensors made of sizes. */
#include "ops.h"

const cmz_op cmz_ops_generate[] = {
    {.name = NULL},
};
