/* test_codegen_device.c - kernels as PTX, run by the CUDA emulator, against the evaluator: grid
 * tiles of single threads and of work-groups, at sizes that fill no tile. In: the graphs of
 * kernel_cases.h and some more. Out: cmocka failures. Always holds: the emulator reports races,
 * accesses out of bounds and barriers that not all threads come to. CMZ_KERNEL_CASE=name tries only
 * one graph, CMZ_KERNEL_FAULT breaks its PTX (tests/cuda/run.sh). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>

#include "coded_cases.h"
#include "codegen/codegen.h"
#include "kernel_cases.h"
#include "passes/passes.h"

static const char *case_name = "", *level_name = "sm_80";
static bool aligned;        /* operands to what the driver gives, or to one element only */
static cmz_schedule chosen; /* of the kernel that ran last */

static struct {
  int (*load)(void **, const void *);
  int (*unload)(void *);
  int (*get)(void **, void *, const char *);
  int (*take)(uint64_t *, size_t);
  int (*give)(uint64_t);
  int (*write)(uint64_t, const void *, size_t, void *);
  int (*read)(void *, uint64_t, size_t, void *);
  int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                void *, void **, void **);
  int (*wait)(void *);
} cuda;

static int open_driver(void **state) {
  (void)state;
  static const char *const names[] = {
      "cuModuleLoadData",     "cuModuleUnload", "cuModuleGetFunction",
      "cuMemAlloc_v2",        "cuMemFree_v2",   "cuMemcpyHtoDAsync_v2",
      "cuMemcpyDtoHAsync_v2", "cuLaunchKernel", "cuStreamSynchronize"};
  void *library = dlopen(CMZ_CUDA_EMULATOR, RTLD_NOW);
  if (!library) return 1;
  for (size_t i = 0; i < CMZ_COUNT_OF(names); i++) {
    void *symbol = dlsym(library, names[i]);
    if (!symbol) return 1;
    memcpy((char *)&cuda + i * sizeof symbol, &symbol, sizeof symbol);
  }
  return 0;
}

static char *emitted(cmz_kernel *k, const cmz_schedule *s, const char *level) {
  char path[] = "cmz_device_XXXXXX";
  int file = mkstemp(path);
  assert_true(file >= 0);
  close(file);
  cmz_target target;
  ok(cmz_target_parse(F->ctx, level, NULL, NULL, &target), "target");
  cmz_status status = cmz_kernel_emit(F->ctx, k, s, target.levels[0], target.kernel_os, "kernel", 2,
                                      NULL, 0, CMZ_OUT_ASSEMBLY, path);
  if (status != CMZ_OK) {
    unlink(path);
    fail_msg("%s: %s\n%s", case_name, last_message(), case_detail);
  }
  FILE *f = fopen(path, "rb");
  assert_non_null(f);
  char *text = cmz_arena_alloc(F->m->arena, 1 << 20);
  text[fread(text, 1, (1 << 20) - 1, f)] = 0;
  fclose(f);
  unlink(path);
  return text;
}

/* TEXT with a seeded fault: CMZ_KERNEL_FAULT=A=>B, every A in it becomes B. */
static char *broken(char *text) {
  const char *fault = getenv("CMZ_KERNEL_FAULT"), *arrow = fault ? strstr(fault, "=>") : NULL;
  if (!arrow) return text;
  size_t length = (size_t)(arrow - fault);
  const char *from = cmz_arena_printf(F->m->arena, "%.*s", (int)length, fault);
  cmz_text out = {.arena = F->m->arena};
  if (!strstr(text, from)) fail_msg("%s: there is no \"%s\" to break", case_name, from);
  for (const char *at; (at = strstr(text, from)); text += at - text + (ptrdiff_t)length)
    cmz_text_add(&out, "%.*s%s", (int)(at - text), text, arrow + 2);
  cmz_text_add(&out, "%s", text);
  return out.data;
}

