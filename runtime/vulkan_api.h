/* vulkan_api.h - the part of Vulkan's C interface that the driver uses (Vulkan specification 1.3),
 * so that the runtime needs no headers of the system. Always holds: members stand in the
 * specification's order. */
#ifndef CMZ_RUNTIME_VULKAN_API_H
#define CMZ_RUNTIME_VULKAN_API_H

#include "device.h"

typedef int32_t vk_result;
typedef uint64_t vk_handle; /* of what is not dispatchable */
typedef void *vk_object;    /* instance, device, queue, command buffer */

#define VK_HEAD                                                                                    \
  uint32_t type;                                                                                   \
  const void *next
typedef struct vk_head {
  VK_HEAD;
} vk_head;
typedef struct vk_application {
  VK_HEAD;
  const char *name;
  uint32_t version;
  const char *engine;
  uint32_t engine_version, api;
} vk_application;
typedef struct vk_instance_info {
  VK_HEAD;
  uint32_t flags;
  const vk_application *application;
  uint32_t layer_count;
  const char *const *layers;
  uint32_t extension_count;
  const char *const *extensions;
} vk_instance_info;
typedef struct vk_queue_info {
  VK_HEAD;
  uint32_t flags, family, count;
  const float *priorities;
} vk_queue_info;
typedef struct vk_device_info {
  VK_HEAD;
  uint32_t flags, queue_count;
  const vk_queue_info *queues;
  uint32_t layer_count;
  const char *const *layers;
  uint32_t extension_count;
  const char *const *extensions;
  const void *features;
} vk_device_info;
typedef struct vk_family {
  uint32_t flags, count, timestamp_bits, granularity[3];
} vk_family;
typedef struct vk_memory_properties {
  uint32_t type_count;
  struct {
    uint32_t flags, heap;
  } types[32];
  uint32_t heap_count;
  struct {
    uint64_t size;
    uint32_t flags;
  } heaps[16];
} vk_memory_properties;
typedef struct vk_buffer_info {
  VK_HEAD;
  uint32_t flags;
  uint64_t size;
  uint32_t usage, sharing, family_count;
  const uint32_t *families;
} vk_buffer_info;
typedef struct vk_requirements {
  uint64_t size, alignment;
  uint32_t types;
} vk_requirements;
typedef struct vk_memory_info {
  VK_HEAD;
  uint64_t size;
  uint32_t memory_type;
} vk_memory_info;
typedef struct vk_shader_info {
  VK_HEAD;
  uint32_t flags;
  size_t bytes;
  const uint32_t *code;
} vk_shader_info;
typedef struct vk_binding {
  uint32_t binding, type, count, stages;
  const void *samplers;
} vk_binding;
typedef struct vk_set_layout_info {
  VK_HEAD;
  uint32_t flags, count;
  const vk_binding *bindings;
} vk_set_layout_info;
typedef struct vk_layout_info {
  VK_HEAD;
  uint32_t flags, set_count;
  const vk_handle *sets;
  uint32_t range_count;
  const void *ranges;
} vk_layout_info;
typedef struct vk_stage {
  VK_HEAD;
  uint32_t flags, stage;
  vk_handle module;
  const char *entry;
  const void *constants;
} vk_stage;
typedef struct vk_pipeline_info {
  VK_HEAD;
  uint32_t flags;
  vk_stage stage;
  vk_handle layout, base;
  int32_t base_index;
} vk_pipeline_info;
typedef struct vk_pool_size {
  uint32_t type, count;
} vk_pool_size;
typedef struct vk_pool_info {
  VK_HEAD;
  uint32_t flags, sets, size_count;
  const vk_pool_size *sizes;
} vk_pool_info;
typedef struct vk_set_info {
  VK_HEAD;
  vk_handle pool;
  uint32_t count;
  const vk_handle *layouts;
} vk_set_info;
typedef struct vk_range {
  vk_handle buffer;
  uint64_t offset, bytes;
} vk_range;
typedef struct vk_write {
  VK_HEAD;
  vk_handle set;
  uint32_t binding, element, count, kind;
  const void *images;
  const vk_range *buffers;
  const void *views;
} vk_write;
typedef struct vk_command_pool_info {
  VK_HEAD;
  uint32_t flags, family;
} vk_command_pool_info;
typedef struct vk_command_info {
  VK_HEAD;
  vk_handle pool;
  uint32_t level, count;
} vk_command_info;
typedef struct vk_begin_info {
  VK_HEAD;
  uint32_t flags;
  const void *inheritance;
} vk_begin_info;
typedef struct vk_submit {
  VK_HEAD;
  uint32_t wait_count;
  const void *waits, *wait_stages;
  uint32_t command_count;
  const vk_object *commands;
  uint32_t signal_count;
  const void *signals;
} vk_submit;
typedef struct vk_fence_info {
  VK_HEAD;
  uint32_t flags;
} vk_fence_info;
typedef struct vk_barrier {
  VK_HEAD;
  uint32_t from, to;
} vk_barrier;
typedef struct vk_copy {
  uint64_t from, to, bytes;
} vk_copy;
/* Numbers: see VK_FEATURE_… */
typedef struct vk_features {
  VK_HEAD;
  uint32_t features[55];
} vk_features;
typedef struct vk_storage16 {
  VK_HEAD;
  uint32_t storage, uniform, push, in_out;
} vk_storage16;
typedef struct vk_storage8 {
  VK_HEAD;
  uint32_t storage, uniform, push;
} vk_storage8;
typedef struct vk_small {
  VK_HEAD;
  uint32_t float16, int8;
} vk_small;
/* What a caller may have chained in their place: of Vulkan 1.1's and 1.2's structs of features, as
 * far as used. */
