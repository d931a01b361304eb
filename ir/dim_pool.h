/* dim_pool.h - inside of the pool of symbolic sizes, shared by dim.c, dim_range.c and dim_text.c
 * only. */
#ifndef CMZ_IR_DIM_POOL_H
#define CMZ_IR_DIM_POOL_H

#include "dim.h"

typedef struct dim_node {
  cmz_dim_node node;
  uint64_t hash;
  int64_t low, high; /* range, valid while range_generation is the pool's */
  uint32_t range_generation;
  uint32_t weight; /* nodes of the expression as a tree */
  uint16_t depth;
  bool data_dependent;
  bool is_size; /* of a tensor: never negative where that tensor is */
} dim_node;

struct cmz_dims {
  cmz_arena *arena;
  CMZ_VEC(dim_node *) nodes; /* pointers: what cmz_dim_get gives stays where it is */
  cmz_dim *table;            /* open addressing, by hash; 0 is free */
  uint32_t table_size;
  CMZ_VEC(cmz_symbol *) symbols;
  CMZ_VEC(cmz_dim) symbol_ids;
  uint32_t *symbol_table; /* by name; index + 1 */
  uint32_t symbol_table_size;
  uint32_t made_up_names;
  uint32_t generation; /* counts changes of symbols' ranges */
};

/* Index of the symbol of this name; UINT32_MAX when there is none. */
uint32_t cmz_dim_find_symbol(const cmz_dims *p, const char *name, size_t length);
/* floor(value * factor); false when it does not fit. */
bool cmz_dim_scale_value(int64_t value, double factor, int64_t *result);

#endif
