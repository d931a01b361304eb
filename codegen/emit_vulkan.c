/* emit_vulkan.c - the frame of a Vulkan kernel, and SPIR-V from its module.
 * In: a kernel, a level with `spirv`. Out: a gpu.func ready for emit_tiles; then a SPIR-V module.
 * Always holds: no address is ever a pointer: an operand is a buffer and an element number; the
 * buffers may overlap (they are Aliased); sums and products keep their order (NoContraction). */
#include "emit.h"

#include "mlir-c/BuiltinAttributes.h"
#include "mlir-c/BuiltinTypes.h"
#include "mlir-c/Dialect/GPU.h"
#include "mlir-c/Support.h"

/* What any kernel may need; the module's own list is made from what it uses. MLIR knows integer dot
 * products as a part of SPIR-V 1.6 alone: it is told that version except where it decides the form
 * of entry points, and with the extension named the module is one of 1.3 (write_module). */
#define ENVIRONMENT(version)                                                                       \
  "#spirv.target_env<#spirv.vce<" version ", [Shader, Int64, Int16, Int8, Float64, Float16, "      \
  "StorageBuffer8BitAccess, StorageBuffer16BitAccess, DotProduct, DotProductInput4x8BitPacked], "  \
  "[SPV_KHR_storage_buffer_storage_class, SPV_KHR_8bit_storage, SPV_KHR_16bit_storage, "           \
  "SPV_KHR_integer_dot_product]>, api=Vulkan, #spirv.resource_limits<>>"
#define WIDEST "v1.6"
#define ENTRIES "v1.3"
#define BUFFER ", #spirv.storage_class<StorageBuffer>>"

static MlirStringRef text(const char *s) { return mlirStringRefCreateFromCString(s); }

static bool is_named(MlirOperation op, const char *name) {
  return mlirStringRefEqual(mlirIdentifierStr(mlirOperationGetName(op)), text(name));
}

static MlirAttribute parse(cmz_builder *b, const char *s) {
  return mlirAttributeParseGet(b->mlir, text(s));
}

static MlirValue identifier(emitter *e, const char *name) {
  cmz_builder *b = &e->b;
  MlirType index = mlirIndexTypeGet(b->mlir);
  MlirNamedAttribute x = cmz_b_attr(b, "dimension", parse(b, "#gpu<dim x>"));
  MlirOperation op = cmz_b_op(b, name, 0, NULL, 1, &index, 1, &x, 0, NULL);
  return cmz_b_cast(b, "arith.index_cast", mlirOperationGetResult(op, 0), b->i64);
}

uint32_t cmz_kernel_windows(const cmz_kernel *k, uint32_t operand, const cmz_cpu_row *cpu) {
  const cmz_operand *o = &k->operands.data[operand];
  uint64_t bits = o->dtype == CMZ_BOOL ? 8 : cmz_dtype_info(o->dtype)->bits;
  int64_t elements;
  if (!cpu->window_bytes || !bits || !cmz_x_is_int(k, o->elements, &elements) || elements <= 0)
    return 1;
  uint64_t most = (uint64_t)UINT32_MAX * 8, count = CMZ_MIN((uint64_t)elements, most / bits);
  return (uint32_t)((count * bits / 8 + CMZ_WINDOW_REST - 1) / cpu->window_bytes) + 1;
}

/* 8 or 16 where OPERAND's elements are parts of 32-bit words: the level reads nothing else, or it
 * is read by fours too; else 0. */
static uint32_t part_bits(const emitter *e, uint32_t operand) {
  cmz_dtype stored = e->k->operands.data[operand].dtype;
  uint32_t bits = stored == CMZ_BOOL ? 8 : cmz_dtype_info(stored)->bits;
  return bits < 32 && (!e->b.cpu->small || cmz_emit_packs(e, operand)) ? bits : 0;
}

/* What binding 0 holds, in 64-bit words: the grid tiles, the logarithm of the bytes that a window
 * reaches, then, for each operand, the bytes from where it is bound to where it begins, then the
 * params. */
enum { TILES_WORD, SHIFT_WORD, OPERAND_WORDS };

/* Word NUMBER of binding 0, as far as 32 bits reach in a narrow kernel. */
static MlirValue word(emitter *e, uint32_t number) {
  e->b.buffer = (cmz_b_buffer){.windows = &e->words, .count = 1, .pairs = e->b.narrow};
  return cmz_b_load(&e->b, e->b.i64, cmz_b_i64(&e->b, number), NULL, true);
}

