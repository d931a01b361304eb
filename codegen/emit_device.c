/* emit_device.c - the frame of a GPU kernel: how a thread finds the tiles that are its own.
 * In: a kernel, a level with threads. Out: the function's entry block, ready for emit_tiles.
 * Always holds: every thread of the grid takes tiles thread, thread + all threads, …, so that any
 * grid computes all tiles, and neighbouring threads neighbouring tiles; where work-groups compute
 * tiles together, group takes tiles group, group + all groups, … */
#include "emit.h"

#include "mlir-c/BuiltinAttributes.h"
#include "mlir-c/BuiltinTypes.h"

static MlirStringRef text(const char *s) { return mlirStringRefCreateFromCString(s); }

static uint32_t param_count(const cmz_kernel *k) {
  uint32_t count = 0;
  for (uint32_t i = 1; i < k->exprs.count; i++) {
    const cmz_expr_node *n = &k->exprs.data[i];
    if (n->op == CMZ_X_PARAM) count = CMZ_MAX(count, (uint32_t)n->i + 1);
  }
  return CMZ_MAX(count, k->param_count);
}

static MlirValue special(emitter *e, const char *name) {
  MlirOperation op = cmz_b_op(&e->b, name, 0, NULL, 1, &e->b.i32, 0, NULL, 0, NULL);
  return cmz_b_cast(&e->b, "arith.extui", mlirOperationGetResult(op, 0), e->b.i64);
}

void cmz_emit_device_range(emitter *e, MlirValue group, MlirValue groups, MlirValue size,
                           MlirValue thread) {
  cmz_builder *b = &e->b;
  e->thread = thread;
  e->begin = group;
  e->step = groups;
  if (e->s->group) {
    e->end = cmz_b_2(b, "arith.divui", e->end, cmz_b_i64(b, e->s->group));
    return;
  }
  e->begin = cmz_b_add(b, cmz_b_mul(b, group, size), thread);
  e->step = cmz_b_mul(b, groups, size);
}

static void bind_parameters(emitter *e, MlirBlock entry, uint32_t operands) {
  for (uint32_t i = 0; i < operands; i++)
    cmz_emit_remember_operand(e, i, mlirBlockGetArgument(entry, (intptr_t)i));
  for (uint32_t i = 1; i < e->k->exprs.count; i++) {
    const cmz_expr_node *n = &e->k->exprs.data[i];
    if (n->op == CMZ_X_PARAM)
      cmz_emit_remember(e, cmz_emit_key(e, i), 0,
                        mlirBlockGetArgument(entry, (intptr_t)(operands + (uint32_t)n->i)));
  }
}

MlirBlock cmz_emit_device_function(emitter *e, MlirModule module, const char *symbol) {
  cmz_builder *b = &e->b;
  uint32_t operands = e->k->operands.count, count = operands + param_count(e->k) + 1;
  if (count > CMZ_EMIT_MAX_DEVICE_PARAMETERS) {
    cmz_emit_fail(e, "a kernel with more operands than a GPU takes");
    count = CMZ_EMIT_MAX_DEVICE_PARAMETERS;
  }
  MlirType types[CMZ_EMIT_MAX_DEVICE_PARAMETERS];
  MlirLocation locations[CMZ_EMIT_MAX_DEVICE_PARAMETERS];
  for (uint32_t i = 0; i < count; i++) {
    types[i] = i < operands ? b->pointer : b->i64;
    locations[i] = b->location;
  }
  MlirNamedAttribute attrs[] = {
      cmz_b_attr(b, "sym_name", mlirStringAttrGet(b->mlir, text(symbol))),
      cmz_b_attr(b, "function_type",
                 mlirTypeAttrGet(mlirFunctionTypeGet(b->mlir, (intptr_t)count, types, 0, NULL))),
  };
  MlirRegion region = mlirRegionCreate();
  MlirBlock entry = mlirBlockCreate((intptr_t)count, types, locations);
  mlirRegionAppendOwnedBlock(region, entry);
  b->block = mlirModuleGetBody(module);
  cmz_b_op(b, "func.func", 0, NULL, 0, NULL, 2, attrs, 1, &region);
  b->block = entry;
  MlirValue group = special(e, "nvvm.read.ptx.sreg.ctaid.x");
  MlirValue size = special(e, "nvvm.read.ptx.sreg.ntid.x");
  MlirValue groups = special(e, "nvvm.read.ptx.sreg.nctaid.x");
  MlirValue thread = special(e, "nvvm.read.ptx.sreg.tid.x");
  e->end = mlirBlockGetArgument(entry, (intptr_t)count - 1);
  cmz_emit_device_range(e, group, groups, size, thread);
  e->path[0] = CMZ_NEW(e->arena, scope);
  *e->path[0] = (scope){entry, 0};
  cmz_emit_analyse(e);
  if (!e->failed) bind_parameters(e, entry, operands);
  return entry;
}
