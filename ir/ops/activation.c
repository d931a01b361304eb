/* activation.c - activation functions. */
#include "ops.h"

const cmz_op cmz_ops_activation[] = {
    {.name = NULL},
};
