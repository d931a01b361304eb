/* evaluator.h - the oracle: runs a graph on concrete arrays with each op's reference evaluation.
 * Used by constant folding, --check-passes and tests. Slow and simple; libm in double precision. */
#ifndef CMZ_IR_EVALUATOR_H
#define CMZ_IR_EVALUATOR_H

#include "op.h"

struct cmz_eval {
  cmz_module *module;
  cmz_arena *arena; /* results live here */
  cmz_nid node;     /* being evaluated: for messages */
  size_t limit;     /* an output above this many bytes is refused with CMZ_E_BUDGET; 0: none */
  /* By cmz_vid: what is known of the graph being evaluated and of those around it (data NULL where
   * unknown); control ops pass it on as cmz_eval_graph's OUTER. May be NULL. */
  const cmz_array *values;
};

/* Allocates OUT's data for rank/shape already set in it. */
cmz_status cmz_eval_output(cmz_eval *e, cmz_array *out);
/* An error located at the node. */
cmz_status cmz_eval_fail(cmz_eval *e, const char *format, ...) CMZ_PRINTF(2, 3);
size_t cmz_array_count(const cmz_array *a);
/* Row-major walk helper: coordinates of linear index I. */
void cmz_array_coordinates(const cmz_array *a, size_t i, int64_t *coordinates);
/* Evaluates node N with the arrays given (one per input; data NULL where absent). */
cmz_status cmz_eval_node(cmz_eval *e, cmz_nid n, const cmz_array *inputs, cmz_array *outputs);
/* Runs graph G: INPUTS in the order of its inputs; OUTPUTS likewise. OUTER gives values of
 * surrounding graphs by id (may be NULL). Dims are checked against the graph's input types. */
cmz_status cmz_eval_graph(cmz_eval *e, cmz_gid g, const cmz_array *inputs, cmz_array *outputs,
                          const cmz_array *outer /* indexed by cmz_vid, data NULL where unknown */);

#endif