/* ptxas on the kernel for every level: it must take it and spill nothing. */
static void assemble(const cmz_kernel *k, const cmz_schedule *s) {
  static const char *const levels[] = {"sm_80", "sm_90", "sm_86", "sm_89"};
  size_t count = strcmp(case_name, "assemble_half") ? 2 : CMZ_COUNT_OF(levels);
  bool warpgroups = strcmp(level_name, "sm_80") != 0; /* the schedule is for one level only */
  for (size_t i = 0; i < (warpgroups ? 1 : count); i++) {
    const char *level = warpgroups ? level_name : levels[i];
    char path[] = "cmz_ptx_XXXXXX", command[400], line[400];
    int file = mkstemp(path);
    const char *ptx = emitted((cmz_kernel *)(uintptr_t)k, s, level);
    bool taken = false, spills = false;
    assert_true(file >= 0 && write(file, ptx, strlen(ptx)) == (ssize_t)strlen(ptx));
    close(file);
    snprintf(command, sizeof command, "ptxas -v -arch=%s -o %s.cubin %s 2>&1", level, path, path);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
      taken |= strstr(line, "Used ") != NULL;
      const char *at = strstr(line, "bytes spill stores");
      spills |= at && !strstr(line, ", 0 bytes spill stores");
    }
    pclose(f);
    unlink(path);
    snprintf(command, sizeof command, "%s.cubin", path);
    unlink(command);
    if (!taken || spills)
      fail_msg("%s for %s: ptxas %s\n%s", case_name, level, taken ? "spills registers" : "fails",
               case_detail);
  }
}

static bool tf32;       /* with --precision tf32 */
static bool assembling; /* instead of running */
static jmp_buf assembled;

static void execute(cmz_kernel *k, void *const *operands, const size_t *bytes,
                    const int64_t *params) {
  uint64_t addresses[32], blocks[32];
  void *parameters[80], *module, *function;
  uint32_t count = 0;
  cmz_schedule s;
  const cmz_cpu_row *level = cmz_cpu_find(level_name);
  cmz_schedule_split_groups(k);
  ok(cmz_schedule_choose_device(F->ctx, F->m->arena, k, level, tf32, true, &s), "schedule");
  chosen = s;
  cmz_text described = {.arena = F->m->arena};
  cmz_schedule_print(&s, &described);
  cmz_kernel_print(k, &described);
  case_detail = described.data;
  if (assembling) {
    assemble(k, &s);
    longjmp(assembled, 1); /* there are no results to compare */
  }
  int64_t tiles = (int64_t)tile_count(k, &s, params) * CMZ_MAX(s.group, 1);
  if (cuda.load(&module, broken(emitted(k, &s, level_name))) ||
      cuda.get(&function, module, "kernel"))
    fail_msg("%s: the emulator does not take the kernel\n%s", case_name, case_detail);
  for (uint32_t i = 0; i < k->operands.count; i++) {
    uint32_t element = CMZ_MAX(cmz_dtype_info(k->operands.data[i].dtype)->bits / 8, 1);
    assert_int_equal(cuda.take(&blocks[i], bytes[i] + element), 0);
    addresses[i] = blocks[i] + (aligned ? 0 : element);
    assert_int_equal(cuda.write(addresses[i], operands[i], bytes[i], NULL), 0);
    parameters[count++] = &addresses[i];
  }
  for (uint32_t i = 0; i < k->param_count; i++) parameters[count++] = (void *)(uintptr_t)&params[i];
  parameters[count++] = &tiles;
  unsigned groups = (unsigned)((tiles + level->threads - 1) / level->threads);
  if (groups > 2) groups = groups / 2 + 1; /* a group computes more than one tile */
  if (cuda.launch(function, groups, 1, 1, level->threads, 1, 1, 0, NULL, parameters, NULL) ||
      cuda.wait(NULL))
    fail_msg("%s: the kernel failed\n%s", case_name, case_detail);
  for (uint32_t i = 0; i < k->operands.count; i++) {
    assert_int_equal(cuda.read(operands[i], addresses[i], bytes[i], NULL), 0);
    assert_int_equal(cuda.give(blocks[i]), 0);
  }
  cuda.unload(module);
}

static void run_case(const char *name, void (*build)(void), uint32_t seed) {
  const char *only = getenv("CMZ_KERNEL_CASE");
  if (only && strcmp(only, name)) return;
  case_name = name;
  F->random = seed;
  F->tolerance = 1e-4;
  build();
  /* Codes in the order of fragments are read by tiles: only blocks of channels are split for them.
   */
  bool codes = strstr(name, "coded") != NULL;
  split_axes = codes ? cmz_kernel_split_blocks : cmz_kernel_split_blocked_reductions;
  if (!assembling || !setjmp(assembled)) check_kernel(!codes || strstr(name, "blocked"));
  again();
}

