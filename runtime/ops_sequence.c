/* ops_sequence.c - runtime ops on sequences and optionals.
 * In: a call (ops.h) whose operands are tensors and lists (values.h). Out: a list or a tensor.
 * Always holds: lists that are in a buffer are not changed; tensors are copied into items. */
#include "values.h"

/* The position in input INDEX, counted from the end when negative, in [0, LIMIT); OTHERWISE when
 * the input is absent. */
static int read_position(cmz_op_call *call, uint32_t index, int64_t count, int64_t limit,
                         int64_t otherwise, int64_t *out) {
  int64_t at = otherwise;
  if (index < call->input_count && call->inputs[index].buffer != CMZ_NO_INDEX) {
    const cmz_op_tensor *t = &call->inputs[index];
    int32_t narrow;
    if (t->element == CMZ_ELEMENT_I32) {
      memcpy(&narrow, t->data, sizeof narrow);
      at = narrow;
    } else {
      memcpy(&at, t->data, sizeof at);
    }
  }
  int64_t given = at;
  if (at < 0) at += count;
  if (at < 0 || at >= limit)
    return cmz_op_fail(call, "position %lld in a sequence of %lld", (long long)given,
                       (long long)count);
  *out = at;
  return CMZ_SUCCESS;
}

int cmz_rt_sequence_empty(cmz_op_call *call) {
  cmz_list *list = cmz_list_take(call->model, 0);
  return list ? cmz_op_set_list(call, list) : CMZ_OUT_OF_MEMORY;
}

int cmz_rt_sequence_construct(cmz_op_call *call) {
  cmz_list *list = cmz_list_take(call->model, call->input_count);
  if (!list) return CMZ_OUT_OF_MEMORY;
  for (uint32_t i = 0; i < call->input_count; i++) {
    list->items[i] = cmz_op_item(call, &call->inputs[i]);
    if (list->items[i]) continue;
    cmz_list_release(call->model, list);
    return CMZ_OUT_OF_MEMORY;
  }
  return cmz_op_set_list(call, list);
}

/* LIST without its item SKIP (or none), and with NEW at position AT (or none). */
static int changed(cmz_op_call *call, const cmz_list *list, int64_t skip, int64_t at,
                   cmz_item *new) {
  cmz_list *result = cmz_list_take(call->model, list->count + (new != NULL) - (skip >= 0));
  if (!result) return CMZ_OUT_OF_MEMORY;
  size_t to = 0;
  for (size_t i = 0; i <= list->count; i++) {
    if (new && (int64_t)i == at) result->items[to++] = new;
    if (i < list->count && (int64_t)i != skip) result->items[to++] = cmz_item_share(list->items[i]);
  }
  return cmz_op_set_list(call, result);
}

int cmz_rt_sequence_insert(cmz_op_call *call) {
  const cmz_list *list = cmz_op_list(call, 0);
  int64_t count = (int64_t)list->count, at = 0;
  int rc = read_position(call, 2, count, count + 1, count, &at);
  if (rc) return rc;
  cmz_item *item = cmz_op_item(call, &call->inputs[1]);
  return item ? changed(call, list, -1, at, item) : CMZ_OUT_OF_MEMORY;
}

int cmz_rt_sequence_erase(cmz_op_call *call) {
  const cmz_list *list = cmz_op_list(call, 0);
  int64_t count = (int64_t)list->count, at = 0;
  int rc = read_position(call, 1, count, count, -1, &at);
  return rc ? rc : changed(call, list, at, -1, NULL);
}

/* Output 0 becomes a copy of ITEM. */
static int give_item(cmz_op_call *call, const cmz_item *item) {
  int rc = cmz_op_shape(call, 0, item->rank, item->dims);
  if (rc) return rc;
  if (item->bytes && call->outputs[0].data) memcpy(call->outputs[0].data, item->data, item->bytes);
  return CMZ_SUCCESS;
}

