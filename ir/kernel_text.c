/* kernel_text.c - kernels and schedules as text, back, and their hash.
 * In: a kernel. Out: lines
 *     kernel "conv_relu" params 1
 *     %1 = int i64 16
 *     axis 0 parallel %1
 *     operand 0 f32 read constant %2
 *     %3 = axis i64 0
 *     %4 = load f32 0 %3
 *     %5 = reduce f32 sum %4 axes 1 2
 *     store 1 set axes 0 index %3 value %5
 * Floats are printed as the bits of a double. Always holds: only what the stores need is printed,
 * numbered in the order of first use, so that equal kernels print the same whatever the pool holds
 * besides. */
#include "kernel_internal.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const EXPR_NAMES[] = {
#define EXPR_NAME(name, count, text) text,
    CMZ_EXPR_OPS(EXPR_NAME)
#undef EXPR_NAME
};
static const uint8_t EXPR_ARGS[] = {
#define EXPR_COUNT(name, count, text) count,
    CMZ_EXPR_OPS(EXPR_COUNT)
#undef EXPR_COUNT
};
static const char *const REDUCE_NAMES[] = {"sum", "prod",   "max",    "min",         "and",
                                           "or",  "argmax", "argmin", "argmax_last", "argmin_last"};
static const char *const AXIS_NAMES[] = {"parallel", "reduce", "serial"};
static const char *const ACCESS_NAMES[] = {"none", "read", "write", "read_write"};
static const char *const STORE_NAMES[] = {"set", "add", "mul", "min", "max"};

/* ---- print ---- */

typedef struct printer {
  const cmz_kernel *k;
  cmz_text *text;
  uint32_t *numbers; /* by expr; 0: not printed yet */
  uint32_t next;
} printer;

static void print_expr(printer *p, cmz_expr e) {
  if (!e || p->numbers[e]) return;
  const cmz_expr_node *n = cmz_x_get(p->k, e);
  for (int i = 0; i < 3; i++) print_expr(p, n->args[i]);
  p->numbers[e] = ++p->next;
  cmz_text_add(p->text, "%%%u = %s %s", p->next, EXPR_NAMES[n->op],
               cmz_dtype_info((cmz_dtype)n->dtype)->name);
  switch ((cmz_expr_op)n->op) {
  case CMZ_X_CONST_INT:
  case CMZ_X_AXIS:
  case CMZ_X_PARAM:
  case CMZ_X_LOAD:
    cmz_text_add(p->text, " %" PRId64, n->i);
    break;
  case CMZ_X_CONST_FLOAT:
    cmz_text_add(p->text, " 0x%" PRIx64, (uint64_t)n->i);
    break;
  case CMZ_X_REDUCE:
    cmz_text_add(p->text, " %s", REDUCE_NAMES[n->reduce_op]);
    break;
  default:
    break;
  }
  for (int i = 0; i < 3 && n->args[i]; i++) cmz_text_add(p->text, " %%%u", p->numbers[n->args[i]]);
  if (n->op == CMZ_X_CAST && n->i)
    cmz_text_add(p->text, " through %s", cmz_dtype_info((cmz_dtype)n->i)->name);
  if (n->op == CMZ_X_REDUCE) {
    cmz_text_add(p->text, " axes");
    for (uint32_t i = 0; i < n->axis_count; i++) cmz_text_add(p->text, " %u", n->axes[i]);
  }
  cmz_text_add(p->text, "\n");
}

static void print_store(printer *p, const cmz_store *s) {
  print_expr(p, s->index);
  print_expr(p, s->value);
  print_expr(p, s->predicate);
  cmz_text_add(p->text, "store %u %s axes", s->operand, STORE_NAMES[s->mode]);
  for (uint32_t i = 0; i < s->axis_count; i++) cmz_text_add(p->text, " %u", s->axes[i]);
  cmz_text_add(p->text, " index %%%u value %%%u", p->numbers[s->index], p->numbers[s->value]);
  if (s->predicate) cmz_text_add(p->text, " predicate %%%u", p->numbers[s->predicate]);
  cmz_text_add(p->text, "\n");
}

