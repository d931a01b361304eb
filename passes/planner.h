/* planner.h - the planner's working state, shared by plan.c, plan_control.c and plan_memory.c. */
#ifndef CMZ_PASSES_PLANNER_H
#define CMZ_PASSES_PLANNER_H

#include "fuse.h"

typedef struct cmz_planner {
  cmz_module *m;
  cmz_pass_run *run;
  cmz_plan *plan;
  cmz_arena *arena;     /* the module's: descriptions live as long as the plan */
  uint32_t *buffer_of;  /* by vid; CMZ_NO_BUFFER: none yet */
  bool *symbol_bound;   /* by symbol: a BIND step exists */
  uint32_t *hash_table; /* of kernels: index + 1 */
  uint32_t hash_mask;
} cmz_planner;

/* A buffer for V: INPUT and CONSTANT as it is, else ARENA or HEAP by its size. Remembered for V. */
uint32_t cmz_planner_buffer(cmz_planner *p, cmz_vid v);
/* A fresh arena or heap buffer with V's type, not remembered. */
uint32_t cmz_planner_new_buffer(cmz_planner *p, cmz_vid v);
/* A heap buffer with V's type. */
uint32_t cmz_planner_heap_buffer(cmz_planner *p, cmz_vid v);
void cmz_planner_push(cmz_planner *p, uint32_t block, const cmz_step *step);
void cmz_planner_copy(cmz_planner *p, uint32_t block, cmz_nid node, uint32_t from, uint32_t to);
/* BIND steps for symbols that stand for V's content, now that V has been computed. */
void cmz_planner_bind(cmz_planner *p, uint32_t block, cmz_nid node, cmz_vid v);
uint32_t cmz_planner_add_block(cmz_planner *p);
/* Plans all nodes of graph G into block BLOCK. */
cmz_status cmz_planner_graph(cmz_planner *p, cmz_gid g, uint32_t block);

/* plan_control.c */
cmz_status cmz_planner_if(cmz_planner *p, cmz_nid n, uint32_t block);
cmz_status cmz_planner_loop(cmz_planner *p, cmz_nid n, uint32_t block);
cmz_status cmz_planner_scan(cmz_planner *p, cmz_nid n, uint32_t block);

/* plan_memory.c: lives, sharing of input memory, offsets. */
cmz_status cmz_planner_memory(cmz_planner *p);

#endif