static cmz_vid f16(const int64_t *shape, size_t rank) { return given(CMZ_F16, shape, rank, -1, 1); }

/* ---- contractions that work-groups compute ---- */

static void group_matmul(void) {
  cmz_vid y = then2("MatMul", f32(SHAPE(45, 77)), f32(SHAPE(77, 131)));
  then1("Relu", then2("Add", y, f32(SHAPE(131))));
}
static void group_large(void) { then2("MatMul", f32(SHAPE(520, 20)), f32(SHAPE(20, 515))); }
static void group_batch(void) {
  then2("MatMul", f32(SHAPE(2, 3, 50, 40)), f32(SHAPE(2, 3, 40, 33)));
}
static void group_short(void) { then2("MatMul", f32(SHAPE(9, 8)), f32(SHAPE(8, 250))); }
static void group_integer(void) {
  cmz_vid a = given(CMZ_U8, SHAPE(37, 50), 0, 255), b = given(CMZ_I8, SHAPE(50, 70), -128, 127);
  then("MatMulInteger", 3, (cmz_vid[]){a, b, given(CMZ_U8, SHAPE(1), 3, 130)});
}
static void group_conv(void) {
  cmz_vid y = conv(f32(SHAPE(2, 5, 13, 11)), f32(SHAPE(19, 5, 3, 3)), f32(SHAPE(19)), 1, 1, 1, 1);
  then1("LeakyRelu", y);
}
static void group_conv_strided(void) {
  conv(f32(SHAPE(1, 4, 31, 25)), f32(SHAPE(40, 4, 5, 5)), f32(SHAPE(40)), 2, 2, 1, 1);
}
static void group_half(void) {
  F->tolerance = 2e-3;
  then2("MatMul", f16(SHAPE(33, 48)), f16(SHAPE(48, 72)));
}
static void group_half_vectors(void) { /* 16 bytes at a time where the address allows */
  F->tolerance = 2e-3;
  then2("MatMul", f16(SHAPE(70, 88)), f16(SHAPE(88, 136)));
}
static void group_half_conv(void) {
  F->tolerance = 4e-3;
  conv(f16(SHAPE(1, 20, 14, 13)), f16(SHAPE(40, 20, 3, 3)), f16(SHAPE(40)), 1, 1, 1, 1);
}
static void group_bfloat(void) {
  F->tolerance = 2e-2;
  cmz_vid t = then1("Transpose", given(CMZ_BF16, SHAPE(40, 64), -1, 1));
  then2("MatMul", given(CMZ_BF16, SHAPE(2, 33, 64), -1, 1), t);
}
static void group_bytes(void) {
  then2("MatMulInteger", given(CMZ_I8, SHAPE(37, 150), -128, 127),
        given(CMZ_I8, SHAPE(150, 70), -128, 127));
}
static void group_transposed(void) {
  cmz_vid t = then1("Transpose", f32(SHAPE(2, 40, 90)));
  set_ints("perm", (int64_t[]){0, 2, 1}, 3);
  then2("MatMul", f32(SHAPE(2, 30, 90)), t);
  then1("Sigmoid", cmz_graph_get(F->m, F->g)->outputs.data[0]);
}
static void group_symbolic(void) {
  const char *names[] = {"n", "m", NULL};
  cmz_vid x = given_symbolic(CMZ_F32, SHAPE(2, 37, 72), names, -1, 1);
  then2("MatMul", x, f32(SHAPE(72, 100)));
}

/* ---- attention in one kernel ---- */

