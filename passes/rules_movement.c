/* rules_movement.c - see the table at the end. */
#include "rules.h"

const cmz_rule cmz_rules_movement[] = {
    {NULL, NULL, NULL},
};
