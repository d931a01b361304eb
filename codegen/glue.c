/* glue.c - the object that holds a model together: its tables as constants, pointers to its kernels
 * and weights, the functions of its API, and the runtime, linked in as bitcode and made local. In:
 * cmz_tables. Out: an object file. Always holds: nothing is exported but PREFIX_api and, in a
 * shared library, cmz_model_api (an executable: _start). */
#include "internal.h"
#include "llvm_write.h"
#include "machine.h"
#include <llvm-c/Analysis.h>
#include <llvm-c/BitReader.h>
#include <llvm-c/Core.h>
#include <llvm-c/Linker.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <llvm-c/Transforms/PassBuilder.h>

typedef struct glue {
  cmz_context *ctx;
  const cmz_tables *tables;
  const cmz_codegen_options *options;
  const cmz_kernel_object *kernels;
  cmz_output_kind kind;
  LLVMContextRef llvm;
  LLVMModuleRef module;
  LLVMBuilderRef builder;
  LLVMTypeRef i8, i32, i64, pointer, size; /* the last: size_t */
  LLVMTargetMachineRef machine;
  LLVMTargetDataRef layout;
} glue;

/* ---- constants ---- */

static LLVMValueRef word32(const glue *g, uint32_t v) { return LLVMConstInt(g->i32, v, false); }
static LLVMValueRef word64(const glue *g, uint64_t v) { return LLVMConstInt(g->i64, v, false); }
static LLVMValueRef null_pointer(const glue *g) { return LLVMConstNull(g->pointer); }

static LLVMValueRef add_global(const glue *g, const char *name, LLVMValueRef value,
                               unsigned alignment) {
  LLVMValueRef global = LLVMAddGlobal(g->module, LLVMTypeOf(value), name);
  LLVMSetInitializer(global, value);
  LLVMSetGlobalConstant(global, true);
  LLVMSetLinkage(global, LLVMPrivateLinkage);
  LLVMSetUnnamedAddress(global, LLVMGlobalUnnamedAddr);
  LLVMSetAlignment(global, alignment);
  return global;
}

/* COUNT elements of 32-bit (WIDTH 4) or 64-bit words. */
static LLVMValueRef words_global(const glue *g, const char *name, const void *data, size_t count,
                                 uint32_t width) {
  if (count == 0) return null_pointer(g);
  LLVMTypeRef type = width == 4 ? g->i32 : g->i64;
  return add_global(g, name, LLVMConstDataArray(type, data, count * width), width);
}

static LLVMValueRef string_global(const glue *g, const char *text, size_t size) {
  return add_global(g, "cmz.text", LLVMConstDataArray(g->i8, text, size), 1);
}

static LLVMValueRef text(const glue *g, const char *value) {
  return value ? string_global(g, value, strlen(value) + 1) : null_pointer(g);
}

static LLVMValueRef pointers_global(const glue *g, const char *name, LLVMValueRef *values,
                                    uint32_t count) {
  if (count == 0) return null_pointer(g);
  return add_global(g, name, LLVMConstArray2(g->pointer, values, count), 8);
}

static LLVMValueRef structure(const glue *g, LLVMValueRef *fields, uint32_t count) {
  return LLVMConstStructInContext(g->llvm, fields, count, false);
}

/* A structure whose field AT is its own size. */
static LLVMValueRef sized_structure(const glue *g, LLVMValueRef *fields, uint32_t count,
                                    uint32_t at) {
  fields[at] = LLVMConstInt(g->size, 0, false);
  uint64_t bytes = LLVMABISizeOfType(g->layout, LLVMTypeOf(structure(g, fields, count)));
  fields[at] = LLVMConstInt(g->size, bytes, false);
  return structure(g, fields, count);
}

static LLVMValueRef structures_global(const glue *g, const char *name, LLVMValueRef *rows,
                                      uint32_t count) {
  if (count == 0) return null_pointer(g);
  return add_global(g, name, LLVMConstArray2(LLVMTypeOf(rows[0]), rows, count), 8);
}

static LLVMValueRef *values(const glue *g, size_t count) {
  return CMZ_NEW_ARRAY(g->ctx->arena, LLVMValueRef, count + 1);
}

