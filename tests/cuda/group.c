/* group.c - runs a block of threads: as fibres that meet at barriers and warp-wide instructions,
 * or one after the other where the kernel has neither. Also who knows what of whom: a thread's
 * writes are known to another only through a barrier that both came to (vector clocks). Always
 * holds: nothing but barriers orders memory; threads that wait for one another for ever are found
 * and reported. */
#define _GNU_SOURCE
#include "group.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { STACK = 256 * 1024, MOST_POLLS = 100000 };

group emulator_group;

/* ---- switching (System V x86-64: the callee saves these six) ---- */

void emulator_switch(void **save, void *to);
__asm__(".text\n"
        ".type emulator_switch, @function\n"
        "emulator_switch:\n"
        "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
        "  movq %rsp, (%rdi)\n"
        "  movq %rsi, %rsp\n"
        "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
        "  ret\n"
        ".size emulator_switch, .-emulator_switch\n");

_Noreturn void emulator_leave(void) {
  void *never;
  emulator_group.failed = true;
  emulator_switch(&never, emulator_group.launcher);
  __builtin_unreachable();
}

_Noreturn void emulator_fail(struct thread *t, uint32_t line, const char *format, ...) {
  char message[512];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  emulator_report(t, line, message);
  emulator_leave();
}

/* ---- knowledge ---- */

static knowledge *free_knowledge[4 * MOST_THREADS];
static uint32_t free_count;

knowledge *emulator_knowledge_new(void) {
  knowledge *k = free_count ? free_knowledge[--free_count] : malloc(sizeof *k);
  if (!k) abort();
  k->references = 1;
  memset(k->clocks, 0, emulator_group.thread_count * sizeof k->clocks[0]);
  return k;
}
void emulator_knowledge_release(knowledge *k) {
  if (!k || --k->references) return;
  if (free_count < 4 * MOST_THREADS) free_knowledge[free_count++] = k;
  else free(k);
}
void emulator_knowledge_join(knowledge *into, const fibre *f) {
  if (f->known && f->known != into)
    for (uint32_t i = 0; i < emulator_group.thread_count; i++)
      if (f->known->clocks[i] > into->clocks[i]) into->clocks[i] = f->known->clocks[i];
  if (f->clock > into->clocks[f->thread.index]) into->clocks[f->thread.index] = f->clock;
}
/* F knows K from now on, and what it does next is not known to those who know K. */
void emulator_knowledge_set(fibre *f, knowledge *k) {
  k->references++;
  emulator_knowledge_release(f->known);
  f->known = k;
}

/* ---- the queue of those who can run ---- */

static void enqueue(fibre *f) {
  group *g = &emulator_group;
  g->ring[(g->ring_head + g->ring_count++) % (MOST_THREADS + 1)] = (uint16_t)f->thread.index;
}

static _Noreturn void deadlock(void) {
  group *g = &emulator_group;
  for (uint32_t i = 0; i < g->thread_count; i++) {
    fibre *f = &g->fibres[i];
    if (f->done || !f->waiting) continue;
    uint32_t same = 0, other = 0, other_line = 0;
    for (uint32_t j = 0; j < g->thread_count; j++) {
      if (g->fibres[j].done || !g->fibres[j].waiting) continue;
      if (g->fibres[j].wait_line == f->wait_line) same++;
      else other++, other_line = g->fibres[j].wait_line;
    }
    if (other)
      emulator_fail(&f->thread, f->wait_line,
                    "deadlock: %u threads wait here for %s, %u others elsewhere (line %u), %u have "
                    "ended",
                    same, f->wait_what, other, other_line, g->thread_count - g->live);
    emulator_fail(&f->thread, f->wait_line, "deadlock: %u threads wait here for %s, %u have ended",
                  same, f->wait_what, g->thread_count - g->live);
  }
  emulator_leave();
}

static void run_next(fibre *from) {
  group *g = &emulator_group;
  if (g->ring_count == 0) deadlock();
  fibre *f = &g->fibres[g->ring[g->ring_head]];
  g->ring_head = (g->ring_head + 1) % (MOST_THREADS + 1);
  g->ring_count--;
  g->current = f;
  if (f != from) emulator_switch(&from->saved, f->saved);
}

void emulator_wake(fibre *f) {
  if (!f->waiting) return;
  f->waiting = false;
  f->polls = 0;
  enqueue(f);
}
void emulator_suspend(fibre *f, const char *what, uint32_t line) {
  f->waiting = true;
  f->wait_what = what;
  f->wait_line = line;
  run_next(f);
}
void emulator_poll(fibre *f, const char *what, uint32_t line) {
  if (++f->polls > MOST_POLLS)
    emulator_fail(&f->thread, line, "deadlock: waits for %s for ever", what);
  enqueue(f);
  run_next(f);
}

