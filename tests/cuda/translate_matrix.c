/* translate_matrix.c - PTX's matrix instructions: ldmatrix and mma. In: one instruction. Out: C
 * statements that call the warp's collective (warp.c). Always holds: only shapes whose fragments
 * the PTX ISA gives are known. */
#include "translate.h"

enum { MOST_SUMS = 128 }; /* of a lane */

#define A in->operands[0]
#define B in->operands[1]
#define C in->operands[2]
#define D in->operands[3]

static void do_ldmatrix(translator *t, const instruction *in) {
  char copy[MAX_TEXT], more[128], *items[16];
  int count = ptx_has(in, "x1") ? 1 : ptx_has(in, "x2") ? 2 : ptx_has(in, "x4") ? 4 : 0;
  if (!count || !ptx_has(in, "m8n8") || strcmp(ptx_type(in), "b16") ||
      strcmp(ptx_space(in), "shared") || in->operand_count != 2 ||
      ptx_items(A, copy, sizeof copy, items, 16) != count) {
    ptx_fail(t, "\"%s\"", in->text);
    return;
  }
  snprintf(more, sizeof more, ".name = \"ldmatrix\", .count = %d, .transposed = %d", count,
           ptx_has(in, "trans"));
  ptx_begin_collective(t, "COLLECTIVE_LDMATRIX", 1, more);
  fprintf(t->out, "uint32_t in[1] = {(uint32_t)(%s)}, out[4];", ptx_address(t, B));
  fprintf(t->out, " emulator_collective_call(t, &c, 0xffffffffu, in, out);\n");
  for (int i = 0; i < count; i++) fprintf(t->out, "%s = out[%d];", ptx_value(t, items[i]), i);
  fprintf(t->out, " }\n");
}

static void do_mma(translator *t, const instruction *in) {
  /* the shapes whose fragments the PTX ISA gives, by the type of A (section "mma") */
  static const struct {
    const char *shape, *a, *b, *accumulator, *form;
    int k, words_a, words_b;
  } rows[] = {
      {"m16n8k16", "f16", "f16", "f32", ".a = E_F16, .b = E_F16, .accumulator = E_F32", 16, 4, 2},
      {"m16n8k16", "bf16", "bf16", "f32", ".a = E_BF16, .b = E_BF16, .accumulator = E_F32", 16, 4,
       2},
      {"m16n8k8", "f16", "f16", "f32", ".a = E_F16, .b = E_F16, .accumulator = E_F32", 8, 2, 1},
      {"m16n8k8", "bf16", "bf16", "f32", ".a = E_BF16, .b = E_BF16, .accumulator = E_F32", 8, 2, 1},
      {"m16n8k8", "tf32", "tf32", "f32", ".a = E_TF32, .b = E_TF32, .accumulator = E_F32", 8, 4, 2},
      {"m16n8k4", "tf32", "tf32", "f32", ".a = E_TF32, .b = E_TF32, .accumulator = E_F32", 4, 2, 1},
      {"m16n8k32", "s8", "s8", "s32", ".a = E_S8, .b = E_S8, .accumulator = E_S32", 32, 4, 2},
      {"m16n8k32", "u8", "u8", "s32", ".a = E_U8, .b = E_U8, .accumulator = E_S32", 32, 4, 2},
      {"m16n8k32", "s8", "u8", "s32", ".a = E_S8, .b = E_U8, .accumulator = E_S32", 32, 4, 2},
      {"m16n8k32", "u8", "s8", "s32", ".a = E_U8, .b = E_S8, .accumulator = E_S32", 32, 4, 2},
      {"m16n8k16", "s8", "s8", "s32", ".a = E_S8, .b = E_S8, .accumulator = E_S32", 16, 2, 1},
      {"m16n8k16", "u8", "u8", "s32", ".a = E_U8, .b = E_U8, .accumulator = E_S32", 16, 2, 1},
      {"m16n8k16", "u8", "s8", "s32", ".a = E_U8, .b = E_S8, .accumulator = E_S32", 16, 2, 1},
      {"m16n8k16", "s8", "u8", "s32", ".a = E_S8, .b = E_U8, .accumulator = E_S32", 16, 2, 1}};
  int n = in->part_count;
  char more[256], copy[4][MAX_TEXT], *items[4][16];
  if (n != 10 || !ptx_has(in, "sync") || !ptx_has(in, "aligned") || !ptx_has(in, "row") ||
      !ptx_has(in, "col")) {
    ptx_fail(t, "\"%s\"", in->text);
    return;
  }
  for (size_t r = 0; r < sizeof rows / sizeof rows[0] && ptx_need(t, in, 4); r++) {
    if (strcmp(in->parts[3], rows[r].shape) || strcmp(in->parts[n - 3], rows[r].a) ||
        strcmp(in->parts[n - 2], rows[r].b) || strcmp(in->parts[n - 4], rows[r].accumulator) ||
        strcmp(in->parts[n - 1], rows[r].accumulator))
      continue;
    int counts[4] = {4, rows[r].words_a, rows[r].words_b, 4};
    for (int i = 0; i < 4; i++)
      if (ptx_items(in->operands[i], copy[i], sizeof copy[i], items[i], 16) != counts[i])
        ptx_fail(t, "\"%s\"", in->text);
    if (t->failed) return;
    snprintf(more, sizeof more, ".name = \"mma.sync\", .k = %d, %s", rows[r].k, rows[r].form);
    ptx_begin_collective(t, "COLLECTIVE_MMA", 1, more);
    fprintf(t->out, "uint32_t in[10] = {");
    static const int begins[4] = {0, 4, 8, 0}; /* in: C, A, B */
    for (int i = 1; i < 4; i++)
      for (int j = 0; j < counts[i]; j++)
        fprintf(t->out, "[%d] = (uint32_t)%s, ", begins[i] + j, ptx_value(t, items[i][j]));
    fprintf(t->out, "}, out[4]; emulator_collective_call(t, &c, 0xffffffffu, in, out);\n");
    for (int j = 0; j < 4; j++) fprintf(t->out, "%s = out[%d];", ptx_value(t, items[0][j]), j);
    fprintf(t->out, " }\n");
    return;
  }
  ptx_fail(t, "this form of mma is not known: \"%s\"", in->text);
}

