/* kernel.h - kernel descriptions and schedules: what a kernel computes, and how, as plain data.
 *
 * A kernel is a list of stores. Each store runs over its axes (a rectangular domain) and writes
 * VALUE to element INDEX of an operand. Both are scalar expressions in one hash-consed DAG:
 * constants, axes, parameters (sizes known at run time), loads from operands at an integer linear
 * index, arithmetic, and REDUCE nodes, which bind axes of their own. Nothing in a description says
 * how it runs: loops, tiles and vectors are the schedule's. Fusion is substitution: a producer's
 * expression in place of a load.
 *
 * Conventions: index arithmetic has type CMZ_I64; values have a compute type (f32, f64, i32, i64,
 * u32, u64, bool); LOAD converts from the operand's stored type to its compute type, a store
 * converts back (round to nearest even; integers wrap). Loads under a SELECT are only performed
 * when selected: SELECT(p, LOAD(i), 0) is the idiom for padding, and index i may be out of bounds
 * where p is false. DIV of integers truncates, FLOORDIV/MOD follow the divisor's sign. MIN/MAX
 * propagate NaN (as ONNX and numpy do); comparison with NaN is false. */
#ifndef CMZ_IR_KERNEL_H
#define CMZ_IR_KERNEL_H

#include "dim.h"
#include "dtype.h"

typedef uint32_t cmz_expr; /* id in a kernel's pool; 0 = none */

/* X(name, argument count, printed form) */
/* clang-format off */
#define CMZ_EXPR_OPS(X) \
  X(CONST_INT, 0, "int") X(CONST_FLOAT, 0, "float") X(AXIS, 0, "axis") X(PARAM, 0, "param") \
  X(LOAD, 1, "load") X(REDUCE, 1, "reduce") \
  X(ADD, 2, "add") X(SUB, 2, "sub") X(MUL, 2, "mul") X(DIV, 2, "div") X(FLOORDIV, 2, "floordiv") \
  X(MOD, 2, "mod") X(FMOD, 2, "fmod") X(MIN, 2, "min") X(MAX, 2, "max") X(POW, 2, "pow") \
  X(AND, 2, "and") X(OR, 2, "or") X(XOR, 2, "xor") X(SHL, 2, "shl") X(SHR, 2, "shr") \
  X(EQ, 2, "eq") X(LT, 2, "lt") X(LE, 2, "le") \
  X(NOT, 1, "not") X(NEG, 1, "neg") X(ABS, 1, "abs") X(SIGN, 1, "sign") \
  X(FLOOR, 1, "floor") X(CEIL, 1, "ceil") X(ROUND_EVEN, 1, "round_even") X(TRUNC, 1, "trunc") \
  X(SQRT, 1, "sqrt") X(EXP, 1, "exp") X(LOG, 1, "log") X(SIN, 1, "sin") X(COS, 1, "cos") \
  X(TAN, 1, "tan") X(ASIN, 1, "asin") X(ACOS, 1, "acos") X(ATAN, 1, "atan") \
  X(SINH, 1, "sinh") X(COSH, 1, "cosh") X(TANH, 1, "tanh") X(ASINH, 1, "asinh") \
  X(ACOSH, 1, "acosh") X(ATANH, 1, "atanh") X(ERF, 1, "erf") X(SIGMOID, 1, "sigmoid") \
  X(IS_NAN, 1, "is_nan") X(IS_INF, 1, "is_inf") X(SELECT, 3, "select") X(CAST, 1, "cast") \
  X(BITCAST, 1, "bitcast") X(POPCOUNT, 1, "popcount")
/* clang-format on */

typedef enum cmz_expr_op {
#define CMZ_EXPR_ENUM(name, count, text) CMZ_X_##name,
  CMZ_EXPR_OPS(CMZ_EXPR_ENUM)
#undef CMZ_EXPR_ENUM
      CMZ_X_COUNT
} cmz_expr_op;

typedef enum cmz_reduce_op {
  CMZ_REDUCE_SUM,
  CMZ_REDUCE_PROD,
  CMZ_REDUCE_MAX,
  CMZ_REDUCE_MIN,
  CMZ_REDUCE_AND,
  CMZ_REDUCE_OR,
  /* One axis; the result (i64) is the first / last position of the largest / smallest element. */
  CMZ_REDUCE_ARGMAX,
  CMZ_REDUCE_ARGMIN,
  CMZ_REDUCE_ARGMAX_LAST,
  CMZ_REDUCE_ARGMIN_LAST
} cmz_reduce_op;

