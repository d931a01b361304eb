/* team.c - threads that wait for work by spinning a little and then sleeping until a word changes.
 * In: a function over tiles. Out: all tiles done when cmz_team_run returns. Always holds: a job's
 * fields are written while the gate is shut and nobody is inside, and read by those who came in
 * while it was open. A worker that the system does not run in time comes to a shut gate: nobody
 * waits for it, the others have taken its share. */
#include "instance.h"

#define GATE_SHUT UINT32_C(0x80000000)
enum { SPINS = 4000, CHUNKS = 4 };

/* The share of one worker: others take chunks of it when they are done with their own. */
typedef struct share {
  uint32_t next, end, chunk;
  uint32_t padding[13]; /* a cache line each */
} share;

typedef struct worker {
  cmz_team *team;
  cmz_thread thread;
  uint32_t index;
} worker;

struct cmz_team {
  uint32_t count;
  uint32_t started;
  cmz_team_function *function;
  void *user;
  bool stop;
  uint32_t padding0[16];
  uint32_t generation; /* slept on: a new job, or the end */
  uint32_t sleepers;
  uint32_t padding1[16];
  uint32_t gate; /* slept on: GATE_SHUT, and how many workers are inside */
  uint32_t caller_sleeps;
  uint32_t padding2[16];
  share *shares;
  worker *workers;
  cmz_waiter waiter;
};

static void pause_cpu(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void work(cmz_team *team, uint32_t self) {
  for (uint32_t i = 0; i < team->count; i++) {
    share *s = &team->shares[(self + i) % team->count];
    for (;;) {
      if (__atomic_load_n(&s->next, __ATOMIC_RELAXED) >= s->end) break;
      uint32_t begin = __atomic_fetch_add(&s->next, s->chunk, __ATOMIC_RELAXED);
      if (begin >= s->end) break;
      uint32_t end = s->end - begin > s->chunk ? begin + s->chunk : s->end;
      team->function(team->user, begin, end, self);
    }
  }
}

static cmz_thread_result worker_main(void *argument) {
  worker *w = argument;
  cmz_team *team = w->team;
  uint32_t seen = 0;
  for (;;) {
    uint32_t now;
    for (uint32_t spin = 0;; spin++) {
      now = __atomic_load_n(&team->generation, __ATOMIC_ACQUIRE);
      if (now != seen) break;
      if (spin < SPINS) {
        pause_cpu();
        continue;
      }
      __atomic_fetch_add(&team->sleepers, 1, __ATOMIC_SEQ_CST);
      if (__atomic_load_n(&team->generation, __ATOMIC_SEQ_CST) == seen) {
        cmz_waiter_sleep(&team->waiter, &team->generation, seen);
      }
      __atomic_fetch_sub(&team->sleepers, 1, __ATOMIC_SEQ_CST);
    }
    seen = now;
    if (team->stop) return (cmz_thread_result)0;
    bool open = !(__atomic_fetch_add(&team->gate, 1, __ATOMIC_SEQ_CST) & GATE_SHUT);
    if (open) work(team, w->index);
    if (__atomic_sub_fetch(&team->gate, 1, __ATOMIC_SEQ_CST) == GATE_SHUT &&
        __atomic_load_n(&team->caller_sleeps, __ATOMIC_SEQ_CST)) {
      cmz_waiter_wake(&team->waiter, &team->gate);
    }
  }
}

static void publish(cmz_team *team) {
  __atomic_fetch_add(&team->generation, 1, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&team->sleepers, __ATOMIC_SEQ_CST)) {
    cmz_waiter_wake(&team->waiter, &team->generation);
  }
}

static void wait_for_workers(cmz_team *team) {
  __atomic_fetch_or(&team->gate, GATE_SHUT, __ATOMIC_SEQ_CST);
  for (uint32_t spin = 0;; spin++) {
    uint32_t gate = __atomic_load_n(&team->gate, __ATOMIC_ACQUIRE);
    if (gate == GATE_SHUT) return;
    if (spin < SPINS) {
      pause_cpu();
      continue;
    }
    __atomic_store_n(&team->caller_sleeps, 1, __ATOMIC_SEQ_CST);
    gate = __atomic_load_n(&team->gate, __ATOMIC_SEQ_CST);
    if (gate != GATE_SHUT) cmz_waiter_sleep(&team->waiter, &team->gate, gate);
    __atomic_store_n(&team->caller_sleeps, 0, __ATOMIC_SEQ_CST);
  }
}

void cmz_team_run(cmz_team *team, cmz_team_function *function, void *user, uint32_t count) {
  uint32_t workers = team->started + 1;
  for (uint32_t i = 0; i < workers; i++) {
    share *s = &team->shares[i];
    s->next = (uint32_t)((uint64_t)count * i / workers);
    s->end = (uint32_t)((uint64_t)count * (i + 1) / workers);
    s->chunk = (s->end - s->next + CHUNKS - 1) / CHUNKS;
    if (s->chunk == 0) s->chunk = 1;
  }
  team->function = function;
  team->user = user;
  __atomic_fetch_and(&team->gate, ~GATE_SHUT, __ATOMIC_SEQ_CST);
  publish(team);
  work(team, 0);
  wait_for_workers(team);
}

static size_t team_bytes(uint32_t count) {
  return sizeof(cmz_team) + 64 + count * (sizeof(share) + sizeof(worker));
}

cmz_team *cmz_team_create(struct cmz_model *model, uint32_t count) {
  cmz_team *team = cmz_memory_take(model, team_bytes(count));
  if (!team) return NULL;
  memset(team, 0, team_bytes(count));
  if (!cmz_waiter_begin(&team->waiter)) {
    cmz_memory_give(model, team, team_bytes(count));
    return NULL;
  }
  team->count = count;
  team->gate = GATE_SHUT;
  uintptr_t at = ((uintptr_t)(team + 1) + 63) & ~(uintptr_t)63;
  team->shares = (share *)at;
  team->workers = (worker *)(at + count * sizeof(share));
  for (uint32_t i = 1; i < count; i++) {
    team->workers[i] = (worker){.team = team, .index = i};
    if (!cmz_thread_start(&team->workers[i].thread, worker_main, &team->workers[i])) {
      cmz_team_destroy(model, team);
      return NULL;
    }
    team->started++;
  }
  return team;
}

void cmz_team_destroy(struct cmz_model *model, cmz_team *team) {
  team->stop = true;
  publish(team);
  for (uint32_t i = 1; i <= team->started; i++) cmz_thread_join(team->workers[i].thread);
  cmz_waiter_end(&team->waiter);
  cmz_memory_give(model, team, team_bytes(team->count));
}
