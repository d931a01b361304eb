/* slice.c - Slice, Pad and their kin. */
#include "ops.h"

const cmz_op cmz_ops_slice[] = {
    {.name = NULL},
};