/* The same as the nearest number of 32 bits in a narrow kernel: a bound may be "to the end". */
static MlirValue nearest_word(emitter *e, uint32_t number) {
  cmz_builder *b = &e->b;
  MlirValue low = word(e, number);
  if (!b->narrow) return low;
  b->buffer.pairs = false;
  MlirValue high = cmz_b_load(b, b->i64, cmz_b_i64(b, 2 * number + 1), NULL, true);
  MlirValue sign = cmz_b_2(b, "arith.shrsi", low, cmz_b_i64(b, 31));
  MlirValue end = cmz_b_2(b, "arith.xori", cmz_b_2(b, "arith.shrsi", high, cmz_b_i64(b, 31)),
                          cmz_b_i64(b, INT32_MAX));
  return cmz_b_select(b, cmz_b_icmp(b, CMZ_B_IEQ, high, sign), low, end);
}

/* OPERAND's buffer, whose windows are ENTRY's arguments from FIRST on. */
static cmz_b_buffer buffer_of(emitter *e, MlirBlock entry, uint32_t operand, uint32_t first) {
  cmz_builder *b = &e->b;
  cmz_dtype stored = e->k->operands.data[operand].dtype;
  uint32_t bits = cmz_b_bits(cmz_b_stored_type(b, stored));
  cmz_b_buffer out = {.count = cmz_kernel_windows(e->k, operand, b->cpu),
                      .part_bits = part_bits(e, operand),
                      .pairs = b->narrow && (stored == CMZ_I64 || stored == CMZ_U64)};
  MlirValue *windows = CMZ_NEW_ARRAY(e->arena, MlirValue, out.count);
  for (uint32_t w = 0; w < out.count; w++)
    windows[w] = mlirBlockGetArgument(entry, (intptr_t)(first + w));
  out.windows = windows;
  if (out.count == 1) return out;
  uint32_t unit = out.part_bits || out.pairs ? 4 : bits / 8; /* what is numbered */
  out.shift = cmz_b_sub(b, word(e, SHIFT_WORD), cmz_b_i64(b, __builtin_ctz(unit)));
  return out;
}

static void bind_operands(emitter *e, MlirBlock entry) {
  cmz_builder *b = &e->b;
  uint32_t count = e->k->operands.count, argument = 1;
  cmz_b_buffer *buffers = CMZ_NEW_ARRAY(e->arena, cmz_b_buffer, count + 1);
  for (uint32_t i = 0; i < count; i++) {
    uint32_t bits = cmz_b_bits(cmz_b_stored_type(b, e->k->operands.data[i].dtype));
    buffers[i] = buffer_of(e, entry, i, argument);
    argument += buffers[i].count;
    MlirValue bytes = word(e, OPERAND_WORDS + i);
    cmz_emit_remember_operand(
        e, i, cmz_b_2(b, "arith.shrui", bytes, cmz_b_i64(b, __builtin_ctz(bits / 8))));
  }
  for (uint32_t i = 1; i < e->k->exprs.count; i++) {
    const cmz_expr_node *n = &e->k->exprs.data[i];
    if (n->op == CMZ_X_PARAM)
      cmz_emit_remember(e, cmz_emit_key(e, i), 0,
                        nearest_word(e, OPERAND_WORDS + count + (uint32_t)n->i));
  }
  e->buffers = buffers;
}

static const char *element_text(cmz_builder *b, MlirType type) {
  const char *names[] = {"f32", "f64", "i8", "i16", "i32", "i64"};
  MlirType types[] = {b->f32, b->f64, b->i8, b->i16, b->i32, b->i64};
  for (size_t i = 0; i < CMZ_COUNT_OF(types); i++)
    if (type.ptr && mlirTypeEqual(type, types[i])) return names[i];
  return NULL;
}

static MlirBlock append_function(emitter *e, MlirBlock body, const char *symbol, uint32_t count,
                                 const MlirType *types, const MlirLocation *locations) {
  cmz_builder *b = &e->b;
  cmz_text bindings = {.arena = e->arena};
  for (uint32_t i = 0; i < count; i++)
    cmz_text_add(&bindings, "%s{spirv.interface_var_abi = #spirv.interface_var_abi<(0, %u)>}",
                 i ? ", " : "[", i);
  cmz_text_add(&bindings, "]");
  const char *abi = cmz_arena_printf(
      e->arena, "#spirv.entry_point_abi<workgroup_size = [%u, 1, 1]>", b->cpu->threads);
  MlirNamedAttribute attrs[] = {
      cmz_b_attr(b, "sym_name", mlirStringAttrGet(b->mlir, text(symbol))),
      cmz_b_attr(b, "function_type",
                 mlirTypeAttrGet(mlirFunctionTypeGet(b->mlir, (intptr_t)count, types, 0, NULL))),
      cmz_b_attr(b, "gpu.kernel", mlirUnitAttrGet(b->mlir)),
      cmz_b_attr(b, "spirv.entry_point_abi", parse(b, abi)),
      cmz_b_attr(b, "arg_attrs", parse(b, bindings.data)),
  };
  MlirRegion region = mlirRegionCreate();
  MlirBlock entry = mlirBlockCreate((intptr_t)count, types, locations);
  mlirRegionAppendOwnedBlock(region, entry);
  b->block = body;
  cmz_b_op(b, "gpu.func", 0, NULL, 0, NULL, CMZ_COUNT_OF(attrs), attrs, 1, &region);
  return entry;
}

