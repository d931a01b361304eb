/* random.c - RandomUniform, RandomNormal, their Like forms, Bernoulli, Multinomial.
 * In: a shape or a tensor. Out: numbers that look random. Always holds: a number is a function of
 * the seed and the element's position alone, so every run, machine and number of threads gives the
 * same; without a seed each node has one of its own, made from its number. */
#include "ops.h"

typedef enum kind { UNIFORM, NORMAL, BERNOULLI, MULTINOMIAL } kind;

static kind kind_of(const cmz_node *n) {
  if (strstr(n->op->name, "Uniform")) return UNIFORM;
  if (strstr(n->op->name, "Normal")) return NORMAL;
  return n->op->name[0] == 'B' ? BERNOULLI : MULTINOMIAL;
}

/* ---- the generator: a mix of position and seed in 32 bits (the finaliser of MurmurHash3) ---- */

static uint32_t seed_of(const cmz_module *m, const cmz_node *n, uint32_t stream) {
  uint64_t bits = 0x9e3779b97f4a7c15u * (uint64_t)(cmz_node_self(m, n) + 1);
  double seed = cmz_node_float(n, "seed", 0);
  if (cmz_node_attr(n, "seed")) memcpy(&bits, &seed, sizeof bits);
  bits = (bits ^ (bits >> 31)) * 0x9e3779b97f4a7c15u + (uint64_t)stream * 0x7f4a7c15u;
  return (uint32_t)(bits >> 32) ^ (uint32_t)bits;
}

static uint32_t mix(uint32_t x, uint32_t seed) {
  x = x * 0x9e3779b1u + seed;
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  return x ^ (x >> 16);
}

/* In (0, 1), a multiple of 2^-24 plus half of that. */
static double uniform(uint32_t position, uint32_t seed) {
  return ((double)(mix(position, seed) >> 8) + 0.5) * 0x1p-24;
}

static cmz_expr u32(cmz_kernel *k, uint32_t v) { return cmz_x_int(k, CMZ_U32, v); }

static cmz_expr x_mix(cmz_kernel *k, cmz_expr x, uint32_t seed) {
  static const struct { uint32_t shift, factor; } steps[] = {{16, 0x85ebca6bu}, {13, 0xc2b2ae35u}};
  x = cmz_x_add(k, cmz_x_mul(k, x, u32(k, 0x9e3779b1u)), u32(k, seed));
  for (int i = 0; i < 2; i++) {
    x = cmz_x2(k, CMZ_X_XOR, x, cmz_x2(k, CMZ_X_SHR, x, u32(k, steps[i].shift)));
    x = cmz_x_mul(k, x, u32(k, steps[i].factor));
  }
  return cmz_x2(k, CMZ_X_XOR, x, cmz_x2(k, CMZ_X_SHR, x, u32(k, 16)));
}

static cmz_expr x_uniform(cmz_kernel *k, cmz_expr position, uint32_t seed) {
  cmz_expr bits = x_mix(k, cmz_x_cast(k, position, CMZ_U32), seed);
  bits = cmz_x_cast(k, cmz_x2(k, CMZ_X_SHR, bits, u32(k, 8)), CMZ_I32);
  cmz_expr v = cmz_x_add(k, cmz_x_cast(k, bits, CMZ_F32), cmz_x_float(k, CMZ_F32, 0.5));
  return cmz_x_mul(k, v, cmz_x_float(k, CMZ_F32, 0x1p-24));
}

/* ---- inference ---- */