/* ---- the description ---- */

static LLVMValueRef ports(const glue *g, const cmz_port *list, uint32_t count, const char *name) {
  LLVMValueRef *rows = values(g, count);
  for (uint32_t i = 0; i < count; i++) {
    LLVMValueRef fields[] = {text(g, list[i].name), word32(g, list[i].element),
                             word32(g, list[i].rank),
                             words_global(g, "cmz.dims", list[i].dims, list[i].rank, 8)};
    rows[i] = structure(g, fields, CMZ_COUNT_OF(fields));
  }
  return structures_global(g, name, rows, count);
}

static LLVMValueRef description(const glue *g) {
  const cmz_description *d = &g->tables->description;
  LLVMValueRef *dims = values(g, d->dim_count);
  for (uint32_t i = 0; i < d->dim_count; i++) {
    LLVMValueRef fields[] = {text(g, d->dims[i].name), word64(g, (uint64_t)d->dims[i].low),
                             word64(g, (uint64_t)d->dims[i].high)};
    dims[i] = structure(g, fields, CMZ_COUNT_OF(fields));
  }
  LLVMValueRef fields[] = {
      NULL, /* struct_size */
      text(g, d->name),
      text(g, d->target),
      text(g, d->compiler),
      word32(g, d->input_count),
      word32(g, d->output_count),
      word32(g, d->state_count),
      word32(g, d->dim_count),
      ports(g, d->inputs, d->input_count, "cmz.inputs"),
      ports(g, d->outputs, d->output_count, "cmz.outputs"),
      null_pointer(g),
      structures_global(g, "cmz.symbols", dims, d->dim_count),
      word64(g, d->weight_bytes),
      word32(g, d->default_threads),
      words_global(g, "cmz.kinds", d->input_kinds, d->input_kinds ? d->input_count : 0, 4),
      words_global(g, "cmz.kinds", d->output_kinds, d->output_kinds ? d->output_count : 0, 4)};
  return add_global(g, "cmz.description", sized_structure(g, fields, CMZ_COUNT_OF(fields), 0), 8);
}

/* ---- the program ---- */

static LLVMValueRef levels(const glue *g) {
  const cmz_program *p = &g->tables->program;
  if (p->device) return null_pointer(g);
  LLVMTypeRef parameters[] = {g->pointer, g->i32, g->i32, g->i32};
  LLVMTypeRef kernel_type = LLVMFunctionType(LLVMVoidTypeInContext(g->llvm), parameters, 4, false);
  LLVMValueRef *rows = values(g, p->level_count);
  for (uint32_t l = 0; l < p->level_count; l++) {
    const cmz_cpu_row *cpu = g->options->target->levels[l];
    LLVMValueRef *kernels = values(g, p->kernel_count);
    for (uint32_t k = 0; k < p->kernel_count; k++) {
      const char *symbol = g->kernels[(size_t)l * p->kernel_count + k].symbol;
      kernels[k] = LLVMGetNamedFunction(g->module, symbol);
      if (!kernels[k]) kernels[k] = LLVMAddFunction(g->module, symbol, kernel_type);
      LLVMSetVisibility(kernels[k], LLVMHiddenVisibility);
    }
    LLVMValueRef fields[] = {text(g, cpu->name), word64(g, cpu->features),
                             pointers_global(g, "cmz.kernels", kernels, p->kernel_count)};
    rows[l] = structure(g, fields, CMZ_COUNT_OF(fields));
  }
  return structures_global(g, "cmz.levels", rows, p->level_count);
}

/* The runtime's driver for each kind of GPU; only the one in use is referred to. */
static const char *const driver_names[] = {
    [CMZ_GPU_CUDA] = "cmz_cuda_driver", [CMZ_GPU_VULKAN] = "cmz_vulkan_driver"};

