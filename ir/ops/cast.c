/* cast.c - changes of element type and copies: Cast, CastLike, Identity, Dropout (as inference sees
 * it). In: nodes with one data input. Out: types, values, expressions. Always holds: casts between
 * integers wrap; a cast to bool is a comparison with zero. */
#include "ops.h"

/* ---- Cast ---- */

static bool castable(cmz_dtype t) {
  cmz_dtype_class c = cmz_dtype_info(t)->class_;
  return c == CMZ_CLASS_FLOAT || c == CMZ_CLASS_SIGNED || c == CMZ_CLASS_UNSIGNED ||
         c == CMZ_CLASS_BOOL;
}

static cmz_dim dims_cast(cmz_module *m, cmz_nid n, const cmz_dim *args, uint32_t count) {
  (void)count;
  cmz_dtype to = cmz_ops_type(m, cmz_ops_output(m, n, 0))->dtype;
  cmz_dim one = cmz_dim_const(m->dims, 1);
  if (to == CMZ_BOOL)
    return cmz_dim_sub(m->dims, one, cmz_dim_eq(m->dims, args[0], cmz_dim_const(m->dims, 0)));
  if (to == CMZ_I64 || to == CMZ_I32) return args[0];
  /* Narrow types may wrap: only what is sure to fit. */
  int64_t low, high, limit = (int64_t)1 << (CMZ_MIN(cmz_dtype_info(to)->bits, 62) - 1);
  cmz_dim_range(m->dims, args[0], &low, &high);
  return low >= 0 && high < limit ? args[0] : CMZ_DIM_NONE;
}

static cmz_status infer_cast_to(cmz_module *m, cmz_nid n, cmz_dtype to) {
  cmz_dtype from = cmz_ops_type(m, cmz_ops_input(m, n, 0))->dtype;
  bool text = from == CMZ_STRING || to == CMZ_STRING; /* the runtime reads and writes numbers */
  cmz_dtype other = from == CMZ_STRING ? to : from;
  if (text && (other == CMZ_STRING || (castable(other) && cmz_dtype_info(other)->bits >= 8)))
    return cmz_infer_same(m, n, 0, 0, to);
  if (!castable(from) || !castable(to))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED, "a cast from %s to %s is not supported yet",
                         cmz_dtype_info(from)->name, cmz_dtype_info(to)->name);
  CMZ_TRY(cmz_infer_same(m, n, 0, 0, to));
  if (cmz_node_get(m, n)->input_count == 1) cmz_infer_elements(m, n, dims_cast);
  return CMZ_OK;
}

static cmz_status infer_cast(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  if (!cmz_node_attr(node, "to"))
    return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute \"to\" is missing");
  int64_t to = cmz_node_int(node, "to", 0);
  if (to <= 0 || to >= CMZ_DTYPE_COUNT)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute \"to\" is %" PRId64 ", not an element type",
                         to);
  return infer_cast_to(m, n, (cmz_dtype)to);
}

static cmz_status infer_cast_like(cmz_module *m, cmz_nid n) {
  return infer_cast_to(m, n, cmz_ops_type(m, cmz_ops_input(m, n, 1))->dtype);
}

/* Opset 1 spelt the type as a string. */
static cmz_status normalize_cast(cmz_module *m, cmz_nid n) {
  const cmz_attr *attr = cmz_node_attr(cmz_node_get(m, n), "to");
  if (!attr || attr->kind != CMZ_ATTR_STRING) return CMZ_OK;
  for (int t = 1; t < CMZ_DTYPE_COUNT; t++)
    if (!strcmp(cmz_dtype_info((cmz_dtype)t)->onnx_name, attr->s)) {
      cmz_node_set_int(m, n, "to", t);
      return CMZ_OK;
    }
  return cmz_node_fail(m, n, CMZ_E_INPUT, "attribute \"to\" is \"%s\", not an element type",
                       attr->s);
}

