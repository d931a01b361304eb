/* col2im.c - Col2Im: overlapping blocks, one per column, added up into an image.
 * In: data [N, C * block size, number of blocks], the image's and the block's shape. Out: [N, C,
 * image]. Always holds: each pixel gathers what falls on it, so no two iterations write one
 * element. */
#include "ops.h"

#define MAX_DIMS 6

typedef struct blocks {
  uint32_t dims;
  int64_t stride[MAX_DIMS], dilation[MAX_DIMS], begin[MAX_DIMS], end[MAX_DIMS];
  cmz_dim block[MAX_DIMS], size; /* of a block */
} blocks;

static cmz_status attribute(cmz_module *m, cmz_nid n, const char *name, uint32_t count,
                            int64_t otherwise, int64_t least, int64_t *out) {
  uint32_t given;
  const int64_t *list = cmz_node_ints(cmz_node_get(m, n), name, &given);
  if (list && given != count)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "%s has %u numbers, not %u", name, given, count);
  for (uint32_t i = 0; i < count; i++) {
    out[i] = list ? list[i] : otherwise;
    if (out[i] < least || out[i] > INT32_MAX)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "%s has the number %" PRId64, name, out[i]);
  }
  return CMZ_OK;
}

static cmz_status read_blocks(cmz_module *m, cmz_nid n, blocks *b) {
  int64_t pads[2 * MAX_DIMS], size;
  *b = (blocks){0};
  const cmz_dim *block = cmz_value_demand_elements(m, cmz_ops_input(m, n, 2), &b->dims);
  if (!block || !b->dims || b->dims > MAX_DIMS)
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "a block needs 1 to %d dimensions", MAX_DIMS);
  CMZ_TRY(attribute(m, n, "strides", b->dims, 1, 1, b->stride));
  CMZ_TRY(attribute(m, n, "dilations", b->dims, 1, 1, b->dilation));
  CMZ_TRY(attribute(m, n, "pads", 2 * b->dims, 0, 0, pads));
  for (uint32_t i = 0; i < b->dims; i++) {
    b->begin[i] = pads[i], b->end[i] = pads[b->dims + i];
    b->block[i] = block[i];
    if (cmz_dim_is_const(m->dims, block[i], &size) && (size < 1 || size > INT32_MAX))
      return cmz_node_fail(m, n, CMZ_E_INPUT, "a block has the size %" PRId64, size);
  }
  b->size = cmz_dim_product(m->dims, b->block, b->dims);
  return CMZ_OK;
}

/* Number of blocks along dimension I of an image of SIZE. */
static cmz_dim count_of(cmz_dims *p, const blocks *b, uint32_t i, cmz_dim size) {
  cmz_dim reach = cmz_dim_mul(p, cmz_dim_const(p, b->dilation[i]), b->block[i]);
  cmz_dim room = cmz_dim_sub(p, size, reach);
  room = cmz_dim_add(p, room, cmz_dim_const(p, b->dilation[i] - 1 + b->begin[i] + b->end[i]));
  return cmz_dim_add(p, cmz_dim_floordiv(p, room, cmz_dim_const(p, b->stride[i])),
                     cmz_dim_const(p, 1));
}

static cmz_status infer(cmz_module *m, cmz_nid n) {
  blocks b;
  uint32_t count;
  CMZ_TRY(read_blocks(m, n, &b));
  const cmz_type x = *cmz_ops_type(m, cmz_ops_input(m, n, 0));
  const cmz_dim *image = cmz_value_demand_elements(m, cmz_ops_input(m, n, 1), &count);
  if (x.rank != 3 || !image || count != b.dims)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "needs data of rank 3 and %u sizes of the image",
                         b.dims);
  cmz_dim shape[2 + MAX_DIMS] = {x.shape[0]}, columns = cmz_dim_const(m->dims, 1);
  shape[1] = cmz_dim_floordiv(m->dims, x.shape[1], b.size);
  for (uint32_t i = 0; i < b.dims; i++) {
    shape[2 + i] = image[i];
    columns = cmz_dim_mul(m->dims, columns, count_of(m->dims, &b, i, image[i]));
  }
  int64_t rows, size;
  bool whole = !cmz_dim_is_const(m->dims, x.shape[1], &rows) ||
               !cmz_dim_is_const(m->dims, b.size, &size) || rows % size == 0;
  if (!whole || cmz_dims_differ(m, columns, x.shape[2]))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "the data does not fit the image and the block");
  cmz_set_output(m, n, 0, x.dtype, 2 + b.dims, shape);
  return CMZ_OK;
}