#define CMZ_REDUCE_MAX_AXES 12
#define CMZ_STORE_MAX_AXES 20
typedef struct cmz_expr_node {
  uint8_t op;         /* cmz_expr_op */
  uint8_t dtype;      /* type of the result (a compute type) */
  uint8_t reduce_op;  /* REDUCE */
  uint8_t axis_count; /* REDUCE: bound axes, outermost first */
  /* LOAD: the linear element index; REDUCE: the body, and where a sum of floats starts (0: at zero)
   */
  cmz_expr args[3];
  union {
    int64_t i; /* CONST_INT; AXIS, PARAM: index into the kernel's table; LOAD: operand */
    double f;  /* CONST_FLOAT */
  };
  uint16_t axes[CMZ_REDUCE_MAX_AXES]; /* REDUCE: axis ids */
} cmz_expr_node;

typedef enum cmz_axis_kind {
  CMZ_AXIS_PARALLEL,
  CMZ_AXIS_REDUCE,
  CMZ_AXIS_SERIAL /* iterations in order, stores seen by later loads */
} cmz_axis_kind;
typedef struct cmz_axis {
  cmz_axis_kind kind;
  /* CONST_INT or an expression of PARAMs; the axis runs over [0, extent) */
  cmz_expr extent;
  uint32_t chain; /* REDUCE: a sum of floats begins anew after so many iterations and adds up what
                   * it has; 0: never. Advice on how additions associate: the loop over the chains
                   * stands outside of all others of the sum. */
  /* Of the two that a split made; for the schedule, not part of the text form */
  bool outer;
  uint32_t strands; /* REDUCE: a sum of floats in so many interleaved sums (a power of two), joined
                     * by halves; the last terms, that are fewer, are added one by one. 0: as the
                     * schedule likes. Followed where the axis is the only one of its sum. */
} cmz_axis;

typedef enum cmz_operand_access {
  CMZ_READ = 1,
  CMZ_WRITE = 2,
  CMZ_READ_WRITE = 3
} cmz_operand_access;
typedef struct cmz_operand {
  /* As stored (plain elements; formats are decoded by expressions over bytes) */
  cmz_dtype dtype;
  uint8_t access;    /* cmz_operand_access */
  bool constant;     /* weights: read-only for the model's life */
  cmz_expr elements; /* number of stored elements */
} cmz_operand;

typedef enum cmz_store_mode {
  CMZ_STORE_SET,
  CMZ_STORE_ADD,
  CMZ_STORE_MUL,
  CMZ_STORE_MIN,
  CMZ_STORE_MAX
} cmz_store_mode;
typedef struct cmz_store {
  uint32_t axis_count;
  uint16_t axes[CMZ_STORE_MAX_AXES]; /* outermost first */
  uint16_t operand;
  cmz_store_mode mode; /* others than SET read, combine and write: their axes are SERIAL */
  cmz_expr index, value;
  cmz_expr predicate; /* store only where true; 0: always */
} cmz_store;

/* How a kernel runs on a CPU. Prints as one line, is part of the kernel's cache key. Axis numbers
 * are the kernel's. A grid tile is one iteration of the tiled domain; the kernel function gets a
 * range of tiles. */
/* How the two meet: one step of an axis is unroll * lanes iterations (unroll counts instances:
 * vectors on the axis with lanes, scalars on others). tile is a multiple of the step or 0; what is
 * left over at the end of a tile or axis runs as a tail. Tiles are a function of the description
 * alone on CPUs (all levels split the work alike); only axes that every store of the kernel has are
 * tiled. Grid tiles are numbered row-major over the tiled axes in the order of the first store's
 * axis list. */
