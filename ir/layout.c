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

/* Copies COUNT elements that lie STRIDE elements apart. */
static void copy_run(uint32_t element_bytes, const uint8_t *from, int64_t stride, uint8_t *to,
                     int64_t count) {
  if (stride == 1) {
    memcpy(to, from, (size_t)count * element_bytes);
  } else if (element_bytes == 4) {
    for (int64_t i = 0; i < count; i++) memcpy(to + i * 4, from + i * stride * 4, 4);
  } else {
    for (int64_t i = 0; i < count; i++)
      memcpy(to + (size_t)i * element_bytes, from + i * stride * (int64_t)element_bytes,
             element_bytes);
  }
}

/* A logical coordinate is the sum of its physical axes' positions times their div, so the plain
 * index is a sum over physical positions too; what lies past a dim is padding. */
void cmz_layout_pack(const cmz_layout *layout, uint32_t rank, const int64_t *shape,
                     uint32_t element_bytes, const void *plain, void *packed) {
  int64_t strides[32], extents[CMZ_LAYOUT_MAX_AXES], position[CMZ_LAYOUT_MAX_AXES] = {0},
                                                     coordinate[32] = {0};
  int64_t count = 1, stored = 1;
  for (uint32_t i = rank; i-- > 0;) {
    strides[i] = count;
    count *= shape[i];
  }
  for (uint32_t j = 0; j < layout->count; j++)
    stored *= extents[j] = concrete_extent(layout->axes[j], shape);
  if (layout->count == 0) {
    memcpy(packed, plain, (size_t)count * element_bytes);
    return;
  }
  memset(packed, 0, (size_t)stored * element_bytes);
  if (stored == 0) return;
  uint32_t last = layout->count - 1;
  const cmz_layout_axis inner = layout->axes[last];
  int64_t run = extents[last], from = 0;
  for (int64_t to = 0; to < stored; to += run) {
    bool inside = true;
    for (uint32_t i = 0; i < rank && inside; i++) inside = coordinate[i] < shape[i];
    if (inside) {
      int64_t room = (shape[inner.axis] - coordinate[inner.axis] + inner.div - 1) / inner.div;
      copy_run(element_bytes, (const uint8_t *)plain + from * (int64_t)element_bytes,
               strides[inner.axis] * inner.div, (uint8_t *)packed + to * (int64_t)element_bytes,
               room < run ? room : run);
    }
    for (uint32_t j = last; j-- > 0;) { /* the next position, inner axes fastest */
      const cmz_layout_axis a = layout->axes[j];
      coordinate[a.axis] += a.div;
      from += strides[a.axis] * a.div;
      if (++position[j] < extents[j]) break;
      coordinate[a.axis] -= extents[j] * a.div;
      from -= strides[a.axis] * a.div * extents[j];
      position[j] = 0;
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
