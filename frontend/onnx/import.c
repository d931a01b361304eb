/* import.c - an ONNX file to a module: header, opsets, functions, the main graph.
 * In: a path. Out: a module with one entry, nodes in the forms of the file's opset. Always holds:
 * everything unsupported is reported in one run; on failure no module is given. */
#include "import.h"
#include "../importers.h"

static cmz_status check_header(cmz_onnx_importer *im) {
  cmz_loc loc = {.file = im->file->path};
  const Onnx__ModelProto *model = im->model;
  if (model->ir_version < 1)
    return cmz_fail(im->ctx, CMZ_E_INPUT, loc, "not an ONNX model: it has no ir_version");
  if (model->ir_version > CMZ_ONNX_NEWEST_IR_VERSION)
    return cmz_fail(im->ctx, CMZ_E_UNSUPPORTED, loc,
                    "ir_version %" PRId64 " is newer than %d, the newest that this cmzc knows",
                    model->ir_version, CMZ_ONNX_NEWEST_IR_VERSION);
  CMZ_TRY(cmz_onnx_opsets_read(im, model->opset_import, model->n_opset_import, &im->opsets));
  if (model->n_opset_import == 0 && model->ir_version < 3) { /* before opsets were declared */
    static const cmz_opset first = {"", 1};
    im->opsets = (cmz_opset_list){&first, 1};
  }
  return CMZ_OK;
}

/* One message for each kind of operator that is not there. */
static cmz_status report_unknown(cmz_onnx_importer *im) {
  for (uint32_t i = 0; i < im->unknown.count; i++) {
    const cmz_unknown_op *u = &im->unknown.data[i];
    cmz_loc loc = {.file = im->file->path, .node = u->node, .op = u->name};
    const char *domain = *u->domain ? u->domain : "ai.onnx";
    const char *more = u->count > 1 ? cmz_arena_printf(im->arena, " (%u nodes)", u->count) : "";
    if (u->known_name)
      cmz_fail(im->ctx, CMZ_E_UNSUPPORTED, loc,
               "operator %s of %s is not supported at opset %" PRId64 "%s", u->name, domain,
               u->version, more);
    else
      cmz_fail(im->ctx, CMZ_E_UNSUPPORTED, loc, "operator %s of domain %s is not known%s", u->name,
               domain, more);
  }
  return im->unknown.count ? CMZ_E_UNSUPPORTED : CMZ_OK;
}

cmz_status cmz_onnx_import(cmz_context *ctx, const char *path, cmz_module **module) {
  cmz_onnx_importer im = {.ctx = ctx};
  CMZ_TRY(cmz_file_map(ctx, path, &im.file));
  im.m = cmz_module_create(ctx, im.file->path);
  im.arena = im.m->arena;
  Onnx__ModelProto *model;
  CMZ_TRY(cmz_onnx_read(ctx, im.arena, im.file, &model));
  im.model = model;
  CMZ_TRY(check_header(&im));
  CMZ_TRY(cmz_onnx_functions_index(&im));
  im.m->ir_version = model->ir_version;
  im.m->opset = (uint32_t)cmz_onnx_opset_of(&im.opsets, "");
  im.m->name = cmz_arena_string(im.arena, model->graph->name);

  cmz_graph_state state = {.graph = cmz_module_add_graph(im.m, im.m->name, 0, 0)};
  cmz_vec_push(im.arena, &im.m->entries, state.graph);
  cmz_scope scope = {.state = &state, .prefix = "", .opsets = &im.opsets};
  cmz_status status = cmz_onnx_graph_read(&im, model->graph, &scope);
  cmz_status unknown = report_unknown(&im);
  if (status == CMZ_OK) status = unknown;
  if (status == CMZ_OK && im.failed) status = CMZ_E_INPUT;
  if (status == CMZ_OK && cmz_graph_get(im.m, state.graph)->outputs.count == 0)
    status =
        cmz_fail(ctx, CMZ_E_INPUT, (cmz_loc){.file = im.file->path}, "the graph has no outputs");
  if (status == CMZ_OK) *module = im.m;
  return status;
}