typedef struct vk_features11 {
  VK_HEAD;
  uint32_t storage16;
} vk_features11;
typedef struct vk_features12 {
  VK_HEAD;
  uint32_t mirror, indirect, storage8, uniform8, push8, buffer_atomics, shared_atomics, float16,
      int8;
} vk_features12;
typedef struct vk_features13 {
  VK_HEAD;
  uint32_t others[13], dot;
} vk_features13;
typedef struct vk_dot {
  VK_HEAD;
  uint32_t dot;
} vk_dot;
typedef struct vk_extension {
  char name[256];
  uint32_t version;
} vk_extension;
/* Of the 824 bytes of VkPhysicalDeviceProperties. */
enum {
  VK_PROPERTY_BYTES = 824,
  VK_PROPERTY_API = 0,
  VK_PROPERTY_TYPE = 16,
  VK_TYPE_DISCRETE = 2,
  VK_TYPE_PROCESSOR = 4,
  VK_PROPERTY_NAME = 20,
  VK_PROPERTY_MOST_RANGE = 324,
  VK_PROPERTY_MOST_BUFFERS = 372,
  VK_PROPERTY_MOST_GROUPS = 516,
  VK_PROPERTY_ALIGNMENT = 624
};
enum { VK_FEATURE_FLOAT64 = 39, VK_FEATURE_INT64 = 40, VK_FEATURE_INT16 = 41 };
enum {
  VK_S_APPLICATION = 0,
  VK_S_INSTANCE = 1,
  VK_S_QUEUE = 2,
  VK_S_DEVICE = 3,
  VK_S_SUBMIT = 4,
  VK_S_MEMORY = 5,
  VK_S_BUFFER = 12,
  VK_S_SHADER = 16,
  VK_S_STAGE = 18,
  VK_S_PIPELINE = 29,
  VK_S_LAYOUT = 30,
  VK_S_SET_LAYOUT = 32,
  VK_S_POOL = 33,
  VK_S_SET = 34,
  VK_S_WRITE = 35,
  VK_S_COMMAND_POOL = 39,
  VK_S_COMMANDS = 40,
  VK_S_BEGIN = 42,
  VK_S_FENCE = 8,
  VK_S_BARRIER = 46,
  VK_S_FEATURES11 = 49,
  VK_S_FEATURES12 = 51,
  VK_S_FEATURES13 = 53,
  VK_S_DOT = 1000280000,
  VK_S_FEATURES = 1000059000,
  VK_S_SMALL = 1000082000,
  VK_S_STORAGE16 = 1000083000,
  VK_S_STORAGE8 = 1000177000
};
enum {
  VK_STORAGE_BUFFER = 7,
  VK_STAGE_COMPUTE = 0x20,
  VK_QUEUE_COMPUTE = 2,
  VK_BUFFER_USES = 0x23,
  VK_MEMORY_MAPPED = 6,
  VK_MEMORY_LOCAL = 1,
  VK_MEMORY_CACHED = 8,
  VK_MEMORY_SPECIAL = 0xf0 /* lazy, protected, AMD's coherent and uncached */,
  VK_HEAP_LOCAL = 1,
  VK_LOST = -4,
  VK_PIPE_COMPUTE = 0x800,
  VK_PIPE_TRANSFER = 0x1000,
  VK_PIPE_HOST = 0x4000,
  VK_READS = 0x820,
  VK_WRITES = 0x1040,
  VK_HOST_READS = 0x2000,
  VK_BIND_COMPUTE = 1,
  VK_RESETTABLE = 2,
  VK_ONE_TIME = 1
};