static LLVMValueRef device(const glue *g) {
  const cmz_program *p = &g->tables->program;
  if (!p->device) return null_pointer(g);
  const char *name = driver_names[g->options->target->gpu->kind];
  LLVMValueRef driver = LLVMGetNamedGlobal(g->module, name);
  if (!driver) driver = LLVMAddGlobal(g->module, g->i8, name);
  LLVMValueRef *images = values(g, p->device->image_count), data = null_pointer(g);
  for (uint32_t i = 0; i < p->device->image_count; i++) {
    const cmz_program_image *image = &p->device->images[i];
    LLVMValueRef *kernels = values(g, p->kernel_count);
    for (uint32_t k = 0; k < p->kernel_count; k++) kernels[k] = text(g, image->kernels[k]);
    if (i == 0 || image->data != image[-1].data) data = string_global(g, image->data, image->bytes);
    LLVMValueRef fields[] = {
        text(g, image->name),      word32(g, image->needs),
        word32(g, image->first),   data,
        word64(g, image->bytes),   pointers_global(g, "cmz.entries", kernels, p->kernel_count),
        word32(g, image->threads), word32(g, 0)};
    images[i] = structure(g, fields, CMZ_COUNT_OF(fields));
  }
  LLVMValueRef nothing[] = {word32(g, 0), word32(g, 0), null_pointer(g)};
  LLVMValueRef commons = add_global(g, "cmz.commons", structure(g, nothing, 3), 8);
  LLVMSetGlobalConstant(commons, false);
  LLVMSetUnnamedAddress(commons, LLVMNoUnnamedAddr);
  LLVMValueRef fields[] = {driver, word32(g, p->device->image_count), word32(g, 0),
                           structures_global(g, "cmz.images", images, p->device->image_count),
                           commons};
  return add_global(g, "cmz.device", structure(g, fields, CMZ_COUNT_OF(fields)), 8);
}

static LLVMValueRef weight_pointers(const glue *g) {
  const cmz_tables *t = g->tables;
  if (t->program.weights_file || t->weights.count == 0) return null_pointer(g);
  LLVMValueRef base = LLVMAddGlobal(
      g->module, g->i8, cmz_arena_printf(g->ctx->arena, "%s_weights", g->options->prefix));
  LLVMSetVisibility(base, LLVMHiddenVisibility);
  LLVMSetGlobalConstant(base, true);
  LLVMValueRef *rows = values(g, t->weights.count);
  for (uint32_t i = 0; i < t->weights.count; i++) {
    LLVMValueRef offset = word64(g, t->weights.data[i].offset);
    rows[i] = LLVMConstGEP2(g->i8, base, &offset, 1);
  }
  return pointers_global(g, "cmz.weights", rows, t->weights.count);
}

/* Offsets and sizes of the weights in their file; only there are they needed. */
static LLVMValueRef weight_words(const glue *g, bool sizes) {
  const cmz_tables *t = g->tables;
  if (!t->program.weights_file) return null_pointer(g);
  uint64_t *list = CMZ_NEW_ARRAY(g->ctx->arena, uint64_t, t->weights.count + 1u);
  for (uint32_t i = 0; i < t->weights.count; i++) {
    list[i] = sizes ? t->weights.data[i].bytes : t->weights.data[i].offset + CMZ_ARENA_ALIGNMENT;
  }
  return words_global(g, "cmz.weight_words", list, t->weights.count, 8);
}

static LLVMValueRef input_dims(const glue *g) {
  const cmz_description *d = &g->tables->description;
  LLVMValueRef *rows = values(g, d->input_count);
  for (uint32_t i = 0; i < d->input_count; i++) {
    rows[i] = words_global(g, "cmz.input_dims", g->tables->program.input_dims[i],
                           (size_t)2 * d->inputs[i].rank, 4);
  }
  return pointers_global(g, "cmz.input_dim_table", rows, d->input_count);
}

static LLVMValueRef runtime_ops(const glue *g) {
  const cmz_tables *t = g->tables;
  LLVMValueRef *rows = values(g, t->op_functions.count);
  LLVMTypeRef type = LLVMFunctionType(g->i32, (LLVMTypeRef[]){g->pointer}, 1, false);
  for (uint32_t i = 0; i < t->op_functions.count; i++) {
    LLVMValueRef function = LLVMGetNamedFunction(g->module, t->op_functions.data[i]);
    if (!function) function = LLVMAddFunction(g->module, t->op_functions.data[i], type);
    LLVMValueRef fields[] = {function, text(g, t->program.ops[i].name)};
    rows[i] = structure(g, fields, CMZ_COUNT_OF(fields));
  }
  return structures_global(g, "cmz.ops", rows, t->op_functions.count);
}

