/* kernel_quad.c - sums of products of bytes, four at a time, and of bf16 numbers, two at a time:
 * what dot-product instructions compute.
 * In: a REDUCE. Out: its two factors as bytes in memory, when it is one. Found from the expression
 * alone; whether the four bytes lie together is for the caller to ask, axis by axis. Always holds:
 * what matches is equal to the expression, sums of floats but for the order of their terms. */
#include "kernel.h"

/* Signed bytes plus 128 are unsigned ones, and unsigned ones minus 128 signed: flipping the highest
 * bit does both. */
static bool match_bytes(const cmz_kernel *k, cmz_expr e, cmz_quad_factor *f) {
  const cmz_expr_node *n = cmz_x_get(k, e);
  int64_t shift = 0;
  if (n->op == CMZ_X_ADD && cmz_x_is_int(k, n->args[1], &shift))
    n = cmz_x_get(k, f->load = n->args[0]);
  else if (n->op == CMZ_X_ADD && cmz_x_is_int(k, n->args[0], &shift))
    n = cmz_x_get(k, f->load = n->args[1]);
  else f->load = e;
  if (n->op != CMZ_X_LOAD) return false;
  const cmz_operand *operand = &k->operands.data[n->i];
  if ((operand->dtype != CMZ_I8 && operand->dtype != CMZ_U8) || (operand->access & CMZ_WRITE))
    return false;
  f->flip = shift != 0;
  f->is_signed = (operand->dtype == CMZ_I8) != f->flip;
  return !f->flip || shift == (operand->dtype == CMZ_I8 ? 128 : -128);
}

static bool match_factor(const cmz_kernel *k, cmz_expr e, cmz_quad_factor *f) {
  *f = (cmz_quad_factor){0};
  const cmz_expr_node *n = cmz_x_get(k, e);
  if (n->dtype != CMZ_I32) return false;
  if (n->op == CMZ_X_SELECT) {
    int64_t low, high;
    f->condition = n->args[0];
    f->otherwise = n->args[2];
    e = n->args[1];
    if (!match_bytes(k, e, f)) return false;
    cmz_x_range(k, f->otherwise, &low, &high); /* it has to be a byte of the same kind */
    return f->is_signed ? low >= -128 && high <= 127 : low >= 0 && high <= 255;
  }
  return match_bytes(k, e, f);
}

static bool match_half(const cmz_kernel *k, cmz_expr e, cmz_quad_factor *f) {
  *f = (cmz_quad_factor){.load = e};
  const cmz_expr_node *n = cmz_x_get(k, e);
  if (n->op == CMZ_X_SELECT) {
    const cmz_expr_node *y = cmz_x_get(k, n->args[2]);
    f->condition = n->args[0];
    f->otherwise = n->args[2];
    if (y->op != CMZ_X_CONST_FLOAT || y->f != 0) return false;
    n = cmz_x_get(k, f->load = n->args[1]);
  }
  if (n->op != CMZ_X_LOAD || n->dtype != CMZ_F32) return false;
  const cmz_operand *operand = &k->operands.data[n->i];
  return operand->dtype == CMZ_BF16 && !(operand->access & CMZ_WRITE);
}

bool cmz_x_quad(const cmz_kernel *k, cmz_expr reduce, cmz_quad *quad) {
  const cmz_expr_node *n = cmz_x_get(k, reduce);
  if (n->op != CMZ_X_REDUCE || n->reduce_op != CMZ_REDUCE_SUM) return false;
  const cmz_expr_node *product = cmz_x_get(k, n->args[0]);
  if (product->op != CMZ_X_MUL || (n->dtype != CMZ_I32 && n->dtype != CMZ_F32)) return false;
  bool (*match)(const cmz_kernel *, cmz_expr, cmz_quad_factor *) =
      n->dtype == CMZ_I32 ? match_factor : match_half;
  quad->count = n->dtype == CMZ_I32 ? 4 : 2;
  return match(k, product->args[0], &quad->factors[0]) &&
         match(k, product->args[1], &quad->factors[1]);
}

bool cmz_x_quad_axis(const cmz_kernel *k, const cmz_quad *quad, uint16_t axis) {
  int64_t extent;
  if (!cmz_x_is_int(k, k->axes.data[axis].extent, &extent) || extent != quad->count) return false;
  for (int i = 0; i < 2; i++) {
    const cmz_quad_factor *f = &quad->factors[i];
    if (f->condition &&
        (cmz_x_uses_axis(k, f->condition, axis) || cmz_x_uses_axis(k, f->otherwise, axis)))
      return false;
  }
  return true;
}