static cmz_vid attended(cmz_vid q, cmz_vid k, cmz_vid v, cmz_vid mask) {
  cmz_vid t = then1("Transpose", k);
  set_ints("perm", (int64_t[]){0, 1, 3, 2}, 4);
  cmz_vid scores = then2("MatMul", q, t);
  if (mask)
    scores = then2("Add",
                   then2("Mul", scores, given(cmz_value_get(F->m, q)->type.dtype, SHAPE(1), -1, 1)),
                   mask);
  cmz_vid y = then2("MatMul", then1("Softmax", scores), v);
  cmz_vid moved = then1("Transpose", y);
  set_ints("perm", (int64_t[]){0, 2, 1, 3}, 4);
  return moved;
}
static void group_attention(void) { /* head sizes and lengths that fill nothing */
  attended(f32(SHAPE(2, 3, 21, 24)), f32(SHAPE(2, 3, 37, 24)), f32(SHAPE(2, 3, 37, 41)),
           given(CMZ_F32, SHAPE(2, 1, 1, 37), -20, 20));
}
static void group_attention_open(void) {
  const char *names[] = {NULL, NULL, "n", NULL};
  cmz_vid q = given_symbolic(CMZ_F32, SHAPE(1, 2, 70, 16), names, -5, 5),
          k = given_symbolic(CMZ_F32, SHAPE(1, 2, 70, 16), names, -5, 5),
          v = given_symbolic(CMZ_F32, SHAPE(1, 2, 70, 32), names, -5, 5);
  attended(q, k, v, 0);
}
static void group_attention_causal(void) { /* two query heads a key head */
  then("Attention", 3,
       (cmz_vid[]){f32(SHAPE(1, 4, 19, 16)), f32(SHAPE(1, 2, 33, 16)), f32(SHAPE(1, 2, 33, 24))});
  set_int("is_causal", 1);
}
static void group_attention_masked(void) { /* some rows have no key at all */
  then("Attention", 4,
       (cmz_vid[]){f32(SHAPE(1, 3, 40, 8)), f32(SHAPE(1, 3, 4, 8)), f32(SHAPE(1, 3, 4, 8)),
                   given(CMZ_BOOL, SHAPE(40, 4), 0, 1)});
}
static void group_attention_half(void) { /* chunks of 16 bytes; keys that fill no step */
  F->tolerance = 4e-3;
  attended(f16(SHAPE(1, 2, 70, 64)), f16(SHAPE(1, 2, 75, 64)), f16(SHAPE(1, 2, 75, 64)),
           given(CMZ_F16, SHAPE(1, 1, 70, 75), -2, 2));
}
static void group_attention_half_words(void) { /* neither chunks nor whole fragments */
  F->tolerance = 4e-3;
  attended(f16(SHAPE(1, 2, 21, 27)), f16(SHAPE(1, 2, 40, 27)), f16(SHAPE(1, 2, 40, 19)), 0);
}
static void group_attention_bfloat(void) {
  F->tolerance = 3e-2;
  cmz_vid q = given(CMZ_BF16, SHAPE(1, 4, 40, 24), -1, 1),
          k = given(CMZ_BF16, SHAPE(1, 2, 33, 24), -1, 1),
          v = given(CMZ_BF16, SHAPE(1, 2, 33, 72), -1, 1);
  then("Attention", 3, (cmz_vid[]){q, k, v});
  set_int("is_causal", 1);
}

static void group_bytes_mixed(void) { /* unsigned rows by signed columns */
  then2("MatMulInteger", given(CMZ_U8, SHAPE(45, 150), 0, 255),
        given(CMZ_I8, SHAPE(150, 70), -128, 127));
}
static void group_bytes_swapped(void) {
  then2("MatMulInteger", given(CMZ_I8, SHAPE(45, 150), -128, 127),
        given(CMZ_U8, SHAPE(150, 70), 0, 255));
}
static void group_grouped(void) {
  conv(f32(SHAPE(2, 12, 13, 11)), f32(SHAPE(48, 4, 3, 3)), f32(SHAPE(48)), 1, 1, 1, 3);
}
static void group_half_grouped(void) {
  F->tolerance = 4e-3;
  conv(f16(SHAPE(1, 32, 14, 13)), f16(SHAPE(64, 16, 3, 3)), f16(SHAPE(64)), 1, 1, 1, 2);
}
static void group_tf32(void) {
  F->tolerance = 4e-3;
  cmz_vid y = then2("MatMul", f32(SHAPE(2, 45, 77)), f32(SHAPE(2, 77, 131)));
  then1("Relu", y);
}
static void group_tf32_vectors(void) { /* columns of B are rows of memory: 16 bytes at a time */
  F->tolerance = 4e-3;
  cmz_vid t = then1("Transpose", f32(SHAPE(72, 64)));
  then2("MatMul", f32(SHAPE(70, 64)), t);
}
static void group_tf32_conv(void) {
  F->tolerance = 4e-3;
  conv(f32(SHAPE(1, 20, 14, 13)), f32(SHAPE(40, 20, 3, 3)), f32(SHAPE(40)), 1, 1, 1, 1);
}
/* Numbers of 11 significant bits, whose products tf32 has exactly, and sums of few. */
static void group_tf32_exact(void) {
  F->tolerance = 0;
  cmz_vid a = then1("Cast", given(CMZ_I16, SHAPE(32, 24), -2047, 2047));
  set_int("to", CMZ_F32);
  cmz_vid b = then1("Cast", given(CMZ_I8, SHAPE(24, 48), -127, 127));
  set_int("to", CMZ_F32);
  then2("MatMul", a, b);
}

