/* target.c - finds rows and reads --target and --cpu. In: the option texts. Out: an OS row and the
 * CPU levels, best first. Always holds: levels are of the OS row's architecture, none stands twice,
 * and a level never stands before one whose features include its own. */
#include "../runtime/cpu.h"
#include "targets.h"
#include <stdlib.h>

#define HOST_SYSTEM "linux-gnu"

static const cmz_cpu_row *const cpu_tables[] = {cmz_x86_64_cpus,  cmz_aarch64_cpus,
                                                cmz_riscv64_cpus, cmz_wasm32_cpus,
                                                cmz_cuda_levels,  cmz_vulkan_levels};
static const cmz_cpu_extension *const extension_tables[] = {cmz_x86_64_extensions,
                                                            cmz_aarch64_extensions};
static const cmz_os_row *const os_tables[] = {cmz_x86_64_systems, cmz_aarch64_systems,
                                              cmz_riscv64_systems, cmz_wasm32_systems};

static const cmz_gpu_row *const gpu_tables[] = {cmz_cuda_gpus, cmz_vulkan_gpus};

/* Row INDEX of several tables, each of which ends with a row whose FIRST member is NULL. */
#define ROW_AT(type, tables, first, index)                                                         \
  for (size_t t = 0; t < CMZ_COUNT_OF(tables); t++)                                                \
    for (const type *row = tables[t]; row->first; row++)                                           \
      if ((index)-- == 0) return row;                                                              \
  return NULL

const cmz_cpu_row *cmz_cpu_at(uint32_t index) { ROW_AT(cmz_cpu_row, cpu_tables, name, index); }
const cmz_cpu_extension *cmz_cpu_extension_at(uint32_t index) {
  ROW_AT(cmz_cpu_extension, extension_tables, name, index);
}
const cmz_os_row *cmz_os_at(uint32_t index) { ROW_AT(cmz_os_row, os_tables, triple, index); }
const cmz_gpu_row *cmz_gpu_at(uint32_t index) { ROW_AT(cmz_gpu_row, gpu_tables, name, index); }

const cmz_cpu_row *cmz_cpu_find(const char *name) {
  const cmz_cpu_row *row;
  for (uint32_t i = 0; (row = cmz_cpu_at(i)); i++) {
    if (strcmp(row->name, name) == 0) return row;
  }
  return NULL;
}

/* The system called SYSTEM ("linux-gnu") on ARCH. */
static const cmz_os_row *os_of(const char *arch, const char *system) {
  const cmz_os_row *row;
  for (uint32_t i = 0; (row = cmz_os_at(i)); i++) {
    if (strcmp(row->arch, arch) == 0 && strcmp(row->system, system) == 0) return row;
  }
  return NULL;
}

/* ROW for VERSION ("24", "15.1"), which LLVM wants in its triple. */
static const cmz_os_row *with_version(cmz_context *ctx, const cmz_os_row *row,
                                      const char *version) {
  cmz_os_row *versioned = CMZ_NEW(ctx->arena, cmz_os_row);
  *versioned = *row;
  versioned->version = version;
  versioned->llvm_triple = cmz_arena_printf(ctx->arena, "%s%s", row->llvm_triple, version);
  return versioned;
}

/* Whether TEXT is a version: numbers with dots between them. */
static bool is_version(const char *text) {
  for (;; text++) {
    if (*text < '0' || *text > '9') return false;
    while (*text >= '0' && *text <= '9') text++;
    if (*text != '.') return *text == 0;
  }
}

/* The row of a triple; one that ends in a version (aarch64-linux-android24, arm64-apple-ios15.1)
 * becomes a row of its own. */
