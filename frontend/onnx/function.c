/* function.c - functions that the model defines: found by domain, name and overload, and inlined at
 * each call. In: FunctionProto and a calling node. Out: the body's nodes in the caller's graph,
 * named "call/node". Always holds: depth and total size of what is inlined are bounded, so that a
 * small file cannot ask for the world. */
#include "import.h"

enum { CALL_DEPTH_MAXIMUM = 48, INLINED_MAXIMUM = 1000000 };

static const char *function_key(cmz_onnx_importer *im, const char *domain, const char *name,
                                const char *overload) {
  return cmz_arena_printf(im->arena, "%s:%s:%s", cmz_onnx_domain(domain), name ? name : "",
                          overload ? overload : "");
}

cmz_status cmz_onnx_functions_index(cmz_onnx_importer *im) {
  for (size_t i = 0; i < im->model->n_functions; i++) {
    const Onnx__FunctionProto *f = im->model->functions[i];
    const char *key = function_key(im, f->domain, f->name, f->overload);
    cmz_name_entry *entry = cmz_name_add(im->arena, &im->functions, key);
    if (entry->value)
      return cmz_fail(im->ctx, CMZ_E_INPUT, (cmz_loc){.file = im->file->path},
                      "function \"%s\" of domain \"%s\" is defined twice", f->name ? f->name : "",
                      cmz_onnx_domain(f->domain));
    entry->value = (cmz_vid)(i + 1);
  }
  return CMZ_OK;
}

const Onnx__FunctionProto *cmz_onnx_function_find(const cmz_onnx_importer *im,
                                                  const Onnx__NodeProto *node) {
  if (!im->model->n_functions) return NULL;
  const cmz_name_entry *entry = cmz_name_find(
      &im->functions,
      cmz_arena_printf(im->arena, "%s:%s:%s", cmz_onnx_domain(node->domain),
                       node->op_type ? node->op_type : "", node->overload ? node->overload : ""));
  return entry ? im->model->functions[entry->value - 1] : NULL;
}

cmz_status cmz_onnx_opsets_read(cmz_onnx_importer *im, Onnx__OperatorSetIdProto *const *imports,
                                size_t count, cmz_opset_list *out) {
  cmz_loc loc = {.file = im->file->path};
  cmz_opset *items = CMZ_NEW_ARRAY(im->arena, cmz_opset, count);
  for (size_t i = 0; i < count; i++) {
    items[i] = (cmz_opset){cmz_onnx_domain(imports[i]->domain), imports[i]->version};
    bool standard = !*items[i].domain;
    if (items[i].version < 1 || items[i].version > UINT16_MAX)
      return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "opset %" PRId64 " of %s does not exist",
                      items[i].version, standard ? "ai.onnx" : items[i].domain);
    if (standard && items[i].version > CMZ_ONNX_NEWEST_OPSET)
      return cmz_fail_hint(im->ctx, CMZ_E_UNSUPPORTED, loc, "export the model with an older opset",
                           "opset %" PRId64
                           " of ai.onnx is newer than %d, the newest that this cmzc knows",
                           items[i].version, CMZ_ONNX_NEWEST_OPSET);
    for (size_t k = 0; k < i; k++)
      if (!strcmp(items[k].domain, items[i].domain) && items[k].version != items[i].version)
        return cmz_fail(im->ctx, CMZ_E_INPUT, loc,
                        "domain \"%s\" is imported at opset %" PRId64 " and at %" PRId64,
                        standard ? "ai.onnx" : items[i].domain, items[k].version, items[i].version);
  }
  *out = (cmz_opset_list){items, (uint32_t)count};
  return CMZ_OK;
}

/* The value that the call passes for input INDEX; 0 when it passes none. */
static cmz_status argument(cmz_onnx_importer *im, cmz_scope *scope, const Onnx__NodeProto *node,
                           size_t index, cmz_loc loc, cmz_vid *value) {
  *value = 0;
  if (index >= node->n_input || !*node->input[index]) return CMZ_OK;
  for (cmz_scope *s = scope; s; s = s->parent) {
    cmz_name_entry *entry = cmz_name_find(&s->names, node->input[index]);
    if (!entry) continue;
    if (!entry->available) s->state->unsorted = true;
    *value = entry->value;
    return CMZ_OK;
  }
  return cmz_fail(im->ctx, CMZ_E_INPUT, loc,
                  "input \"%s\" is made by no node, nor an input of the graph", node->input[index]);
}

