/* legacy.c - operators of early opsets. */
#include "ops.h"

const cmz_op cmz_ops_legacy[] = {
    {.name = NULL},
};
