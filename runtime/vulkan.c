/* vulkan.c - the device driver over Vulkan. In: a device (vulkan_gpu.c), a configuration. Out: an
 * instance's own part of the work on it, which vulkan_memory.c and vulkan_commands.c do. Always
 * holds: calls open and close under the program's lock (data.c). */
#include "vulkan_device.h"

int cmz_vulkan_fail(cmz_model *m, cmz_device *d, vk_result code, const char *what) {
  if (code == VK_LOST) {
    if (d) d->lost = true;
    return cmz_fail_run(m, CMZ_RUN_FAILED,
                        "Vulkan: %s: the device was lost; a new instance may find it again", what);
  }
  return cmz_fail_run(m, code == -1 || code == -2 ? CMZ_OUT_OF_MEMORY : CMZ_RUN_FAILED,
                      "Vulkan: %s: %s %d", what,
                      code == -1 || code == -2 ? "out of memory, error" : "error", code);
}

static void vulkan_close(cmz_model *m, cmz_device *d) {
  vk_gpu *g = d->gpu;
  if (g) {
    cmz_vulkan_settle(d);
    cmz_vulkan_segments_free(d);
    while (d->blocks) cmz_vulkan_block_free(d, d->blocks);
    if (d->fence) g->fence_destroy(g->device, d->fence, NULL);
    if (d->command_pool) g->command_pool_destroy(g->device, d->command_pool, NULL);
    if (d->ranges)
      cmz_memory_give(m, d->ranges, g->bindings * (sizeof *d->ranges + sizeof *d->writes));
    cmz_vulkan_gpu_close(m->program, g);
  }
  cmz_memory_give(m, d, sizeof *d);
}

static int make_tools(cmz_model *m, cmz_device *d) {
  vk_gpu *g = d->gpu;
  d->ranges = cmz_memory_take(m, g->bindings * (sizeof *d->ranges + sizeof *d->writes));
  if (!d->ranges) return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for the device's tables");
  d->writes = (vk_write *)(void *)(d->ranges + g->bindings);
  vk_command_pool_info commands = {
      .type = VK_S_COMMAND_POOL, .flags = VK_RESETTABLE, .family = g->family};
  vk_fence_info fence = {.type = VK_S_FENCE};
  vk_result code = g->command_pool_create(g->device, &commands, NULL, &d->command_pool);
  if (!code) code = g->fence_create(g->device, &fence, NULL, &d->fence);
  return code ? cmz_vulkan_fail(m, d, code, "preparing the device") : CMZ_SUCCESS;
}

static int vulkan_open(cmz_model *m, cmz_device **out) {
  cmz_device *d = cmz_memory_take(m, sizeof *d);
  if (!d) return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for the device's tables");
  memset(d, 0, sizeof *d);
  d->model = m;
  d->next_address = 1u << 20;
  int rc = cmz_vulkan_gpu_open(m, &d->gpu);
  if (!rc) rc = make_tools(m, d);
  if (rc) vulkan_close(m, d);
  else *out = d;
  return rc;
}

const cmz_device_driver cmz_vulkan_driver = {.open = vulkan_open,
                                             .close = vulkan_close,
                                             .take = cmz_vulkan_take,
                                             .give = cmz_vulkan_give,
                                             .take_weights = cmz_vulkan_take_weights,
                                             .read = cmz_vulkan_read,
                                             .write = cmz_vulkan_write,
                                             .copy = cmz_vulkan_copy,
                                             .launch = cmz_vulkan_launch,
                                             .wait = cmz_vulkan_wait,
                                             .address = cmz_vulkan_address,
                                             .describe = cmz_vulkan_describe,
                                             .end = cmz_vulkan_end,
                                             .begin = cmz_vulkan_begin,
                                             .count = cmz_vulkan_count};
