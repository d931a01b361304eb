/* arena.c - memory of the compiler: arenas of geometrically growing blocks, growable arrays in
 * them, strings. In: sizes. Out: zeroed, 16-byte aligned memory that lives until the arena is
 * restored or destroyed. Always holds: bytes of a block at or past `dirty` are zero, so that only
 * reused memory is cleared; an allocation never returns NULL: failure longjmps to
 * ctx->out_of_memory with value 1. Entry points of the library and unit tests set that target
 * before they call anything here; there is no other way out. */
#include "base.h"

#include <stdio.h>
#include <stdlib.h>

/* In a build with AddressSanitizer every allocation ends in a guard, and what is not allocated, was
 * given back by restore, or was left behind by a growing array, may not be touched. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
enum { GUARD = 16 };
#define HIDE(memory, size) ASAN_POISON_MEMORY_REGION(memory, size)
#define SHOW(memory, size) ASAN_UNPOISON_MEMORY_REGION(memory, size)
#else
enum { GUARD = 0 };
#define HIDE(memory, size) ((void)(memory), (void)(size))
#define SHOW(memory, size) ((void)(memory), (void)(size))
#endif

enum { FIRST_BLOCK = 4096, LARGEST_GROWTH = GUARD ? 128 << 10 : 4 << 20, ALIGNMENT = 16 };

typedef struct block {
  struct block *older;
  size_t capacity, used, dirty;
  size_t padding[4]; /* the payload starts on a cache line of malloc's alignment */
} block;

struct cmz_arena {
  cmz_context *ctx;
  struct cmz_arena *previous, *next; /* the context's list */
  block *newest;
  block *spare; /* one block kept by restore, so that save/restore loops do not call malloc */
  size_t bytes; /* of all blocks */
};

static uint8_t *payload(block *b) { return (uint8_t *)b + sizeof(block); }

static _Noreturn void out_of_memory(cmz_context *ctx) { longjmp(*ctx->out_of_memory, 1); }

static cmz_arena *arena_try_create(cmz_context *ctx) {
  cmz_arena *arena = calloc(1, sizeof *arena);
  if (!arena) return NULL;
  arena->ctx = ctx;
  arena->next = ctx->arenas;
  if (ctx->arenas) ctx->arenas->previous = arena;
  ctx->arenas = arena;
  return arena;
}

cmz_arena *cmz_arena_create(cmz_context *ctx) {
  cmz_arena *arena = arena_try_create(ctx);
  if (!arena) out_of_memory(ctx);
  return arena;
}

static void free_block(cmz_arena *arena, block *b) {
  size_t size = b->capacity + sizeof(block);
  arena->bytes -= size;
  arena->ctx->memory_bytes -= size;
  SHOW(payload(b), b->capacity);
  free(b);
}

void cmz_arena_destroy(cmz_arena *arena) {
  if (!arena) return;
  while (arena->newest) {
    block *older = arena->newest->older;
    free_block(arena, arena->newest);
    arena->newest = older;
  }
  if (arena->spare) free_block(arena, arena->spare);
  if (arena->previous) arena->previous->next = arena->next;
  else arena->ctx->arenas = arena->next;
  if (arena->next) arena->next->previous = arena->previous;
  free(arena);
}

/* Makes a block with room for SIZE bytes the newest one. */
static void add_block(cmz_arena *arena, size_t size) {
  block *b = arena->spare;
  if (b && b->capacity >= size) {
    arena->spare = NULL;
    b->used = 0;
  } else {
    size_t capacity = arena->newest ? arena->newest->capacity * 2 : FIRST_BLOCK;
    capacity = CMZ_MIN(capacity, (size_t)LARGEST_GROWTH);
    capacity = CMZ_MAX(capacity, size);
    size_t total, limit = arena->ctx->options.memory_limit, all;
    if (!cmz_add_size(capacity, sizeof(block), &total)) out_of_memory(arena->ctx);
    if (!cmz_add_size(arena->ctx->memory_bytes, total, &all)) out_of_memory(arena->ctx);
    if (limit && all > limit) out_of_memory(arena->ctx);
    b = calloc(1, total);
    if (!b) out_of_memory(arena->ctx);
    b->capacity = capacity;
    HIDE(payload(b), capacity);
    arena->bytes += total;
    arena->ctx->memory_bytes = all;
  }
  b->older = arena->newest;
  arena->newest = b;
}

void *cmz_arena_alloc(cmz_arena *arena, size_t size) {
  if (size > SIZE_MAX / 2) out_of_memory(arena->ctx);
  size_t asked = size;
  size = cmz_align_up(size ? size : 1, ALIGNMENT) + GUARD;
  block *b = arena->newest;
  if (!b || b->capacity - b->used < size) {
    add_block(arena, size);
    b = arena->newest;
  }
  uint8_t *memory = payload(b) + b->used;
  SHOW(memory, size);
  if (b->used < b->dirty) memset(memory, 0, CMZ_MIN(size, b->dirty - b->used));
  b->used += size;
  if (b->dirty < b->used) b->dirty = b->used;
  HIDE(memory + asked, size - asked);
  return memory;
}

