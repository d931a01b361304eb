/* ml.h - what the families of ai.onnx.ml share: lists of numbers in attributes, class labels, and
 * what becomes of scores. In: nodes of these operators that are being expanded. Out: values placed
 * before them. Always holds: 0 means that an error was recorded. */
#ifndef CMZ_IR_OPS_ML_H
#define CMZ_IR_OPS_ML_H

#include "ops.h"

/* A list of numbers that a model gives as attribute NAME or as tensor NAME_as_tensor. */
typedef struct cmz_ml_list {
  const double *values; /* NULL: absent */
  size_t count;
  bool wide; /* a tensor of doubles */
} cmz_ml_list;
cmz_ml_list cmz_ml_numbers(const cmz_module *m, const cmz_node *n, const char *name);

/* How many classes the node's labels (INTS or classlabels_strings) name; 0 without any. */
uint32_t cmz_ml_class_count(const cmz_node *n, const char *ints);
/* The type of the labels, and [rows] of them for output 0; SCORES columns for output 1. */
cmz_status cmz_ml_infer_classes(cmz_module *m, cmz_nid n, const char *ints, int64_t scores);
/* Output 0: the label at each of INDICES ([rows], i64); output 1: SCORES. Removes the node. */
cmz_status cmz_ml_deliver_classes(cmz_module *m, cmz_nid n, const char *ints, cmz_vid indices,
                                  cmz_vid scores);

/* Checks attribute post_transform. */
cmz_status cmz_ml_check_transform(cmz_module *m, cmz_nid n);
/* SCORES [rows, classes] after the transformation that NAME stands for (NULL: NONE). */
cmz_vid cmz_ml_transform(cmz_module *m, cmz_nid n, cmz_vid scores, const char *name);

/* Input 0 as rows of numbers of type TYPE: a vector is one row. */
cmz_vid cmz_ml_rows(cmz_module *m, cmz_nid n, cmz_dtype type);
/* Number of rows of input 0. CMZ_E_INPUT unless it has one or two dimensions. */
cmz_status cmz_ml_row_count(cmz_module *m, cmz_nid n, cmz_dim *rows);
/* OP of A and the number B. */
cmz_vid cmz_ml_by(cmz_module *m, cmz_nid n, const char *op, cmz_vid a, double b);

#endif