/* Binds the function's outputs to the values that the call already has for them; an output that is
 * also an input needs a node in between. */
static cmz_status bind_outputs(cmz_onnx_importer *im, cmz_scope *scope, cmz_scope *body,
                               const Onnx__NodeProto *node, const Onnx__FunctionProto *f,
                               cmz_loc loc) {
  for (size_t i = 0; i < f->n_output && i < node->n_output; i++) {
    if (!*node->output[i]) continue;
    cmz_vid wanted = cmz_name_find(&scope->names, node->output[i])->value;
    cmz_name_entry *entry = cmz_name_add(im->arena, &body->names, f->output[i]);
    if (!entry->value && !entry->is_input) {
      entry->value = wanted;
      continue;
    }
    if (!entry->value)
      return cmz_fail(im->ctx, CMZ_E_INPUT, loc,
                      "function \"%s\" gives its input \"%s\", which the call leaves out", f->name,
                      f->output[i]);
    if (!entry->available)
      return cmz_fail(im->ctx, CMZ_E_UNSUPPORTED, loc, "function \"%s\" gives \"%s\" twice",
                      f->name, f->output[i]);
    cmz_vid from = entry->value;
    cmz_node_add(im->m, body->state->graph, cmz_op_get("Identity"), loc.node, 1, &from, 1, &wanted);
  }
  return CMZ_OK;
}

cmz_status cmz_onnx_function_inline(cmz_onnx_importer *im, cmz_scope *scope,
                                    const Onnx__NodeProto *node, const Onnx__FunctionProto *f) {
  cmz_loc loc = cmz_onnx_loc(im, scope, node);
  if (im->depth >= CALL_DEPTH_MAXIMUM)
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc,
                    "function \"%s\" calls itself, or calls are nested too deeply", f->name);
  if (node->n_input > f->n_input || node->n_output > f->n_output)
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc,
                    "function \"%s\" has %zu inputs and %zu outputs; the call has %zu and %zu",
                    f->name, f->n_input, f->n_output, node->n_input, node->n_output);
  if (f->n_node > INLINED_MAXIMUM ||
      (im->inlined_nodes += (uint32_t)f->n_node + 1) > INLINED_MAXIMUM)
    return cmz_fail(im->ctx, CMZ_E_UNSUPPORTED, loc, "functions expand to more than %d nodes",
                    INLINED_MAXIMUM);
  cmz_opset_list opsets;
  CMZ_TRY(cmz_onnx_opsets_read(im, f->opset_import, f->n_opset_import, &opsets));
  cmz_scope body = {.state = scope->state,
                    .opsets = &opsets,
                    .call = node,
                    .function = f,
                    .call_scope = scope,
                    .prefix = cmz_arena_printf(im->arena, "%s/", loc.node)};
  for (size_t i = 0; i < f->n_input; i++) {
    cmz_name_entry *entry = cmz_name_add(im->arena, &body.names, f->input[i]);
    if (entry->is_input)
      return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "function \"%s\" names an input twice", f->name);
    CMZ_TRY(argument(im, scope, node, i, loc, &entry->value));
    entry->is_input = entry->available = true;
  }
  CMZ_TRY(bind_outputs(im, scope, &body, node, f, loc));
  im->depth++;
  cmz_status status = cmz_onnx_nodes_read(im, &body, f->node, f->n_node);
  im->depth--;
  for (size_t i = 0; i < f->n_output && i < node->n_output && status == CMZ_OK; i++) {
    if (!*node->output[i]) continue;
    cmz_name_entry *entry = cmz_name_find(&body.names, f->output[i]);
    if (!entry->available)
      status = cmz_fail(im->ctx, CMZ_E_INPUT, loc,
                        "function \"%s\" never computes its output \"%s\"", f->name, f->output[i]);
  }
  return status;
}
