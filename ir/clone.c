/* clone.c - a copy of a module with the same ids, for --check-passes and tapped clones.
 * In: a module. Out: another in the same context. Always holds: what never changes once made
 * (names, shapes, constants' bytes, attributes' lists) is shared, so the copy must not outlive the
 * original. */
#include "module.h"

#define COPY_VEC(arena, vec)                                                                       \
  do {                                                                                             \
    (vec)->data = cmz_arena_copy((arena), (vec)->data, (vec)->count * sizeof *(vec)->data);        \
    (vec)->capacity = (vec)->count;                                                                \
  } while (0)

cmz_module *cmz_module_clone(const cmz_module *m) {
  cmz_arena *arena = cmz_arena_create(m->ctx);
  cmz_module *copy = cmz_arena_copy(arena, m, sizeof *m);
  copy->arena = arena;
  copy->dims = cmz_dims_clone(m->dims, arena);
  COPY_VEC(arena, &copy->values);
  COPY_VEC(arena, &copy->nodes);
  COPY_VEC(arena, &copy->graphs);
  COPY_VEC(arena, &copy->constants);
  COPY_VEC(arena, &copy->entries);
  for (uint32_t i = 0; i < copy->values.count; i++) COPY_VEC(arena, &copy->values.data[i].uses);
  for (uint32_t i = 0; i < copy->nodes.count; i++) {
    cmz_node *n = &copy->nodes.data[i];
    n->inputs = cmz_arena_copy(arena, n->inputs, n->input_count * sizeof *n->inputs);
    n->outputs = cmz_arena_copy(arena, n->outputs, n->output_count * sizeof *n->outputs);
    n->attrs = cmz_arena_copy(arena, n->attrs, n->attr_count * sizeof *n->attrs);
  }
  for (uint32_t i = 0; i < copy->graphs.count; i++) {
    COPY_VEC(arena, &copy->graphs.data[i].inputs);
    COPY_VEC(arena, &copy->graphs.data[i].outputs);
    COPY_VEC(arena, &copy->graphs.data[i].output_names);
    COPY_VEC(arena, &copy->graphs.data[i].nodes);
  }
  return copy;
}
