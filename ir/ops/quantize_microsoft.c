/* quantize_microsoft.c - com.microsoft's QLinear operators as their float forms between
 * DequantizeLinear and QuantizeLinear, which fuse into one kernel. In: nodes of these operators.
 * Out: expansions. Always holds: inference builds nothing; the shape comes from the same rule the
 * float form has. */
#include "contraction.h"
#include "quantize.h"
#include "window.h"

typedef struct quantized {
  cmz_vid data, scale, zero_point;
} quantized;

typedef struct form {
  const char *name;
  uint32_t operands; /* triples (data, scale, zero point) at the front */
  uint32_t result;   /* input index of the output's scale; its zero point follows */
  const char *plain; /* the float operator */
} form;

static const form forms[] = {
    {"QLinearAdd", 2, 6, "Add"},
    {"QLinearMul", 2, 6, "Mul"},
    {"QLinearSigmoid", 1, 3, "Sigmoid"},
    {"QLinearLeakyRelu", 1, 3, "LeakyRelu"},
    {"QLinearSoftmax", 1, 3, "Softmax"},
    {"QLinearAveragePool", 1, 3, "AveragePool"},
    {"QLinearGlobalAveragePool", 1, 3, "GlobalAveragePool"},
    {"QLinearConcat", 0, 0, "Concat"},
};

static const form *form_of(const cmz_node *n) {
  for (size_t i = 0; i < CMZ_COUNT_OF(forms); i++)
    if (!strcmp(forms[i].name, n->op->name)) return &forms[i];
  return NULL;
}

/* ---- inference ---- */

static cmz_status infer_concat(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  if (node->input_count < 5 || (node->input_count - 2) % 3)
    return cmz_node_fail(m, n, CMZ_E_INPUT, "%u inputs", node->input_count);
  const cmz_type first = *cmz_input_type(m, node, 2);
  uint32_t axis;
  CMZ_TRY(cmz_infer_axis(m, n, cmz_node_int(node, "axis", 0), first.rank, &axis));
  cmz_dim shape[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < first.rank; i++) shape[i] = first.shape[i];
  for (uint32_t i = 5; i < node->input_count; i += 3) {
    const cmz_type *t = cmz_input_type(m, node, i);
    if (t->rank != first.rank)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "the inputs have different ranks");
    shape[axis] = cmz_dim_add(m->dims, shape[axis], t->shape[axis]);
  }
  cmz_set_output(m, n, 0, first.dtype, first.rank, shape);
  return CMZ_OK;
}

/* Pools: the spatial dims are in the middle when channels come last. */
static cmz_status infer_pool(cmz_module *m, cmz_nid n, bool global) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type x = *cmz_input_type(m, node, 0);
  bool last = cmz_node_int(node, "channels_last", 0) != 0;
  if (x.rank < 3) return cmz_node_fail(m, n, CMZ_E_INPUT, "the input has rank %u", x.rank);
  cmz_dim shape[CMZ_MAX_RANK];
  memcpy(shape, x.shape, x.rank * sizeof *shape);
  uint32_t first = last ? 1 : 2;
  cmz_window w;
  if (!global)
    CMZ_TRY(cmz_window_resolve(m, n, x.rank - 2, x.shape + first, NULL,
                               cmz_node_int(node, "ceil_mode", 0) != 0, &w));
  for (uint32_t i = 0; i + 2 < x.rank; i++)
    shape[first + i] = global ? cmz_dim_const(m->dims, 1) : w.output[i];
  cmz_set_output(m, n, 0, x.dtype, x.rank, shape);
  return CMZ_OK;
}

static cmz_status infer_binary(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const cmz_type a = *cmz_input_type(m, node, 0), b = *cmz_input_type(m, node, 3);
  uint32_t rank = CMZ_MAX(a.rank, b.rank);
  cmz_dim shape[CMZ_MAX_RANK], one = cmz_dim_const(m->dims, 1);
  for (uint32_t i = 0; i < rank; i++) {
    cmz_dim x = i + a.rank >= rank ? a.shape[i + a.rank - rank] : one,
            y = i + b.rank >= rank ? b.shape[i + b.rank - rank] : one;
    shape[i] = cmz_dim_broadcast(m->dims, x, y);
  }
  cmz_set_output(m, n, 0, a.dtype, rank, shape);
  return CMZ_OK;
}