int cmz_rt_sequence_at(cmz_op_call *call) {
  const cmz_list *list = cmz_op_list(call, 0);
  int64_t count = (int64_t)list->count, at = 0;
  int rc = read_position(call, 1, count, count, -1, &at);
  return rc ? rc : give_item(call, list->items[at]);
}

int cmz_rt_sequence_length(cmz_op_call *call) {
  int64_t count = (int64_t)cmz_op_list(call, 0)->count;
  int rc = cmz_op_output(call, 0, sizeof count);
  if (!rc && call->outputs[0].data) memcpy(call->outputs[0].data, &count, sizeof count);
  return rc;
}

/* ---- tensors to sequences and back ---- */

/* A tensor cut along an axis: OUTER blocks of LENGTH rows, each of ROW bytes. */
typedef struct cut {
  int64_t outer, length, row;
} cut;

static cut cut_along(uint32_t element, uint32_t rank, const int64_t *dims, uint32_t axis) {
  cut c = {.outer = 1, .length = 1, .row = (int64_t)cmz_element_bits(element) / 8};
  for (uint32_t d = 0; d < rank; d++) {
    if (d < axis) c.outer *= dims[d];
    else if (d == axis) c.length = dims[d];
    else c.row *= dims[d];
  }
  return c;
}

/* Copies COUNT rows of every block, from row FROM of blocks of SOURCE to row TO of those of TARGET.
 */
static void copy_rows(char *target, int64_t target_length, int64_t to, const char *source,
                      int64_t source_length, int64_t from, const cut *c, int64_t count) {
  for (int64_t o = 0; o < c->outer && count > 0 && c->row > 0; o++) {
    memcpy(target + (o * target_length + to) * c->row, source + (o * source_length + from) * c->row,
           (size_t)(count * c->row));
  }
}

static int64_t read_size(const cmz_op_tensor *t, int64_t i) {
  return t->element == CMZ_ELEMENT_I32 ? ((const int32_t *)t->data)[i]
                                       : ((const int64_t *)t->data)[i];
}

/* How many parts; the size of part I is part_size. */
static int part_count(cmz_op_call *call, const cmz_op_tensor *split, int64_t length,
                      int64_t *count) {
  if (!split) {
    *count = length;
    return CMZ_SUCCESS;
  }
  if (split->rank == 0) {
    int64_t size = read_size(split, 0);
    if (size <= 0) return cmz_op_fail(call, "parts of %lld", (long long)size);
    *count = length / size + (length % size != 0);
    return CMZ_SUCCESS;
  }
  int64_t rest = length;
  *count = split->dims[0];
  for (int64_t i = 0; i < *count; i++) {
    int64_t size = read_size(split, i);
    if (size < 0 || size > rest) return cmz_op_fail(call, "the parts are longer than the axis");
    rest -= size;
  }
  return rest ? cmz_op_fail(call, "the parts are shorter than the axis") : CMZ_SUCCESS;
}

int cmz_rt_split_to_sequence(cmz_op_call *call) {
  const cmz_op_tensor *x = &call->inputs[0];
  const cmz_op_tensor *split =
      call->input_count > 1 && call->inputs[1].buffer != CMZ_NO_INDEX ? &call->inputs[1] : NULL;
  int64_t axis = cmz_op_attribute(call, 0), count = 0, from = 0;
  bool keep = split || cmz_op_attribute(call, 1);
  if (axis < 0) axis += x->rank;
  cut c = cut_along(x->element, x->rank, x->dims, (uint32_t)axis);
  int rc = part_count(call, split, c.length, &count);
  if (rc) return rc;
  cmz_list *list = cmz_list_take(call->model, (size_t)count);
  if (!list) return CMZ_OUT_OF_MEMORY;
  for (int64_t i = 0; i < count; i++) {
    int64_t size = !split ? 1 : read_size(split, split->rank ? i : 0), dims[CMZ_MAX_DIMS];
    if (size > c.length - from) size = c.length - from;
    uint32_t rank = 0;
    for (uint32_t d = 0; d < x->rank; d++) {
      if (d != (uint32_t)axis) dims[rank++] = x->dims[d];
      else if (keep) dims[rank++] = size;
    }
    list->items[i] = cmz_item_take(call->model, x->element, rank, dims);
    if (!list->items[i]) {
      cmz_list_release(call->model, list);
      return CMZ_OUT_OF_MEMORY;
    }
    copy_rows(list->items[i]->data, size, 0, x->data, c.length, from, &c, size);
    from += size;
  }
  return cmz_op_set_list(call, list);
}