static cmz_status eval_cast(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                            cmz_array *outputs) {
  if (!n->outputs[0]) return CMZ_OK;
  const cmz_array *in = &inputs[0];
  cmz_array *out = &outputs[0];
  if (in->dtype == CMZ_STRING || out->dtype == CMZ_STRING)
    return cmz_eval_fail(e, "a cast of strings is left to the run");
  CMZ_TRY(cmz_eval_output_like(e, out, in));
  bool saturate = cmz_node_int(n, "saturate", 1) != 0, from_float = cmz_dtype_is_float(in->dtype);
  size_t count = cmz_array_count(out);
  for (size_t i = 0; i < count; i++) {
    if (out->dtype == CMZ_BOOL)
      cmz_array_set_i64(out, i,
                        from_float ? cmz_get(in, (int64_t)i) != 0 : cmz_array_i64(in, i) != 0);
    else if (from_float || cmz_dtype_is_float(out->dtype))
      cmz_dtype_set_f64_mode(out->dtype, out->data, i, cmz_get(in, (int64_t)i), saturate);
    else cmz_array_set_i64(out, i, cmz_array_i64(in, i));
  }
  return CMZ_OK;
}

static cmz_status expand_cast(cmz_module *m, cmz_nid n) {
  cmz_vid x = cmz_ops_input(m, n, 0), v = 0;
  cmz_dtype from = cmz_ops_type(m, x)->dtype, to = cmz_ops_type(m, cmz_ops_output(m, n, 0))->dtype;
  if (from != CMZ_STRING && to != CMZ_STRING) return CMZ_OK;
  /* Narrow floats go through f32. */
  bool narrow_from = cmz_dtype_is_float(from) && from != CMZ_F64,
       narrow_to = cmz_dtype_is_float(to) && to != CMZ_F64;
  cmz_attr attr = cmz_attr_int("to", narrow_to ? CMZ_F32 : to);
  if (narrow_from) x = cmz_build_cast(m, n, x, CMZ_F32);
  if (from == to) v = cmz_build1(m, n, "Identity", x);
  else v = cmz_build_with(m, n, "StringCast", 1, &x, 1, &attr);
  if (narrow_to) v = cmz_build_cast(m, n, v, to);
  if (!v) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, v);
  return CMZ_OK;
}

/* Without saturation what rounds beyond the largest float8 becomes NaN, or infinity where there is
 * one. */
static cmz_expr unsaturated(cmz_describe *d, cmz_expr x, cmz_dtype to) {
  static const struct {
    cmz_dtype dtype;
    double limit;
    bool open, infinity;
  } rows[] = {{CMZ_F8E4M3FN, 464, true, false},
              {CMZ_F8E4M3FNUZ, 248, false, false},
              {CMZ_F8E5M2, 61440, false, true},
              {CMZ_F8E5M2FNUZ, 61440, false, false}};
  cmz_kernel *k = cmz_describe_kernel(d);
  for (size_t i = 0; i < CMZ_COUNT_OF(rows); i++) {
    if (rows[i].dtype != to) continue;
    cmz_expr size = cmz_x1(k, CMZ_X_ABS, x), limit = cmz_x_like(k, x, rows[i].limit);
    cmz_expr beyond = cmz_x2(k, rows[i].open ? CMZ_X_LT : CMZ_X_LE, limit, size);
    cmz_expr low = cmz_x_like(k, x, -INFINITY), high = cmz_x_like(k, x, INFINITY);
    cmz_expr other = rows[i].infinity
                         ? cmz_x_select(k, cmz_x2(k, CMZ_X_LT, x, cmz_x_like(k, x, 0)), low, high)
                         : cmz_x_like(k, x, NAN);
    return cmz_x_select(k, beyond, other, x);
  }
  return x;
}

/* X, of TO's compute type, as the narrow float TO has it. */
static cmz_expr to_narrow(cmz_describe *d, const cmz_node *n, cmz_expr x, cmz_dtype to) {
  cmz_kernel *k = cmz_describe_kernel(d);
  bool saturate = cmz_node_int(n, "saturate", 1) != 0;
  const char *mode = cmz_node_string(n, "round_mode", "up");
  if (to == CMZ_F8E8M0)
    return cmz_x_round_e8m0(k, x,
                            mode[0] == 'u'   ? CMZ_E8M0_UP
                            : mode[0] == 'd' ? CMZ_E8M0_DOWN
                                             : CMZ_E8M0_NEAREST,
                            saturate);
  if (!saturate) x = unsaturated(d, x, to);
  else if (to == CMZ_F8E5M2) /* the one type that would keep an infinity */
    x = cmz_x_clamp(k, x, cmz_x_like(k, x, -57344), cmz_x_like(k, x, 57344));
  return cmz_x_cast_through(k, x, to);
}

