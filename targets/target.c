/* target.c - finds rows and reads --target and --cpu. In: the option texts. Out: an OS row and the
 * CPU levels, best first. Always holds: levels are of the OS row's architecture, none stands twice,
 * and a level never stands before one whose features include its own. */
#include "../runtime/cpu.h"
#include "targets.h"

static const cmz_cpu_row *const cpu_tables[] = {cmz_x86_64_cpus};
static const cmz_os_row *const os_tables[] = {cmz_x86_64_systems};

const cmz_cpu_row *cmz_cpu_at(uint32_t index) {
  for (size_t t = 0; t < CMZ_COUNT_OF(cpu_tables); t++) {
    for (const cmz_cpu_row *row = cpu_tables[t]; row->name; row++) {
      if (index-- == 0) return row;
    }
  }
  return NULL;
}

const cmz_os_row *cmz_os_at(uint32_t index) {
  for (size_t t = 0; t < CMZ_COUNT_OF(os_tables); t++) {
    for (const cmz_os_row *row = os_tables[t]; row->triple; row++) {
      if (index-- == 0) return row;
    }
  }
  return NULL;
}

const cmz_cpu_row *cmz_cpu_find(const char *name) {
  const cmz_cpu_row *row;
  for (uint32_t i = 0; (row = cmz_cpu_at(i)); i++) {
    if (strcmp(row->name, name) == 0) return row;
  }
  return NULL;
}

static const cmz_os_row *os_find(const char *name) {
  const cmz_os_row *row;
  for (uint32_t i = 0; (row = cmz_os_at(i)); i++) {
    if (strcmp(row->triple, name) == 0 || strcmp(row->llvm_triple, name) == 0) return row;
  }
  return NULL;
}

/* The best row of this machine; the tables stand best first. */
static const cmz_cpu_row *native_cpu(void) {
  uint64_t features = cmz_cpu_detect();
  const cmz_cpu_row *row;
  for (uint32_t i = 0; (row = cmz_cpu_at(i)); i++) {
    if ((row->features & ~features) == 0) return row;
  }
  return NULL;
}

static cmz_status fail_unknown(cmz_context *ctx, const char *option, const char *name) {
  cmz_text list = {.arena = ctx->arena};
  const cmz_cpu_row *cpu;
  const cmz_os_row *os;
  cmz_text_add(&list, "known CPUs: native");
  for (uint32_t i = 0; (cpu = cmz_cpu_at(i)); i++) cmz_text_add(&list, " %s", cpu->name);
  cmz_text_add(&list, "; systems: native");
  for (uint32_t i = 0; (os = cmz_os_at(i)); i++) cmz_text_add(&list, " %s", os->triple);
  return cmz_fail_hint(ctx, CMZ_E_USAGE, (cmz_loc){.tensor = option}, list.data,
                       "\"%s\" is not something that cmzc can compile for", name);
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

static cmz_status add_cpu_names(cmz_context *ctx, const char *option, const char *list,
                                cmz_target *out) {
  while (*list) {
    size_t length = strcspn(list, ",");
    const char *name = cmz_arena_printf(ctx->arena, "%.*s", (int)length, list);
    const cmz_cpu_row *row = strcmp(name, "native") == 0 ? native_cpu() : cmz_cpu_find(name);
    if (!row) return fail_unknown(ctx, option, name);
    CMZ_TRY(add_level(ctx, out, row));
    list += length;
    if (*list == ',') list++;
  }
  return CMZ_OK;
}

cmz_status cmz_target_parse(cmz_context *ctx, const char *target, const char *cpu,
                            cmz_target *out) {
  memset(out, 0, sizeof *out);
  const cmz_cpu_row *native = native_cpu();
  out->os = native ? os_find("x86_64-linux-gnu") : NULL;
  if (target && *target && strcmp(target, "native") != 0) {
    const cmz_os_row *os = os_find(target);
    if (os) {
      out->os = os;
    } else { /* a bare CPU name means this system with that CPU */
      CMZ_TRY(add_cpu_names(ctx, "--target", target, out));
    }
    /* Another machine's code is meant for many machines: its least demanding common level. */
    if (os && !cpu) cpu = "x86-64-v3";
  }
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
  for (uint32_t i = 0; i < out->level_count; i++) {
    if (strcmp(out->levels[i]->arch, out->os->arch) != 0) {
      return cmz_fail(ctx, CMZ_E_USAGE, (cmz_loc){.tensor = "--cpu"}, "%s is not a CPU of %s",
                      out->levels[i]->name, out->os->triple);
    }
  }
  return CMZ_OK;
}
