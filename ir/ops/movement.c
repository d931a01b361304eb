/* movement.c - movement of elements. */
#include "ops.h"

const cmz_op cmz_ops_movement[] = {
    {.name = NULL},
};