/* ---- warps ---- */

static fibre *first_of_warp(const fibre *f) {
  return &emulator_group.fibres[f->thread.index / WARP * WARP];
}
static uint32_t live_lanes(const fibre *first) {
  uint32_t lanes = 0;
  for (uint32_t i = 0; i < WARP && first->thread.index + i < emulator_group.thread_count; i++)
    if (!first[i].done) lanes |= 1u << i;
  return lanes;
}
EXPORT uint32_t emulator_active(struct thread *t) {
  return live_lanes(first_of_warp(emulator_fibre(t)));
}

/* Runs the collective that lane LANE waits for, if all that it names are there. */
static bool try_collective(fibre *first, uint32_t lane) {
  const fibre *f = &first[lane];
  const emulator_collective *c = f->collective;
  uint32_t mask = f->mask & live_lanes(first);
  for (uint32_t i = 0; i < WARP; i++) {
    if (!(mask >> i & 1)) continue;
    const fibre *other = &first[i];
    if (!other->collective || other->collective->kind != c->kind || other->mask != f->mask)
      return false;
    if (c->aligned && other->collective->line != c->line) return false;
  }
  if (c->kind == COLLECTIVE_BARRIER) {
    knowledge *k = emulator_knowledge_new();
    for (uint32_t i = 0; i < WARP; i++)
      if (mask >> i & 1) emulator_knowledge_join(k, &first[i]);
    for (uint32_t i = 0; i < WARP; i++)
      if (mask >> i & 1) {
        emulator_knowledge_set(&first[i], k);
        first[i].clock++;
      }
    emulator_knowledge_release(k);
  } else emulator_collective_run(first, mask, c);
  for (uint32_t i = 0; i < WARP; i++)
    if (mask >> i & 1) {
      first[i].collective = NULL;
      emulator_wake(&first[i]);
    }
  return true;
}

EXPORT void emulator_collective_call(struct thread *t, const emulator_collective *c, uint32_t mask,
                                     const uint32_t *in, uint32_t *out) {
  fibre *f = emulator_fibre(t), *first = first_of_warp(f);
  if (!(mask >> t->lane & 1))
    emulator_fail(t, c->line, "%s: the mask %#x does not have the lane itself", c->name, mask);
  f->collective = c;
  f->mask = mask;
  f->in = in;
  f->out = out;
  if (try_collective(first, t->lane)) return;
  emulator_suspend(f, c->name, c->line);
}

/* ---- barriers of the block ---- */

static void barrier_finish(barrier *b) {
  group *g = &emulator_group;
  for (uint32_t i = 0; i < b->waiter_count; i++) {
    fibre *f = &g->fibres[b->waiters[i]];
    for (uint32_t j = 0; f->aligned && j < b->waiter_count; j++) {
      const fibre *other = &g->fibres[b->waiters[j]];
      if (other->thread.warp == f->thread.warp && other->wait_line != f->wait_line)
        emulator_fail(&f->thread, f->wait_line,
                      "divergent barrier: other threads of the warp are at the one of line %u",
                      other->wait_line);
      if (j > 2 * WARP) break;
    }
    emulator_knowledge_set(f, b->gathered);
    f->barrier_result = b->ones;
    emulator_wake(f);
  }
  emulator_knowledge_release(b->gathered);
  b->gathered = NULL;
  b->arrived = b->waiter_count = b->ones = b->expected = 0;
}

/* Barrier number ID for COUNT threads (0: all that live). VALUE is summed up; the sum is returned.
 * With WAIT 0 the thread only arrives. */
EXPORT uint32_t emulator_barrier(struct thread *t, uint32_t id, uint32_t count, uint32_t value,
                                 int wait, int aligned, uint32_t line) {
  group *g = &emulator_group;
  fibre *f = emulator_fibre(t);
  if (id >= MOST_BARRIERS) emulator_fail(t, line, "there is no barrier %u", id);
  if (count % WARP) emulator_fail(t, line, "a barrier for %u threads: not whole warps", count);
  barrier *b = &g->barriers[id];
  if (b->arrived && b->expected != count)
    emulator_fail(t, line, "barrier %u is for %u threads here, for %u at line %u", id, count,
                  b->expected, b->line);
  b->expected = count;
  b->line = line;
  if (!b->gathered) b->gathered = emulator_knowledge_new();
  emulator_knowledge_join(b->gathered, f);
  f->clock++;
  b->arrived++;
  b->ones += value;
  f->aligned = aligned != 0;
  f->wait_line = line;
  if (wait) b->waiters[b->waiter_count++] = (uint16_t)t->index;
  bool complete = b->arrived == (count ? count : g->live);
  if (!complete) {
    if (wait) emulator_suspend(f, "a barrier", line);
    return f->barrier_result;
  }
  if (wait) f->waiting = true; /* woken with the rest, in order */
  barrier_finish(b);
  if (wait) run_next(f);
  return f->barrier_result;
}