static LLVMValueRef program(const glue *g, LLVMValueRef described) {
  const cmz_tables *t = g->tables;
  const cmz_program *p = &t->program;
  LLVMValueRef hash =
      p->weights_hash ? add_global(g, "cmz.hash",
                                   LLVMConstDataArray(g->i8, (const char *)p->weights_hash, 16), 1)
                      : null_pointer(g);
  LLVMValueRef fields[] = {
      described,
      word32(g, p->slot_count),
      word32(g, p->instruction_count),
      word32(g, p->buffer_count),
      word32(g, p->step_count),
      word32(g, p->block_count),
      word32(g, p->level_count),
      word32(g, p->kernel_count),
      word32(g, p->list_count),
      words_global(g, "cmz.slots", p->slot_init, p->slot_count, 8),
      words_global(g, "cmz.instructions", p->instructions,
                   p->instruction_count * sizeof(cmz_size_instruction) / 4, 4),
      word32(g, p->entry_instructions),
      word32(g, p->arena_slot),
      words_global(g, "cmz.buffers", p->buffers, p->buffer_count * sizeof(cmz_program_buffer) / 4,
                   4),
      words_global(g, "cmz.steps", p->steps, p->step_count * sizeof(cmz_program_step) / 4, 4),
      words_global(g, "cmz.blocks", p->blocks, p->block_count * sizeof(cmz_program_block) / 4, 4),
      words_global(g, "cmz.lists", p->lists, p->list_count, 4),
      string_global(g, p->strings, t->strings_size),
      input_dims(g),
      words_global(g, "cmz.dim_slots", p->dim_slots, t->description.dim_count, 4),
      words_global(g, "cmz.output_buffers", p->output_buffers, t->description.output_count, 4),
      words_global(g, "cmz.input_buffers", p->input_buffers, t->description.input_count, 4),
      levels(g),
      weight_pointers(g),
      weight_words(g, false),
      weight_words(g, true),
      text(g, p->weights_file),
      hash,
      runtime_ops(g),
      word32(g, p->op_count),
      t->needs_values ? LLVMGetNamedGlobal(g->module, "cmz_value_support") : null_pointer(g),
      device(g)};
  return add_global(g, "cmz.program", structure(g, fields, CMZ_COUNT_OF(fields)), 8);
}

/* ---- functions ---- */

static LLVMValueRef runtime_function(const glue *g, const char *name, LLVMTypeRef *type,
                                     LLVMTypeRef result, LLVMTypeRef *parameters, uint32_t count) {
  *type = LLVMFunctionType(result, parameters, count, false);
  LLVMValueRef f = LLVMGetNamedFunction(g->module, name);
  return f ? f : LLVMAddFunction(g->module, name, *type);
}

static LLVMValueRef begin_function(const glue *g, const char *name, LLVMTypeRef type) {
  LLVMValueRef f = LLVMAddFunction(g->module, name, type);
  LLVMPositionBuilderAtEnd(g->builder, LLVMAppendBasicBlockInContext(g->llvm, f, "entry"));
  return f;
}

/* A function of COUNT parameters that calls the runtime's NAME with PROGRAM before them. */
static LLVMValueRef thunk(const glue *g, const char *name, LLVMValueRef program_,
                          LLVMTypeRef result, uint32_t count) {
  LLVMTypeRef parameters[3] = {g->pointer, g->pointer, g->pointer}, callee_type;
  LLVMValueRef callee = runtime_function(g, name, &callee_type, result, parameters, count + 1);
  LLVMValueRef f = begin_function(g, cmz_arena_printf(g->ctx->arena, "%s.thunk", name),
                                  LLVMFunctionType(result, parameters, count, false));
  LLVMSetLinkage(f, LLVMInternalLinkage);
  LLVMValueRef arguments[3] = {program_};
  for (uint32_t i = 0; i < count; i++) arguments[i + 1] = LLVMGetParam(f, i);
  LLVMBuildRet(g->builder,
               LLVMBuildCall2(g->builder, callee_type, callee, arguments, count + 1, ""));
  return f;
}