/* X(member, exported name, parameters) */
/* clang-format off */
#define VULKAN_INSTANCE_FUNCTIONS(X) \
  X(instance_destroy, "vkDestroyInstance", void, (vk_object, const void *)) \
  X(devices, "vkEnumeratePhysicalDevices", vk_result, (vk_object, uint32_t *, vk_object *)) \
  X(properties, "vkGetPhysicalDeviceProperties", void, (vk_object, void *)) \
  X(families, "vkGetPhysicalDeviceQueueFamilyProperties", void, (vk_object, uint32_t *, vk_family *)) \
  X(features, "vkGetPhysicalDeviceFeatures2", void, (vk_object, vk_features *)) \
  X(memories, "vkGetPhysicalDeviceMemoryProperties", void, (vk_object, vk_memory_properties *)) \
  X(extensions, "vkEnumerateDeviceExtensionProperties", vk_result, (vk_object, const char *, uint32_t *, vk_extension *)) \
  X(device_create, "vkCreateDevice", vk_result, (vk_object, const vk_device_info *, const void *, vk_object *)) \
  X(device_destroy, "vkDestroyDevice", void, (vk_object, const void *)) \
  X(queue_get, "vkGetDeviceQueue", void, (vk_object, uint32_t, uint32_t, vk_object *)) \
  X(fence_create, "vkCreateFence", vk_result, (vk_object, const vk_fence_info *, const void *, vk_handle *)) \
  X(fence_destroy, "vkDestroyFence", void, (vk_object, vk_handle, const void *)) \
  X(fences_reset, "vkResetFences", vk_result, (vk_object, uint32_t, const vk_handle *)) \
  X(fences_wait, "vkWaitForFences", vk_result, (vk_object, uint32_t, const vk_handle *, uint32_t, uint64_t)) \
  X(submit, "vkQueueSubmit", vk_result, (vk_object, uint32_t, const vk_submit *, vk_handle)) \
  X(buffer_create, "vkCreateBuffer", vk_result, (vk_object, const vk_buffer_info *, const void *, vk_handle *)) \
  X(buffer_destroy, "vkDestroyBuffer", void, (vk_object, vk_handle, const void *)) \
  X(requirements, "vkGetBufferMemoryRequirements", void, (vk_object, vk_handle, vk_requirements *)) \
  X(memory_take, "vkAllocateMemory", vk_result, (vk_object, const vk_memory_info *, const void *, vk_handle *)) \
  X(memory_give, "vkFreeMemory", void, (vk_object, vk_handle, const void *)) \
  X(memory_bind, "vkBindBufferMemory", vk_result, (vk_object, vk_handle, vk_handle, uint64_t)) \
  X(memory_map, "vkMapMemory", vk_result, (vk_object, vk_handle, uint64_t, uint64_t, uint32_t, void **)) \
  X(shader_create, "vkCreateShaderModule", vk_result, (vk_object, const vk_shader_info *, const void *, vk_handle *)) \
  X(shader_destroy, "vkDestroyShaderModule", void, (vk_object, vk_handle, const void *)) \
  X(set_layout_create, "vkCreateDescriptorSetLayout", vk_result, (vk_object, const vk_set_layout_info *, const void *, vk_handle *)) \
  X(set_layout_destroy, "vkDestroyDescriptorSetLayout", void, (vk_object, vk_handle, const void *)) \
  X(layout_create, "vkCreatePipelineLayout", vk_result, (vk_object, const vk_layout_info *, const void *, vk_handle *)) \
  X(layout_destroy, "vkDestroyPipelineLayout", void, (vk_object, vk_handle, const void *)) \
  X(pipelines_create, "vkCreateComputePipelines", vk_result, (vk_object, vk_handle, uint32_t, const vk_pipeline_info *, const void *, vk_handle *)) \
  X(pipeline_destroy, "vkDestroyPipeline", void, (vk_object, vk_handle, const void *)) \
  X(pool_create, "vkCreateDescriptorPool", vk_result, (vk_object, const vk_pool_info *, const void *, vk_handle *)) \
  X(pool_destroy, "vkDestroyDescriptorPool", void, (vk_object, vk_handle, const void *)) \
  X(pool_reset, "vkResetDescriptorPool", vk_result, (vk_object, vk_handle, uint32_t)) \
  X(sets_take, "vkAllocateDescriptorSets", vk_result, (vk_object, const vk_set_info *, vk_handle *)) \
  X(sets_write, "vkUpdateDescriptorSets", void, (vk_object, uint32_t, const vk_write *, uint32_t, const void *)) \
  X(command_pool_create, "vkCreateCommandPool", vk_result, (vk_object, const vk_command_pool_info *, const void *, vk_handle *)) \
  X(command_pool_destroy, "vkDestroyCommandPool", void, (vk_object, vk_handle, const void *)) \
  X(commands_take, "vkAllocateCommandBuffers", vk_result, (vk_object, const vk_command_info *, vk_object *)) \
  X(begin, "vkBeginCommandBuffer", vk_result, (vk_object, const vk_begin_info *)) \
  X(end, "vkEndCommandBuffer", vk_result, (vk_object)) \
  X(bind_pipeline, "vkCmdBindPipeline", void, (vk_object, int, vk_handle)) \
  X(bind_sets, "vkCmdBindDescriptorSets", void, (vk_object, int, vk_handle, uint32_t, uint32_t, const vk_handle *, uint32_t, const uint32_t *)) \
  X(dispatch, "vkCmdDispatch", void, (vk_object, uint32_t, uint32_t, uint32_t)) \
  X(copy, "vkCmdCopyBuffer", void, (vk_object, vk_handle, vk_handle, uint32_t, const vk_copy *)) \
  X(barrier, "vkCmdPipelineBarrier", void, (vk_object, uint32_t, uint32_t, uint32_t, uint32_t, const vk_barrier *, uint32_t, const void *, uint32_t, const void *))
/* clang-format on */

#endif