/* ---- a block ---- */

static void finish_thread(fibre *f) {
  group *g = &emulator_group;
  if (f->copy_count) /* harmless on a device, but nobody can have waited for them */
    f->copy_count = 0;
  emulator_wgmma_drop(f);
  f->done = true;
  g->live--;
  if (g->live == 0) return;
  for (uint32_t i = 0; i < MOST_BARRIERS; i++) {
    barrier *b = &g->barriers[i];
    if (b->arrived && !b->expected && b->arrived == g->live) barrier_finish(b);
  }
  fibre *first = first_of_warp(f);
  for (uint32_t i = 0; i < WARP && first->thread.index + i < g->thread_count; i++)
    if (first[i].collective && !first[i].done) try_collective(first, i);
}

static void fibre_main(void) {
  group *g = &emulator_group;
  fibre *f = g->current;
  void *never;
  g->run(&f->thread, g->params);
  f = g->current;
  finish_thread(f);
  if (g->live) run_next(f);
  else emulator_switch(&never, g->launcher);
  abort();
}

static void sequential_main(void) {
  group *g = &emulator_group;
  void *never;
  for (uint32_t i = 0; i < g->thread_count; i++) {
    g->current = &g->fibres[i];
    g->run(&g->fibres[i].thread, g->params);
  }
  emulator_switch(&never, g->launcher);
  abort();
}

static void prepare_stack(fibre *f, void (*start)(void)) {
  if (!f->stack) {
    uint8_t *map = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect(map, 4096, PROT_NONE)) abort();
    f->stack = map;
  }
  uintptr_t *top = (uintptr_t *)((uint8_t *)f->stack + STACK) - 1; /* 8 modulo 16 at entry */
  *top = 0;
  *--top = (uintptr_t)start;
  for (int i = 0; i < 6; i++) *--top = 0;
  f->saved = top;
}

static fibre *all_fibres(void) {
  static fibre *fibres;
  if (!fibres) fibres = calloc(MOST_THREADS, sizeof *fibres);
  return fibres;
}

bool emulator_run_block(const uint32_t ntid[3], const uint32_t ctaid[3], const uint32_t nctaid[3],
                        const emulator_kernel *kernel, uint32_t dynamic_bytes,
                        void (*run)(struct thread *, void **), void **params) {
  group *g = &emulator_group;
  uint32_t count = ntid[0] * ntid[1] * ntid[2];
  g->fibres = all_fibres();
  if (!g->fibres) return false;
  g->thread_count = g->live = count;
  g->shared_bytes = kernel->shared_bytes + dynamic_bytes;
  g->run = run;
  g->params = params;
  g->failed = false;
  g->ring_head = g->ring_count = 0;
  memset(g->barriers, 0, sizeof g->barriers);
  emulator_shared_begin();
  for (uint32_t i = 0; i < count; i++) {
    fibre *f = &g->fibres[i];
    emulator_knowledge_release(f->known);
    f->known = NULL;
    f->clock = g->first_clock;
    f->waiting = f->done = false;
    f->collective = NULL;
    f->copy_count = f->batch = f->polls = f->sums_batch = f->fenced_clock = 0;
    f->fenced_registers = false;
    emulator_wgmma_drop(f);
    f->thread = (struct thread){
        .tid = {i % ntid[0], i / ntid[0] % ntid[1], i / ntid[0] / ntid[1]},
        .ntid = {ntid[0], ntid[1], ntid[2]},
        .ctaid = {ctaid[0], ctaid[1], ctaid[2]},
        .nctaid = {nctaid[0], nctaid[1], nctaid[2]},
        .index = i,
        .lane = i % WARP,
        .warp = i / WARP,
        .dynamic = kernel->shared_bytes,
        .dynamic_bytes = dynamic_bytes,
        .window = (uint64_t)(uintptr_t)g->shared,
    };
    if (kernel->fibres) {
      prepare_stack(f, fibre_main);
      enqueue(f);
    }
  }
  if (!kernel->fibres) {
    prepare_stack(&g->fibres[0], sequential_main);
    enqueue(&g->fibres[0]);
  }
  fibre launcher = {0};
  fibre *f = &g->fibres[g->ring[0]];
  g->ring_head = 1;
  g->ring_count--;
  g->current = f;
  emulator_switch(&g->launcher, f->saved);
  (void)launcher;
  return !g->failed;
}
