/* values.h - strings, sequences and optionals of an instance, for the files of the runtime that
 * know them. Everything here is linked into a model only when the model has such values
 * (cmz_program.values, and the ops in use).
 *
 * A buffer whose `value` is not 0 holds a cmz_list in pointers[root]: of a sequence its tensors, of
 * an optional that is present its one tensor; NULL: absent. Lists and items are counted, shared by
 * copies and never changed once they are in a buffer. A tensor of strings holds `const char *`s;
 * NULL reads as "". What they point to is the caller's, the model's, or lies in the pool, which is
 * emptied when the next run begins: strings are moved around as pointers. Always holds: after a run
 * every output is made of the instance's own memory. */
#ifndef CMZ_RUNTIME_VALUES_H
#define CMZ_RUNTIME_VALUES_H

#include "instance.h"
#include "ops.h"

typedef struct cmz_item {
  uint32_t references;
  uint32_t element, rank;
  bool borrowed; /* data is the caller's: good for this run */
  int64_t dims[CMZ_MAX_DIMS];
  size_t bytes; /* of data */
  void *data;
} cmz_item;

typedef struct cmz_list {
  uint32_t references;
  uint32_t reserved;
  size_t count;
  cmz_item *items[];
} cmz_list;

typedef struct cmz_value_functions {
  int (*create)(cmz_model *m); /* m->values, and the tables of constant strings */
  void (*destroy)(cmz_model *m);
  /* Before the steps of a run: takes the inputs that are no tensors */
  int (*begin)(cmz_model *m);
  int (*finish)(cmz_model *m); /* after them: makes all outputs the instance's own */
  int (*copy)(cmz_model *m, uint32_t from, uint32_t to);
  /* A loop's values, as if at once */
  int (*carry)(cmz_model *m, const uint32_t *triples, uint32_t count);
} cmz_value_functions;
extern const cmz_value_functions cmz_value_support;

/* A list of COUNT items, to be filled in; NULL, and the error recorded, without memory. */
cmz_list *cmz_list_take(cmz_model *m, size_t count);
void cmz_list_release(cmz_model *m, cmz_list *list); /* NULL: nothing */
/* An item with memory for its data. */
cmz_item *cmz_item_take(cmz_model *m, uint32_t element, uint32_t rank, const int64_t *dims);
static inline cmz_item *cmz_item_share(cmz_item *item) {
  item->references++;
  return item;
}

/* ---- for ops ---- */
/* The list that input INDEX holds; NULL: an optional that is absent. */
static inline cmz_list *cmz_op_list(const cmz_op_call *call, uint32_t index) {
  return call->inputs[index].data;
}
/* Output 0 becomes LIST, whose reference goes over. */
int cmz_op_set_list(cmz_op_call *call, cmz_list *list);
/* Output INDEX, a tensor, gets this shape and memory for it. */
int cmz_op_shape(cmz_op_call *call, uint32_t index, uint32_t rank, const int64_t *dims);
/* A copy of tensor T as an item. */
cmz_item *cmz_op_item(cmz_op_call *call, const cmz_op_tensor *t);
/* Room for SIZE bytes of text until the next run. */
char *cmz_text_take(cmz_model *m, size_t size);
int64_t cmz_op_count(const cmz_op_tensor *t);

#endif