void *cmz_arena_array(cmz_arena *arena, size_t count, size_t size) {
  size_t bytes;
  if (!cmz_mul_size(count, size, &bytes)) out_of_memory(arena->ctx);
  return cmz_arena_alloc(arena, bytes);
}

void *cmz_arena_copy(cmz_arena *arena, const void *data, size_t size) {
  void *copy = cmz_arena_alloc(arena, size);
  if (size) memcpy(copy, data, size);
  return copy;
}

char *cmz_arena_string(cmz_arena *arena, const char *text) {
  if (!text) text = "";
  return cmz_arena_copy(arena, text, strlen(text) + 1);
}

char *cmz_arena_vprintf(cmz_arena *arena, const char *format, va_list args) {
  va_list again;
  va_copy(again, args);
  int length = vsnprintf(NULL, 0, format, args);
  char *text = cmz_arena_alloc(arena, length < 0 ? 1 : (size_t)length + 1);
  if (length > 0) vsnprintf(text, (size_t)length + 1, format, again);
  va_end(again);
  return text;
}

char *cmz_arena_printf(cmz_arena *arena, const char *format, ...) {
  va_list args;
  va_start(args, format);
  char *text = cmz_arena_vprintf(arena, format, args);
  va_end(args);
  return text;
}

size_t cmz_arena_bytes(const cmz_arena *arena) { return arena->bytes; }

cmz_arena_mark cmz_arena_save(cmz_arena *arena) {
  return (cmz_arena_mark){arena->newest, arena->newest ? arena->newest->used : 0};
}

void cmz_arena_restore(cmz_arena *arena, cmz_arena_mark mark) {
  while (arena->newest && arena->newest != mark.block) {
    block *b = arena->newest;
    arena->newest = b->older;
    HIDE(payload(b), b->capacity);
    if (arena->spare && arena->spare->capacity >= b->capacity) {
      free_block(arena, b);
    } else {
      if (arena->spare) free_block(arena, arena->spare);
      arena->spare = b;
    }
  }
  if (!arena->newest) return;
  arena->newest->used = mark.used;
  HIDE(payload(arena->newest) + mark.used, arena->newest->capacity - mark.used);
}

/* The layout that CMZ_VEC(T) has for every T. */
typedef CMZ_VEC(void) any_vec;

void cmz_vec_reserve_one(cmz_arena *arena, void *vec, size_t item_size) {
  any_vec *v = vec;
  if (v->count < v->capacity) return;
  if (v->capacity == UINT32_MAX) out_of_memory(arena->ctx);
  uint32_t capacity = v->capacity > UINT32_MAX / 2 ? UINT32_MAX : CMZ_MAX(4u, v->capacity * 2);
  void *data = cmz_arena_array(arena, capacity, item_size);
  if (v->count) memcpy(data, v->data, (size_t)v->count * item_size);
  HIDE(v->data, (size_t)v->capacity * item_size);
  v->data = data;
  v->capacity = capacity;
}

/* ---- string builder ---- */

static void text_reserve(cmz_text *text, size_t more) {
  size_t needed;
  if (!cmz_add_size(text->length, more, &needed) || !cmz_add_size(needed, 1, &needed))
    out_of_memory(text->arena->ctx);
  if (needed <= text->capacity) return;
  size_t capacity = CMZ_MAX(needed, text->capacity < SIZE_MAX / 2 ? text->capacity * 2 : SIZE_MAX);
  capacity = CMZ_MAX(capacity, (size_t)64);
  char *data = cmz_arena_alloc(text->arena, capacity);
  if (text->length) memcpy(data, text->data, text->length);
  text->data = data;
  text->capacity = capacity;
}

void cmz_text_add_bytes(cmz_text *text, const void *data, size_t size) {
  text_reserve(text, size);
  if (size) memcpy(text->data + text->length, data, size);
  text->length += size;
  text->data[text->length] = 0;
}

void cmz_text_add(cmz_text *text, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int length = vsnprintf(NULL, 0, format, args);
  if (length > 0) {
    text_reserve(text, (size_t)length);
    vsnprintf(text->data + text->length, (size_t)length + 1, format, again);
    text->length += (size_t)length;
  }
  va_end(again);
  va_end(args);
}

/* ---- the context, which owns every arena and every mapped file ---- */

void cmz_file_unmap_all(cmz_context *ctx);

cmz_context *cmz_context_create(const cmz_context_options *options) {
  cmz_context *ctx = calloc(1, sizeof *ctx);
  if (!ctx) return NULL;
  if (options) ctx->options = *options;
  ctx->arena = arena_try_create(ctx);
  if (!ctx->arena) {
    free(ctx);
    return NULL;
  }
  return ctx;
}

void cmz_context_destroy(cmz_context *ctx) {
  if (!ctx) return;
  cmz_file_unmap_all(ctx);
  while (ctx->arenas) cmz_arena_destroy(ctx->arenas);
  free(ctx);
}
