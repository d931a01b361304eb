/* mutate_onnx.c - structure-aware mutation of ONNX models against the compiler's front half.
 * In: model files. Each mutant is a model taken apart into its protobuf fields by the facts of the
 * schema, changed in a few places, and put together again; it goes through the importer and the
 * passes in this process, under whatever sanitizers it was built with. Out: "N mutants, M past the
 * reader, K findings"; a finding (crash, hang, internal error, inconsistent module) is printed with
 * its seed, and `-k FILE` writes the mutant of one seed for keeping. Always holds: a mutant depends
 * only on the file, its seed and the number of mutations. */
#define _GNU_SOURCE
#include "../../frontend/importers.h"
#include "../../ir/op.h"
#include "../../passes/passes.h"
#include "mutate_text.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a mutant has freed is soon used again: most of the time would go into fresh pages else. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
  return "quarantine_size_mb=1:allocator_release_to_os_interval_ms=-1:detect_leaks=0";
}

/* ---- what the schema says: which fields hold messages, strings, numbers ---- */

typedef enum content {
  BYTES,
  STRING,
  MESSAGE,
  INTEGER,
  PACKED_INTEGERS,
  PACKED_FIXED,
  NAME_OF_OP
} content;
typedef enum message {
  MODEL,
  OPSET,
  ENTRY,
  GRAPH,
  NODE,
  FUNCTION,
  ATTRIBUTE,
  VALUE_INFO,
  TYPE,
  TENSOR_TYPE,
  WRAPPED_TYPE,
  SHAPE,
  DIMENSION,
  SPARSE,
  TENSOR,
  SEGMENT,
  MESSAGE_COUNT
} message;
typedef struct field_fact {
  message in;
  uint32_t number;
  content kind;
  message of;
} field_fact;

static const field_fact facts[] = {
    {MODEL, 1, INTEGER, 0},
    {MODEL, 7, MESSAGE, GRAPH},
    {MODEL, 8, MESSAGE, OPSET},
    {MODEL, 14, MESSAGE, ENTRY},
    {MODEL, 25, MESSAGE, FUNCTION},
    {OPSET, 1, STRING, 0},
    {OPSET, 2, INTEGER, 0},
    {ENTRY, 1, STRING, 0},
    {ENTRY, 2, STRING, 0},
    {GRAPH, 1, MESSAGE, NODE},
    {GRAPH, 2, STRING, 0},
    {GRAPH, 5, MESSAGE, TENSOR},
    {GRAPH, 11, MESSAGE, VALUE_INFO},
    {GRAPH, 12, MESSAGE, VALUE_INFO},
    {GRAPH, 13, MESSAGE, VALUE_INFO},
    {GRAPH, 15, MESSAGE, SPARSE},
    {NODE, 1, STRING, 0},
    {NODE, 2, STRING, 0},
    {NODE, 3, STRING, 0},
    {NODE, 4, NAME_OF_OP, 0},
    {NODE, 5, MESSAGE, ATTRIBUTE},
    {NODE, 7, STRING, 0},
    {FUNCTION, 1, STRING, 0},
    {FUNCTION, 4, STRING, 0},
    {FUNCTION, 5, STRING, 0},
    {FUNCTION, 7, MESSAGE, NODE},
    {FUNCTION, 9, MESSAGE, OPSET},
    {FUNCTION, 10, STRING, 0},
    {ATTRIBUTE, 1, STRING, 0},
    {ATTRIBUTE, 3, INTEGER, 0},
    {ATTRIBUTE, 4, STRING, 0},
    {ATTRIBUTE, 5, MESSAGE, TENSOR},
    {ATTRIBUTE, 6, MESSAGE, GRAPH},
    {ATTRIBUTE, 7, PACKED_FIXED, 0},
    {ATTRIBUTE, 8, PACKED_INTEGERS, 0},
    {ATTRIBUTE, 9, STRING, 0},
    {ATTRIBUTE, 14, MESSAGE, TYPE},
    {ATTRIBUTE, 20, INTEGER, 0},
    {ATTRIBUTE, 22, MESSAGE, SPARSE},
    {VALUE_INFO, 1, STRING, 0},
    {VALUE_INFO, 2, MESSAGE, TYPE},
    {TYPE, 1, MESSAGE, TENSOR_TYPE},
    {TYPE, 4, MESSAGE, WRAPPED_TYPE},
    {TYPE, 8, MESSAGE, TENSOR_TYPE},
    {TYPE, 9, MESSAGE, WRAPPED_TYPE},
    {TENSOR_TYPE, 1, INTEGER, 0},
    {TENSOR_TYPE, 2, MESSAGE, SHAPE},
    {WRAPPED_TYPE, 1, MESSAGE, TYPE},
    {SHAPE, 1, MESSAGE, DIMENSION},
    {DIMENSION, 1, INTEGER, 0},
    {DIMENSION, 2, STRING, 0},
    {SPARSE, 1, MESSAGE, TENSOR},
    {SPARSE, 2, MESSAGE, TENSOR},
    {SPARSE, 3, PACKED_INTEGERS, 0},
    {TENSOR, 1, PACKED_INTEGERS, 0},
    {TENSOR, 2, INTEGER, 0},
    {TENSOR, 3, MESSAGE, SEGMENT},
    {TENSOR, 4, PACKED_FIXED, 0},
    {TENSOR, 5, PACKED_INTEGERS, 0},
    {TENSOR, 6, STRING, 0},
    {TENSOR, 7, PACKED_INTEGERS, 0},
    {TENSOR, 8, STRING, 0},
    {TENSOR, 9, BYTES, 0},
    {TENSOR, 10, PACKED_FIXED, 0},
    {TENSOR, 11, PACKED_INTEGERS, 0},
    {TENSOR, 13, MESSAGE, ENTRY},
    {TENSOR, 14, INTEGER, 0},
    {SEGMENT, 1, INTEGER, 0},
    {SEGMENT, 2, INTEGER, 0},
};

