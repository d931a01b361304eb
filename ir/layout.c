/* layout.c - layouts: extents, sizes and indices of physical axes; packing of plain data.
 * In: layouts and shapes. Out: dims, indices, packed bytes. Always holds: padding elements are
 * zero. */
#include "layout.h"

bool cmz_layout_equal(const cmz_layout *a, const cmz_layout *b) {
  if (a->count != b->count) return false;
  for (uint32_t i = 0; i < a->count; i++)
    if (a->axes[i].axis != b->axes[i].axis || a->axes[i].div != b->axes[i].div ||
        a->axes[i].mod != b->axes[i].mod)
      return false;
  return true;
}

cmz_layout cmz_layout_blocked_channels(uint32_t rank, uint32_t block) {
  cmz_layout layout = {0};
  if (rank < 2 || rank + 1 > CMZ_LAYOUT_MAX_AXES) return layout;
  for (uint32_t i = 0; i < rank; i++)
    layout.axes[layout.count++] = (cmz_layout_axis){(uint8_t)i, i == 1 ? block : 1, 0};
  layout.axes[layout.count++] = (cmz_layout_axis){1, 1, block};
  return layout;
}

uint32_t cmz_layout_extents(cmz_dims *dims, const cmz_layout *layout, uint32_t rank,
                            const cmz_dim *shape, cmz_dim *extents) {
  if (layout->count == 0) {
    for (uint32_t i = 0; i < rank; i++) extents[i] = shape[i];
    return rank;
  }
  for (uint32_t i = 0; i < layout->count; i++) {
    cmz_layout_axis a = layout->axes[i];
    extents[i] = a.mod ? cmz_dim_const(dims, a.mod)
                       : cmz_dim_ceildiv(dims, shape[a.axis], cmz_dim_const(dims, a.div));
  }
  return layout->count;
}

cmz_dim cmz_layout_elements(cmz_dims *dims, const cmz_layout *layout, uint32_t rank,
                            const cmz_dim *shape) {
  if (layout->count == 0) return cmz_dim_product(dims, shape, rank);
  cmz_dim extents[CMZ_LAYOUT_MAX_AXES];
  uint32_t count = cmz_layout_extents(dims, layout, rank, shape, extents);
  return cmz_dim_product(dims, extents, count);
}

static int64_t concrete_extent(cmz_layout_axis a, const int64_t *shape) {
  return a.mod ? a.mod : (shape[a.axis] + a.div - 1) / a.div;
}

int64_t cmz_layout_index(const cmz_layout *layout, uint32_t rank, const int64_t *shape,
                         const int64_t *coordinates) {
  int64_t index = 0;
  if (layout->count == 0) {
    for (uint32_t i = 0; i < rank; i++) index = index * shape[i] + coordinates[i];
    return index;
  }
  for (uint32_t i = 0; i < layout->count; i++) {
    cmz_layout_axis a = layout->axes[i];
    int64_t coordinate = coordinates[a.axis] / a.div;
    index = index * concrete_extent(a, shape) + (a.mod ? coordinate % a.mod : coordinate);
  }
  return index;
}

void cmz_layout_pack(const cmz_layout *layout, uint32_t rank, const int64_t *shape,
                     uint32_t element_bytes, const void *plain, void *packed) {
  size_t stored = 1, count = 1;
  for (uint32_t i = 0; i < rank; i++) count *= (size_t)shape[i];
  for (uint32_t i = 0; i < layout->count; i++)
    stored *= (size_t)concrete_extent(layout->axes[i], shape);
  if (layout->count == 0) stored = count;
  memset(packed, 0, stored * element_bytes);
  int64_t coordinates[32] = {0};
  for (size_t i = 0; i < count; i++) {
    size_t to = (size_t)cmz_layout_index(layout, rank, shape, coordinates);
    memcpy((uint8_t *)packed + to * element_bytes, (const uint8_t *)plain + i * element_bytes,
           element_bytes);
    for (uint32_t axis = rank; axis-- > 0;) { /* the next coordinates, last axis fastest */
      if (++coordinates[axis] < shape[axis]) break;
      coordinates[axis] = 0;
    }
  }
}

void cmz_layout_print(const cmz_layout *layout, cmz_text *text) {
  if (layout->count == 0) {
    cmz_text_add(text, "plain");
    return;
  }
  for (uint32_t i = 0; i < layout->count; i++)
    cmz_text_add(text, "{%u,%u,%u}", layout->axes[i].axis, layout->axes[i].div,
                 layout->axes[i].mod);
}