static cmz_status os_find(cmz_context *ctx, const char *name, const cmz_os_row **out) {
  const cmz_os_row *row;
  for (uint32_t i = 0; (row = cmz_os_at(i)); i++) {
    *out = row;
    if (strcmp(row->triple, name) == 0 || strcmp(row->llvm_triple, name) == 0) {
      if (row->default_version) *out = with_version(ctx, row, row->default_version);
      return CMZ_OK;
    }
    size_t length = strlen(row->triple);
    if (!row->least_version || strncmp(row->triple, name, length) != 0 ||
        !is_version(name + length))
      continue;
    unsigned long version = strtoul(name + length, NULL, 10);
    if (version < row->least_version || version > 10000) {
      return cmz_fail(ctx, CMZ_E_USAGE, (cmz_loc){.tensor = "--target"},
                      "%s: the least version that cmzc compiles for is %u", name,
                      row->least_version);
    }
    *out = with_version(ctx, row, name + length);
    return CMZ_OK;
  }
  *out = NULL;
  return CMZ_OK;
}

/* The best row of this machine; the tables stand best first. */
static const cmz_cpu_row *native_cpu(void) {
  uint64_t features = cmz_cpu_detect();
  const cmz_cpu_row *row;
  for (uint32_t i = 0; (row = cmz_cpu_at(i)); i++) {
    if (strcmp(row->arch, CMZ_CPU_HOST_ARCH) == 0 && (row->features & ~features) == 0) return row;
  }
  return NULL;
}

static const cmz_gpu_row *gpu_find(const char *name) {
  const cmz_gpu_row *row;
  for (uint32_t i = 0; (row = cmz_gpu_at(i)); i++) {
    if (strcmp(row->name, name) == 0) return row;
  }
  return NULL;
}

static cmz_status fail_unknown(cmz_context *ctx, const char *option, const char *name) {
  return cmz_fail_hint(ctx, CMZ_E_USAGE, (cmz_loc){.tensor = option},
                       "cmzc --list-targets shows what there is",
                       "\"%s\" is not something that cmzc can compile for", name);
}

static cmz_status fail_mixed(cmz_context *ctx, const char *target) {
  return cmz_fail_hint(ctx, CMZ_E_USAGE, (cmz_loc){.tensor = "--target"},
                       "several CPUs, or several GPUs of one kind, go into one file; compile once "
                       "for each of the others",
                       "one file is for one system: \"%s\"", target);
}

/* Puts ROW into the levels of OUT, more capable rows first. */
static cmz_status add_level(cmz_context *ctx, cmz_target *out, const cmz_cpu_row *row) {
  uint32_t at = 0;
  for (uint32_t i = 0; i < out->level_count; i++) {
    if (out->levels[i] == row) return CMZ_OK;
    if (__builtin_popcountll(out->levels[i]->features) >= __builtin_popcountll(row->features)) {
      at = i + 1;
    }
  }
  if (out->level_count == CMZ_MAX_LEVELS) {
    return cmz_fail(ctx, CMZ_E_USAGE, (cmz_loc){.tensor = "--cpu"},
                    "more than %d CPU levels in one library", CMZ_MAX_LEVELS);
  }
  memmove(&out->levels[at + 1], &out->levels[at], (out->level_count - at) * sizeof out->levels[0]);
  out->levels[at] = row;
  out->level_count++;
  return CMZ_OK;
}

/* ROW with the extensions of TEXT ("+dotprod+bf16"), under NAME; NULL when one is unknown. */
static const cmz_cpu_row *extend(cmz_context *ctx, const cmz_cpu_row *row, const char *text,
                                 const char *name) {
  cmz_cpu_row *out = CMZ_NEW(ctx->arena, cmz_cpu_row);
  *out = *row;
  out->name = name;
  while (*text) {
    size_t length = strcspn(++text, "+");
    const cmz_cpu_extension *e;
    for (uint32_t i = 0; (e = cmz_cpu_extension_at(i)); i++) {
      if (strcmp(e->arch, row->arch) == 0 && strlen(e->name) == length &&
          strncmp(e->name, text, length) == 0)
        break;
    }
    if (!e) return NULL;
    out->features |= e->features;
    out->fma = CMZ_MAX(out->fma, e->fma);
    out->soft_fma = CMZ_MAX(out->soft_fma, e->soft_fma);
    out->f16_convert = CMZ_MAX(out->f16_convert, e->f16_convert);
    out->int8_dot = CMZ_MAX(out->int8_dot, e->int8_dot);
    out->bf16_dot = CMZ_MAX(out->bf16_dot, e->bf16_dot);
    out->f16_arithmetic = CMZ_MAX(out->f16_arithmetic, e->f16_arithmetic);
    out->f16_products = CMZ_MAX(out->f16_products, e->f16_products);
    out->llvm_features =
        cmz_arena_printf(ctx->arena, "%s%s%s", out->llvm_features,
                         *out->llvm_features && *e->llvm_features ? "," : "", e->llvm_features);
    text += length;
  }
  return out;
}

