/* layout.h - where the elements of a tensor lie: a layout maps logical coordinates to a linear
 * element index. It is a list of physical axes, outermost first; physical coordinate j of logical
 * coordinates idx is (idx[axis] / div) % mod (mod 0: no remainder taken). The extent of physical
 * axis j is mod, or ceil(dims[axis] / div) when mod is 0. Count 0 is the plain row-major layout.
 * Examples: blocked channels N C/16 H W 16c = {0,1,0}{1,16,0}{2,1,0}{3,1,0}{1,1,16};
 * a matmul weight K x N in panels of 16 = {1,16,0}{0,1,0}{1,1,16}.
 * Always holds: padding elements (coordinates past a dim) hold zero in memory. */
#ifndef CMZ_IR_LAYOUT_H
#define CMZ_IR_LAYOUT_H

#include "dim.h"

#define CMZ_LAYOUT_MAX_AXES 12
typedef struct cmz_layout_axis {
  uint8_t axis;
  uint32_t div, mod;
} cmz_layout_axis;
typedef struct cmz_layout {
  uint32_t count; /* 0: plain */
  cmz_layout_axis axes[CMZ_LAYOUT_MAX_AXES];
} cmz_layout;

bool cmz_layout_equal(const cmz_layout *a, const cmz_layout *b);
/* N C/block <spatial…> block-c of a tensor of RANK (axis 1 is split); RANK >= 2. */
cmz_layout cmz_layout_blocked_channels(uint32_t rank, uint32_t block);
/* Extents of the physical axes of a RANK-dimensional tensor (RANK of them when plain); their
 * number. */
uint32_t cmz_layout_extents(cmz_dims *dims, const cmz_layout *layout, uint32_t rank,
                            const cmz_dim *shape, cmz_dim *extents);
/* Number of stored elements, padding included. */
cmz_dim cmz_layout_elements(cmz_dims *dims, const cmz_layout *layout, uint32_t rank,
                            const cmz_dim *shape);
/* Linear index of concrete coordinates. */
int64_t cmz_layout_index(const cmz_layout *layout, uint32_t rank, const int64_t *shape,
                         const int64_t *coordinates);
/* Copies a plain tensor of element size BITS (multiple of 8) into LAYOUT (destination zeroed
 * first). */
void cmz_layout_pack(const cmz_layout *layout, uint32_t rank, const int64_t *shape,
                     uint32_t element_bytes, const void *plain, void *packed);
void cmz_layout_print(const cmz_layout *layout, cmz_text *text);

#endif
