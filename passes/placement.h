/* placement.h - what of a GPU model runs where, for the report: placement.c. */
#ifndef CMZ_PASSES_PLACEMENT_H
#define CMZ_PASSES_PLACEMENT_H

#include "../ir/plan.h"

struct json_t;
/* {"kernels", "launches", "flops_device", "flops_host", "share_device", "bytes_to_device",
 * "bytes_to_host", "host_ops":
 * [{"node", "op", "function", "elements", "times"}], "copies": [{"tensor", "to", "for", "node",
 * "bytes", "times"}]}: bytes and elements at the sizes that are optimised for, times a run. */
struct json_t *cmz_placement_json(const cmz_plan *plan);

#endif