/* The matrix products: A is input 0; B and its place differ. */
static cmz_status infer_product(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  bool gemm = !strcmp(node->op->name, "QGemm");
  cmz_dim shape[CMZ_MAX_RANK + 2];
  uint32_t rank;
  if (gemm) {
    const cmz_type *a = cmz_input_type(m, node, 0), *b = cmz_input_type(m, node, 3),
                   *z = cmz_input_type(m, node, 8);
    if (a->rank != 2 || b->rank != 2)
      return cmz_node_fail(m, n, CMZ_E_INPUT, "the operands are not matrices");
    shape[0] = a->shape[cmz_node_int(node, "transA", 0) ? 1 : 0];
    shape[1] = b->shape[cmz_node_int(node, "transB", 0) ? 0 : 1];
    cmz_set_output(m, n, 0, z ? z->dtype : CMZ_F32, 2, shape);
    return CMZ_OK;
  }
  CMZ_TRY(cmz_matmul_infer(m, n, (cmz_matmul_inputs){0, 1, CMZ_MATMUL_NONE, CMZ_MATMUL_NONE}, shape,
                           &rank));
  cmz_set_output(m, n, 0, CMZ_F32, rank, shape);
  return CMZ_OK;
}

cmz_status cmz_infer_microsoft(cmz_module *m, cmz_nid n) {
  const cmz_node *node = cmz_node_get(m, n);
  const form *f = form_of(node);
  if (!f) return infer_product(m, n);
  if (!strcmp(f->plain, "Concat")) return infer_concat(m, n);
  if (f->operands == 2) return infer_binary(m, n);
  if (!strcmp(f->plain, "AveragePool")) return infer_pool(m, n, false);
  if (!strcmp(f->plain, "GlobalAveragePool")) return infer_pool(m, n, true);
  return cmz_infer_same(m, n, 0, 0, CMZ_UNDEFINED);
}

/* ---- expansion ---- */

static cmz_vid dequantized(cmz_module *m, cmz_nid n, const cmz_node *node, uint32_t i) {
  cmz_vid inputs[3] = {node->inputs[i], cmz_node_input(node, i + 1), cmz_node_input(node, i + 2)};
  return cmz_build_node(m, n, "DequantizeLinear", inputs[2] ? 3 : 2, inputs, NULL);
}

static cmz_status quantize_and_finish(cmz_module *m, cmz_nid n, const cmz_node *node, cmz_vid y,
                                      uint32_t scale, uint32_t zero_point) {
  if (!y) return CMZ_E_INTERNAL;
  cmz_dtype to = cmz_output_type(m, node, 0)->dtype;
  cmz_vid inputs[3] = {y, node->inputs[scale], cmz_node_input(node, zero_point)};
  cmz_attr attr = cmz_attr_int("output_dtype", to);
  y = cmz_build_with(m, n, "QuantizeLinear", inputs[2] ? 3 : 2, inputs, inputs[2] ? 0 : 1, &attr);
  if (!y) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

/* Moves the channels of V to axis 1, or back to the end. */
static cmz_vid move_channels(cmz_module *m, cmz_nid n, cmz_vid v, bool back) {
  if (!v) return 0;
  uint32_t rank = cmz_value_get(m, v)->type.rank;
  int64_t perm[CMZ_MAX_RANK];
  for (uint32_t i = 0; i < rank; i++) {
    uint32_t to_front = i < 2 ? (i ? rank - 1 : 0) : i - 1, to_back = i == 0          ? 0
                                                                      : i + 1 == rank ? 1
                                                                                      : i + 1;
    perm[i] = back ? to_back : to_front;
  }
  return cmz_build_transpose(m, n, v, perm, rank);
}

static cmz_status expand_concat(cmz_module *m, cmz_nid n, const cmz_node *node) {
  uint32_t count = (node->input_count - 2) / 3;
  cmz_vid *parts = CMZ_NEW_ARRAY(m->arena, cmz_vid, count);
  for (uint32_t i = 0; i < count; i++)
    if (!(parts[i] = dequantized(m, n, node, 2 + 3 * i))) return CMZ_E_INTERNAL;
  cmz_attr axis = cmz_attr_int("axis", cmz_node_int(node, "axis", 0));
  return quantize_and_finish(m, n, node, cmz_build_with(m, n, "Concat", count, parts, 1, &axis), 0,
                             1);
}

/* Attributes other than those of the quantised form itself. */
static uint32_t kept_attributes(const cmz_node *node, cmz_attr *out, uint32_t capacity) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < node->attr_count && count < capacity; i++)
    if (strcmp(node->attrs[i].name, "channels_last") && strcmp(node->attrs[i].name, "opset"))
      out[count++] = node->attrs[i];
  return count;
}