typedef struct cmz_axis_schedule {
  uint32_t tile;   /* iterations of the axis in one grid tile; 0: the whole axis */
  uint16_t unroll; /* register tile: iterations computed together, at least 1 */
  /* Vector lanes along this axis (1: scalar); at most one parallel axis has more than 1 */
  uint16_t lanes;
  uint8_t order; /* position in the loop nest, 0 outermost */
  /* GPU work-groups: threads side by side along the axis; tile = threads * unroll. 0 elsewhere */
  uint16_t threads;
} cmz_axis_schedule;
typedef struct cmz_schedule {
  uint32_t axis_count; /* = the kernel's */
  cmz_axis_schedule *axes;
  /* Lanes for reductions over a contiguous innermost axis in scalar context */
  uint16_t reduce_lanes;
  uint16_t reduce_unroll;
  /* A work-group of so many threads computes a grid tile together (0: one thread does): what the
   * contraction multiplies is staged in the group's memory, STEP iterations of the reduction at a
   * time. All tiles, threads and STEP are powers of two. Attention: STEP keys at a time, the
   * values' columns in one tile of any size; without `group` a thread computes its rows alone. */
  uint16_t group, step;
  /* One factor are weights in a storage format, in the order of matrix fragments: bits of a code.
   * 0: no such */
  uint16_t coded;
  /* cmz_dtype: factors are staged in these types, one each, and multiplied by matrix instructions
   * of warps (f32 as tf32); 0: by scalars */
  uint16_t fragments, second;
} cmz_schedule;

typedef struct cmz_kernel {
  const char *name; /* "conv_relu": for symbols and profiles; not part of the hash */
  cmz_arena *arena;
  CMZ_VEC(cmz_expr_node) exprs; /* [0] unused; arguments precede users */
  CMZ_VEC(cmz_axis) axes;
  CMZ_VEC(cmz_operand) operands;
  CMZ_VEC(cmz_store) stores;
  uint32_t param_count; /* i64 values given at run time, all >= 0 */
  void *intern;         /* the hash-consing table */
  uint64_t flops;       /* of one run at the hints: for reports; not part of the hash */
} cmz_kernel;

/* ---- building (kernel.c): every constructor simplifies (constants, identities, x*1, (a*n+b)/n
 * with 0<=b<n …) ---- */
cmz_kernel *cmz_kernel_create(cmz_arena *arena, const char *name);
uint16_t cmz_kernel_add_axis(cmz_kernel *k, cmz_axis_kind kind, cmz_expr extent);
uint16_t cmz_kernel_add_operand(cmz_kernel *k, cmz_dtype dtype, uint8_t access, bool constant,
                                cmz_expr elements);
cmz_expr cmz_x_int(cmz_kernel *k, cmz_dtype dtype, int64_t v); /* also bool */
cmz_expr cmz_x_index(cmz_kernel *k, int64_t v);                /* cmz_x_int of CMZ_I64 */
cmz_expr cmz_x_float(cmz_kernel *k, cmz_dtype dtype, double v);
/* Whichever of the two DTYPE needs */
cmz_expr cmz_x_const(cmz_kernel *k, cmz_dtype dtype, double v);
cmz_expr cmz_x_axis(cmz_kernel *k, uint16_t axis);
cmz_expr cmz_x_param(cmz_kernel *k, uint32_t param);
cmz_expr cmz_x_load(cmz_kernel *k, uint16_t operand, cmz_expr index);
cmz_expr cmz_x_reduce(cmz_kernel *k, cmz_reduce_op op, cmz_expr body, const uint16_t *axes,
                      uint32_t axis_count);
/* A sum of floats that starts at START: the first chain's sum is added to it, then the others', in
 * their order. */
cmz_expr cmz_x_sum_from(cmz_kernel *k, cmz_expr start, cmz_expr body, const uint16_t *axes,
                        uint32_t axis_count);
cmz_expr cmz_x1(cmz_kernel *k, cmz_expr_op op, cmz_expr a);
/* Both of one type; comparisons give bool */
cmz_expr cmz_x2(cmz_kernel *k, cmz_expr_op op, cmz_expr a, cmz_expr b);
cmz_expr cmz_x_select(cmz_kernel *k, cmz_expr condition, cmz_expr a, cmz_expr b);
cmz_expr cmz_x_cast(cmz_kernel *k, cmz_expr a, cmz_dtype to); /* to a compute type */
/* A cast to a storage type and back (rounding to f16, wrapping to i8 …); result has TO's compute
 * type. Integers become shifts and masks; floats a CAST whose field `i` is the storage type (0 in
 * all other CASTs). */