/* The body of MODULE's gpu.module, which is made when there is none. */
static MlirBlock kernels_of(cmz_builder *b, MlirModule module) {
  b->block = mlirModuleGetBody(module);
  for (MlirOperation op = mlirBlockGetFirstOperation(b->block); !mlirOperationIsNull(op);
       op = mlirOperationGetNextInBlock(op))
    if (is_named(op, "gpu.module")) return mlirRegionGetFirstBlock(mlirOperationGetRegion(op, 0));
  MlirRegion region;
  MlirBlock body = cmz_b_region(&region);
  MlirNamedAttribute name = cmz_b_attr(b, "sym_name", mlirStringAttrGet(b->mlir, text("kernels")));
  cmz_b_op(b, "gpu.module", 0, NULL, 0, NULL, 1, &name, 1, &region);
  return body;
}

/* The types of the kernel's bindings: its words, then each operand's windows. Returns how many. */
static uint32_t argument_types(emitter *e, MlirType *types) {
  cmz_builder *b = &e->b;
  uint32_t count = 0;
  for (uint32_t i = 0; i <= e->k->operands.count; i++) {
    MlirType t = i ? cmz_b_stored_type(b, e->k->operands.data[i - 1].dtype) : b->i64;
    const char *name = i && part_bits(e, i - 1) ? "i32" : element_text(b, t);
    uint32_t windows = i ? cmz_kernel_windows(e->k, i - 1, b->cpu) : 1;
    if (!name) {
      cmz_emit_fail(e, "an operand has a type that kernels do not read");
      name = "i8";
    }
    if (windows > CMZ_EMIT_MAX_DEVICE_PARAMETERS - count) {
      cmz_emit_fail(e, "a kernel with more operands than a GPU takes");
      return count;
    }
    const char *type = cmz_arena_printf(e->arena, "memref<?x%s" BUFFER, name);
    while (windows--) types[count++] = mlirTypeParseGet(b->mlir, text(type));
  }
  return count;
}

MlirBlock cmz_emit_vulkan_function(emitter *e, MlirModule module, const char *symbol) {
  cmz_builder *b = &e->b;
  MlirType types[CMZ_EMIT_MAX_DEVICE_PARAMETERS];
  MlirLocation locations[CMZ_EMIT_MAX_DEVICE_PARAMETERS];
  uint32_t count = argument_types(e, types);
  for (uint32_t i = 0; i < count; i++) locations[i] = b->location;
  mlirOperationSetAttributeByName(mlirModuleGetOperation(module), text("spirv.target_env"),
                                  parse(b, ENVIRONMENT(WIDEST)));
  MlirBlock body = kernels_of(b, module);
  MlirBlock entry = append_function(e, body, symbol, count, types, locations);
  e->path[0] = CMZ_NEW(e->arena, scope);
  *e->path[0] = (scope){entry, 0};
  b->block = entry;
  if (e->failed) return entry;
  MlirValue group = identifier(e, "gpu.block_id");
  MlirValue groups = identifier(e, "gpu.grid_dim");
  MlirValue thread = identifier(e, "gpu.thread_id");
  MlirValue size = cmz_b_i64(b, b->cpu->threads);
  e->words = mlirBlockGetArgument(entry, 0);
  e->end = word(e, TILES_WORD);
  cmz_emit_device_range(e, group, groups, size, thread);
  cmz_emit_analyse(e);
  if (!e->failed) bind_operands(e, entry);
  return entry;
}

/* ---- SPIR-V ---- */

static MlirWalkResult find_module(MlirOperation op, void *user) {
  if (!is_named(op, "spirv.module")) return MlirWalkResultAdvance;
  *(MlirOperation *)user = op;
  return MlirWalkResultInterrupt;
}