static LLVMValueRef direct(const glue *g, const char *name) {
  LLVMValueRef f = LLVMGetNamedFunction(g->module, name);
  return f ? f : LLVMAddFunction(g->module, name, LLVMFunctionType(g->i32, NULL, 0, false));
}

static LLVMValueRef api(const glue *g, LLVMValueRef described, LLVMValueRef program_) {
  LLVMValueRef fields[] = {word32(g, CMZ_ABI_VERSION),
                           word32(g, 0),
                           NULL, /* struct_size */
                           described,
                           thunk(g, "cmz_instance_arena_bytes", program_, g->size, 1),
                           thunk(g, "cmz_instance_create", program_, g->i32, 2),
                           direct(g, "cmz_instance_run"),
                           direct(g, "cmz_instance_destroy"),
                           direct(g, "cmz_instance_error"),
                           direct(g, "cmz_instance_profile"),
                           direct(g, "cmz_instance_profile_rows"),
                           direct(g, "cmz_instance_memory_bytes"),
                           g->tables->needs_values ? direct(g, "cmz_instance_run_values")
                                                   : null_pointer(g)};
  return add_global(g, "cmz.api", sized_structure(g, fields, CMZ_COUNT_OF(fields), 2), 8);
}

static void api_getter(const glue *g, const char *name, LLVMValueRef table) {
  begin_function(g, name, LLVMFunctionType(g->pointer, NULL, 0, false));
  LLVMBuildRet(g->builder, table);
}

/* main of an executable: the runner with this model. */
static void make_main(const glue *g, LLVMValueRef table) {
  LLVMTypeRef parameters[] = {g->i32, g->pointer, g->pointer}, type;
  LLVMValueRef runner = runtime_function(g, "cmz_runner_main", &type, g->i32, parameters, 3);
  LLVMValueRef f = begin_function(g, "main", LLVMFunctionType(g->i32, parameters, 2, false));
  LLVMValueRef arguments[] = {LLVMGetParam(f, 0), LLVMGetParam(f, 1), table};
  LLVMBuildRet(g->builder, LLVMBuildCall2(g->builder, type, runner, arguments, 3, ""));
  const char *start = cmz_machine_start(g->options->target->os);
  LLVMSetModuleInlineAsm2(g->module, start, strlen(start));
  LLVMSetVisibility(f, LLVMHiddenVisibility);
}

/* ---- the runtime, optimisation, output ---- */

static cmz_status fail_llvm(const glue *g, const char *what, char *message) {
  cmz_status status =
      cmz_fail(g->ctx, CMZ_E_INTERNAL, (cmz_loc){0}, "%s: %s", what, message ? message : "");
  if (message) LLVMDisposeMessage(message);
  return status;
}

static cmz_status link_bitcode(const glue *g, const cmz_bitcode *bitcode) {
  LLVMMemoryBufferRef buffer = LLVMCreateMemoryBufferWithMemoryRangeCopy(
      (const char *)bitcode->data, *bitcode->size, "runtime");
  LLVMModuleRef runtime;
  bool bad = LLVMParseBitcodeInContext2(g->llvm, buffer, &runtime);
  LLVMDisposeMemoryBuffer(buffer);
  if (bad) return fail_llvm(g, "the runtime's bitcode is damaged", NULL);
  if (LLVMLinkModules2(g->module, runtime)) return fail_llvm(g, "linking the runtime", NULL);
  return CMZ_OK;
}

static bool is_exported(const glue *g, const char *name) {
  if (strcmp(name, "main") == 0) return g->kind == CMZ_OUT_EXECUTABLE;
  return strcmp(name, cmz_arena_printf(g->ctx->arena, "%s_api", g->options->prefix)) == 0 ||
         strcmp(name, "cmz_model_api") == 0;
}