cmz_expr cmz_x_cast_through(cmz_kernel *k, cmz_expr a, cmz_dtype to);
/* The same bits as a number of type TO (f32 <-> i32/u32, f64 <-> i64/u64). */
cmz_expr cmz_x_bitcast(cmz_kernel *k, cmz_expr a, cmz_dtype to);
/* Narrow floats by integer arithmetic (kernel_narrow.c). Codes are i32. X is f32. */
/* The f4e2m1 number of the low 4 bits of CODE */
cmz_expr cmz_x_f4_of_code(cmz_kernel *k, cmz_expr code);
/* Rounded to nearest even; NaN, which it lacks, is -0 */
cmz_expr cmz_x_code_of_f4(cmz_kernel *k, cmz_expr x);
typedef enum cmz_e8m0_rounding { CMZ_E8M0_UP, CMZ_E8M0_DOWN, CMZ_E8M0_NEAREST } cmz_e8m0_rounding;
/* |X| as a power of two from 2^-127 to 2^127; beyond: the largest (SATURATE) or NaN. */
cmz_expr cmz_x_round_e8m0(cmz_kernel *k, cmz_expr x, cmz_e8m0_rounding rounding, bool saturate);
/* The bits that X has when it is stored as STORED, as i32 (i64 where that has 64), and the number
 * that BITS are as STORED. 0: not done for that type. */
cmz_expr cmz_x_bits_of(cmz_kernel *k, cmz_expr x, cmz_dtype stored);
cmz_expr cmz_x_of_bits(cmz_kernel *k, cmz_expr bits, cmz_dtype stored);
static inline const cmz_expr_node *cmz_x_get(const cmz_kernel *k, cmz_expr e) {
  return &k->exprs.data[e];
}
bool cmz_x_is_int(const cmz_kernel *k, cmz_expr e, int64_t *value);
/* Bounds of an integer expression over all axis values (params are in [0, INT64_MAX]);
 * INT64_MIN/MAX when unknown. */
void cmz_x_range(const cmz_kernel *k, cmz_expr e, int64_t *low, int64_t *high);
/* Whether E depends on AXIS (free occurrence). */
bool cmz_x_uses_axis(const cmz_kernel *k, cmz_expr e, uint16_t axis);
/* E as stride * axis + rest with constant stride (0 when independent); false when not affine in
 * AXIS. */
bool cmz_x_stride(cmz_kernel *k, cmz_expr e, uint16_t axis, int64_t *stride);
/* E with axis -> replacement for each of COUNT pairs; simplified again. */
cmz_expr cmz_x_substitute(cmz_kernel *k, cmz_expr e, const uint16_t *axes,
                          const cmz_expr *replacements, uint32_t count);
/* E simplified for axis values in [low[a], high[a]] only (arrays by axis id; INT64_MIN / INT64_MAX:
 * unknown). An axis with low == high becomes that constant. For edge and interior tiles. */
cmz_expr cmz_x_specialise(cmz_kernel *k, cmz_expr e, const int64_t *low, const int64_t *high);
/* Replaces AXIS everywhere (stores, reduces) by outer * FACTOR + inner, two new axes in its place.
 * Where the extent is not a known multiple of FACTOR, stores are under a predicate and terms of
 * sums under a SELECT. The new axes have new ids; AXIS stays in the table, unused, until
 * cmz_kernel_compact. */
void cmz_kernel_split_axis(cmz_kernel *k, uint16_t axis, uint32_t factor, uint16_t *outer,
                           uint16_t *inner);
/* Merges neighbouring store axes wherever every index uses them as one (a * extent(b) + b). */
void cmz_kernel_merge_axes(cmz_kernel *k);
/* What is added to a sum in chains of several iterations, perhaps after something else (a bias),
 * becomes where the sum starts, when it is an element of an operand that STARTS marks (array by
 * operand) and nothing else uses the sum. */
void cmz_kernel_start_sums(cmz_kernel *k, const bool *starts);
/* Drops unused axes and expressions and numbers both anew: ids held from before are invalid.
 * Idempotent. */
void cmz_kernel_compact(cmz_kernel *k);
/* Splits reduction axes that index expressions take apart (axis / 16, axis % 16: blocked layouts),
 * so that all indices are affine; a SUM whose terms are zero in the padding of the last block runs
 * over the whole block. Then compacts. */