/* wgmma.mma_async with both factors in shared memory: sums, descriptors, scale-d (1 or 0), signs of
 * A and B (1), whether A and B are transposed. */
static void do_mma_async(translator *t, const instruction *in) {
  char copy[4 * MAX_TEXT], more[256], *items[MOST_SUMS];
  unsigned columns = 0;
  const char *type = ptx_type(in);
  bool half = strcmp(type, "f16") == 0;
  if (in->part_count != 8 || sscanf(in->parts[4], "m64n%uk16", &columns) != 1 || columns % 8 ||
      columns == 0 || columns > 2 * MOST_SUMS || strcmp(in->parts[5], "f32") ||
      strcmp(in->parts[6], type) || (!half && strcmp(type, "bf16")) || in->operand_count != 8 ||
      strcmp(in->operands[4], "1") || strcmp(in->operands[5], "1") ||
      ptx_items(A, copy, sizeof copy, items, MOST_SUMS) != (int)columns / 2) {
    ptx_fail(t, "this form of wgmma is not known: \"%s\"", in->text);
    return;
  }
  const char *kind = half ? "E_F16" : "E_BF16";
  snprintf(more, sizeof more,
           ".name = \"wgmma.mma_async\", .count = %u, .operation = %d, .transposed = %d, .a = %s, "
           ".b = %s",
           columns / 2, atoi(D) != 0,
           (atoi(in->operands[6]) != 0) | (atoi(in->operands[7]) != 0) << 1, kind, kind);
  ptx_begin_collective(t, "COLLECTIVE_WGMMA", 1, more);
  fprintf(t->out, "uint32_t *const sums[] = {");
  for (unsigned i = 0; i < columns / 2; i++) fprintf(t->out, "&%s, ", ptx_value(t, items[i]));
  fprintf(t->out, "}; emulator_wgmma(t, &c, %s, %s, sums); }\n", ptx_value(t, B), ptx_value(t, C));
}

static void do_wgmma(translator *t, const instruction *in) {
  t->fibres = true;
  if (!ptx_has(in, "sync") || !ptx_has(in, "aligned")) ptx_fail(t, "\"%s\"", in->text);
  else if (ptx_has(in, "mma_async")) do_mma_async(t, in);
  else if (ptx_has(in, "fence")) fprintf(t->out, "emulator_wgmma_fence(t);\n");
  else if (ptx_has(in, "commit_group")) fprintf(t->out, "emulator_wgmma_commit(t);\n");
  else if (ptx_has(in, "wait_group") && ptx_need(t, in, 1))
    fprintf(t->out, "emulator_wgmma_wait(t, (uint32_t)%s);\n", ptx_value(t, A));
  else ptx_fail(t, "\"%s\"", in->text);
}

const ptx_row ptx_matrices[] = {
    {"ldmatrix", do_ldmatrix}, {"mma", do_mma}, {"wgmma", do_wgmma}, {NULL, NULL}};
