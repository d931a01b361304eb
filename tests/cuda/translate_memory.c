/* translate_memory.c - PTX's loads, stores, atomics and copies as calls of the emulator. In: one
 * instruction. Out: C statements. Always holds: every access goes through a check of bounds and
 * alignment. */
#include "translate.h"

#define A in->operands[0]
#define B in->operands[1]
#define C in->operands[2]
#define D in->operands[3]

static void do_ld(translator *t, const instruction *in) {
  char *items[4], copy[MAX_TEXT];
  int bits = ptx_bits(ptx_type(in));
  if (!ptx_need(t, in, 2)) return;
  if (ptx_has(in, "param")) {
    char name[MAX_TEXT];
    const char *number;
    if (sscanf(B, "[%[^]+ ]", name) != 1 || !(number = strrchr(name, '_')) || strchr(B, '+'))
      ptx_fail(t, "\"%s\"", in->text);
    else
      fprintf(t->out, "{ uint%d_t v; memcpy(&v, params[%d], sizeof v); %s = v; }\n", bits,
              atoi(number + 1), ptx_value(t, A));
    return;
  }
  snprintf(copy, sizeof copy, "%s", A);
  int count = ptx_group(copy, items);
  if (!count) items[0] = A, count = 1;
  ptx_open_access(t, in, B, count * bits / 8, 0);
  for (int i = 0; i < count; i++) {
    if (strcmp(items[i], "_") == 0) continue;
    fprintf(t->out, "{ %sint%d_t v; memcpy(&v, p + %d, sizeof v); %s = %s; }",
            ptx_type(in)[0] == 's' ? "" : "u", bits, i * bits / 8, ptx_value(t, items[i]),
            ptx_type(in)[0] == 's' ? "(uint64_t)(int64_t)v" : "v");
  }
  fprintf(t->out, " }\n");
}

static void do_st(translator *t, const instruction *in) {
  char *items[4], copy[MAX_TEXT];
  int bits = ptx_bits(ptx_type(in));
  if (!ptx_need(t, in, 2)) return;
  snprintf(copy, sizeof copy, "%s", B);
  int count = ptx_group(copy, items);
  if (!count) items[0] = B, count = 1;
  ptx_open_access(t, in, A, count * bits / 8, 1);
  for (int i = 0; i < count; i++)
    fprintf(t->out, "{ uint%d_t v = (uint%d_t)%s; memcpy(p + %d, &v, sizeof v); }", bits, bits,
            ptx_value(t, items[i]), i * bits / 8);
  fprintf(t->out, " }\n");
}

/* Generic addresses are the host's; shared memory's own count from 0. */
static void do_cvta(translator *t, const instruction *in) {
  bool shared = strcmp(ptx_space(in), "shared") == 0;
  if (ptx_need(t, in, 2))
    fprintf(t->out, "%s = %s%s;\n", ptx_value(t, A), ptx_value(t, B),
            !shared             ? ""
            : ptx_has(in, "to") ? " - t->window"
                                : " + t->window");
}

static void do_cp(translator *t, const instruction *in) {
  if (in->part_count < 3 || strcmp(in->parts[1], "async") || ptx_has(in, "bulk") ||
      ptx_has(in, "mbarrier")) {
    ptx_fail(t, "\"%s\"", in->text);
    return;
  }
  t->fibres = true;
  if (ptx_has(in, "commit_group")) fprintf(t->out, "emulator_copy_commit(t);\n");
  else if (ptx_has(in, "wait_all")) fprintf(t->out, "emulator_copy_wait(t, 0, 1);\n");
  else if (ptx_has(in, "wait_group") && ptx_need(t, in, 1))
    fprintf(t->out, "emulator_copy_wait(t, (uint32_t)%s, 0);\n", ptx_value(t, A));
  else if ((ptx_has(in, "ca") || ptx_has(in, "cg")) && ptx_has(in, "global") &&
           !ptx_has(in, "L2::cache_hint") && (in->operand_count == 3 || in->operand_count == 4)) {
    char to[2 * MAX_TEXT];
    snprintf(to, sizeof to, "%s", ptx_address(t, A));
    fprintf(t->out, "emulator_copy_async(t, %s, %s, (uint32_t)%s, (uint32_t)%s, %d);\n", to,
            ptx_address(t, B), ptx_value(t, C), ptx_value(t, in->operand_count == 4 ? D : C),
            t->line);
  } else ptx_fail(t, "\"%s\"", in->text);
}

static void do_atom(translator *t, const instruction *in) {
  static const struct {
    const char *name, *format;
  } rows[] = {{"add", "%s + %s"}, {"and", "%s & %s"}, {"or", "%s | %s"},
              {"xor", "%s ^ %s"}, {"min", "%s"},      {"max", "%s"}};
  const char *type = ptx_type(in);
  bool result = strcmp(in->parts[0], "atom") == 0;
  char old[MAX_TEXT], operand[MAX_TEXT];
  int bits = ptx_bits(type);
  const char *const *parts = (const char *const *)in->parts;
  const char *operation = in->part_count >= 2 ? parts[in->part_count - 2] : "";
  if (strcmp(operation, "noftz") == 0) operation = parts[in->part_count - 3];
  bool swap = strcmp(operation, "cas") == 0, exchange = strcmp(operation, "exch") == 0;
  if (!ptx_need(t, in, 2 + result + swap) || strchr(type, 'x')) {
    ptx_fail(t, "\"%s\"", in->text);
    return;
  }
  ptx_open_access(t, in, in->operands[result], bits / 8, 2);
  const char *b = in->operands[1 + result];
  fprintf(t->out, "uint%d_t r_old, r_new = (uint%d_t)%s; memcpy(&r_old, p, sizeof r_old);\n", bits,
          bits, ptx_value(t, b));
  snprintf(old, sizeof old, "%s", ptx_typed(t, type, "%old"));
  snprintf(operand, sizeof operand, "%s", ptx_typed(t, type, "%new"));
  bool found = exchange || swap;
  if (swap)
    fprintf(t->out, "if (r_old == r_new) r_new = (uint%d_t)%s; else r_new = r_old;\n", bits,
            ptx_value(t, in->operands[2 + result]));
  for (size_t i = 0; i < sizeof rows / sizeof rows[0] && !found; i++) {
    if (strcmp(operation, rows[i].name) != 0) continue;
    found = true;
    if (i >= 4) ptx_assign(t, type, "%new", "%s_%s(%s, %s)", operation, type, old, operand);
    else ptx_assign(t, type, "%new", rows[i].format, old, operand);
  }
  if (!found) ptx_fail(t, "\"%s\"", in->text);
  fprintf(t->out, "memcpy(p, &r_new, sizeof r_new); %s%s }\n", result ? ptx_value(t, A) : "",
          result ? " = r_old;" : "");
}

const ptx_row ptx_memory[] = {{"ld", do_ld},     {"st", do_st},    {"cvta", do_cvta}, {"cp", do_cp},
                              {"atom", do_atom}, {"red", do_atom}, {NULL, NULL}};