void cmz_kernel_split_blocked_reductions(cmz_kernel *k);
/* Of these splits the first of each axis alone. */
void cmz_kernel_split_blocks(cmz_kernel *k);
/* The same for known extents that the divisor divides, as often as something is left to split:
 * packed weights are read by group, block of four and code of a byte. Then compacts. */
void cmz_kernel_split_packed_reductions(cmz_kernel *k);

/* A factor of a sum of products of bytes: LOAD where CONDITION holds (0: always), OTHERWISE (a byte
 * too) elsewhere; FLIP: of signed bytes, plus 128; of unsigned ones, minus 128. IS_SIGNED: the
 * bytes so made. Of bf16 numbers: OTHERWISE is zero. */
typedef struct cmz_quad_factor {
  cmz_expr load, condition, otherwise;
  bool flip, is_signed;
} cmz_quad_factor;
/* COUNT elements make the four bytes of a lane: 4 bytes, or 2 bf16 numbers. */
typedef struct cmz_quad {
  cmz_quad_factor factors[2];
  uint8_t count;
} cmz_quad;
/* REDUCE as an i32 sum of products of bytes, or an f32 sum of products of bf16 numbers
 * (kernel_quad.c). */
bool cmz_x_quad(const cmz_kernel *k, cmz_expr reduce, cmz_quad *quad);
/* Whether AXIS, one of its own, may be taken four bytes at a time: `count` iterations that no
 * condition tells apart. That both loads have stride 1 along it is the caller's to check. */
bool cmz_x_quad_axis(const cmz_kernel *k, const cmz_quad *quad, uint16_t axis);

/* A kernel that sums up softmax(scores) * values over keys (kernel_attention.c). Everything is at
 * axis KEYS, which SUM binds. */
typedef struct cmz_attention {
  cmz_expr sum;     /* REDUCE: of probability times VALUE */
  cmz_expr score;   /* what is exponentiated, before the row's maximum is taken off */
  cmz_expr product; /* REDUCE: the one in SCORE, of QUERY times KEY */
  cmz_expr query, key, value;
  /* A term of SCORE: a key where it is -infinity is not taken, whatever SCORE is; 0: none */
  cmz_expr bias;
  uint16_t keys;
  bool zero;    /* a row whose powers sum up to zero is zero, not NaN */
  bool not_nan; /* probabilities that are NaN are zero */
} cmz_attention;
/* Whether K is such a kernel, with nothing but f32 in between. */
bool cmz_kernel_attention(const cmz_kernel *k, cmz_attention *a);
/* Weights in a storage format, (code - offset or zero point) * scale, that lie as warps read them
 * (passes/layout_fragments.c): panels of 16 rows, in each tiles of 512 bytes along the columns of
 * the sum, in each 16 bytes a lane. Lane L has rows 2 (L / 4) and the next; of each 16 columns it
 * has 4 (L % 4) and the three after. Four words of a 4-bit tile are four such sixteens: byte 0 has
 * columns 0 and 1 (low bits first) of the even row, byte 1 of the odd one, bytes 2 and 3 columns 2
 * and 3. Of an 8-bit tile two words are one: bytes 0 and 1 columns 0 and 1 of the even row, bytes 2
 * and 3 of the odd one; the next word columns 2 and 3. */
typedef struct cmz_coded {
  uint32_t bits;          /* 4 or 8 */
  bool is_signed;         /* of 8 bits */
  cmz_expr values, shift; /* LOAD of the byte; where the code begins in it (0: at 0) */
  cmz_expr scales, zeros; /* LOADs, [panel][group][16], of one index; zeros 0: none */
  double offset;          /* what every code is less */
  uint32_t axis_count;
  /* Of the reduction, outermost first, as the columns run */
  uint16_t axes[CMZ_REDUCE_MAX_AXES];
  /* Of the sum; that share a scale: whole tiles, or whole sixteens of one */
  int64_t columns, group;
} cmz_coded;
/* Of a tile */
static inline int64_t cmz_coded_columns(const cmz_coded *c) { return c->bits == 4 ? 64 : 32; }
/* Whether factor FACTOR of the sum of products REDUCE are such weights, ROWS (innermost first)
 * being the axes that count their rows. */
