/* canonicalise.c - applies the rewrite rules to a fixpoint.
 * In: an inferred module. Out: the same function in fewer or simpler nodes. */
#include "rules.h"

#define RULE_ROUNDS 32
#define RULE_BUDGET_PER_NODE 16 /* applications; more means that two rules undo each other */

static const cmz_rule *const tables[] = {cmz_rules_identity, cmz_rules_movement,
                                         cmz_rules_contraction, cmz_rules_compose};

bool cmz_rule_finish(cmz_module *m, cmz_nid n, cmz_vid v) {
  cmz_vid o = cmz_node_output(cmz_node_get(m, n), 0);
  if (cmz_pass_use_count(m, o) == 0) return false;
  if (!cmz_pass_replace(m, o, v)) return false;
  cmz_nid producer = cmz_value_get(m, v)->producer;
  if (producer != 0 && producer != n) cmz_node_add_source(m, producer, n);
  cmz_pass_remove_if_dead(m, n);
  return true;
}

static cmz_status apply_rules(cmz_module *m, cmz_nid n, bool *changed) {
  for (size_t t = 0; t < CMZ_COUNT_OF(tables); t++)
    for (const cmz_rule *r = tables[t]; r->label != NULL; r++) {
      const cmz_node *node = cmz_node_get(m, n);
      if (node->removed) return CMZ_OK;
      if (!cmz_pass_is_op(node, r->root)) continue;
      bool applied = false;
      CMZ_TRY(r->apply(m, n, &applied));
      *changed |= applied;
    }
  return CMZ_OK;
}

static cmz_status round_over_graph(cmz_module *m, cmz_gid g, uint32_t *applications) {
  for (uint32_t i = 0; i < cmz_graph_get(m, g)->nodes.count; i++) {
    cmz_nid n = cmz_graph_get(m, g)->nodes.data[i];
    if (cmz_node_get(m, n)->removed || cmz_pass_remove_if_dead(m, n)) continue;
    bool changed = false;
    CMZ_TRY(apply_rules(m, n, &changed));
    *applications += changed;
  }
  return CMZ_OK;
}

cmz_status cmz_pass_canonicalise(cmz_pass_run *run, cmz_module *m) {
  (void)run;
  uint32_t total = 0, budget = m->nodes.count * RULE_BUDGET_PER_NODE + 64;
  for (int round = 0; round < RULE_ROUNDS && total < budget; round++) {
    uint32_t applications = 0;
    for (cmz_gid g = 1; g < m->graphs.count; g++) {
      if (!cmz_pass_graph_alive(m, g)) continue;
      CMZ_TRY(round_over_graph(m, g, &applications));
      CMZ_TRY(cmz_graph_sort(m, g));
    }
    if (applications == 0) break;
    total += applications;
  }
  return CMZ_OK;
}

cmz_status cmz_pass_simplify(cmz_pass_run *run, cmz_module *m) {
  CMZ_TRY(cmz_pass_fold(run, m));
  CMZ_TRY(cmz_pass_canonicalise(run, m));
  return cmz_pass_fold(run, m);
}