static const field_fact *fact_of(message in, uint32_t number) {
  for (size_t i = 0; i < CMZ_COUNT_OF(facts); i++)
    if (facts[i].in == in && facts[i].number == number) return &facts[i];
  return NULL;
}

/* ---- a model as a tree of fields ---- */

typedef struct field field;
typedef CMZ_VEC(field) field_vec;
struct field {
  uint32_t number, wire; /* 0 varint, 1 eight bytes, 2 sized, 5 four bytes */
  const field_fact *fact;
  uint64_t value;
  const uint8_t *data; /* sized fields that are no messages */
  size_t size;
  field_vec *fields; /* messages */
};

/* A message of the tree with its own kind, for picking. */
typedef struct place {
  message kind;
  field_vec *fields;
} place;
typedef CMZ_VEC(place) place_vec;

static bool read_varint(const uint8_t **at, const uint8_t *end, uint64_t *value) {
  *value = 0;
  for (unsigned shift = 0; shift < 64 && *at < end; shift += 7) {
    uint8_t byte = *(*at)++;
    *value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

static bool parse_message(cmz_arena *arena, message kind, const uint8_t *at, const uint8_t *end,
                          int depth, field_vec *out) {
  while (at < end) {
    uint64_t key;
    if (!read_varint(&at, end, &key)) return false;
    field f = {.number = (uint32_t)(key >> 3),
               .wire = key & 7,
               .fact = fact_of(kind, (uint32_t)(key >> 3))};
    size_t fixed = f.wire == 1 ? 8 : f.wire == 5 ? 4 : 0;
    if (f.wire == 0 || f.wire == 2) {
      if (!read_varint(&at, end, &f.value)) return false;
    } else if (!fixed) return false;
    f.size = f.wire == 2 ? (size_t)f.value : fixed;
    if (f.size > (size_t)(end - at)) return false;
    f.data = at;
    at += f.size;
    if (f.wire == 2 && f.fact && f.fact->kind == MESSAGE && depth < 60) {
      f.fields = CMZ_NEW(arena, field_vec);
      if (!parse_message(arena, f.fact->of, f.data, f.data + f.size, depth + 1, f.fields))
        return false;
    }
    cmz_vec_push(arena, out, f);
  }
  return true;
}

static size_t varint_size(uint64_t value) {
  size_t size = 1;
  while (value >>= 7) size++;
  return size;
}

static uint8_t *write_varint(uint8_t *to, uint64_t value) {
  for (; value > 0x7f; value >>= 7) *to++ = (uint8_t)(value | 0x80);
  *to++ = (uint8_t)value;
  return to;
}

enum { DEEPEST = 80 };

/* The size of a message as written; notes those of the messages in it. */
static size_t measure(field_vec *fields, int depth) {
  size_t size = 0;
  for (uint32_t i = 0; i < fields->count; i++) {
    field *f = &fields->data[i];
    if (f->wire == 2 && f->fields) f->size = depth < DEEPEST ? measure(f->fields, depth + 1) : 0;
    size += varint_size((uint64_t)f->number << 3 | f->wire);
    size += f->wire == 0 ? varint_size(f->value) : f->size;
    if (f->wire == 2) size += varint_size(f->size);
  }
  return size;
}

/* After `measure`, so that nothing is copied twice. */
static uint8_t *write_message(const field_vec *fields, int depth, uint8_t *to) {
  for (uint32_t i = 0; i < fields->count; i++) {
    const field *f = &fields->data[i];
    to = write_varint(to, (uint64_t)f->number << 3 | f->wire);
    if (f->wire == 0) to = write_varint(to, f->value);
    if (f->wire == 2) to = write_varint(to, f->size);
    if (f->wire == 2 && f->fields) {
      if (depth < DEEPEST) to = write_message(f->fields, depth + 1, to);
    } else if (f->size) {
      memcpy(to, f->data, f->size);
      to += f->size;
    }
  }
  return to;
}

static void collect(cmz_arena *arena, message kind, field_vec *fields, int depth, place_vec *out) {
  cmz_vec_push(arena, out, ((place){kind, fields}));
  for (uint32_t i = 0; i < fields->count && depth < 80; i++)
    if (fields->data[i].fields)
      collect(arena, fields->data[i].fact->of, fields->data[i].fields, depth + 1, out);
}

static field_vec *copy_fields(cmz_arena *arena, const field_vec *from, int depth) {
  field_vec *copy = CMZ_NEW(arena, field_vec);
  for (uint32_t i = 0; i < from->count; i++) {
    field f = from->data[i];
    if (f.fields && depth < 80) f.fields = copy_fields(arena, f.fields, depth + 1);
    cmz_vec_push(arena, copy, f);
  }
  return copy;
}

/* ---- mutations ---- */

typedef struct mutator {
  cmz_arena *arena;
  uint64_t state;
  place_vec places;
  uint32_t op_count;
} mutator;

static uint64_t draw(mutator *m) { /* splitmix64 */
  uint64_t z = m->state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static uint32_t below(mutator *m, uint32_t n) { return n ? (uint32_t)(draw(m) >> 32) % n : 0; }

static uint64_t edge_value(mutator *m, uint64_t old) {
  static const uint64_t edges[] = {0,
                                   1,
                                   2,
                                   3,
                                   4,
                                   5,
                                   7,
                                   8,
                                   16,
                                   31,
                                   64,
                                   255,
                                   256,
                                   65535,
                                   1u << 20,
                                   INT32_MAX,
                                   1u << 31,
                                   UINT32_MAX,
                                   (uint64_t)1 << 40,
                                   INT64_MAX,
                                   (uint64_t)INT64_MAX + 1,
                                   UINT64_MAX,
                                   UINT64_MAX - 1,
                                   UINT64_MAX - 3};
  switch (below(m, 4)) {
  case 0:
    return old + 1;
  case 1:
    return old - 1;
  default:
    return edges[below(m, CMZ_COUNT_OF(edges))];
  }
}

/* Some message, each kind with the same chance, so that the many initializers do not drown the
 * rest. */
static place *pick_place(mutator *m) {
  for (uint32_t tries = 0; tries < 1000; tries++) {
    message kind = (message)below(m, MESSAGE_COUNT);
    uint32_t start = below(m, m->places.count);
    for (uint32_t i = 0; i < m->places.count; i++) {
      place *p = &m->places.data[(start + i) % m->places.count];
      if (p->kind == kind && p->fields->count > 0) return p;
    }
  }
  return NULL; /* nothing is left */
}

/* Another field with the same meaning, from anywhere in the model. */
static const field *pick_alike(mutator *m, const field_fact *fact) {
  uint32_t start = below(m, m->places.count);
  for (uint32_t i = 0; i < m->places.count; i++) {
    const place *p = &m->places.data[(start + i) % m->places.count];
    if (p->kind != fact->in || p->fields->count == 0) continue;
    uint32_t from = below(m, p->fields->count);
    for (uint32_t j = 0; j < p->fields->count; j++) {
      const field *f = &p->fields->data[(from + j) % p->fields->count];
      if (f->fact == fact) return f;
    }
  }
  return NULL;
}

/* A name read or written by some node: makes cycles, duplicates and reads across scopes. */
static const field *pick_value_name(mutator *m) {
  static const uint32_t numbers[] = {1, 2};
  const field_fact *fact = fact_of(NODE, numbers[below(m, 2)]);
  return pick_alike(m, fact);
}

static void set_string(mutator *m, field *f, const char *text) {
  f->data = cmz_arena_copy(m->arena, text, strlen(text));
  f->size = strlen(text);
}

static void change_string(mutator *m, field *f) {
  static const char *const words[] = {
      "",       "x",     "ai.onnx", "com.microsoft", "SAME_UPPER",  "VALID",
      "linear", "cubic", "reflect", "edge",          "a/b\\c\"d\n", "bidirectional",
      "axis",   "axes",  "pads",    "mode",          "cmz",         "\xff\xfe"};
  const field *other;
  switch (below(m, 4)) {
  case 0:
    other = pick_value_name(m);
    if (other) f->data = other->data, f->size = other->size;
    break;
  case 1:
    set_string(m, f, words[below(m, CMZ_COUNT_OF(words))]);
    break;
  case 2:
    other = pick_alike(m, f->fact);
    if (other) f->data = other->data, f->size = other->size;
    break;
  default:
    f->size = below(m, (uint32_t)CMZ_MIN(f->size, (size_t)1000) + 1);
  }
}

static void change_op(mutator *m, field *f) {
  const cmz_op *op = cmz_op_at(below(m, m->op_count));
  const field *other = pick_alike(m, f->fact);
  if (below(m, 4) == 0 && other) f->data = other->data, f->size = other->size;
  else set_string(m, f, op->name);
}

static void change_packed_integers(mutator *m, field *f) {
  CMZ_VEC(uint64_t) values = {0};
  const uint8_t *at = f->data;
  uint64_t v;
  while (values.count < 4096 && at < f->data + f->size && read_varint(&at, f->data + f->size, &v))
    cmz_vec_push(m->arena, &values, v);
  uint32_t which = below(m, values.count);
  switch (below(m, 4)) {
  case 0:
    cmz_vec_push(m->arena, &values, edge_value(m, 1));
    break;
  case 1:
    if (values.count) values.count--;
    break;
  default:
    if (values.count) values.data[which] = edge_value(m, values.data[which]);
  }
  cmz_text out = {.arena = m->arena};
  for (uint32_t i = 0; i < values.count; i++) {
    uint8_t bytes[10];
    cmz_text_add_bytes(&out, bytes, (size_t)(write_varint(bytes, values.data[i]) - bytes));
  }
  f->data = out.length ? (const uint8_t *)out.data : f->data;
  f->size = out.length;
}

/* Longer, shorter, or other numbers in a payload. */
static void change_bytes(mutator *m, field *f) {
  size_t size = CMZ_MIN(f->size, (size_t)1 << 16);
  uint8_t *copy = cmz_arena_alloc(m->arena, size + 64);
  memcpy(copy, f->data, size);
  static const uint64_t patterns[] = {0,
                                      1,
                                      UINT64_MAX,
                                      0x7fc000007fc00000u,
                                      0x7f8000007f800000u,
                                      (uint64_t)INT64_MAX,
                                      0x80000000u,
                                      0x3f8000003f800000u,
                                      (uint64_t)1 << 63,
                                      1000000007u,
                                      4};
  switch (below(m, 5)) {
  case 0:
    f->size = below(m, (uint32_t)size + 1);
    break;
  case 1:
    f->size = size + below(m, 64);
    break;
  case 2:
    if (size) copy[below(m, (uint32_t)size)] ^= (uint8_t)(1u << below(m, 8));
    f->size = size;
    break;
  default: {
    uint64_t pattern = patterns[below(m, CMZ_COUNT_OF(patterns))];
    size_t at = size >= 8 ? below(m, (uint32_t)(size / 8)) * 8u : 0;
    memcpy(copy + at, &pattern, CMZ_MIN(size - at, (size_t)8));
    f->size = size;
  }
  }
  if (f->wire != 2) f->size = CMZ_MIN(size, f->size) == size ? size : f->size;
  f->data = copy;
}

static void change_value(mutator *m, field *f) {
  if (f->wire == 0) {
    f->value = edge_value(m, f->value);
    return;
  }
  if (f->wire != 2) {
    size_t size = f->size;
    change_bytes(m, f);
    f->size = size; /* the wire type fixes it; the copy has room */
    return;
  }
  content k = f->fact ? f->fact->kind : BYTES;
  if (k == STRING) change_string(m, f);
  else if (k == NAME_OF_OP) change_op(m, f);
  else if (k == PACKED_INTEGERS) change_packed_integers(m, f);
  else if (k == MESSAGE && f->fields) {
    const field *other = pick_alike(m, f->fact);
    if (other && other->fields) f->fields = copy_fields(m->arena, other->fields, 0);
  } else change_bytes(m, f);
}

/* A field of the message's kind that it may not have yet, copied from elsewhere or made up. */
static void add_field(mutator *m, place *p) {
  const field_fact *fact = &facts[below(m, CMZ_COUNT_OF(facts))];
  for (uint32_t tries = 0; fact->in != p->kind && tries < 200; tries++)
    fact = &facts[below(m, CMZ_COUNT_OF(facts))];
  if (fact->in != p->kind) return;
  const field *other = pick_alike(m, fact);
  field f = {
      .number = fact->number, .fact = fact, .wire = 2, .data = (const uint8_t *)"", .size = 0};
  if (other) f = *other;
  else if (fact->kind == INTEGER) f.wire = 0, f.value = edge_value(m, 1);
  else if (fact->kind == STRING) change_string(m, &f);
  if (f.fields) f.fields = copy_fields(m->arena, f.fields, 0);
  cmz_vec_push(m->arena, p->fields, f);
}

/* Some node becomes another operator, with the inputs and attributes that it happens to have. */
static void retype_node(mutator *m) {
  const field *name = pick_alike(m, fact_of(NODE, 4));
  if (name) change_op(m, (field *)(uintptr_t)name);
}

static void mutate(mutator *m) {
  if (below(m, 5) == 0) {
    retype_node(m);
    return;
  }
  place *p = pick_place(m);
  if (!p) return;
  uint32_t which = below(m, p->fields->count), other = below(m, p->fields->count);
  field *fields = p->fields->data, swap;
  switch (below(m, 10)) {
  case 0: /* duplicate */
    swap = fields[which];
    if (swap.fields) swap.fields = copy_fields(m->arena, swap.fields, 0);
    cmz_vec_push(m->arena, p->fields, swap);
    break;
  case 1: /* delete */
    memmove(&fields[which], &fields[which + 1], (p->fields->count - which - 1) * sizeof *fields);
    p->fields->count--;
    break;
  case 2: /* another order */
    swap = fields[which];
    fields[which] = fields[other];
    fields[other] = swap;
    break;
  case 3:
    add_field(m, p);
    break;
  default:
    change_value(m, &fields[which]);
  }
}

/* The mutant of SEED; the root lives in ARENA and points into DATA. */
static void make_mutant(cmz_arena *arena, const uint8_t *data, size_t size, uint64_t seed,
                        uint32_t mutations, field_vec *root) {
  mutator m = {.arena = arena, .state = seed * 0x2545f4914f6cdd1du + 1};
  while (cmz_op_at(m.op_count)) m.op_count++;
  if (!parse_message(arena, MODEL, data, data + size, 0, root)) return;
  for (uint32_t i = 0, count = mutations ? 1 + below(&m, mutations) : 0; i < count; i++) {
    m.places.count = 0;
    collect(arena, MODEL, root, 0, &m.places);
    mutate(&m);
  }
}

/* ---- running mutants ---- */

typedef struct options {
  uint64_t first_seed;
  uint64_t count;
  uint32_t mutations;
  const char *keep, *last_pass;
  const char *text_pass; /* not the model is mutated but its text form after this pass */
  bool text;             /* what comes out must survive being printed and parsed */
} options;

/* Shared with the children, so that a crash does not lose it. */
typedef struct tally {
  uint64_t seed; /* the mutant being run */
  uint64_t mutants, read, compiled;
  char finding[600]; /* of a mutant that did not crash but is a finding */
} tally;

static void note_internal(void *user, const cmz_diagnostic *d) {
  tally *t = user;
  if (d->code == CMZ_E_INTERNAL && d->severity == CMZ_ERROR)
    snprintf(t->finding, sizeof t->finding, "internal error: node %s (%s): %s",
             d->loc.node ? d->loc.node : "-", d->loc.op ? d->loc.op : "-", d->message);
}

static cmz_status check_text(cmz_context *ctx, const cmz_module *m, tally *t) {
  cmz_text first = {.arena = m->arena}, second = {.arena = m->arena}, bytes = {.arena = m->arena};
  cmz_module *back;
  cmz_module_print(m, &first, &bytes);
  cmz_file weights = {.path = "weights", .data = (const uint8_t *)bytes.data, .size = bytes.length};
  cmz_status status = cmz_module_parse(ctx, "text", first.data, first.length, &weights, &back);
  if (status != CMZ_OK) {
    const cmz_diagnostic *d = &ctx->diagnostics.data[ctx->diagnostics.count - 1];
    snprintf(t->finding, sizeof t->finding, "text form: %s: %s", d->loc.file ? d->loc.file : "",
             d->message);
    return status;
  }
  bytes.length = 0;
  cmz_module_print(back, &second, &bytes);
  if (strcmp(first.data, second.data) != 0)
    snprintf(t->finding, sizeof t->finding, "the text form changes when it is parsed and printed");
  return CMZ_OK;
}

static cmz_status run_passes(cmz_context *ctx, cmz_module *module, const char *last, bool verify) {
  cmz_target target;
  CMZ_TRY(cmz_target_parse(ctx, NULL, "x86-64-v3", NULL, &target));
  cmz_pass_run run = {.optimise = 2, .target = &target, .stop_after = last, .verify = verify};
  return cmz_passes_run(&run, module);
}

static cmz_status compile(cmz_context *ctx, const char *path, const options *o, tally *t) {
  cmz_module *module;
  CMZ_TRY(cmz_onnx_import(ctx, path, &module));
  t->read++;
  CMZ_TRY(cmz_module_verify(module));
  CMZ_TRY(run_passes(ctx, module, o->last_pass, true));
  t->compiled++;
  return o->text ? check_text(ctx, module, t) : CMZ_OK;
}

/* A file in memory that all mutants of a child are written to: its pages stay. */
typedef struct sheet {
  int descriptor;
  uint8_t *data;
  size_t capacity;
} sheet;

static sheet make_sheet(size_t size) {
  sheet s = {.descriptor = memfd_create("mutant", 0), .capacity = 2 * size + (1 << 20)};
  if (s.descriptor < 0 || ftruncate(s.descriptor, (off_t)s.capacity) != 0) _exit(3);
  s.data = mmap(NULL, s.capacity, PROT_READ | PROT_WRITE, MAP_SHARED, s.descriptor, 0);
  if (s.data == MAP_FAILED) _exit(3);
  return s;
}

static void run_mutant(const sheet *s, const uint8_t *data, size_t size, uint64_t seed,
                       const options *o, tally *t) {
  jmp_buf target;
  cmz_context *ctx = cmz_context_create(
      &(cmz_context_options){.sink = note_internal, .user = t, .memory_limit = (size_t)1 << 30});
  if (!ctx) _exit(3);
  ctx->out_of_memory = &target;
  if (setjmp(target) == 0) {
    field_vec root = {0};
    make_mutant(ctx->arena, data, size, seed, o->mutations, &root);
    size_t length = measure(&root, 0);
    if (length <= s->capacity) write_message(&root, 0, s->data);
    else length = 0; /* grown past all measure: an empty file */
    if (ftruncate(s->descriptor, (off_t)length) != 0) _exit(3);
    if (o->keep) cmz_file_write(ctx, o->keep, s->data, length);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", s->descriptor);
    cmz_status status = compile(ctx, path, o, t);
    if (status != CMZ_OK && ctx->error_count == 0)
      snprintf(t->finding, sizeof t->finding, "status %d without a message", status);
  }
  cmz_context_destroy(ctx);
  if (ftruncate(s->descriptor, (off_t)s->capacity) != 0) _exit(3);
}

/* ---- the same with the text form ---- */

typedef struct written {
  cmz_text text, weights;
} written;

/* The text form of the model at PATH after pass PASS. Lives in CTX. */
static bool write_text(cmz_context *ctx, const char *path, const char *pass, written *out) {
  cmz_module *module;
  if (cmz_onnx_import(ctx, path, &module) != CMZ_OK ||
      run_passes(ctx, module, pass, false) != CMZ_OK)
    return false;
  *out = (written){.text = {.arena = ctx->arena}, .weights = {.arena = ctx->arena}};
  cmz_module_print(module, &out->text, &out->weights);
  return true;
}

static cmz_status compile_text(cmz_context *ctx, const written *w, const options *o, tally *t) {
  cmz_text text = mutate_text(ctx->arena, w->text.data, w->text.length, t->seed, o->mutations);
  if (o->keep) cmz_file_write(ctx, o->keep, text.data, text.length);
  cmz_file weights = {
      .path = "weights", .data = (const uint8_t *)w->weights.data, .size = w->weights.length};
  cmz_module *module;
  CMZ_TRY(cmz_module_parse(ctx, "mutant.cmz", text.data, text.length, &weights, &module));
  t->read++;
  CMZ_TRY(run_passes(ctx, module, o->last_pass, true));
  t->compiled++;
  return CMZ_OK;
}

static void run_text_mutant(const written *w, const options *o, tally *t) {
  jmp_buf target;
  cmz_context *ctx = cmz_context_create(
      &(cmz_context_options){.sink = note_internal, .user = t, .memory_limit = (size_t)1 << 30});
  if (!ctx) _exit(3);
  ctx->out_of_memory = &target;
  if (setjmp(target) == 0) {
    cmz_status status = compile_text(ctx, w, o, t);
    if (status != CMZ_OK && ctx->error_count == 0)
      snprintf(t->finding, sizeof t->finding, "status %d without a message", status);
  }
  cmz_context_destroy(ctx);
}

/* ---- batches ---- */

enum { BATCH = 500, PROCESSOR_SECONDS = 5, WALL_SECONDS = 60 };

/* A limit on processor time, so that a busy machine makes no findings; on wall time, for what
 * sleeps. */
static void limit_time(void) {
  setitimer(ITIMER_PROF, &(struct itimerval){.it_value.tv_sec = PROCESSOR_SECONDS}, NULL);
  alarm(WALL_SECONDS);
}

/* Runs seeds from FIRST in a child; returns the seed to go on with. */
static uint64_t run_batch(const char *path, const uint8_t *data, size_t size, uint64_t first,
                          uint64_t end, const options *o, tally *t, uint64_t *findings) {
  const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
  FILE *log = tmpfile();
  fflush(stdout);
  t->seed = first;
  t->finding[0] = 0;
  pid_t child = fork();
  if (child == 0) {
    dup2(fileno(log), STDERR_FILENO);
    sheet s = make_sheet(size);
    cmz_context *ctx = cmz_context_create(NULL);
    jmp_buf no_memory;
    written w;
    if (!ctx || setjmp(no_memory)) _exit(3);
    ctx->out_of_memory = &no_memory;
    if (o->text_pass && !write_text(ctx, path, o->text_pass, &w)) _exit(3);
    for (t->seed = first; t->seed < end && t->seed < first + BATCH; t->seed++) {
      limit_time();
      t->mutants++;
      if (o->text_pass) run_text_mutant(&w, o, t);
      else run_mutant(&s, data, size, t->seed, o, t);
      if (t->finding[0]) _exit(9);
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    fclose(log);
    return t->seed;
  }
  bool late = WIFSIGNALED(status) && (WTERMSIG(status) == SIGALRM || WTERMSIG(status) == SIGPROF);
  (*findings)++;
  printf("%s seed %" PRIu64 ": %s\n", name, t->seed,
         t->finding[0] ? t->finding
         : late        ? "takes too long"
                       : "crash");
  char line[1000];
  rewind(log);
  for (int shown = 0; shown < 14 && fgets(line, sizeof line, log);)
    if (strstr(line, "ERROR") || strstr(line, "runtime error") || strstr(line, "    #"))
      shown++, fputs(line, stdout);
  fclose(log);
  return t->seed + 1;
}

static bool read_whole(const char *path, uint8_t **data, size_t *size) {
  FILE *f = fopen(path, "rb");
  if (!f || fseek(f, 0, SEEK_END) != 0) return false;
  *size = (size_t)ftell(f);
  rewind(f);
  *data = malloc(*size + 1);
  bool ok = *data && fread(*data, 1, *size, f) == *size;
  fclose(f);
  return ok;
}

int main(int argc, char **argv) {
  options o = {.first_seed = 1, .count = 1000, .mutations = 3, .last_pass = "plan"};
  int c;
  while ((c = getopt(argc, argv, "n:s:m:k:p:x:t")) != -1) {
    if (c == 'n') o.count = strtoull(optarg, NULL, 10);
    else if (c == 's') o.first_seed = strtoull(optarg, NULL, 10);
    else if (c == 'm') o.mutations = (uint32_t)strtoul(optarg, NULL, 10);
    else if (c == 'k') o.keep = optarg;
    else if (c == 'p') o.last_pass = optarg;
    else if (c == 'x') o.text_pass = optarg;
    else if (c == 't') o.text = true;
    else {
      fprintf(stderr,
              "usage: %s [-n mutants per file] [-s first seed] [-m mutations at most] [-p last "
              "pass] [-t] [-x pass] [-k keep] model.onnx …\n",
              argv[0]);
      return 2;
    }
  }
  tally *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (t == MAP_FAILED) return 3;
  uint64_t findings = 0;
  for (int i = optind; i < argc; i++) {
    uint8_t *data;
    size_t size;
    if (!read_whole(argv[i], &data, &size)) {
      fprintf(stderr, "%s: cannot be read\n", argv[i]);
      return 2;
    }
    for (uint64_t seed = o.first_seed, end = o.first_seed + o.count; seed < end;)
      seed = run_batch(argv[i], data, size, seed, end, &o, t, &findings);
    free(data);
  }
  printf("%" PRIu64 " mutants, %" PRIu64 " past the reader, %" PRIu64
         " through all passes, %" PRIu64 " findings\n",
         t->mutants, t->read, t->compiled, findings);
  return findings != 0;
}