bool cmz_x_coded(const cmz_kernel *k, cmz_expr reduce, uint32_t factor, const uint16_t *rows,
                 uint32_t row_count, cmz_coded *c);

/* Text form (also the input of the hash), parse back, structural hash of description and schedule.
 */
void cmz_kernel_print(const cmz_kernel *k, cmz_text *text);
cmz_status cmz_kernel_parse(cmz_context *ctx, cmz_arena *arena, const char *text,
                            cmz_kernel **kernel);
void cmz_schedule_print(const cmz_schedule *s, cmz_text *text);
cmz_status cmz_schedule_parse(cmz_context *ctx, cmz_arena *arena, const char *text,
                              cmz_schedule *schedule);
cmz_hash128 cmz_kernel_hash(const cmz_kernel *k, const cmz_schedule *s);
/* Checks types, operand numbers, axis binding; CMZ_E_INTERNAL. */
cmz_status cmz_kernel_verify(cmz_context *ctx, const cmz_kernel *k);

/* Reference interpreter (interpret.c): runs K on plain memory; every load and store is
 * bounds-checked (CMZ_E_INTERNAL names the operand and index). */
cmz_status cmz_kernel_interpret(cmz_context *ctx, const cmz_kernel *k, void *const *operands,
                                const int64_t *params);

/* ---- describing graph nodes (describe.c): what op rows' describe functions use ---- */
typedef struct cmz_describe cmz_describe;
struct cmz_module;
cmz_kernel *cmz_describe_kernel(cmz_describe *d);
/* Element of input INPUT of the node being described at coordinates IDX (one per dimension of that
 * input): a load, or the producer's own expression when it is fused in. The type is the input's
 * compute type. */
cmz_expr cmz_describe_input(cmz_describe *d, uint32_t input, const cmz_expr *idx);
/* Input INPUT of the current node, which has one element, whatever its rank; 0 after an error. */
cmz_expr cmz_describe_single(cmz_describe *d, uint32_t input);
/* The same with numpy broadcasting: IDX has the OUTPUT's rank; trailing dims are aligned, size-1
 * dims read at 0. */
cmz_expr cmz_describe_broadcast(cmz_describe *d, uint32_t input, const cmz_expr *idx,
                                uint32_t rank);
/* A size as an index expression. */
cmz_expr cmz_describe_dim(cmz_describe *d, cmz_dim dim);
/* A fresh reduction axis over [0, extent). */
cmz_expr cmz_describe_reduce_axis(cmz_describe *d, cmz_dim extent, uint16_t *axis);
/* Records an error located at the node; returns 0. */
cmz_expr cmz_describe_fail(cmz_describe *d, const char *format, ...) CMZ_PRINTF(2, 3);
struct cmz_module *cmz_describe_module(cmz_describe *d);
/* The operand of output OUTPUT (for describe_kernel): created at first use with ACCESS. Coordinates
 * are turned into its linear index by cmz_describe_output_index. */
uint16_t cmz_describe_output(cmz_describe *d, uint32_t output, uint8_t access);
cmz_expr cmz_describe_output_index(cmz_describe *d, uint32_t output, const cmz_expr *idx);
/* Row-major linearisation of coordinates under SHAPE, and the inverse (both simplify). */
cmz_expr cmz_describe_linear(cmz_describe *d, const cmz_dim *shape, uint32_t rank,
                             const cmz_expr *idx);
void cmz_describe_delinear(cmz_describe *d, const cmz_dim *shape, uint32_t rank, cmz_expr linear,
                           cmz_expr *idx);

/* What a described kernel is bound to: passes/ turns this into a plan step. */
typedef struct cmz_described {
  cmz_kernel *kernel;
  uint32_t *operand_values; /* cmz_vid of each operand */
  cmz_dim *params;          /* the size behind each parameter */
  uint32_t *nodes;          /* cmz_nid of every node fused in, root last */
  uint32_t node_count;
} cmz_described;
/* Describes the kernel that computes all wanted outputs of node ROOT. Inputs whose producers have
 * fused[vid] == true are expressed in place; all others are loads of operands with the value's
 * layout. The domain of a store is the physical axes of the output's layout, outermost first;
 * padding elements are stored as zero. */
cmz_status cmz_describe_node(struct cmz_module *m, uint32_t root, const bool *fused,
                             cmz_arena *arena, cmz_described *out);

#endif