static const kernel_case GROUP_CASES[] = {
    CASE(group_attention_half),
    CASE(group_attention_half_words),
    CASE(group_attention_bfloat),
    CASE(group_attention),
    CASE(group_attention_open),
    CASE(group_attention_causal),
    CASE(group_attention_masked),
    CASE(group_matmul),
    CASE(group_large),
    CASE(group_batch),
    CASE(group_short),
    CASE(group_integer),
    CASE(group_conv),
    CASE(group_conv_strided),
    CASE(group_half),
    CASE(group_half_vectors),
    CASE(group_half_conv),
    CASE(group_bfloat),
    CASE(group_bytes),
    CASE(group_transposed),
    CASE(group_symbolic),
    CASE(group_bytes_mixed),
    CASE(group_bytes_swapped),
    CASE(group_grouped),
    CASE(group_half_grouped),
    CASE(group_tf32),
    CASE(group_tf32_vectors),
    CASE(group_tf32_conv),
    CASE(group_tf32_exact),
};

/* Whether warps' matrix instructions are to be used. */
static bool is_narrow(const char *name) {
  return strstr(name, "half") || strstr(name, "bfloat") || strstr(name, "bytes") ||
         strstr(name, "tf32");
}

static void test_groups(void **state) {
  (void)state;
  for (uint32_t i = 0; i < CMZ_COUNT_OF(GROUP_CASES); i++) {
    aligned = true;
    tf32 = strstr(GROUP_CASES[i].name, "tf32") != NULL;
    run_case(GROUP_CASES[i].name, GROUP_CASES[i].build, 1000 + i);
    aligned = false;
    if (chosen.fragments) run_case(GROUP_CASES[i].name, GROUP_CASES[i].build, 1000 + i);
    if (!getenv("CMZ_KERNEL_CASE") && chosen.group != cmz_cpu_find(level_name)->threads)
      fail_msg("%s: no work-group was chosen", GROUP_CASES[i].name);
    if (!getenv("CMZ_KERNEL_CASE") && is_narrow(GROUP_CASES[i].name) != (chosen.fragments != 0))
      fail_msg("%s: fragments %u\n%s", GROUP_CASES[i].name, chosen.fragments, case_detail);
  }
  tf32 = false;
}

/* Constants are aligned, so no address is tried that is not. */
static void test_coded(void **state) {
  (void)state;
  aligned = true;
  for (uint32_t i = 0; i < CMZ_COUNT_OF(CODED_CASES); i++) {
    const kernel_case *one = &CODED_CASES[i];
    run_case(one->name, one->build, 4000 + i);
    if (!getenv("CMZ_KERNEL_CASE") && !chosen.coded)
      fail_msg("%s: codes are not read by fragments\n%s", one->name, case_detail);
  }
}

static void assemble_half(void) {
  cmz_vid y = then2("MatMul", f16(SHAPE(512, 72)), f16(SHAPE(72, 512)));
  then1("Sigmoid", then2("Add", y, f16(SHAPE(512))));
}
static void assemble_half_conv(void) {
  conv(f16(SHAPE(1, 24, 56, 56)), f16(SHAPE(64, 24, 3, 3)), f16(SHAPE(64)), 1, 1, 1, 1);
}
static void assemble_half_strided(void) {
  conv(f16(SHAPE(2, 3, 112, 112)), f16(SHAPE(64, 3, 7, 7)), f16(SHAPE(64)), 3, 2, 1, 1);
}

