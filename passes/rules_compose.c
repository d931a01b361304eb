/* rules_compose.c - patterns that are put together again because one operator makes fewer kernels
 * than its pieces. Normalisations, softmax and activations need none of this: their pieces fuse
 * into one kernel as they are. In, out: see rules.h. */
#include "rules.h"

const cmz_rule cmz_rules_compose[] = {
    {NULL, NULL, NULL},
};
