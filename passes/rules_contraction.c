/* rules_contraction.c - see the table at the end. */
#include "rules.h"

const cmz_rule cmz_rules_contraction[] = {
    {NULL, NULL, NULL},
};