int cmz_rt_concat_from_sequence(cmz_op_call *call) {
  const cmz_list *list = cmz_op_list(call, 0);
  bool stack = cmz_op_attribute(call, 1) != 0;
  int64_t axis = cmz_op_attribute(call, 0), dims[CMZ_MAX_DIMS], length = 0;
  if (list->count == 0) return cmz_op_fail(call, "the sequence is empty");
  const cmz_item *first = list->items[0];
  uint32_t rank = first->rank + stack;
  if (axis < 0) axis += rank;
  if (axis < 0 || axis >= rank || rank > CMZ_MAX_DIMS) return cmz_op_fail(call, "no such axis");
  for (uint32_t d = 0, from = 0; d < rank; d++)
    dims[d] = stack && d == (uint32_t)axis ? 1 : first->dims[from++];
  for (size_t i = 0; i < list->count; i++) {
    const cmz_item *item = list->items[i];
    bool same = item->rank == first->rank;
    for (uint32_t d = 0; same && d < first->rank; d++)
      same = item->dims[d] == first->dims[d] || (!stack && d == (uint32_t)axis);
    if (!same) return cmz_op_fail(call, "the tensors of the sequence have different shapes");
    length += stack ? 1 : item->dims[axis];
  }
  cut c = cut_along(first->element, rank, dims, (uint32_t)axis);
  dims[axis] = length;
  int rc = cmz_op_shape(call, 0, rank, dims);
  if (rc || !call->outputs[0].data) return rc;
  int64_t to = 0;
  for (size_t i = 0; i < list->count; i++) {
    int64_t rows = stack ? 1 : list->items[i]->dims[axis];
    copy_rows(call->outputs[0].data, length, to, list->items[i]->data, rows, 0, &c, rows);
    to += rows;
  }
  return CMZ_SUCCESS;
}

/* ---- optionals ---- */

static bool is_list(const cmz_op_call *call, const cmz_op_tensor *t) {
  return call->model->program->buffers[t->buffer].value != 0;
}

/* Output 0 shares the list of input 0. */
static int share_list(cmz_op_call *call) {
  cmz_list *list = cmz_op_list(call, 0);
  if (list) list->references++;
  return cmz_op_set_list(call, list);
}

int cmz_rt_optional(cmz_op_call *call) {
  if (call->input_count == 0 || call->inputs[0].buffer == CMZ_NO_INDEX)
    return cmz_op_set_list(call, NULL);
  if (is_list(call, &call->inputs[0])) return share_list(call);
  return cmz_rt_sequence_construct(call);
}

int cmz_rt_optional_has_element(cmz_op_call *call) {
  const cmz_op_tensor *x = call->input_count ? &call->inputs[0] : NULL;
  uint8_t has = x && x->buffer != CMZ_NO_INDEX && (!is_list(call, x) || x->data);
  int rc = cmz_op_output(call, 0, sizeof has);
  if (!rc && call->outputs[0].data) memcpy(call->outputs[0].data, &has, sizeof has);
  return rc;
}

int cmz_rt_optional_get_element(cmz_op_call *call) {
  const cmz_list *list = cmz_op_list(call, 0);
  if (!is_list(call, &call->inputs[0]) || !list) return cmz_op_fail(call, "the optional is absent");
  const cmz_op_tensor *output = &call->outputs[0];
  if (output->buffer == CMZ_NO_INDEX) return CMZ_SUCCESS;
  return is_list(call, output) ? share_list(call) : give_item(call, list->items[0]);
}