static cmz_status expand_form(cmz_module *m, cmz_nid n, const cmz_node *node, const form *f) {
  cmz_vid operands[2] = {0};
  for (uint32_t i = 0; i < f->operands; i++)
    if (!(operands[i] = dequantized(m, n, node, 3 * i))) return CMZ_E_INTERNAL;
  bool last = cmz_node_int(node, "channels_last", 0) != 0;
  if (last) operands[0] = move_channels(m, n, operands[0], false);
  cmz_attr attrs[17];
  uint32_t count = kept_attributes(node, attrs, 16);
  if (!strcmp(f->plain, "Softmax") && cmz_node_int(node, "opset", 13) < 13)
    attrs[count++] = cmz_attr_int("flatten", 1);
  if (!operands[0]) return CMZ_E_INTERNAL;
  cmz_vid y = cmz_build_with(m, n, f->plain, f->operands, operands, count, attrs);
  if (last) y = move_channels(m, n, y, true);
  return quantize_and_finish(m, n, node, y, f->result, f->result + 1);
}

/* MatMulInteger(A, B) times both scales, plus BIAS. */
static cmz_vid scaled_product(cmz_module *m, cmz_nid n, cmz_vid a, cmz_vid b, cmz_vid a_scale,
                              cmz_vid b_scale, cmz_vid a_zero_point, cmz_vid b_zero_point,
                              cmz_vid bias) {
  cmz_vid inputs[4] = {a, b, a_zero_point, b_zero_point};
  cmz_vid y = cmz_build_node(m, n, "MatMulInteger",
                             b_zero_point   ? 4
                             : a_zero_point ? 3
                                            : 2,
                             inputs, NULL);
  y = cmz_build_cast(m, n, y, CMZ_F32);
  y = cmz_build2(m, n, "Mul", y, cmz_build2(m, n, "Mul", a_scale, b_scale));
  return bias ? cmz_build2(m, n, "Add", y, bias) : y;
}

cmz_vid cmz_build_dynamic_product(cmz_module *m, cmz_nid before, cmz_vid a, cmz_vid b,
                                  cmz_vid b_scale, cmz_vid b_zero_point, cmz_vid bias) {
  cmz_vid out[3];
  if (!a || !b) return 0;
  for (int i = 0; i < 3; i++) out[i] = cmz_value_add(m, cmz_node_get(m, before)->graph, NULL);
  cmz_nid q = cmz_node_insert(m, before, cmz_op_get("DynamicQuantizeLinear"), NULL, 1, &a, 3, out);
  cmz_node_add_source(m, q, before);
  if (cmz_infer_node(m, q) != CMZ_OK) return 0;
  return scaled_product(m, before, out[0], b, out[1], b_scale, out[2], b_zero_point, bias);
}

static cmz_status expand_gemm(cmz_module *m, cmz_nid n, const cmz_node *node) {
  static const int64_t swap[2] = {1, 0};
  cmz_vid a = node->inputs[0], b = node->inputs[3];
  if (cmz_node_int(node, "transA", 0)) a = cmz_build_transpose(m, n, a, swap, 2);
  if (cmz_node_int(node, "transB", 0)) b = cmz_build_transpose(m, n, b, swap, 2);
  cmz_vid scale = cmz_build2(m, n, "Mul", node->inputs[1], node->inputs[4]),
          c = cmz_node_input(node, 6);
  double alpha = cmz_node_float(node, "alpha", 1);
  if (alpha != 1) scale = cmz_build2(m, n, "Mul", scale, cmz_build_scalar_like(m, n, scale, alpha));
  cmz_vid inputs[4] = {a, b, node->inputs[2], node->inputs[5]};
  cmz_vid y = a && b ? cmz_build_node(m, n, "MatMulInteger", 4, inputs, NULL) : 0;
  if (c) y = cmz_build2(m, n, "Add", y, c); /* the bias is in units of the product */
  y = cmz_build2(m, n, "Mul", cmz_build_cast(m, n, y, CMZ_F32), scale);
  if (cmz_node_input(node, 7)) return quantize_and_finish(m, n, node, y, 7, 8);
  if (!y) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}

cmz_status cmz_expand_microsoft(cmz_module *m, cmz_nid n) {
  const cmz_node node = *cmz_node_get(m, n);
  const form *f = form_of(&node);
  if (f && !strcmp(f->plain, "Concat")) return expand_concat(m, n, &node);
  if (f) return expand_form(m, n, &node, f);
  if (!strcmp(node.op->name, "QGemm")) return expand_gemm(m, n, &node);
  cmz_vid y;
  if (!strcmp(node.op->name, "MatMulIntegerToFloat")) {
    y = scaled_product(m, n, node.inputs[0], node.inputs[1], node.inputs[2], node.inputs[3],
                       cmz_node_input(&node, 4), cmz_node_input(&node, 5),
                       cmz_node_input(&node, 6));
  } else { /* DynamicQuantizeMatMul: A, B, b scale, b zero point, bias */
    y = cmz_build_dynamic_product(m, n, node.inputs[0], node.inputs[1], node.inputs[2],
                                  cmz_node_input(&node, 3), cmz_node_input(&node, 4));
  }
  if (!y) return CMZ_E_INTERNAL;
  cmz_build_finish(m, n, y);
  return CMZ_OK;
}