static void assemble_few_channels(void) { /* a loop of 18 steps, which ptxas would unroll */
  conv(f32(SHAPE(1, 32, 32, 32)), f32(SHAPE(24, 32, 3, 3)), f32(SHAPE(24)), 1, 2, 1, 1);
}
static void assemble_tf32_conv(void) {
  conv(f32(SHAPE(1, 64, 56, 56)), f32(SHAPE(64, 64, 3, 3)), f32(SHAPE(64)), 1, 1, 1, 1);
}

static void test_assembles(void **state) {
  (void)state;
  static const kernel_case large[] = {
      CASE(assemble_half),     CASE(assemble_half_conv),    CASE(assemble_half_strided),
      CASE(group_bytes),       CASE(assemble_few_channels), CASE(assemble_tf32_conv),
      CASE(group_conv),        CASE(group_attention),       CASE(coded_rows),
      CASE(coded_vector),      CASE(coded_whole),           CASE(coded_bytes_groups),
      CASE(coded_conv_blocked)};
  if (system("command -v ptxas >/dev/null")) {
    print_message("there is no ptxas\n");
    skip();
  }
  assembling = true;
  for (uint32_t i = 0; i < CMZ_COUNT_OF(large); i++) {
    tf32 = strstr(large[i].name, "tf32") != NULL;
    run_case(large[i].name, large[i].build, 3000 + i);
  }
  tf32 = false;
  level_name = "sm_90a";
  for (uint32_t i = 0; i < 2; i++) run_case(large[i].name, large[i].build, 3100 + i);
  level_name = "sm_80";
  assembling = false;
}

/* ---- warpgroups: sm_90a ---- */

static void wgmma_matmul(void) { /* A by rows, B by columns: not transposed, transposed */
  F->tolerance = 4e-3;
  then2("MatMul", f16(SHAPE(72, 200)), f16(SHAPE(200, 128)));
}
static void wgmma_wide(void) { /* tiles of 64 by 128 */
  F->tolerance = 4e-3;
  cmz_vid t = then1("Transpose", f16(SHAPE(520, 64)));
  then2("MatMul", f16(SHAPE(1024, 64)), t);
}
static void wgmma_wide_transposed(void) {
  F->tolerance = 4e-3;
  then2("MatMul", f16(SHAPE(1030, 72)), f16(SHAPE(72, 520)));
}
static void wgmma_bfloat(void) {
  F->tolerance = 3e-2;
  cmz_vid t = then1("Transpose", given(CMZ_BF16, SHAPE(72, 130), -1, 1));
  then2("MatMul", given(CMZ_BF16, SHAPE(2, 66, 130), -1, 1), t);
}
static void wgmma_conv(void) {
  F->tolerance = 4e-3;
  conv(f16(SHAPE(1, 20, 14, 13)), f16(SHAPE(64, 20, 3, 3)), f16(SHAPE(64)), 1, 1, 1, 1);
}

static void test_warpgroups(void **state) {
  (void)state;
  static const kernel_case cases[] = {CASE(wgmma_matmul), CASE(wgmma_wide),
                                      CASE(wgmma_wide_transposed), CASE(wgmma_bfloat),
                                      CASE(wgmma_conv)};
  level_name = "sm_90a";
  for (uint32_t i = 0; i < CMZ_COUNT_OF(cases); i++) {
    aligned = i != 1;
    run_case(cases[i].name, cases[i].build, 4000 + i);
    if (!getenv("CMZ_KERNEL_CASE") && (chosen.group != 128 || chosen.step != 64))
      fail_msg("%s: no warpgroup was chosen", cases[i].name);
  }
  level_name = "sm_80";
}

/* Every sixth of the others: they say more about the emitter than about threads. */
static void test_single_threads(void **state) {
  (void)state;
  for (uint32_t i = 0; i < CMZ_COUNT_OF(KERNEL_CASES); i += 6)
    run_case(KERNEL_CASES[i].name, KERNEL_CASES[i].build, 2000 + i);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_assembles, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_groups, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_coded, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_warpgroups, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_single_threads, fixture_setup, fixture_teardown),
  };
  return cmocka_run_group_tests(tests, open_driver, NULL);
}
