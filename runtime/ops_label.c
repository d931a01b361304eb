/* ops_label.c - LabelEncoder: values by keys. In: elements, keys, the value of each, the value of
 * all others. Out: a value for each element. Always holds: of equal keys the first counts; NaN is a
 * key like any other. */
#include "values.h"

static bool same_key(const cmz_op_tensor *x, int64_t i, const cmz_op_tensor *keys, int64_t k,
                     size_t size) {
  switch (x->element) {
  case CMZ_ELEMENT_STRING: {
    const char *a = ((const char *const *)x->data)[i], *b = ((const char *const *)keys->data)[k];
    return strcmp(a ? a : "", b ? b : "") == 0;
  }
  case CMZ_ELEMENT_F32: {
    float a = ((const float *)x->data)[i], b = ((const float *)keys->data)[k];
    return a == b || (a != a && b != b);
  }
  case CMZ_ELEMENT_F64: {
    double a = ((const double *)x->data)[i], b = ((const double *)keys->data)[k];
    return a == b || (a != a && b != b);
  }
  default:
    return memcmp((const char *)x->data + (size_t)i * size,
                  (const char *)keys->data + (size_t)k * size, size) == 0;
  }
}

int cmz_rt_label_encoder(cmz_op_call *call) {
  const cmz_op_tensor *x = &call->inputs[0], *keys = &call->inputs[1], *values = &call->inputs[2],
                      *other = &call->inputs[3];
  int64_t count = cmz_op_count(x), known = cmz_op_count(keys);
  size_t size = cmz_element_bits(x->element) / 8, wide = cmz_element_bits(values->element) / 8;
  int rc = cmz_op_output(call, 0, count * (int64_t)wide);
  if (rc || !call->outputs[0].data) return rc;
  for (int64_t i = 0; i < count; i++) {
    const char *from = other->data;
    for (int64_t k = 0; k < known; k++) {
      if (!same_key(x, i, keys, k, size)) continue;
      from = (const char *)values->data + (size_t)k * wide;
      break;
    }
    memcpy((char *)call->outputs[0].data + (size_t)i * wide, from, wide);
  }
  return CMZ_SUCCESS;
}
