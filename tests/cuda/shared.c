/* shared.c - a block's shared memory: bounds, alignment, who wrote and read each byte last, and
 * cp.async's copies on their way. In: accesses of translated kernels. Out: the place, or an error.
 * Always holds: two accesses to a byte, one of them a write, are ordered by a barrier or reported;
 * bytes are readable only when written; a copy's bytes only after its own thread waited for it. At
 * most four readers of a word are remembered (one a warp, modulo four), so a race with a fifth may
 * be missed; none is ever reported wrongly. */
#define _GNU_SOURCE
#include "group.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { MOST_SHARED = 256 * 1024 };
enum { READ = 0, WRITE = 1, ATOMIC = 2 };

static bool allowed(const char *what) { /* CMZ_EMULATOR_ALLOW=race,uninitialised */
  const char *text = getenv("CMZ_EMULATOR_ALLOW");
  return text && strstr(text, what);
}
static bool allow_races, allow_uninitialised;

void emulator_shared_begin(void) {
  group *g = &emulator_group;
  if (!g->shared) {
    int access = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    g->shared = mmap(NULL, MOST_SHARED, access, flags, -1, 0);
    g->words = mmap(NULL, MOST_SHARED / 4 * sizeof(cell), access, flags, -1, 0);
    g->bytes = mmap(NULL, MOST_SHARED * sizeof(cell), access, flags, -1, 0);
    if (g->shared == MAP_FAILED || g->words == MAP_FAILED || g->bytes == MAP_FAILED) abort();
    g->first_clock = 1;
  } else { /* everything said so far is void */
    uint32_t latest = g->first_clock;
    for (uint32_t i = 0; i < MOST_THREADS; i++)
      if (g->fibres[i].clock > latest) latest = g->fibres[i].clock;
    g->first_clock = latest + 1;
    if (latest > UINT32_MAX / 2) {
      madvise(g->words, MOST_SHARED / 4 * sizeof(cell), MADV_DONTNEED);
      madvise(g->bytes, MOST_SHARED * sizeof(cell), MADV_DONTNEED);
      for (uint32_t i = 0; i < MOST_THREADS; i++) g->fibres[i].clock = 0;
      g->first_clock = 1;
    }
  }
  memset(g->shared, 0xa5, g->shared_bytes);
  allow_races = allowed("race");
  allow_uninitialised = allowed("uninitialised");
}

static bool known(const fibre *f, uint16_t other, uint32_t clock) {
  return other == f->thread.index || clock < emulator_group.first_clock ||
         (f->known && clock <= f->known->clocks[other]);
}

static void race(fibre *f, uint32_t line, uint32_t offset, const char *now, const char *then,
                 uint16_t other) {
  if (allow_races) return;
  emulator_fail(&f->thread, line,
                "race: %s of shared memory at byte %u; thread %u %s it and no barrier lies between",
                now, offset, other, then);
}

static void touch_cell(fibre *f, cell *c, uint32_t offset, int how, uint32_t line) {
  bool written = c->write_clock >= emulator_group.first_clock;
  if (written && c->flags & CELL_PENDING)
    emulator_fail(&f->thread, line,
                  "%s of shared memory at byte %u, to which a cp.async of thread %u is on its way: "
                  "no wait",
                  how == READ ? "read" : "write", offset, c->writer);
  if (how == READ && !written && !allow_uninitialised)
    emulator_fail(&f->thread, line, "read of shared memory at byte %u, which nobody has written",
                  offset);
  bool both_atomic = how == ATOMIC && c->flags & CELL_ATOMIC;
  if (written && !both_atomic && !known(f, c->writer, c->write_clock))
    race(f, line, offset, how == READ ? "read" : "write", "wrote", c->writer);
  if (how == READ) {
    uint32_t slot = f->thread.warp % MOST_READERS;
    c->readers[slot] = (uint16_t)f->thread.index;
    c->read_clocks[slot] = f->clock;
    return;
  }
  if (c->async_reads)
    emulator_fail(&f->thread, line,
                  "write of shared memory at byte %u, which a wgmma still reads: no wait", offset);
  for (uint32_t i = 0; i < MOST_READERS; i++)
    if (!known(f, c->readers[i], c->read_clocks[i]))
      race(f, line, offset, "write", "read", c->readers[i]);
  c->writer = (uint16_t)f->thread.index;
  c->write_clock = f->clock;
  c->flags = (uint8_t)((c->flags & CELL_SPLIT) | (how == ATOMIC ? CELL_ATOMIC : 0));
}