static void internalise(const glue *g) {
  for (LLVMValueRef f = LLVMGetFirstFunction(g->module); f; f = LLVMGetNextFunction(f)) {
    size_t length;
    const char *name = LLVMGetValueName2(f, &length);
    if (!LLVMIsDeclaration(f) && !is_exported(g, name)) {
      LLVMSetVisibility(f, LLVMDefaultVisibility);
      LLVMSetLinkage(f, LLVMInternalLinkage);
    }
  }
  for (LLVMValueRef v = LLVMGetFirstGlobal(g->module); v; v = LLVMGetNextGlobal(v)) {
    if (!LLVMIsDeclaration(v) && LLVMGetLinkage(v) == LLVMExternalLinkage) {
      LLVMSetVisibility(v, LLVMDefaultVisibility);
      LLVMSetLinkage(v, LLVMInternalLinkage);
    }
  }
}

static cmz_status emit(const glue *g, const char *path) {
  char *message = NULL;
  cmz_machine_prepare(g->options->target->os, g->module, g->machine);
  cmz_status status = CMZ_OK;
  LLVMPassBuilderOptionsRef options = LLVMCreatePassBuilderOptions();
  LLVMErrorRef error =
      LLVMRunPasses(g->module, "globaldce,default<Os>,globaldce", g->machine, options);
  LLVMDisposePassBuilderOptions(options);
  if (error) {
    char *said = LLVMGetErrorMessage(error);
    status = cmz_fail(g->ctx, CMZ_E_INTERNAL, (cmz_loc){0}, "optimising the glue: %s", said);
    LLVMDisposeErrorMessage(said);
  } else if (LLVMVerifyModule(g->module, LLVMReturnStatusAction, &message)) {
    status = fail_llvm(g, "the glue module is wrong", message);
  } else {
    if (message) LLVMDisposeMessage(message);
    message = NULL;
    status = cmz_lower_write(g->ctx, g->module, g->machine, false, path);
  }
  return status;
}

static cmz_status build(const glue *g, const char *path) {
  const char *prefix = g->options->prefix;
  const cmz_os_row *os = g->options->target->os;
  const cmz_machine *machine = cmz_machine_find(os);
  CMZ_TRY(link_bitcode(g, &machine->runtimes[os->format]));
  if (g->kind == CMZ_OUT_EXECUTABLE) CMZ_TRY(link_bitcode(g, &machine->runner));
  LLVMValueRef described = description(g);
  LLVMValueRef table = api(g, described, program(g, described));
  api_getter(g, cmz_arena_printf(g->ctx->arena, "%s_api", prefix), table);
  if (g->kind == CMZ_OUT_SHARED) api_getter(g, "cmz_model_api", table);
  if (g->kind == CMZ_OUT_EXECUTABLE) make_main(g, table);
  internalise(g);
  return emit(g, path);
}

cmz_status cmz_glue_emit(cmz_context *ctx, const cmz_tables *t, const cmz_codegen_options *o,
                         const cmz_kernel_object *kernels, cmz_output_kind kind, const char *path) {
  const cmz_machine *machine = cmz_machine_find(o->target->os);
  machine->initialise();
  glue g = {.ctx = ctx, .tables = t, .options = o, .kernels = kernels, .kind = kind};
  g.llvm = LLVMContextCreate();
  g.module = LLVMModuleCreateWithNameInContext("cmz_model", g.llvm);
  g.builder = LLVMCreateBuilderInContext(g.llvm);
  g.i8 = LLVMInt8TypeInContext(g.llvm);
  g.i32 = LLVMInt32TypeInContext(g.llvm);
  g.i64 = LLVMInt64TypeInContext(g.llvm);
  g.pointer = LLVMPointerTypeInContext(g.llvm, 0);
  char *message = NULL;
  g.machine = cmz_machine_create(o->target->os, machine->baseline_cpu, machine->baseline_features,
                                 LLVMCodeGenLevelDefault, &message);
  cmz_status status;
  if (g.machine) {
    g.layout = LLVMCreateTargetDataLayout(g.machine);
    g.size = LLVMIntPtrTypeInContext(g.llvm, g.layout);
    status = build(&g, path);
    LLVMDisposeTargetData(g.layout);
    LLVMDisposeTargetMachine(g.machine);
  } else {
    status = fail_llvm(&g, "LLVM", message);
  }
  LLVMDisposeBuilder(g.builder);
  LLVMDisposeModule(g.module);
  LLVMContextDispose(g.llvm);
  return status;
}