/* The row of "native", a CPU's name, or either with +extensions; NULL when there is none. */
static const cmz_cpu_row *parse_cpu(cmz_context *ctx, const char *name) {
  size_t length = strcspn(name, "+");
  const char *plain = cmz_arena_printf(ctx->arena, "%.*s", (int)length, name);
  const cmz_cpu_row *row = strcmp(plain, "native") == 0 ? native_cpu() : cmz_cpu_find(plain);
  if (row && row->threads) row = NULL;
  return row && name[length] ? extend(ctx, row, name + length, name) : row;
}

static cmz_status add_cpu_names(cmz_context *ctx, const char *option, const char *list,
                                cmz_target *out) {
  while (*list) {
    size_t length = strcspn(list, ",");
    const char *name = cmz_arena_printf(ctx->arena, "%.*s", (int)length, list);
    const cmz_cpu_row *row = parse_cpu(ctx, name);
    if (!row) return fail_unknown(ctx, option, name);
    CMZ_TRY(add_level(ctx, out, row));
    list += length;
    if (*list == ',') list++;
  }
  return CMZ_OK;
}

/* The levels of GPU beside those that OUT has, the newest first. */
static cmz_status add_gpu(cmz_context *ctx, const cmz_gpu_row *gpu, cmz_target *out) {
  for (uint32_t i = 0; i < CMZ_COUNT_OF(gpu->levels) && gpu->levels[i]; i++) {
    const cmz_cpu_row *row = cmz_cpu_find(gpu->levels[i]);
    uint32_t at = 0;
    while (at < out->level_count && out->levels[at]->features > row->features) at++;
    if (at < out->level_count && out->levels[at] == row) continue;
    if (out->level_count == CMZ_MAX_LEVELS)
      return cmz_fail(ctx, CMZ_E_USAGE, (cmz_loc){.tensor = "--target"},
                      "more than %d levels of GPUs in one file", CMZ_MAX_LEVELS);
    memmove(&out->levels[at + 1], &out->levels[at],
            (out->level_count - at) * sizeof out->levels[0]);
    out->levels[at] = row;
    out->level_count++;
  }
  return CMZ_OK;
}

/* GPUs of one kind with their host: --host, or this machine. */
static cmz_status parse_gpus(cmz_context *ctx, const char *target, const char *cpu,
                             const char *host, cmz_target *out) {
  if (cpu && *cpu) {
    return cmz_fail(ctx, CMZ_E_USAGE, (cmz_loc){.tensor = "--cpu"},
                    "%s is a GPU: --cpu does not go with it", target);
  }
  if (host && *host) {
    CMZ_TRY(os_find(ctx, host, &out->os));
    if (!out->os) return fail_unknown(ctx, "--host", host);
    if (out->os->format != CMZ_OBJECT_ELF)
      return cmz_fail(ctx, CMZ_E_USAGE, (cmz_loc){.tensor = "--host"},
                      "%s: drivers of GPUs are opened on Linux and Android only", host);
  }
  if (!out->os) out->os = os_of(CMZ_CPU_HOST_ARCH, HOST_SYSTEM);
  if (!out->os) out->os = cmz_os_at(0);
  for (const char *list = target; *list; list += *list == ',') {
    size_t length = strcspn(list, ",");
    const char *name = cmz_arena_printf(ctx->arena, "%.*s", (int)length, list);
    const cmz_gpu_row *gpu = gpu_find(name);
    if (!gpu && parse_cpu(ctx, name)) return fail_mixed(ctx, target);
    if (!gpu) return fail_unknown(ctx, "--target", name);
    if (!out->gpu) out->gpu = gpu;
    if (gpu->kind != out->gpu->kind) return fail_mixed(ctx, target);
    CMZ_TRY(add_gpu(ctx, gpu, out));
    list += length;
  }
  out->kernel_os = out->gpu->kind == CMZ_GPU_VULKAN ? &cmz_vulkan_systems[0] : &cmz_cuda_systems[0];
  return CMZ_OK;
}