static void print_body(const cmz_kernel *k, cmz_text *text) {
  printer p = {k, text, CMZ_NEW_ARRAY(text->arena, uint32_t, k->exprs.count), 0};
  for (uint32_t a = 0; a < k->axes.count; a++) print_expr(&p, k->axes.data[a].extent);
  for (uint32_t o = 0; o < k->operands.count; o++) print_expr(&p, k->operands.data[o].elements);
  for (uint32_t a = 0; a < k->axes.count; a++) {
    const cmz_axis *axis = &k->axes.data[a];
    cmz_text_add(text, "axis %u %s %%%u", a, AXIS_NAMES[axis->kind], p.numbers[axis->extent]);
    if (axis->chain) cmz_text_add(text, " chain %u", axis->chain);
    if (axis->strands) cmz_text_add(text, " strands %u", axis->strands);
    cmz_text_add(text, "\n");
  }
  for (uint32_t i = 0; i < k->operands.count; i++) {
    const cmz_operand *o = &k->operands.data[i];
    cmz_text_add(text, "operand %u %s %s%s %%%u\n", i, cmz_dtype_info(o->dtype)->name,
                 ACCESS_NAMES[o->access & 3], o->constant ? " constant" : "",
                 p.numbers[o->elements]);
  }
  for (uint32_t s = 0; s < k->stores.count; s++) print_store(&p, &k->stores.data[s]);
}

void cmz_kernel_print(const cmz_kernel *k, cmz_text *text) {
  cmz_text_add(text, "kernel \"%s\" params %u\n", k->name, k->param_count);
  print_body(k, text);
}

void cmz_schedule_print(const cmz_schedule *s, cmz_text *text) {
  cmz_text_add(text, "schedule %u", s->axis_count);
  for (uint32_t i = 0; i < s->axis_count; i++) {
    const cmz_axis_schedule *a = &s->axes[i];
    cmz_text_add(text, " %u/%u/%u/%u", a->tile, a->unroll, a->lanes, a->order);
    if (s->group) cmz_text_add(text, "/%u", a->threads);
  }
  cmz_text_add(text, " reduce %u/%u", s->reduce_lanes, s->reduce_unroll);
  if (s->step) cmz_text_add(text, " group %u/%u/%u/%u", s->group, s->step, s->fragments, s->second);
  if (s->coded) cmz_text_add(text, " coded %u", s->coded);
  cmz_text_add(text, "\n");
}

cmz_hash128 cmz_kernel_hash(const cmz_kernel *k, const cmz_schedule *s) {
  cmz_arena_mark mark = cmz_arena_save(k->arena);
  cmz_text text = {.arena = k->arena};
  cmz_text_add(&text, "params %u\n", k->param_count);
  print_body(k, &text);
  if (s) cmz_schedule_print(s, &text);
  cmz_hash128 hash = cmz_hash_bytes(text.data, text.length);
  cmz_arena_restore(k->arena, mark);
  return hash;
}

/* ---- parse ---- */

typedef struct parser {
  cmz_context *ctx;
  cmz_kernel *k;
  const char *at;
  uint32_t line;
  bool failed;
  CMZ_VEC(cmz_expr) numbers;
} parser;

static const char *skip_blanks(parser *p) {
  while (*p->at == ' ' || *p->at == '\t') p->at++;
  return p->at;
}

static bool at_end_of_line(parser *p) {
  skip_blanks(p);
  return *p->at == '\n' || !*p->at;
}

/* The next word of the line, "" at its end. */
static void word(parser *p, char out[48]) {
  skip_blanks(p);
  size_t n = 0;
  while (*p->at && *p->at != '\n' && *p->at != ' ') {
    if (n + 1 < 48) out[n++] = *p->at;
    p->at++;
  }
  out[n] = 0;
}

static bool take(parser *p, const char *expected) {
  const char *before = p->at;
  char w[48];
  word(p, w);
  if (!strcmp(w, expected)) return true;
  p->at = before;
  return false;
}

static uint64_t number(parser *p, bool is_signed) {
  char w[48], *end;
  word(p, w);
  uint64_t v = is_signed ? (uint64_t)strtoll(w, &end, 10) : strtoull(w, &end, 0);
  if (!*w || *end) p->failed = true;
  return v;
}

static uint32_t limited(parser *p, uint32_t limit) {
  uint64_t v = number(p, false);
  if (v >= limit) p->failed = true;
  return v < limit ? (uint32_t)v : 0;
}

static uint32_t name_index(parser *p, const char *const *names, size_t count) {
  char w[48];
  word(p, w);
  for (uint32_t i = 0; i < count; i++)
    if (!strcmp(names[i], w)) return i;
  p->failed = true;
  return 0;
}

