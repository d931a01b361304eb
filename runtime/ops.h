/* ops.h - the closed table of runtime ops: what no loop nest over known sizes computes (sorting,
 * sizes that follow from data). Shared with the compiler, which packs the attributes.
 *
 * A step's operand list is the node's inputs (CMZ_NO_INDEX where absent), then its outputs
 * (likewise). Its list `b` is [number of words that follow, input count, attribute words…]; each
 * attribute of the row below, in order, is 64 bits in two words, low first: integers as they are,
 * floats as the bits of a double. An output whose size follows from data has no memory yet: the op
 * takes it with cmz_op_output and reports the one number that its shape depends on; a BIND with
 * element UINT32_MAX after the step puts that into a slot. */
#ifndef CMZ_RUNTIME_OPS_H
#define CMZ_RUNTIME_OPS_H

#include "cmz.h"

/* X(function, name in the op table's `runtime`, attributes as name=default separated by blanks; f:
 * before floats) */
/* clang-format off */
#define CMZ_RUNTIME_OPS(X) \
  X(top_k, "top_k", "axis=-1 largest=1 sorted=1") \
  X(non_zero, "non_zero", "") \
  X(unique, "unique", "axis=-2147483648 sorted=1") \
  X(compress, "compress", "axis=-2147483648") \
  X(non_max_suppression, "non_max_suppression", "center_point_box=0") \
  X(roi_align, "roi_align", "half=1 max=0 output_height=1 output_width=1 f:spatial_scale=1") \
  X(determinant, "determinant", "") \
  X(sequence_empty, "sequence_empty", "") \
  X(sequence_construct, "sequence_construct", "") \
  X(sequence_insert, "sequence_insert", "") \
  X(sequence_erase, "sequence_erase", "") \
  X(sequence_at, "sequence_at", "") \
  X(sequence_length, "sequence_length", "") \
  X(split_to_sequence, "split_to_sequence", "axis=0 keepdims=1") \
  X(concat_from_sequence, "concat_from_sequence", "axis=0 new_axis=0") \
  X(optional, "optional", "") \
  X(optional_has_element, "optional_has_element", "") \
  X(optional_get_element, "optional_get_element", "") \
  X(string_concat, "string_concat", "") \
  X(string_split, "string_split", "maxsplit=-1") \
  X(string_normalizer, "string_normalizer", "case_change_action=0 is_case_sensitive=0") \
  X(string_equal, "string_equal", "") \
  X(string_cast, "string_cast", "") \
  X(regex_full_match, "regex_full_match", "") \
  X(label_encoder, "label_encoder", "")
/* clang-format on */

#define CMZ_OP_NO_AXIS (-2147483648LL)

/* One operand as a runtime op sees it. */
typedef struct cmz_op_tensor {
  void *data;
  uint32_t element, rank;
  int64_t dims[CMZ_MAX_DIMS];
  uint32_t buffer; /* CMZ_NO_INDEX: absent */
  /* With a device: where the operand really is while `data` is its copy on the host */
  void *device_data;
  size_t host_bytes;
} cmz_op_tensor;

#define CMZ_OP_MAX_OPERANDS 64
typedef struct cmz_op_call {
  cmz_model *model;
  const char *name; /* source node, for messages */
  uint32_t input_count, output_count;
  cmz_op_tensor *inputs, *outputs;
  const uint32_t *words;
  int64_t reported;
} cmz_op_call;

/* A cmz_result. */
typedef int cmz_runtime_function(cmz_op_call *call);

/* Attribute INDEX of the call. */
static inline int64_t cmz_op_attribute(const cmz_op_call *call, uint32_t index) {
  return (int64_t)((uint64_t)call->words[2 * index + 1] << 32 | call->words[2 * index]);
}
/* Gives output INDEX memory of at least BYTES; CMZ_OUT_OF_MEMORY recorded when there is none. */
int cmz_op_output(cmz_op_call *call, uint32_t index, int64_t bytes);
/* Memory for the time of the call. */
void *cmz_op_take(cmz_op_call *call, int64_t bytes);
void cmz_op_give(cmz_op_call *call, void *memory, int64_t bytes);
int cmz_op_fail(cmz_op_call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define CMZ_RUNTIME_PROTOTYPE(function, name, attributes) cmz_runtime_function cmz_rt_##function;
CMZ_RUNTIME_OPS(CMZ_RUNTIME_PROTOTYPE)
#undef CMZ_RUNTIME_PROTOTYPE

#endif