static cmz_status infer(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type *x = cmz_input_type(m, node, 0);
  kind what = kind_of(node);
  int64_t dtype = cmz_node_int(node, "dtype",
                               what == MULTINOMIAL ? CMZ_I32
                               : x                 ? x->dtype
                                                   : CMZ_F32);
  bool number = dtype > 0 && dtype < CMZ_DTYPE_COUNT &&
                (cmz_dtype_is_float((cmz_dtype)dtype) ||
                 (what >= BERNOULLI && (cmz_dtype_is_int((cmz_dtype)dtype) || dtype == CMZ_BOOL)));
  if (!number) return cmz_node_fail(m, n, CMZ_E_INPUT, "dtype is %" PRId64, dtype);
  if (what >= BERNOULLI && !cmz_dtype_is_float(x->dtype))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "needs floats");
  cmz_dim shape[CMZ_MAX_RANK];
  if (what == MULTINOMIAL) {
    int64_t samples = cmz_node_int(node, "sample_size", 1);
    if (x->rank != 2 || samples < 1 || (dtype != CMZ_I32 && dtype != CMZ_I64))
      return cmz_node_fail(m, n, CMZ_E_INPUT,
                           "needs a matrix, at least one sample and int32 or int64");
    shape[0] = x->shape[0], shape[1] = cmz_dim_const(m->dims, samples);
    cmz_set_output(m, n, 0, (cmz_dtype)dtype, 2, shape);
    return CMZ_OK;
  }
  if (x) return cmz_infer_same(m, n, 0, 0, (cmz_dtype)dtype);
  uint32_t rank;
  const int64_t *sizes = cmz_node_ints(node, "shape", &rank);
  if (rank > CMZ_MAX_RANK) return cmz_node_fail(m, n, CMZ_E_INPUT, "the rank is %u", rank);
  for (uint32_t i = 0; i < rank; i++) {
    if (sizes[i] < 0) return cmz_node_fail(m, n, CMZ_E_INPUT, "a negative size");
    shape[i] = cmz_dim_const(m->dims, sizes[i]);
  }
  cmz_set_output(m, n, 0, (cmz_dtype)dtype, rank, shape);
  return CMZ_OK;
}

/* ---- values ---- */

static cmz_expr describe(cmz_describe *d, const cmz_node *n, uint32_t output, const cmz_expr *idx) {
  const cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type y = *cmz_output_type(m, n, output);
  kind what = kind_of(n);
  uint32_t seed = seed_of(m, n, 0);
  cmz_dtype compute = cmz_dtype_info(y.dtype)->compute;
  cmz_expr position = cmz_describe_linear(d, y.shape, y.rank, idx);
  if (what == MULTINOMIAL) { /* the greatest of the logits, each with noise of its own */
    cmz_dim classes = cmz_input_type(m, n, 0)->shape[1];
    cmz_reducer r = {0};
    cmz_expr at[2] = {idx[0], cmz_reducer_axis(d, &r, classes)};
    cmz_expr x = cmz_describe_input(d, 0, at);
    if (!x) return 0;
    position = cmz_x_add(k, cmz_x_mul(k, position, cmz_describe_dim(d, classes)), at[1]);
    cmz_expr noise = cmz_x1(k, CMZ_X_LOG, x_uniform(k, position, seed));
    noise = cmz_x1(k, CMZ_X_LOG, cmz_x1(k, CMZ_X_NEG, noise));
    x = cmz_x_sub(k, x, cmz_x_cast(k, noise, cmz_x_dtype(k, x)));
    cmz_expr best = cmz_reducer_finish(d, &r, CMZ_REDUCE_ARGMAX, x);
    return best ? cmz_x_cast(k, best, compute) : 0;
  }
  cmz_expr u = x_uniform(k, position, seed);
  if (what == BERNOULLI) {
    cmz_expr p = cmz_describe_input(d, 0, idx);
    if (!p) return 0;
    cmz_expr hit = cmz_x2(k, CMZ_X_LT, cmz_x_cast(k, u, cmz_x_dtype(k, p)), p);
    if (y.dtype == CMZ_BOOL) return hit;
    return cmz_x_select(k, hit, cmz_x_const(k, compute, 1), cmz_x_const(k, compute, 0));
  }
  double low = cmz_node_float(n, "low", 0), high = cmz_node_float(n, "high", 1);
  double add = what == UNIFORM ? low : cmz_node_float(n, "mean", 0);
  double factor = what == UNIFORM ? high - low : cmz_node_float(n, "scale", 1);
  if (what == NORMAL) { /* Box and Muller */
    cmz_expr angle =
        cmz_x_mul(k, x_uniform(k, position, seed_of(m, n, 1)), cmz_x_like(k, u, 2 * M_PI));
    cmz_expr length = cmz_x_mul(k, cmz_x1(k, CMZ_X_LOG, u), cmz_x_like(k, u, -2));
    u = cmz_x_mul(k, cmz_x1(k, CMZ_X_SQRT, length), cmz_x1(k, CMZ_X_COS, angle));
  }
  u = cmz_x_cast(k, u, compute);
  return cmz_x_add(k, cmz_x_mul(k, u, cmz_x_like(k, u, factor)), cmz_x_like(k, u, add));
}