/* The word's bytes get cells of their own from the word's. */
static void split(cell *word, cell *bytes) {
  bool live = word->write_clock >= emulator_group.first_clock;
  for (uint32_t i = 0; i < MOST_READERS; i++)
    live = live || word->read_clocks[i] >= emulator_group.first_clock;
  uint8_t flags = live ? word->flags : 0;
  if (flags & CELL_SPLIT) return;
  for (uint32_t i = 0; i < 4; i++) bytes[i] = *word;
  word->flags = flags | CELL_SPLIT;
  word->write_clock = emulator_group.first_clock; /* says that the flag is of this block */
}
static bool is_split(const cell *word) {
  return word->flags & CELL_SPLIT && word->write_clock >= emulator_group.first_clock;
}

static void each_cell(fibre *f, uint32_t offset, uint32_t bytes, int how, uint32_t line) {
  group *g = &emulator_group;
  for (uint32_t at = offset, end = offset + bytes; at < end;) {
    cell *word = &g->words[at / 4];
    bool whole = at % 4 == 0 && end - at >= 4;
    if (whole && !is_split(word)) {
      if (word->flags & CELL_SPLIT) word->flags = 0; /* left by an earlier block */
      touch_cell(f, word, at, how, line);
      at += 4;
      continue;
    }
    if (!is_split(word)) {
      if (word->flags & CELL_SPLIT) word->flags = 0;
      split(word, &g->bytes[at / 4 * 4]);
    }
    touch_cell(f, &g->bytes[at], at, how, line);
    at++;
  }
}

/* HOW: 0 a read, 1 a write, 2 an atomic. */
void emulator_shared_touch(struct thread *t, uint32_t offset, uint32_t bytes, int how,
                           uint32_t line) {
  each_cell(emulator_fibre(t), offset, bytes, how, line);
}

static void check_range(struct thread *t, uint64_t offset, uint32_t bytes, uint32_t align,
                        const char *what, uint32_t line) {
  if (offset % align)
    emulator_fail(t, line, "misaligned %s of %u bytes of shared memory at byte %llu", what, bytes,
                  (unsigned long long)offset);
  if (offset + bytes > emulator_group.shared_bytes || offset + bytes < offset)
    emulator_fail(t, line, "out of bounds: %s of %u bytes of shared memory at byte %llu of %u",
                  what, bytes, (unsigned long long)offset, emulator_group.shared_bytes);
}

EXPORT uint8_t *emulator_shared(struct thread *t, uint64_t offset, uint32_t bytes, int how,
                                uint32_t line) {
  static const char *const names[] = {"read", "write", "atomic"};
  check_range(t, offset, bytes, bytes, names[how], line);
  each_cell(emulator_fibre(t), (uint32_t)offset, bytes, how, line);
  return emulator_group.shared + offset;
}

/* ---- what wgmma reads ---- */

