/* base.h - what every file of the compiler stands on: status codes, the context, arenas, growable
 * arrays, strings, files, hashing, checked arithmetic, diagnostics.
 *
 * Always holds: no function here prints, exits or aborts. Running out of memory (or past the
 * context's memory limit) longjmps to the library's entry point, which returns CMZ_E_MEMORY; all
 * memory belongs to arenas of the context and files are closed with it, so nothing leaks. */
#ifndef CMZ_IR_BASE_H
#define CMZ_IR_BASE_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Status of an operation. The numbers are pinned: they never change between versions. */
typedef enum cmz_status {
  CMZ_OK = 0,
  CMZ_E_INPUT = 1, /* the input (model, recipe, data) is malformed or inconsistent */
  /* Valid, but not something this compiler does; named in the message */
  CMZ_E_UNSUPPORTED = 2,
  CMZ_E_USAGE = 3,    /* wrong options */
  CMZ_E_IO = 4,       /* the operating system refused */
  CMZ_E_MEMORY = 5,   /* out of memory */
  CMZ_E_BUDGET = 6,   /* a tolerance or a size budget was not met */
  CMZ_E_INTERNAL = 7, /* a defect in cmzc */
} cmz_status;

/* Returns from the enclosing function when EXPR is not CMZ_OK. */
#define CMZ_TRY(expr)                                                                              \
  do {                                                                                             \
    cmz_status cmz_try_status_ = (expr);                                                           \
    if (__builtin_expect(cmz_try_status_ != CMZ_OK, 0)) return cmz_try_status_;                    \
  } while (0)

#define CMZ_COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))
#define CMZ_MIN(a, b) ((a) < (b) ? (a) : (b))
#define CMZ_MAX(a, b) ((a) > (b) ? (a) : (b))
#define CMZ_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))

typedef struct cmz_context cmz_context;
typedef struct cmz_arena cmz_arena;

/* ---- arenas ---- */

/* Creates an arena whose exhaustion unwinds through CTX. Freed by cmz_arena_destroy, or with CTX.
 */
cmz_arena *cmz_arena_create(cmz_context *ctx);
void cmz_arena_destroy(cmz_arena *arena);
/* SIZE bytes, zeroed, 16-byte aligned; never NULL (SIZE 0 gives a valid pointer). */
void *cmz_arena_alloc(cmz_arena *arena, size_t size);
/* COUNT * SIZE with an overflow check. */
void *cmz_arena_array(cmz_arena *arena, size_t count, size_t size);
void *cmz_arena_copy(cmz_arena *arena, const void *data, size_t size);
char *cmz_arena_string(cmz_arena *arena, const char *text); /* NULL gives "" */
char *cmz_arena_printf(cmz_arena *arena, const char *format, ...) CMZ_PRINTF(2, 3);
char *cmz_arena_vprintf(cmz_arena *arena, const char *format, va_list args);
size_t cmz_arena_bytes(const cmz_arena *arena);
/* Position in an arena and return to it: memory taken since is reused. */
typedef struct cmz_arena_mark {
  void *block;
  size_t used;
} cmz_arena_mark;
cmz_arena_mark cmz_arena_save(cmz_arena *arena);
void cmz_arena_restore(cmz_arena *arena, cmz_arena_mark mark);

#define CMZ_NEW(arena, T) ((T *)cmz_arena_alloc((arena), sizeof(T)))
#define CMZ_NEW_ARRAY(arena, T, n) ((T *)cmz_arena_array((arena), (n), sizeof(T)))

/* ---- growable arrays in an arena: struct { T *data; uint32_t count, capacity; } ---- */
#define CMZ_VEC(T)                                                                                 \
  struct {                                                                                         \
    T *data;                                                                                       \
    uint32_t count, capacity;                                                                      \
  }
/* Grows the untyped vector at VEC so that one more item of ITEM_SIZE fits. */
void cmz_vec_reserve_one(cmz_arena *arena, void *vec, size_t item_size);
#define cmz_vec_push(arena, vec, item)                                                             \
  do {                                                                                             \
    if ((vec)->count == (vec)->capacity) cmz_vec_reserve_one((arena), (vec), sizeof *(vec)->data); \
    (vec)->data[(vec)->count++] = (item);                                                          \
  } while (0)

/* ---- string builder ---- */
typedef struct cmz_text {
  cmz_arena *arena;
  char *data; /* always NUL-terminated once something was added */
  size_t length, capacity;
} cmz_text;
void cmz_text_add(cmz_text *text, const char *format, ...) CMZ_PRINTF(2, 3);
void cmz_text_add_bytes(cmz_text *text, const void *data, size_t size);