static cmz_expr describe_cast(cmz_describe *d, const cmz_node *n, uint32_t output,
                              const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_module *m = cmz_describe_module(d);
  cmz_dtype from = cmz_input_type(m, n, 0)->dtype, to = cmz_output_type(m, n, output)->dtype;
  cmz_expr x = cmz_describe_input(d, 0, idx);
  if (!x) return 0;
  /* What a fused producer gives may have more bits than its type. */
  if (from == to) return cmz_dtype_is_float(to) ? cmz_x_cast_through(k, x, to) : x;
  if (to == CMZ_BOOL) return cmz_x1(k, CMZ_X_NOT, cmz_x2(k, CMZ_X_EQ, x, cmz_x_like(k, x, 0)));
  if (cmz_dtype_info(to)->compute == to) return cmz_x_cast(k, x, to);
  if (!cmz_dtype_is_float(to)) return cmz_x_cast_through(k, x, to);
  return to_narrow(d, n, cmz_x_cast(k, x, cmz_dtype_info(to)->compute), to);
}

/* ---- BitCast ---- */

static cmz_status infer_bit_cast(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_dtype_row *from = cmz_dtype_info(cmz_input_type(m, node, 0)->dtype);
  int64_t to = cmz_node_int(node, "to", 0);
  if (to <= 0 || to >= CMZ_DTYPE_COUNT || cmz_dtype_info((cmz_dtype)to)->bits != from->bits ||
      !from->bits)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "%s has another width than %s", from->name,
                         cmz_dtype_info(to > 0 && to < CMZ_DTYPE_COUNT ? (cmz_dtype)to : 0)->name);
  return cmz_infer_same(m, n, 0, 0, (cmz_dtype)to);
}

static cmz_status eval_bit_cast(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                cmz_array *outputs) {
  size_t bytes;
  if (!n->outputs[0]) return CMZ_OK;
  CMZ_TRY(cmz_eval_output_like(e, &outputs[0], &inputs[0]));
  if (!cmz_dtype_bytes(inputs[0].dtype, cmz_array_count(&inputs[0]), &bytes))
    return cmz_eval_fail(e, "the tensor is too large");
  memcpy(outputs[0].data, inputs[0].data, bytes);
  return CMZ_OK;
}

static cmz_expr describe_bit_cast(cmz_describe *d, const cmz_node *n, uint32_t output,
                                  const cmz_expr *idx) {
  cmz_kernel *k = cmz_describe_kernel(d);
  const cmz_module *m = cmz_describe_module(d);
  cmz_dtype from = cmz_input_type(m, n, 0)->dtype, to = cmz_output_type(m, n, output)->dtype;
  cmz_expr x = cmz_describe_input(d, 0, idx);
  if (!x || from == to) return x;
  cmz_expr bits = cmz_x_bits_of(k, x, from), y = bits ? cmz_x_of_bits(k, bits, to) : 0;
  return y ? y
           : cmz_describe_fail(d, "from %s to %s is not supported yet", cmz_dtype_info(from)->name,
                               cmz_dtype_info(to)->name);
}

/* ---- Identity, Dropout ---- */

static cmz_status infer_identity(cmz_module *m, cmz_nid n) {
  cmz_vid in = cmz_ops_input(m, n, 0), out = cmz_ops_output(m, n, 0);
  CMZ_TRY(cmz_infer_same(m, n, 0, 0, CMZ_UNDEFINED));
  uint32_t count;
  const cmz_dim *elements = cmz_value_elements(m, in, &count);
  if (out && elements) cmz_value_set_elements(m, out, elements, count);
  return CMZ_OK;
}

static cmz_status eval_identity(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                                cmz_array *outputs) {
  (void)e;
  if (n->outputs[0]) outputs[0] = inputs[0];
  return CMZ_OK;
}

static cmz_expr describe_identity(cmz_describe *d, const cmz_node *n, uint32_t output,
                                  const cmz_expr *idx) {
  (void)n, (void)output;
  return cmz_describe_input(d, 0, idx);
}

/* Before opset 10 the mask had the data's element type. */
static cmz_status normalize_dropout(cmz_module *m, cmz_nid n) {
  uint32_t opset = cmz_node_get(m, n)->opset;
  if (opset && opset < 10) cmz_node_set_int(m, n, "mask_like_data", 1);
  return CMZ_OK;
}

