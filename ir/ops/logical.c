/* logical.c - comparisons and logic. */
#include "ops.h"

const cmz_op cmz_ops_logical[] = {
    {.name = NULL},
};