static cmz_expr reference(parser *p) {
  skip_blanks(p);
  if (*p->at != '%') {
    p->failed = true;
    return 0;
  }
  p->at++;
  uint64_t v = number(p, false);
  if (!v || v > p->numbers.count) {
    p->failed = true;
    return 0;
  }
  return p->numbers.data[v - 1];
}

static void parse_expr(parser *p) {
  cmz_expr_node n = {0};
  uint64_t own = number(p, false);
  if (own != p->numbers.count + 1 || !take(p, "=")) p->failed = true;
  n.op = (uint8_t)name_index(p, EXPR_NAMES, CMZ_COUNT_OF(EXPR_NAMES));
  char type[48];
  word(p, type);
  n.dtype = (uint8_t)cmz_dtype_parse(type);
  switch ((cmz_expr_op)n.op) {
  case CMZ_X_CONST_INT:
    n.i = (int64_t)number(p, true);
    break;
  case CMZ_X_CONST_FLOAT:
    n.i = (int64_t)number(p, false);
    break;
  case CMZ_X_AXIS:
    n.i = limited(p, p->k->axes.count);
    break;
  case CMZ_X_LOAD:
    n.i = limited(p, p->k->operands.count);
    break;
  case CMZ_X_PARAM:
    n.i = limited(p, p->k->param_count);
    break;
  case CMZ_X_REDUCE:
    n.reduce_op = (uint8_t)name_index(p, REDUCE_NAMES, CMZ_COUNT_OF(REDUCE_NAMES));
    break;
  default:
    break;
  }
  for (uint32_t i = 0; i < EXPR_ARGS[n.op]; i++) n.args[i] = reference(p);
  if (n.op == CMZ_X_CAST && take(p, "through")) {
    word(p, type);
    n.i = cmz_dtype_parse(type);
  }
  bool axes = n.op == CMZ_X_REDUCE && take(p, "axes");
  if (n.op == CMZ_X_REDUCE && !axes) { /* where a sum starts */
    n.args[1] = reference(p);
    axes = take(p, "axes");
  }
  if (axes)
    while (!p->failed && !at_end_of_line(p)) {
      if (n.axis_count == CMZ_REDUCE_MAX_AXES) p->failed = true;
      else n.axes[n.axis_count++] = (uint16_t)limited(p, p->k->axes.count);
    }
  if (n.op == CMZ_X_REDUCE && !n.axis_count) p->failed = true;
  if (p->failed) return;
  cmz_expr e = cmz_x_intern(p->k, &n);
  cmz_vec_push(p->k->arena, &p->numbers, e);
}

static void parse_axis(parser *p) {
  if (number(p, false) != p->k->axes.count) p->failed = true;
  cmz_axis_kind kind = (cmz_axis_kind)name_index(p, AXIS_NAMES, CMZ_COUNT_OF(AXIS_NAMES));
  cmz_expr extent = reference(p);
  uint32_t chain = take(p, "chain") ? limited(p, UINT32_MAX) : 0;
  uint32_t strands = take(p, "strands") ? limited(p, 65) : 0;
  if (p->failed || p->k->axes.count >= CMZ_HIDDEN_AXIS) return;
  uint16_t axis = cmz_kernel_add_axis(p->k, kind, extent);
  p->k->axes.data[axis].chain = chain;
  p->k->axes.data[axis].strands = strands;
}

static void parse_operand(parser *p) {
  if (number(p, false) != p->k->operands.count) p->failed = true;
  char type[48];
  word(p, type);
  uint8_t access = (uint8_t)name_index(p, ACCESS_NAMES, CMZ_COUNT_OF(ACCESS_NAMES));
  bool constant = take(p, "constant");
  cmz_expr elements = reference(p);
  if (!p->failed) cmz_kernel_add_operand(p->k, cmz_dtype_parse(type), access, constant, elements);
}

static void parse_store(parser *p) {
  cmz_store s = {0};
  s.operand = (uint16_t)limited(p, p->k->operands.count);
  s.mode = (cmz_store_mode)name_index(p, STORE_NAMES, CMZ_COUNT_OF(STORE_NAMES));
  if (!take(p, "axes")) p->failed = true;
  while (!p->failed && !take(p, "index")) {
    if (s.axis_count == CMZ_STORE_MAX_AXES || at_end_of_line(p)) p->failed = true;
    else s.axes[s.axis_count++] = (uint16_t)limited(p, p->k->axes.count);
  }
  s.index = reference(p);
  if (!take(p, "value")) p->failed = true;
  s.value = reference(p);
  if (take(p, "predicate")) s.predicate = reference(p);
  if (!p->failed) cmz_vec_push(p->k->arena, &p->k->stores, s);
}