/* ---- context ---- */
typedef enum cmz_severity { CMZ_NOTE, CMZ_WARNING, CMZ_ERROR } cmz_severity;

/* Where a message points to; every field may be NULL. */
typedef struct cmz_loc {
  const char *file;   /* model or recipe as the user named it */
  const char *node;   /* source node's name */
  const char *op;     /* its operator */
  const char *tensor; /* value, initialiser or option */
} cmz_loc;

typedef struct cmz_diagnostic {
  cmz_severity severity;
  cmz_status code;
  cmz_loc loc;
  const char *message;
  const char *hint; /* or NULL */
} cmz_diagnostic;

typedef struct cmz_context_options {
  /* Called for each message; may be NULL */
  void (*sink)(void *user, const cmz_diagnostic *diagnostic);
  void *user;
  bool warnings_are_errors;
  size_t memory_limit; /* bytes of arena memory; 0: none */
} cmz_context_options;

struct cmz_context {
  cmz_context_options options;
  cmz_arena *arena; /* lives as long as the context */
  CMZ_VEC(cmz_diagnostic) diagnostics;
  uint32_t error_count;
  jmp_buf *out_of_memory;   /* set by the library's entry points around their work */
  struct cmz_arena *arenas; /* all arenas, for destruction */
  struct cmz_file *files;   /* all mapped files, likewise */
  size_t memory_bytes;      /* of all arenas now */
};

/* NULL when out of memory */
cmz_context *cmz_context_create(const cmz_context_options *options);
void cmz_context_destroy(cmz_context *ctx);

/* Records an error at LOC and returns CODE, so that `return cmz_fail(...)` is the idiom. */
cmz_status cmz_fail(cmz_context *ctx, cmz_status code, cmz_loc loc, const char *format, ...)
    CMZ_PRINTF(4, 5);
/* The same with a hint: what the user can do about it. */
cmz_status cmz_fail_hint(cmz_context *ctx, cmz_status code, cmz_loc loc, const char *hint,
                         const char *format, ...) CMZ_PRINTF(5, 6);
void cmz_warn(cmz_context *ctx, cmz_loc loc, const char *format, ...) CMZ_PRINTF(3, 4);
/* `model.onnx: node "Conv_12" (Conv): error: message` (and `hint: …` on a second line). */
void cmz_diagnostic_format(cmz_text *text, const cmz_diagnostic *diagnostic);

/* ---- files ---- */
typedef struct cmz_file {
  const char *path;
  const uint8_t *data; /* mapped read-only; NULL only when size is 0 */
  size_t size;
  struct cmz_file *next;
} cmz_file;
/* Maps PATH; unmapped with the context. CMZ_E_IO with a message when it cannot be read. */
cmz_status cmz_file_map(cmz_context *ctx, const char *path, const cmz_file **file);
/* Writes PATH under a temporary name beside it and renames: PATH is whole or untouched. */
cmz_status cmz_file_write(cmz_context *ctx, const char *path, const void *data, size_t size);
/* The same for an already written temporary file. */
cmz_status cmz_file_commit(cmz_context *ctx, const char *temporary, const char *path);

/* ---- hashing (stable between versions and machines: keys of the kernel cache) ---- */
typedef struct cmz_hash128 {
  uint64_t lo, hi;
} cmz_hash128;
uint64_t cmz_hash64(const void *data, size_t size, uint64_t seed);
cmz_hash128 cmz_hash_bytes(const void *data, size_t size);

/* ---- checked arithmetic: false when the result does not fit ---- */
static inline bool cmz_mul_size(size_t a, size_t b, size_t *out) {
  return !__builtin_mul_overflow(a, b, out);
}
static inline bool cmz_add_size(size_t a, size_t b, size_t *out) {
  return !__builtin_add_overflow(a, b, out);
}
static inline bool cmz_mul_i64(int64_t a, int64_t b, int64_t *out) {
  return !__builtin_mul_overflow(a, b, out);
}
static inline bool cmz_add_i64(int64_t a, int64_t b, int64_t *out) {
  return !__builtin_add_overflow(a, b, out);
}
/* Floor division and the matching remainder for any signs; B != 0. */
static inline int64_t cmz_floor_div(int64_t a, int64_t b) {
  return a / b - ((a % b != 0) && ((a < 0) != (b < 0)));
}
static inline int64_t cmz_floor_mod(int64_t a, int64_t b) {
  int64_t r = a % b;
  return (r != 0 && ((r < 0) != (b < 0))) ? r + b : r;
}
static inline size_t cmz_align_up(size_t value, size_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

#endif