const uint8_t *emulator_async_read(fibre *f, uint32_t offset, uint32_t line) {
  group *g = &emulator_group;
  cell *c = &g->words[offset / 4];
  check_range(&f->thread, offset, 2, 2, "read by wgmma", line);
  if (offset % 4) return g->shared + offset; /* its other half has been looked at */
  each_cell(f, offset, 4, READ, line);
  if (is_split(c)) c = &g->bytes[offset];
  if (c->write_clock > g->fibres[c->writer].fenced_clock && !allow_races)
    emulator_fail(&f->thread, line,
                  "wgmma reads shared memory at byte %u, which thread %u wrote without a "
                  "fence.proxy.async after it",
                  offset, c->writer);
  if (f->read_count == f->read_capacity) {
    f->read_capacity = 2 * f->read_capacity + 1024;
    f->reads = realloc(f->reads, f->read_capacity * sizeof *f->reads);
    if (!f->reads) abort();
  }
  f->reads[f->read_count++] = offset;
  c->async_reads++;
  return g->shared + offset;
}

void emulator_async_reads_end(fibre *f) {
  group *g = &emulator_group;
  for (uint32_t i = 0; i < f->read_count; i++) {
    uint32_t at = f->reads[i];
    cell *c = is_split(&g->words[at / 4]) ? &g->bytes[at] : &g->words[at / 4];
    if (c->async_reads) c->async_reads--;
  }
  f->read_count = 0;
}

/* ---- cp.async ---- */

static void mark_pending(uint32_t offset, uint32_t bytes, bool pending) {
  group *g = &emulator_group;
  for (uint32_t at = offset; at < offset + bytes; at += 4) {
    cell *word = &g->words[at / 4];
    for (uint32_t i = 0; i < 4; i++) {
      cell *c = is_split(word) ? &g->bytes[at + i] : word;
      c->flags = (uint8_t)(pending ? c->flags | CELL_PENDING : c->flags & ~CELL_PENDING);
    }
  }
}

/* BYTES bytes to shared memory, of which SOURCE_BYTES come from global memory, zeros the rest. */
EXPORT void emulator_copy_async(struct thread *t, uint64_t to, uint64_t from, uint32_t bytes,
                                uint32_t source_bytes, uint32_t line) {
  fibre *f = emulator_fibre(t);
  if (source_bytes > bytes)
    emulator_fail(t, line, "cp.async of %u bytes from %u", bytes, source_bytes);
  if (from % bytes)
    emulator_fail(t, line, "misaligned cp.async of %u bytes from %#llx", bytes,
                  (unsigned long long)from);
  check_range(t, to, bytes, bytes, "cp.async", line);
  each_cell(f, (uint32_t)to, bytes, WRITE, line);
  mark_pending((uint32_t)to, bytes, true);
  if (f->copy_count == f->copy_capacity) {
    f->copy_capacity = 2 * f->copy_capacity + 16;
    f->copies = realloc(f->copies, f->copy_capacity * sizeof *f->copies);
    if (!f->copies) abort();
  }
  pending_copy *c = &f->copies[f->copy_count++];
  *c = (pending_copy){.to = (uint32_t)to, .bytes = bytes, .line = line, .batch = f->batch};
  for (uint32_t done = 0; done < source_bytes;) { /* in pieces that any allocation can hold */
    uint32_t piece = 1;
    while (piece * 2 <= source_bytes - done && (from + done) % (piece * 2) == 0) piece *= 2;
    memcpy(c->data + done, emulator_access(t, from + done, piece, 0, "global", line), piece);
    done += piece;
  }
}
EXPORT void emulator_copy_commit(struct thread *t) { emulator_fibre(t)->batch++; }

/* Finishes all but the last N groups; with ALL everything, committed or not. */
EXPORT void emulator_copy_wait(struct thread *t, uint32_t n, int all) {
  fibre *f = emulator_fibre(t);
  uint32_t kept = 0;
  for (uint32_t i = 0; i < f->copy_count; i++) {
    pending_copy *c = &f->copies[i];
    if (!all && (c->batch == f->batch || f->batch - c->batch <= n)) {
      f->copies[kept++] = *c;
      continue;
    }
    memcpy(emulator_group.shared + c->to, c->data, c->bytes);
    mark_pending(c->to, c->bytes, false);
    each_cell(f, c->to, c->bytes, WRITE, c->line);
  }
  f->copy_count = kept;
}
