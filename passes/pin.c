/* pin.c - applies --shape and --dim: fixes sizes of inputs, or gives their ranges.
 * In: a module as imported. Out: the same with symbols replaced by constants, or their ranges set.
 */
#include "support.h"

static cmz_vid find_input(const cmz_module *m, const char *name) {
  const cmz_graph *g = cmz_graph_get(m, m->entries.data[0]);
  for (uint32_t i = 0; i < g->inputs.count; i++)
    if (strcmp(cmz_value_get(m, g->inputs.data[i])->name, name) == 0) return g->inputs.data[i];
  return 0;
}

static cmz_status add_pin(cmz_module *m, const cmz_pin *pin, cmz_dim *replacement) {
  cmz_loc loc = {.file = m->file, .tensor = pin->name};
  cmz_vid v = find_input(m, pin->name);
  if (v == 0) return cmz_fail(m->ctx, CMZ_E_USAGE, loc, "--shape: the model has no such input");
  cmz_type *type = &cmz_value_get(m, v)->type;
  if (type->rank == CMZ_RANK_UNKNOWN) {
    cmz_dim *shape = CMZ_NEW_ARRAY(m->arena, cmz_dim, pin->rank);
    for (uint32_t i = 0; i < pin->rank; i++) {
      cmz_symbol symbol = {.name = cmz_arena_printf(m->arena, "%s.%u", pin->name, i),
                           .low = 0,
                           .high = INT64_MAX,
                           .hint = 1,
                           .origin = CMZ_SYMBOL_INPUT};
      shape[i] = pin->dims[i] >= 0 ? cmz_dim_const(m->dims, pin->dims[i])
                                   : cmz_dim_symbol(m->dims, &symbol);
    }
    type->rank = pin->rank;
    type->shape = shape;
    return CMZ_OK;
  }
  if (type->kind != CMZ_KIND_TENSOR)
    return cmz_fail(m->ctx, CMZ_E_USAGE, loc, "--shape: the input is not a tensor");
  if (type->rank != pin->rank)
    return cmz_fail(m->ctx, CMZ_E_USAGE, loc, "--shape gives %u dimensions, the input has %u",
                    pin->rank, type->rank);
  for (uint32_t i = 0; i < pin->rank; i++) {
    if (pin->dims[i] < 0) continue;
    int64_t have;
    const cmz_symbol *symbol = cmz_dim_symbol_of(m->dims, type->shape[i]);
    if (cmz_dim_is_const(m->dims, type->shape[i], &have)) {
      if (have != pin->dims[i])
        return cmz_fail(m->ctx, CMZ_E_USAGE, loc,
                        "--shape: dimension %u is %" PRId64 " in the model, not %" PRId64, i, have,
                        pin->dims[i]);
    } else if (symbol != NULL) {
      cmz_dim *slot = &replacement[cmz_dim_get(m->dims, type->shape[i])->value];
      cmz_dim d = cmz_dim_const(m->dims, pin->dims[i]);
      if (*slot != CMZ_DIM_NONE && *slot != d)
        return cmz_fail(m->ctx, CMZ_E_USAGE, loc,
                        "--shape: dimension \"%s\" gets two different sizes", symbol->name);
      *slot = d;
    }
  }
  return CMZ_OK;
}

static cmz_status add_range(cmz_module *m, const cmz_pin_range *range, cmz_dim *replacement) {
  uint32_t count = cmz_dim_symbol_count(m->dims);
  bool found = false;
  for (uint32_t i = 0; i < count; i++) {
    cmz_symbol *symbol = cmz_dim_symbol_at(m->dims, i);
    if (symbol->origin != CMZ_SYMBOL_INPUT || strcmp(symbol->name, range->name) != 0) continue;
    found = true;
    symbol->low = range->low;
    symbol->high = range->high;
    symbol->hint =
        range->hint >= range->low && range->hint <= range->high ? range->hint : range->low;
    if (range->low == range->high) replacement[i] = cmz_dim_const(m->dims, range->low);
  }
  if (found) return CMZ_OK;
  cmz_loc loc = {.file = m->file, .tensor = range->name};
  return cmz_fail(m->ctx, CMZ_E_USAGE, loc, "--dim: no input of the model has this dimension");
}

cmz_status cmz_pass_pin(cmz_pass_run *run, cmz_module *m) {
  if (run->pin_count == 0 && run->range_count == 0) return CMZ_OK;
  uint32_t count = cmz_dim_symbol_count(m->dims);
  cmz_dim *replacement = CMZ_NEW_ARRAY(m->arena, cmz_dim, count + 1);
  for (uint32_t i = 0; i < run->pin_count; i++) CMZ_TRY(add_pin(m, &run->pins[i], replacement));
  for (uint32_t i = 0; i < run->range_count; i++)
    CMZ_TRY(add_range(m, &run->ranges[i], replacement));
  uint32_t now = cmz_dim_symbol_count(m->dims);
  cmz_dim *all = CMZ_NEW_ARRAY(m->arena, cmz_dim, now + 1);
  memcpy(all, replacement, count * sizeof *all);
  cmz_pass_substitute(m, all);
  return CMZ_OK;
}