static cmz_status parse_error(cmz_context *ctx, const char *what, uint32_t line) {
  return cmz_fail(ctx, CMZ_E_INPUT, (cmz_loc){0}, "%s text: line %" PRIu32 " is malformed", what,
                  line);
}

static void parse_header(parser *p, cmz_arena *arena) {
  const char *open = NULL, *close = NULL;
  if (take(p, "kernel") && *skip_blanks(p) == '"') {
    open = p->at + 1;
    close = strchr(open, '"');
  }
  p->k = cmz_kernel_create(arena,
                           close ? cmz_arena_printf(arena, "%.*s", (int)(close - open), open) : "");
  cmz_pool(p->k)->raw = true;
  if (!close) {
    p->failed = true;
    return;
  }
  p->at = close + 1;
  if (!take(p, "params")) p->failed = true;
  p->k->param_count = limited(p, UINT16_MAX);
}

cmz_status cmz_kernel_parse(cmz_context *ctx, cmz_arena *arena, const char *text,
                            cmz_kernel **kernel) {
  parser p = {.ctx = ctx, .at = text, .line = 1};
  parse_header(&p, arena);
  while (!p.failed && *p.at) {
    if (*p.at == '\n') {
      p.at++;
      p.line++;
      continue;
    }
    if (at_end_of_line(&p)) continue;
    if (*p.at == '%') {
      p.at++;
      parse_expr(&p);
    } else if (take(&p, "axis")) parse_axis(&p);
    else if (take(&p, "operand")) parse_operand(&p);
    else if (take(&p, "store")) parse_store(&p);
    else p.failed = true;
    if (!at_end_of_line(&p)) p.failed = true;
  }
  if (p.failed) return parse_error(ctx, "kernel", p.line);
  cmz_pool(p.k)->raw = false;
  *kernel = p.k;
  return cmz_kernel_verify(ctx, p.k);
}

cmz_status cmz_schedule_parse(cmz_context *ctx, cmz_arena *arena, const char *text,
                              cmz_schedule *schedule) {
  parser p = {.ctx = ctx, .at = text, .line = 1};
  cmz_schedule s = {0};
  unsigned lanes = 0, unroll = 0;
  if (!take(&p, "schedule")) return parse_error(ctx, "schedule", 1);
  s.axis_count = limited(&p, CMZ_HIDDEN_AXIS);
  if (p.failed) return parse_error(ctx, "schedule", 1);
  s.axes = CMZ_NEW_ARRAY(arena, cmz_axis_schedule, s.axis_count);
  for (uint32_t i = 0; i < s.axis_count; i++) {
    unsigned tile, axis_unroll, axis_lanes, order, threads = 0;
    char w[48], extra;
    word(&p, w);
    int found =
        sscanf(w, "%u/%u/%u/%u/%u%c", &tile, &axis_unroll, &axis_lanes, &order, &threads, &extra);
    if (found != 4 && found != 5) return parse_error(ctx, "schedule", 1);
    s.axes[i] = (cmz_axis_schedule){tile, (uint16_t)axis_unroll, (uint16_t)axis_lanes,
                                    (uint8_t)order, (uint16_t)threads};
  }
  char w[48];
  if (!take(&p, "reduce")) return parse_error(ctx, "schedule", 1);
  word(&p, w);
  if (sscanf(w, "%u/%u", &lanes, &unroll) != 2) return parse_error(ctx, "schedule", 1);
  s.reduce_lanes = (uint16_t)lanes;
  s.reduce_unroll = (uint16_t)unroll;
  if (take(&p, "group")) {
    word(&p, w);
    unsigned fragments, second;
    if (sscanf(w, "%u/%u/%u/%u", &lanes, &unroll, &fragments, &second) != 4)
      return parse_error(ctx, "schedule", 1);
    s.group = (uint16_t)lanes;
    s.step = (uint16_t)unroll;
    s.fragments = (uint16_t)fragments;
    s.second = (uint16_t)second;
  }
  *schedule = s;
  return CMZ_OK;
}