static cmz_status infer_dropout(cmz_module *m, cmz_nid n) {
  int64_t training = 0;
  double ratio = 0;
  uint32_t count;
  cmz_vid mode = cmz_ops_input(m, n, 2), mask = cmz_ops_output(m, n, 1);
  bool zero_ratio =
      cmz_ops_input(m, n, 1) && cmz_const_f64(m, cmz_ops_input(m, n, 1), &ratio) && ratio == 0;
  if (mode && !zero_ratio && (!cmz_const_i64s(m, mode, &training, 1, &count) || training))
    return cmz_node_fail(m, n, CMZ_E_UNSUPPORTED,
                         "training mode is not supported: cmzc compiles inference");
  CMZ_TRY(cmz_infer_same(m, n, 0, 0, CMZ_UNDEFINED));
  bool like_data = cmz_node_int(cmz_node_get(m, n), "mask_like_data", 0) != 0;
  return mask ? cmz_infer_same(m, n, 1, 0, like_data ? CMZ_UNDEFINED : CMZ_BOOL) : CMZ_OK;
}

static cmz_status eval_dropout(cmz_eval *e, const cmz_node *n, const cmz_array *inputs,
                               cmz_array *outputs) {
  if (n->outputs[0]) outputs[0] = inputs[0];
  if (n->output_count < 2 || !n->outputs[1]) return CMZ_OK;
  CMZ_TRY(cmz_eval_output_like(e, &outputs[1], &inputs[0]));
  size_t count = cmz_array_count(&outputs[1]);
  for (size_t i = 0; i < count; i++) cmz_set(&outputs[1], (int64_t)i, 1);
  return CMZ_OK;
}

static cmz_expr describe_dropout(cmz_describe *d, const cmz_node *n, uint32_t output,
                                 const cmz_expr *idx) {
  if (output == 0) return cmz_describe_input(d, 0, idx);
  cmz_dtype dtype = cmz_output_type(cmz_describe_module(d), n, output)->dtype;
  return cmz_x_const(cmz_describe_kernel(d), cmz_dtype_info(dtype)->compute, 1);
}

/* Without a mask Dropout is Identity. */
static cmz_status expand_dropout(cmz_module *m, cmz_nid n) {
  cmz_vid mask = cmz_ops_output(m, n, 1);
  if (mask && (cmz_value_get(m, mask)->uses.count || cmz_value_get(m, mask)->output_uses))
    return CMZ_OK;
  cmz_vid v = cmz_build1(m, n, "Identity", cmz_ops_input(m, n, 0));
  if (!v) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, v);
  return CMZ_OK;
}

const cmz_op cmz_ops_cast[] = {
    {.domain = "",
     .name = "Cast",
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .flags = CMZ_OP_POINTWISE | CMZ_OP_CHEAP,
     .normalize = normalize_cast,
     .infer = infer_cast,
     .eval = eval_cast,
     .expand = expand_cast,
     .describe = describe_cast,
     .attributes = "round_mode:s@24 saturate:i@19 to:s!<6 to:i!@6"},
    {.domain = "",
     .name = "CastLike",
     .min_inputs = 2,
     .max_inputs = 2,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 15,
     .flags = CMZ_OP_CHEAP,
     .infer = infer_cast_like,
     .eval = eval_cast,
     .expand = expand_cast,
     .describe = describe_cast,
     .attributes = "round_mode:s@24 saturate:i@19"},
    {.domain = "",
     .name = "BitCast",
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 26,
     .flags = CMZ_OP_POINTWISE | CMZ_OP_CHEAP,
     .attributes = "to:i!",
     .infer = infer_bit_cast,
     .eval = eval_bit_cast,
     .describe = describe_bit_cast},
    {.domain = "",
     .name = "Identity",
     .min_inputs = 1,
     .max_inputs = 1,
     .min_outputs = 1,
     .max_outputs = 1,
     .since = 1,
     .flags = CMZ_OP_MOVEMENT | CMZ_OP_VIEW | CMZ_OP_CHEAP | CMZ_OP_VALUES,
     .infer = infer_identity,
     .eval = eval_identity,
     .describe = describe_identity},
    {.domain = "",
     .name = "Dropout",
     .min_inputs = 1,
     .max_inputs = 3,
     .min_outputs = 1,
     .max_outputs = 2,
     .since = 1,
     .flags = CMZ_OP_CHEAP,
     .normalize = normalize_dropout,
     .infer = infer_dropout,
     .eval = eval_dropout,
     .expand = expand_dropout,
     .describe = describe_dropout,
     .attributes = "consumed_inputs:I<6 is_test:i<7 ratio:f<12 seed:i@12"},
    {.name = NULL},
};
