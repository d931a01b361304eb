/* group.h - one block of threads while it runs: fibres, barriers, warps, shared memory and who has
 * touched it. Shared by group.c, shared.c, warp.c and libcuda.c. Always holds: one fibre runs at a
 * time; an error ends the launch by switching back to the launcher for good. */
#ifndef CMZ_EMULATOR_GROUP_H
#define CMZ_EMULATOR_GROUP_H

#include "emulator_abi.h"

#include <stdbool.h>

enum { WARP = 32, MOST_THREADS = 1024, MOST_BARRIERS = 16, MOST_READERS = 4 };

/* What a thread knows of the others: the clock of each, as of the last common barrier. Shared by
 * all threads that met there. */
typedef struct knowledge {
  uint32_t references;
  uint32_t clocks[MOST_THREADS];
} knowledge;

/* A cp.async on its way. */
typedef struct pending_copy {
  uint32_t to, bytes, line, batch; /* batch: number of the commit that it belongs to */
  uint8_t data[16];
} pending_copy;

/* Sums of wgmma.mma_async until they are waited for. */
typedef struct pending_sums {
  uint32_t count, batch;
  uint32_t *registers[128], values[128];
} pending_sums;

typedef struct fibre {
  struct thread thread;
  void *stack, *saved;
  knowledge *known;
  uint32_t clock;
  bool waiting, done;
  const char *wait_what; /* for the report of a deadlock */
  uint32_t wait_line;
  /* a collective of the warp */
  const emulator_collective *collective;
  const uint32_t *in;
  uint32_t *out, mask;
  /* a barrier */
  uint32_t barrier_value, barrier_result;
  bool aligned;
  pending_copy *copies;
  uint32_t copy_count, copy_capacity, batch, polls;
  pending_sums sums;
  uint32_t sums_batch;
  bool fenced_registers; /* by wgmma.fence */
  /* What it wrote until then, the asynchronous proxy sees */
  uint32_t fenced_clock;
  /* Words of shared memory that a wgmma reads */
  uint32_t *reads, read_count, read_capacity;
} fibre;

typedef struct barrier {
  uint32_t arrived, expected, waiter_count, ones, line;
  uint16_t waiters[MOST_THREADS];
  knowledge *gathered; /* what those who came know, joined */
} barrier;

/* Who touched one word (or byte) of shared memory last. Clocks below the block's first are void. */
typedef struct cell {
  uint32_t write_clock;
  uint16_t writer;
  uint8_t flags, async_reads; /* of wgmma that nobody has waited for yet */
  uint32_t read_clocks[MOST_READERS];
  uint16_t readers[MOST_READERS];
} cell;
enum { CELL_ATOMIC = 1, CELL_PENDING = 2, CELL_SPLIT = 4, CELL_OUTSIDE = 8 };

typedef struct group {
  fibre *fibres;
  uint32_t thread_count, live, shared_bytes;
  uint8_t *shared;
  cell *words, *bytes; /* bytes: used for words that were touched in parts */
  uint32_t first_clock;
  barrier barriers[MOST_BARRIERS];
  uint16_t ring[MOST_THREADS + 1];
  uint32_t ring_head, ring_count;
  void *launcher; /* its saved stack pointer */
  fibre *current;
  void (*run)(struct thread *, void **);
  void **params;
  bool failed;
} group;

/* Of the launch being computed: launches are computed one by one */
extern group emulator_group;

/* Runs one block with fibres, or thread by thread; false after an error. */
bool emulator_run_block(const uint32_t ntid[3], const uint32_t ctaid[3], const uint32_t nctaid[3],
                        const emulator_kernel *kernel, uint32_t dynamic_bytes,
                        void (*run)(struct thread *, void **), void **params);
/* Prints where and what, marks the device as lost, and leaves the launch. */
_Noreturn void emulator_fail(struct thread *t, uint32_t line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void emulator_report(struct thread *t, uint32_t line, const char *message); /* libcuda.c */
_Noreturn void emulator_leave(void);
/* Makes fibre F wait until woken, and runs others. */
void emulator_suspend(fibre *f, const char *what, uint32_t line);
void emulator_wake(fibre *f);
/* Lets the others go first; polling for ever is a deadlock. */
void emulator_poll(fibre *f, const char *what, uint32_t line);
static inline fibre *emulator_fibre(struct thread *t) { return (fibre *)(void *)t; }

/* knowledge */
knowledge *emulator_knowledge_new(void);
void emulator_knowledge_release(knowledge *k);
void emulator_knowledge_join(knowledge *into, const fibre *f);
void emulator_knowledge_set(fibre *f, knowledge *k);

/* shared memory (shared.c) */
void emulator_shared_begin(void);
void emulator_shared_touch(struct thread *t, uint32_t offset, uint32_t bytes, int how,
                           uint32_t line);

/* The element of two bytes at OFFSET for a wgmma of F's warp; until the reads' end nobody may write
 * there. */
const uint8_t *emulator_async_read(fibre *f, uint32_t offset, uint32_t line);
void emulator_async_reads_end(fibre *f);

/* wgmma.c */
void emulator_wgmma_run(fibre *first, const emulator_collective *c);
void emulator_wgmma_drop(fibre *f); /* forgets what is on its way */

/* Runs COLLECTIVE for the warp that begins at FIRST, all lanes of MASK being there. warp.c */
void emulator_collective_run(fibre *first, uint32_t mask, const emulator_collective *c);

#endif
