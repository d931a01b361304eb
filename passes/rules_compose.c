/* rules_compose.c - see the table at the end. */
#include "rules.h"

const cmz_rule cmz_rules_compose[] = {
    {NULL, NULL, NULL},
};