static cmz_expr describe(cmz_describe *d, const cmz_node *n, uint32_t output, const cmz_expr *idx) {
  cmz_module *m = cmz_describe_module(d);
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_type y = *cmz_output_type(m, n, output);
  blocks b;
  if (read_blocks(m, cmz_node_self(m, n), &b) != CMZ_OK) return 0;
  cmz_reducer r = {0};
  cmz_expr inside = 0, row = idx[1], column = cmz_x_index(k, 0);
  for (uint32_t i = 0; i < b.dims; i++) {
    cmz_expr extent = cmz_describe_dim(d, count_of(m->dims, &b, i, y.shape[2 + i]));
    cmz_expr at = cmz_reducer_axis(d, &r, b.block[i]);
    if (r.overflow) return 0;
    row = cmz_x_add(k, cmz_x_mul(k, row, cmz_describe_dim(d, b.block[i])), at);
    cmz_expr p = cmz_x_sub(k, cmz_x_add(k, idx[2 + i], cmz_x_index(k, b.begin[i])),
                           cmz_x_mul(k, at, cmz_x_index(k, b.dilation[i])));
    cmz_expr stride = cmz_x_index(k, b.stride[i]), q = cmz_x2(k, CMZ_X_FLOORDIV, p, stride);
    if (b.stride[i] > 1)
      inside = cmz_x_and(k, inside,
                         cmz_x2(k, CMZ_X_EQ, cmz_x2(k, CMZ_X_MOD, p, stride), cmz_x_index(k, 0)));
    inside = cmz_x_and(k, inside, cmz_x_bounds(k, q, extent, true, true));
    column = cmz_x_add(k, cmz_x_mul(k, column, extent), q);
  }
  cmz_expr x = cmz_describe_input(d, 0, (cmz_expr[]){idx[0], row, column});
  if (!x) return 0;
  x = cmz_x_select(k, inside, x, cmz_x_like(k, x, 0));
  return cmz_reducer_finish(d, &r, CMZ_REDUCE_SUM, x);
}

static cmz_status eval(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                       cmz_array *outputs) {
  blocks b;
  CMZ_TRY(read_blocks(e->module, cmz_node_self(e->module, n), &b));
  const cmz_array *x = &inputs[0];
  int64_t shape[2 + MAX_DIMS] = {x->shape[0], 0}, counts[MAX_DIMS], columns = 1;
  int64_t block[MAX_DIMS], size = 1;
  for (uint32_t i = 0; i < b.dims; i++) {
    shape[2 + i] = cmz_get_int(&inputs[1], i);
    block[i] = cmz_get_int(&inputs[2], i);
    if (block[i] < 1 || !cmz_mul_i64(size, block[i], &size))
      return cmz_eval_fail(e, "a block has the size %" PRId64, block[i]);
    counts[i] =
        (shape[2 + i] + b.begin[i] + b.end[i] - b.dilation[i] * (block[i] - 1) - 1) / b.stride[i] +
        1;
    columns *= counts[i];
  }
  shape[1] = x->shape[1] / size;
  if (x->shape[1] % size || columns != x->shape[2])
    return cmz_eval_fail(e, "the data does not fit the image");
  CMZ_TRY(cmz_eval_shape(e, &outputs[0], 2 + b.dims, shape));
  size_t total = cmz_array_count(&outputs[0]);
  double *sums = CMZ_NEW_ARRAY(e->arena, double, total + 1);
  for (size_t i = 0; i < cmz_array_count(x); i++) {
    int64_t c[CMZ_MAX_RANK], at[2 + MAX_DIMS];
    cmz_array_coordinates(x, i, c);
    at[0] = c[0], at[1] = c[1] / size;
    bool inside = true;
    for (uint32_t j = b.dims; j-- > 0; c[1] /= block[j], c[2] /= counts[j]) {
      at[2 + j] = c[2] % counts[j] * b.stride[j] - b.begin[j] + c[1] % block[j] * b.dilation[j];
      inside = inside && at[2 + j] >= 0 && at[2 + j] < shape[2 + j];
    }
    if (inside) sums[cmz_array_index(&outputs[0], at)] += cmz_get(x, (int64_t)i);
  }
  for (size_t i = 0; i < total; i++) cmz_set(&outputs[0], (int64_t)i, sums[i]);
  return CMZ_OK;
}

const cmz_op cmz_ops_col2im[] = {
    {.domain = "",
     .name = "Col2Im",
     .min_inputs = 3,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 18,
     .attributes = "dilations:I pads:I strides:I",
     .infer = infer,
     .eval = eval,
     .describe = describe},
    {.name = NULL},
};
