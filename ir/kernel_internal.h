/* kernel_internal.h - what the files of the expression pool share: the interning table with its
 * facts about every expression, and polynomials, the normal form of i64 arithmetic. Included by
 * ir/kernel*.c only. */
#ifndef CMZ_IR_KERNEL_INTERNAL_H
#define CMZ_IR_KERNEL_INTERNAL_H

#include "kernel.h"

/* Facts about one expression, computed once when it is interned. */
typedef struct cmz_expr_info {
  int64_t low, high; /* bounds of integers; INT64_MIN / INT64_MAX when unknown */
  uint64_t axes;     /* free axes: bit min(axis, 63) */
  bool has_load;     /* content of memory takes part: arithmetic may wrap around */
} cmz_expr_info;

/* Stand-ins for axes under narrower bounds while an expression is specialised; ids from
 * CMZ_HIDDEN_AXIS. */
typedef struct cmz_hidden_axis {
  uint16_t axis;
  int64_t low, high;
} cmz_hidden_axis;
#define CMZ_HIDDEN_AXIS 0x8000u

/* A load through a blocked layout whose blocked dimension is exactly AXIS's range: for axis values
 * up to the end of the last block it reads the layout's padding, which is zero. */
typedef struct cmz_padded_load {
  cmz_expr load;
  uint16_t axis;
  int64_t block;
} cmz_padded_load;

typedef struct cmz_kernel_pool {
  uint32_t *slots; /* open addressing, 0 = free */
  uint32_t slot_count;
  CMZ_VEC(cmz_expr_info) info;
  CMZ_VEC(cmz_hidden_axis) hidden;
  /* By describe, for cmz_kernel_split_blocked_reductions; gone after compacting */
  CMZ_VEC(cmz_padded_load) padded;
  bool raw; /* constructors intern without simplifying: parsing, tests */
} cmz_kernel_pool;

static inline cmz_kernel_pool *cmz_pool(const cmz_kernel *k) {
  return (cmz_kernel_pool *)k->intern;
}
static inline const cmz_expr_info *cmz_x_info(const cmz_kernel *k, cmz_expr e) {
  return &cmz_pool(k)->info.data[e];
}
static inline uint64_t cmz_axis_bit(uint16_t axis) {
  return (uint64_t)1 << (axis < 63 ? axis : 63);
}

/* The expression equal to NODE, as it is. */
cmz_expr cmz_x_intern(cmz_kernel *k, const cmz_expr_node *node);
cmz_expr cmz_x_raw2(cmz_kernel *k, cmz_expr_op op, cmz_dtype dtype, cmz_expr a, cmz_expr b);
/* E's operation on ARGS, built by the constructors. */
cmz_expr cmz_x_rebuild(cmz_kernel *k, cmz_expr e, const cmz_expr *args);
/* V wrapped to the integer type DTYPE. */
int64_t cmz_int_wrap(cmz_dtype dtype, int64_t v);
cmz_expr cmz_x_bool(cmz_kernel *k, bool v);
void cmz_x_compute_info(const cmz_kernel *k, const cmz_expr_node *n, cmz_expr_info *info);

/* ---- polynomials (kernel_poly.c): i64 expressions as sums of constant * product of atoms ---- */
enum { CMZ_POLY_TERMS = 40, CMZ_POLY_FACTORS = 6 };
typedef struct cmz_poly_term {
  int64_t coefficient;
  uint32_t factor_count;
  cmz_expr factors[CMZ_POLY_FACTORS];
} cmz_poly_term;
typedef struct cmz_poly {
  uint32_t count;
  cmz_poly_term terms[CMZ_POLY_TERMS];
} cmz_poly;
/* False when E has too many terms. */
bool cmz_poly_of(const cmz_kernel *k, cmz_expr e, cmz_poly *p);
/* ADD, SUB, MUL */
cmz_expr cmz_poly_arithmetic(cmz_kernel *k, cmz_expr_op op, cmz_expr a, cmz_expr b);
/* FLOORDIV, MOD */
cmz_expr cmz_poly_divide(cmz_kernel *k, cmz_expr_op op, cmz_expr a, cmz_expr b);
/* Whether A - B >= LEAST is provable over all axis values. */
bool cmz_poly_at_least(cmz_kernel *k, cmz_expr a, cmz_expr b, int64_t least);

#endif