/* What the names in the list TARGET are. */
static cmz_status count_names(cmz_context *ctx, const char *target, uint32_t *gpus,
                              uint32_t *systems, uint32_t *names) {
  *gpus = *systems = *names = 0;
  for (const char *list = target; *list; list += *list == ',') {
    size_t length = strcspn(list, ",");
    const char *name = cmz_arena_printf(ctx->arena, "%.*s", (int)length, list);
    const cmz_os_row *os = NULL;
    CMZ_TRY(os_find(ctx, name, &os));
    *gpus += gpu_find(name) != NULL;
    *systems += os != NULL;
    ++*names;
    list += length;
  }
  return CMZ_OK;
}

cmz_status cmz_target_parse(cmz_context *ctx, const char *target, const char *cpu, const char *host,
                            cmz_target *out) {
  memset(out, 0, sizeof *out);
  uint32_t gpus = 0, systems = 0, names = 0;
  if (target) CMZ_TRY(count_names(ctx, target, &gpus, &systems, &names));
  if (systems && names > 1) return fail_mixed(ctx, target);
  if (gpus) return parse_gpus(ctx, target, cpu, host, out);
  if (host && *host) {
    return cmz_fail(ctx, CMZ_E_USAGE, (cmz_loc){.tensor = "--host"},
                    "only a GPU's model has a host side");
  }
  const cmz_cpu_row *native = native_cpu();
  if (target && *target && strcmp(target, "native") != 0) {
    CMZ_TRY(os_find(ctx, target, &out->os));
    if (!out->os) { /* a bare CPU name means this system with that CPU */
      CMZ_TRY(add_cpu_names(ctx, "--target", target, out));
      out->os = os_of(out->levels[0]->arch, HOST_SYSTEM);
    } else if (!cpu) { /* another machine's code is meant for many: the least common level */
      cpu = out->os->default_cpu;
    }
  } else if (cpu && *cpu) { /* levels of another architecture: this system there */
    CMZ_TRY(add_cpu_names(ctx, "--cpu", cpu, out));
    out->os = os_of(out->levels[0]->arch, HOST_SYSTEM);
    cpu = NULL;
  }
  if (!out->os) out->os = os_of(CMZ_CPU_HOST_ARCH, HOST_SYSTEM);
  if (!out->os) out->os = cmz_os_at(0);
  if (cpu && *cpu) CMZ_TRY(add_cpu_names(ctx, "--cpu", cpu, out));
  if (out->level_count == 0) {
    if (!native) {
      return cmz_fail_hint(ctx, CMZ_E_USAGE, (cmz_loc){.tensor = "--cpu"},
                           "name the CPU with --cpu, for example --cpu x86-64-v3",
                           "this machine's own CPU is not one that cmzc knows");
    }
    CMZ_TRY(add_level(ctx, out, native));
  }
  out->kernel_os = out->os;
  for (uint32_t i = 0; i < out->level_count; i++) {
    if (strcmp(out->levels[i]->arch, out->os->arch) != 0) {
      return cmz_fail(ctx, CMZ_E_USAGE, (cmz_loc){.tensor = "--cpu"}, "%s is not a CPU of %s",
                      out->levels[i]->name, out->os->triple);
    }
  }
  return CMZ_OK;
}
