/* rules.h - rewrite rules: small functions found by the operator at the root of their pattern. A
 * rule either applies whole and says so, or leaves the module untouched. It looks at structure
 * only, never at names or at one model's constants. */
#ifndef CMZ_PASSES_RULES_H
#define CMZ_PASSES_RULES_H

#include "support.h"

typedef struct cmz_rule {
  const char *label;
  const char *root; /* operator of the default domain */
  /* Rewrites the pattern rooted at N; *CHANGED says whether it applied. */
  cmz_status (*apply)(cmz_module *m, cmz_nid n, bool *changed);
} cmz_rule;

/* Each table ends with label NULL. */
extern const cmz_rule cmz_rules_identity[];
extern const cmz_rule cmz_rules_movement[];
extern const cmz_rule cmz_rules_contraction[];
extern const cmz_rule cmz_rules_compose[];

/* N's output 0 becomes V everywhere and N goes. False when N's output is a graph output that V
 * cannot be. */
bool cmz_rule_finish(cmz_module *m, cmz_nid n, cmz_vid v);

#endif