static cmz_status eval(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                       cmz_array *outputs) {
  kind what = kind_of(n);
  uint32_t seed = seed_of(e->module, n, 0), other = seed_of(e->module, n, 1), rank = 0;
  const cmz_array *x = n->input_count ? &inputs[0] : NULL;
  cmz_array *y = &outputs[0];
  if (!n->outputs[0]) return CMZ_OK;
  if (what == MULTINOMIAL) {
    int64_t shape[2] = {x->shape[0], cmz_node_int(n, "sample_size", 1)};
    CMZ_TRY(cmz_eval_shape(e, y, 2, shape));
  } else if (x) {
    CMZ_TRY(cmz_eval_output_like(e, y, x));
  } else {
    const int64_t *sizes = cmz_node_ints(n, "shape", &rank);
    CMZ_TRY(cmz_eval_shape(e, y, rank, sizes));
  }
  double low = cmz_node_float(n, "low", 0), high = cmz_node_float(n, "high", 1);
  for (int64_t i = 0; i < (int64_t)cmz_array_count(y); i++) {
    double u = uniform((uint32_t)i, seed);
    if (what == UNIFORM) cmz_set(y, i, u * (high - low) + low);
    else if (what == BERNOULLI) cmz_set(y, i, u < cmz_get(x, i));
    else if (what == NORMAL)
      cmz_set(y, i,
              sqrt(-2 * log(u)) * cos(2 * M_PI * uniform((uint32_t)i, other)) *
                      cmz_node_float(n, "scale", 1) +
                  cmz_node_float(n, "mean", 0));
    else {
      int64_t classes = x->shape[1], best = 0;
      double most = -INFINITY;
      for (int64_t c = 0; c < classes; c++) {
        double v = cmz_get(x, i / y->shape[1] * classes + c) -
                   log(-log(uniform((uint32_t)(i * classes + c), seed)));
        if (v > most) most = v, best = c;
      }
      cmz_set_int(y, i, best);
    }
  }
  return CMZ_OK;
}

#define RANDOM(NAME, INPUTS, SINCE, ATTRIBUTES)                                                    \
  {                                                                                                \
    .domain = "", .name = NAME, .min_inputs = INPUTS, .max_inputs = INPUTS, .min_outputs = 1,      \
    .max_outputs = 1, .since = SINCE, .flags = CMZ_OP_RANDOM, .infer = infer, .eval = eval,        \
    .describe = describe, .attributes = ATTRIBUTES                                                 \
  }

const cmz_op cmz_ops_random[] = {
    RANDOM("RandomUniform", 0, 1, "dtype:i high:f low:f seed:f shape:I!"),
    RANDOM("RandomUniformLike", 1, 1, "dtype:i high:f low:f seed:f"),
    RANDOM("RandomNormal", 0, 1, "dtype:i mean:f scale:f seed:f shape:I!"),
    RANDOM("RandomNormalLike", 1, 1, "dtype:i mean:f scale:f seed:f"),
    RANDOM("Bernoulli", 1, 15, "dtype:i seed:f"),
    RANDOM("Multinomial", 1, 7, "dtype:i sample_size:i seed:f"),
    {.name = NULL},
};
