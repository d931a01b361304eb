/* infer.c - types and symbolic contents of every value of the module.
 * In: a normalised module. Out: every value has a rank and dims. An If whose condition is already
 * known here is decided at once: its other branch need not even have fitting types. Small constants
 * are evaluated on the way, so that fewer sizes are left to run time. */
#include "support.h"

#define EAGER_BYTES                                                                                \
  4096 /* what depends on constants only and is no larger becomes constant during inference */

static cmz_status infer_in_order(cmz_module *m, cmz_gid g);

/* Infers branch NAME of N without telling anybody; *FIRST is where its messages begin. */
static cmz_status infer_quietly(cmz_module *m, cmz_nid n, const char *name, uint32_t *first) {
  cmz_context *ctx = m->ctx;
  void (*sink)(void *, const cmz_diagnostic *) = ctx->options.sink;
  *first = ctx->diagnostics.count;
  const cmz_attr *a = cmz_node_attr(cmz_node_get(m, n), name);
  if (a == NULL || a->kind != CMZ_ATTR_GRAPH) return CMZ_OK; /* the node's own inference says so */
  ctx->options.sink = NULL;
  cmz_status status = infer_in_order(m, a->graph);
  ctx->options.sink = sink;
  return status;
}

/* Tells what was said from message FIRST to before LAST. */
static void tell(cmz_context *ctx, uint32_t first, uint32_t last) {
  for (uint32_t i = first; i < last && ctx->options.sink != NULL; i++)
    ctx->options.sink(ctx->options.user, &ctx->diagnostics.data[i]);
}

/* Branches have no inputs: they can be inferred, and their own Ifs decided, before the If itself.
 * One that makes no sense for the sizes at hand can never run: the other is taken and the run
 * checks it. */
static cmz_status infer_branches(cmz_module *m, cmz_nid n, bool *done) {
  cmz_context *ctx = m->ctx;
  uint32_t first, second, errors = ctx->error_count;
  cmz_status then = infer_quietly(m, n, "then_branch", &first);
  uint32_t then_errors = ctx->error_count;
  cmz_status otherwise = infer_quietly(m, n, "else_branch", &second);
  uint32_t end = ctx->diagnostics.count;
  if ((then == CMZ_OK) == (otherwise == CMZ_OK)) {
    tell(ctx, first, end);
    return then;
  }
  /* Only what contradicts itself is left out; what is not supported is an error as ever. */
  cmz_status failed = then != CMZ_OK ? then : otherwise;
  if (failed != CMZ_E_INPUT) {
    tell(ctx, first, end);
    return failed;
  }
  if (then == CMZ_OK) {
    tell(ctx, first, second);
    ctx->diagnostics.count = second;
    ctx->error_count = then_errors;
  } else {
    tell(ctx, second, end);
    memmove(&ctx->diagnostics.data[first], &ctx->diagnostics.data[second],
            (end - second) * sizeof *ctx->diagnostics.data);
    ctx->diagnostics.count = first + (end - second);
    ctx->error_count = errors;
  }
  cmz_warn(ctx, cmz_node_loc(m, n),
           "the %s branch does not fit these sizes; the model refuses inputs that would take it",
           then == CMZ_OK ? "else" : "then");
  return cmz_pass_take_branch(m, n, then == CMZ_OK, done);
}

static cmz_status infer_one(cmz_module *m, cmz_nid n) {
  bool done = false;
  if (cmz_pass_is_op(cmz_node_get(m, n), "If")) {
    CMZ_TRY(cmz_pass_fold_if(m, n, &done));
    if (done) return CMZ_OK;
    CMZ_TRY(infer_branches(m, n, &done));
    if (done) return CMZ_OK;
    CMZ_TRY(cmz_pass_decide_if(m, n, &done));
    if (done) return CMZ_OK;
  }
  CMZ_TRY(cmz_pass_resolve_sequence(m, n, &done));
  if (done) return CMZ_OK;
  CMZ_TRY(cmz_infer_node(m, n));
  /* Differentiated before anything is rewritten. */
  if (strcmp(cmz_node_get(m, n)->op->name, "Gradient") == 0)
    return cmz_node_get(m, n)->op->expand(m, n);
  bool resolved = false;
  CMZ_TRY(cmz_pass_resolve_graphs(m, n, &resolved));
  if (resolved) CMZ_TRY(cmz_infer_node(m, n));
  /* weights stay quantised until the pass `integers` has seen them */
  if (cmz_pass_is_op(cmz_node_get(m, n), "DequantizeLinear")) return CMZ_OK;
  return cmz_pass_fold_node(m, n, EAGER_BYTES, &done);
}

static cmz_status infer_in_order(cmz_module *m, cmz_gid g) {
  cmz_status first = CMZ_OK;
  for (uint32_t i = 0; i < cmz_graph_get(m, g)->nodes.count; i++) {
    cmz_nid n = cmz_graph_get(m, g)->nodes.data[i];
    if (cmz_node_get(m, n)->removed) continue;
    cmz_status status = infer_one(m, n);
    if (status != CMZ_OK && first == CMZ_OK) first = status;
    /* What was placed before a node that stays is inferred already. */
    while (!cmz_node_get(m, n)->removed && cmz_graph_get(m, g)->nodes.data[i] != n) i++;
    if (cmz_node_get(m, n)->removed && cmz_graph_get(m, g)->nodes.data[i] != n)
      i--; /* a branch stands in its place */
  }
  return first;
}

cmz_status cmz_pass_infer(cmz_pass_run *run, cmz_module *m) {
  (void)run;
  cmz_status first = CMZ_OK;
  for (uint32_t i = 0; i < m->entries.count; i++) {
    cmz_status status = infer_in_order(m, m->entries.data[i]);
    if (status != CMZ_OK && first == CMZ_OK) first = status;
  }
  return first;
}
