/* translate_group.c - what PTX's threads do together: barriers, shuffles, votes, reductions of a
 * warp. In: one instruction. Out: C statements that meet the other threads. Always holds: an entry
 * with one of these runs as fibres. */
#include "translate.h"

#define A in->operands[0]
#define B in->operands[1]
#define C in->operands[2]
#define D in->operands[3]

static void do_bar(translator *t, const instruction *in) {
  bool arrive = ptx_has(in, "arrive"), reduce = ptx_has(in, "red");
  bool aligned = strcmp(in->parts[0], "bar") == 0 || ptx_has(in, "aligned");
  if (ptx_has(in, "warp")) {
    if (!ptx_need(t, in, 1)) return;
    ptx_begin_collective(t, "COLLECTIVE_BARRIER", 0, ".name = \"bar.warp.sync\"");
    fprintf(t->out, "emulator_collective_call(t, &c, (uint32_t)%s, 0, 0); }\n", ptx_value(t, A));
    return;
  }
  if (!arrive && !reduce && !ptx_has(in, "sync")) ptx_fail(t, "\"%s\"", in->text);
  t->fibres = true;
  if (!reduce) {
    if (in->operand_count < 1 || in->operand_count > 2 || (arrive && in->operand_count != 2))
      ptx_fail(t, "\"%s\"", in->text);
    else
      fprintf(t->out, "emulator_barrier(t, (uint32_t)%s, (uint32_t)%s, 0, %d, %d, %d);\n",
              ptx_value(t, A), in->operand_count > 1 ? ptx_value(t, B) : "0", !arrive, aligned,
              t->line);
    return;
  }
  if (in->operand_count != 3) { /* with a number of threads: not seen yet */
    ptx_fail(t, "\"%s\"", in->text);
    return;
  }
  const char *result = ptx_has(in, "popc") ? "n" : ptx_has(in, "or") ? "n != 0" : NULL;
  if (!result && !ptx_has(in, "and")) ptx_fail(t, "\"%s\"", in->text);
  fprintf(t->out,
          "{ uint32_t n = emulator_barrier(t, (uint32_t)%s, 0, (%s) %s 0, 1, %d, %d); %s = %s; }\n",
          ptx_value(t, B), ptx_value(t, C), result ? "!=" : "==", aligned, t->line, ptx_value(t, A),
          result ? result : "n == 0");
}

static void do_shfl(translator *t, const instruction *in) {
  static const struct {
    const char *mode, *kind;
  } rows[] = {{"idx", "COLLECTIVE_SHUFFLE_IDX"},
              {"up", "COLLECTIVE_SHUFFLE_UP"},
              {"down", "COLLECTIVE_SHUFFLE_DOWN"},
              {"bfly", "COLLECTIVE_SHUFFLE_BFLY"}};
  const char *kind = NULL;
  for (size_t i = 0; i < 4; i++)
    if (ptx_has(in, rows[i].mode)) kind = rows[i].kind;
  bool pair = in->operand_count == 6; /* d|p, a, b, c, mask */
  char *const *o = in->operands + pair;
  if (!kind || !ptx_has(in, "sync") || in->operand_count < 5 || in->operand_count > 6) {
    ptx_fail(t, "\"%s\"", in->text);
    return;
  }
  ptx_begin_collective(t, kind, 0, ".name = \"shfl.sync\"");
  fprintf(t->out, "uint32_t in[3] = {(uint32_t)%s, (uint32_t)%s, (uint32_t)%s}, out[2];\n",
          ptx_value(t, o[1]), ptx_value(t, o[2]), ptx_value(t, o[3]));
  fprintf(t->out, "emulator_collective_call(t, &c, (uint32_t)%s, in, out); %s = out[0];\n",
          ptx_value(t, o[4]), ptx_value(t, A));
  if (pair) fprintf(t->out, "%s = out[1] != 0;\n", ptx_value(t, B));
  fprintf(t->out, "}\n");
}

static void do_vote(translator *t, const instruction *in) {
  const char *kind = ptx_has(in, "all")      ? "COLLECTIVE_VOTE_ALL"
                     : ptx_has(in, "any")    ? "COLLECTIVE_VOTE_ANY"
                     : ptx_has(in, "uni")    ? "COLLECTIVE_VOTE_UNI"
                     : ptx_has(in, "ballot") ? "COLLECTIVE_VOTE_BALLOT"
                                             : NULL;
  if (!kind || !ptx_has(in, "sync")) ptx_fail(t, "\"%s\"", in->text);
  if (!ptx_need(t, in, 3)) return;
  ptx_begin_collective(t, kind, 0, ".name = \"vote.sync\"");
  fprintf(t->out,
          "uint32_t in[1] = {(%s) != 0}, out[1]; emulator_collective_call(t, &c, (uint32_t)%s, in, "
          "out); %s = out[0]; }\n",
          ptx_value(t, B), ptx_value(t, C), ptx_value(t, A));
}

static void do_redux(translator *t, const instruction *in) {
  static const char *const operations[] = {"add.s32", "add.u32", "min.s32", "max.s32", "min.u32",
                                           "max.u32", "and.b32", "or.b32",  "xor.b32"};
  char form[64], more[128];
  if (!ptx_need(t, in, 3)) return;
  snprintf(form, sizeof form, "%s.%s", in->part_count == 4 ? in->parts[2] : "", ptx_type(in));
  for (int i = 0; i < 9; i++) {
    if (strcmp(form, operations[i]) != 0) continue;
    snprintf(more, sizeof more, ".name = \"redux.sync\", .operation = %d", i);
    ptx_begin_collective(t, "COLLECTIVE_REDUX", 0, more);
    fprintf(
        t->out,
        "uint32_t in[1] = {(uint32_t)%s}, out[1]; emulator_collective_call(t, &c, (uint32_t)%s, "
        "in, out); %s = out[0]; }\n",
        ptx_value(t, B), ptx_value(t, C), ptx_value(t, A));
    return;
  }
  ptx_fail(t, "\"%s\"", in->text);
}

static void do_activemask(translator *t, const instruction *in) {
  t->fibres = true;
  if (ptx_need(t, in, 1)) fprintf(t->out, "%s = emulator_active(t);\n", ptx_value(t, A));
}

const ptx_row ptx_collectives[] = {
    {"bar", do_bar},     {"barrier", do_bar},           {"shfl", do_shfl}, {"vote", do_vote},
    {"redux", do_redux}, {"activemask", do_activemask}, {NULL, NULL}};
