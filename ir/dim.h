/* dim.h - symbolic sizes: hash-consed integer expressions. Equal ids mean equal expressions; sums
 * are kept as sorted linear forms, so that a+b-a is b. The same trees become run-time code (the
 * plan's size program) and kernel parameters. In: expressions built by inference. Out: ids. Always
 * holds: a pool only grows; id 0 is CMZ_DIM_NONE. */
#ifndef CMZ_IR_DIM_H
#define CMZ_IR_DIM_H

#include "base.h"

typedef uint32_t cmz_dim;
#define CMZ_DIM_NONE 0u
/* What has no value that fits int64 (overflow, division by zero) or grows past the pool's limits;
 * everything made from it is it again. It is not a constant (cmz_dim_is_const says false) and
 * cannot be evaluated; inference refuses it. */
#define CMZ_DIM_OVERFLOW 1u

typedef enum cmz_dim_kind {
  CMZ_DIM_CONST,  /* value */
  CMZ_DIM_SYMBOL, /* see cmz_symbol */
  CMZ_DIM_ADD,    /* two or more args: terms, the constant last */
  CMZ_DIM_MUL,    /* two or more args: a constant coefficient first, if any, then factors */
  CMZ_DIM_FLOORDIV,
  CMZ_DIM_MOD, /* sign of the divisor */
  CMZ_DIM_MIN,
  CMZ_DIM_MAX,
  CMZ_DIM_BROADCAST, /* a == 1 ? b : a; equal sizes or one of them 1 */
  CMZ_DIM_EQ,        /* 0 or 1 */
  CMZ_DIM_SELECT,    /* a != 0 ? b : c */
  CMZ_DIM_SCALE,     /* floor(a * f), f = a double whose bits are the second argument */
} cmz_dim_kind;

typedef enum cmz_symbol_origin {
  CMZ_SYMBOL_INPUT, /* a dimension of an entry's input: known when run is called */
  /* An element of an integer tensor, or a data-dependent size: known during the run */
  CMZ_SYMBOL_DATA,
} cmz_symbol_origin;

typedef struct cmz_symbol {
  const char *name;  /* "batch", or made up and unique */
  int64_t low, high; /* inclusive range; high INT64_MAX when open */
  int64_t hint;      /* the value to optimise for (at least low) */
  cmz_symbol_origin origin;
  /* CMZ_SYMBOL_DATA: the cmz_vid whose content defines it, and which element; */
  uint32_t value;
  /* -1 - axis: dimension AXIS of VALUE itself, reported by the op or loop that makes it */
  int64_t element;
  /* CMZ_SYMBOL_DATA: the run fails where it is not in [low, high] (what compilation assumed) */
  bool check;
} cmz_symbol;

typedef struct cmz_dim_node {
  cmz_dim_kind kind;
  uint32_t arg_count;
  const cmz_dim *args; /* SYMBOL: none, value = index into symbols */
  int64_t value;       /* CONST value, SYMBOL index */
} cmz_dim_node;

typedef struct cmz_dims cmz_dims; /* the pool */

cmz_dims *cmz_dims_create(cmz_arena *arena);
/* A pool with the same ids. Shares what never changes with P, which it must not outlive. */
cmz_dims *cmz_dims_clone(const cmz_dims *p, cmz_arena *arena);
cmz_dim cmz_dim_const(cmz_dims *p, int64_t value);
/* A new symbol, or the one of the same name and origin INPUT (its range is intersected). */
cmz_dim cmz_dim_symbol(cmz_dims *p, const cmz_symbol *symbol);
cmz_dim cmz_dim_add(cmz_dims *p, cmz_dim a, cmz_dim b);
cmz_dim cmz_dim_sub(cmz_dims *p, cmz_dim a, cmz_dim b);
cmz_dim cmz_dim_mul(cmz_dims *p, cmz_dim a, cmz_dim b);
cmz_dim cmz_dim_floordiv(cmz_dims *p, cmz_dim a, cmz_dim b);
cmz_dim cmz_dim_ceildiv(cmz_dims *p, cmz_dim a, cmz_dim b);
cmz_dim cmz_dim_mod(cmz_dims *p, cmz_dim a, cmz_dim b);
cmz_dim cmz_dim_min(cmz_dims *p, cmz_dim a, cmz_dim b);
cmz_dim cmz_dim_max(cmz_dims *p, cmz_dim a, cmz_dim b);
cmz_dim cmz_dim_broadcast(cmz_dims *p, cmz_dim a, cmz_dim b);
cmz_dim cmz_dim_eq(cmz_dims *p, cmz_dim a, cmz_dim b);
cmz_dim cmz_dim_select(cmz_dims *p, cmz_dim c, cmz_dim a, cmz_dim b);
cmz_dim cmz_dim_scale(cmz_dims *p, cmz_dim a, double factor); /* floor(a * factor) */
/* The same, factor known at run time */
cmz_dim cmz_dim_scale_bits(cmz_dims *p, cmz_dim a, cmz_dim factor_bits);
/* Product of N dims (1 when N is 0). */
cmz_dim cmz_dim_product(cmz_dims *p, const cmz_dim *dims, size_t n);

/* Stays where it is while the pool grows. */
const cmz_dim_node *cmz_dim_get(const cmz_dims *p, cmz_dim d);
/* NULL unless a SYMBOL */
const cmz_symbol *cmz_dim_symbol_of(const cmz_dims *p, cmz_dim d);
uint32_t cmz_dim_symbol_count(const cmz_dims *p);
cmz_symbol *cmz_dim_symbol_at(cmz_dims *p, uint32_t index);
cmz_dim cmz_dim_symbol_id(const cmz_dims *p, uint32_t index);
/* True and the value when D is constant. */
bool cmz_dim_is_const(const cmz_dims *p, cmz_dim d, int64_t *value);
static inline bool cmz_dim_is(const cmz_dims *p, cmz_dim d, int64_t v) {
  int64_t x;
  return cmz_dim_is_const(p, d, &x) && x == v;
}
bool cmz_dim_is_overflow(const cmz_dims *p, cmz_dim d);
/* Bounds that hold for every value of the symbols (INT64_MIN / INT64_MAX when unknown). */
void cmz_dim_range(const cmz_dims *p, cmz_dim d, int64_t *low, int64_t *high);
/* D is a size of a tensor: no run goes on where it is negative, so its range begins at 0. */
void cmz_dim_mark_size(cmz_dims *p, cmz_dim d);
/* Value with every symbol at its hint / at symbol_values[index]. False on division by zero or
 * overflow. */
bool cmz_dim_hint(const cmz_dims *p, cmz_dim d, int64_t *value);
bool cmz_dim_eval(const cmz_dims *p, cmz_dim d, const int64_t *symbol_values, int64_t *value);
/* Whether D depends on a CMZ_SYMBOL_DATA symbol. */
bool cmz_dim_is_data_dependent(const cmz_dims *p, cmz_dim d);
/* D with each symbol s replaced by replacement[index of s] where that is not CMZ_DIM_NONE. */
cmz_dim cmz_dim_substitute(cmz_dims *p, cmz_dim d, const cmz_dim *replacement);
/* Printed as an expression ("(batch*3 + 1)//2"); parsed back by cmz_dim_parse (NULL-safe end
 * pointer). */
void cmz_dim_print(const cmz_dims *p, cmz_dim d, cmz_text *text);
/* CMZ_DIM_NONE on error */
cmz_dim cmz_dim_parse(cmz_dims *p, const char *text, const char **end);

#endif