static MlirWalkResult decorate(MlirOperation op, void *user) {
  static const char *const exact[] = {"spirv.FAdd", "spirv.FSub", "spirv.FMul"};
  MlirContext mlir = mlirOperationGetContext(op);
  (void)user;
  for (size_t i = 0; i < CMZ_COUNT_OF(exact); i++)
    if (is_named(op, exact[i]))
      mlirOperationSetAttributeByName(op, text("no_contraction"), mlirUnitAttrGet(mlir));
  if (is_named(op, "spirv.GlobalVariable") &&
      !mlirAttributeIsNull(mlirOperationGetAttributeByName(op, text("binding"))))
    mlirOperationSetAttributeByName(op, text("aliased"), mlirUnitAttrGet(mlir));
  return MlirWalkResultAdvance;
}

static MlirWalkResult find_object(MlirOperation op, void *user) {
  MlirAttribute objects = mlirOperationGetAttributeByName(op, text("objects"));
  if (mlirAttributeIsNull(objects) || !mlirAttributeIsAArray(objects) ||
      mlirArrayAttrGetNumElements(objects) == 0)
    return MlirWalkResultAdvance;
  *(MlirStringRef *)user = mlirGPUObjectAttrGetObject(mlirArrayAttrGetElement(objects, 0));
  return MlirWalkResultInterrupt;
}

/* MLIR serialises a spirv.module only inside of a gpu.module with a SPIR-V target. */
static void wrap(cmz_builder *b, MlirModule module, MlirOperation spirv) {
  MlirBlock top = mlirModuleGetBody(module);
  mlirOperationRemoveFromParent(spirv);
  for (MlirOperation op = mlirBlockGetFirstOperation(top); !mlirOperationIsNull(op);) {
    MlirOperation next = mlirOperationGetNextInBlock(op);
    mlirOperationDestroy(op);
    op = next;
  }
  MlirRegion region;
  MlirBlock body = cmz_b_region(&region);
  MlirNamedAttribute attrs[] = {
      cmz_b_attr(b, "sym_name", mlirStringAttrGet(b->mlir, text("binary"))),
      cmz_b_attr(b, "targets", parse(b, "[" ENVIRONMENT(WIDEST) "]"))};
  b->block = top;
  cmz_b_op(b, "gpu.module", 0, NULL, 0, NULL, 2, attrs, 1, &region);
  mlirBlockAppendOwnedOperation(body, spirv);
}

/* OBJECT as what Vulkan 1.1 takes: nothing in it is newer than the version that it then says. */
static cmz_status write_module(cmz_context *ctx, MlirStringRef object, const char *path) {
  enum { VERSION = 1, V1_3 = 0x10300 };
  uint32_t *words = CMZ_NEW_ARRAY(ctx->arena, uint32_t, object.length / 4 + 1);
  memcpy(words, object.data, object.length);
  if (object.length >= 8 && words[VERSION] > V1_3) words[VERSION] = V1_3;
  return cmz_file_write(ctx, path, (const char *)words, object.length);
}

cmz_status cmz_vulkan_lower(cmz_context *ctx, MlirModule module, const char *path) {
  MlirOperation top = mlirModuleGetOperation(module), spirv = {NULL};
  cmz_builder b = {.mlir = mlirOperationGetContext(top), .location = mlirOperationGetLocation(top)};
  CMZ_TRY(
      cmz_lower_passes(ctx, module,
                       "builtin.module(gpu.module(gpu.func(convert-math-to-spirv)),canonicalize,"
                       "cse,convert-gpu-to-spirv,canonicalize,cse)"));
  mlirOperationWalk(top, find_module, &spirv, MlirWalkPreOrder);
  if (!spirv.ptr)
    return cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){0}, "MLIR made no SPIR-V of a kernel");
  mlirOperationSetAttributeByName(spirv, text("spirv.target_env"), parse(&b, ENVIRONMENT(ENTRIES)));
  CMZ_TRY(cmz_lower_passes(ctx, module,
                           "builtin.module(spirv.module(spirv-lower-abi-attrs,canonicalize,cse))"));
  mlirOperationSetAttributeByName(spirv, text("spirv.target_env"), parse(&b, ENVIRONMENT(WIDEST)));
  CMZ_TRY(cmz_lower_passes(ctx, module, "builtin.module(spirv.module(spirv-update-vce))"));
  mlirOperationWalk(top, decorate, NULL, MlirWalkPreOrder);
  wrap(&b, module, spirv);
  CMZ_TRY(cmz_lower_passes(ctx, module, "builtin.module(gpu-module-to-binary)"));
  MlirStringRef object = {NULL, 0};
  mlirOperationWalk(top, find_object, &object, MlirWalkPreOrder);
  if (!object.data || !object.length)
    return cmz_fail(ctx, CMZ_E_INTERNAL, (cmz_loc){0}, "MLIR wrote no SPIR-V for a kernel");
  return write_module(ctx, object, path);
}
