/* shim.c - a Vulkan loader between a model and the real one, which makes devices that are hard to
 * come by and seeds faults. In: the environment: SHIM_REAL (the real loader's path) and
 *   SHIM_SPLIT=1        memory near the device cannot be mapped, as on graphics cards
 *   SHIM_MEMORY=BYTES   the device's memory ends there
 *   SHIM_RANGE=BYTES    maxStorageBufferRange
 *   SHIM_WITHOUT=LIST   features it lacks: float64 int64 int16 int8 float16 storage8 storage16 dot
 *   SHIM_TYPE=N         its type: 2 a graphics card, 4 a processor
 *   SHIM_LOSE=N         the device is lost at the N-th submission (from 1)
 *   SHIM_DROP=N         the N-th barrier between kernels (from 1) is left out: validation has to
 * find it SHIM_LOG=FILE       what was recorded and submitted, and the entries of pipelines, a word
 * a line Out: vkGetInstanceProcAddr. Always holds: what is not named here goes to the real loader
 * unchanged. */
#define _GNU_SOURCE
#include "../../runtime/vulkan_api.h"

extern char *getenv(const char *name);
extern long strtol(const char *text, char **end, int base);
extern char *strstr(const char *text, const char *part);

typedef void (*function)(void);
static function (*real_find)(vk_object instance, const char *name);
static vk_object real_instance;

static long setting(const char *name) {
  const char *text = getenv(name);
  return text ? strtol(text, NULL, 10) : 0;
}

static function real(const char *name) { return real_find(real_instance, name); }

static void note(const char *word) {
  const char *path = getenv("SHIM_LOG");
  if (!path) return;
  int fd = cmz_system_open(path, 02001 | 0100, 0600); /* append, write, create */
  if (fd < 0) return;
  long written = syscall(1, (long)fd, word, strlen(word)) + syscall(1, (long)fd, "\n", 1L);
  (void)written;
  close(fd);
}

static void properties(vk_object device, uint32_t *words) {
  ((void (*)(vk_object, void *))real("vkGetPhysicalDeviceProperties"))(device, words);
  long range = setting("SHIM_RANGE");
  if (range) words[VK_PROPERTY_MOST_RANGE / 4] = (uint32_t)range;
  if (setting("SHIM_TYPE")) words[VK_PROPERTY_TYPE / 4] = (uint32_t)setting("SHIM_TYPE");
  if (setting("SHIM_SPLIT")) words[VK_PROPERTY_TYPE / 4] = VK_TYPE_DISCRETE;
}

static void clear(const char *name, uint32_t *feature) {
  const char *list = getenv("SHIM_WITHOUT");
  if (list && strstr(list, name)) *feature = 0;
}

static void features(vk_object device, vk_features *f) {
  ((void (*)(vk_object, vk_features *))real("vkGetPhysicalDeviceFeatures2"))(device, f);
  clear("float64", &f->features[VK_FEATURE_FLOAT64]);
  clear("int64", &f->features[VK_FEATURE_INT64]);
  clear("int16", &f->features[VK_FEATURE_INT16]);
  for (vk_head *h = (vk_head *)(uintptr_t)f->next; h; h = (vk_head *)(uintptr_t)h->next) {
    if (h->type == VK_S_SMALL)
      clear("int8", &((vk_small *)h)->int8), clear("float16", &((vk_small *)h)->float16);
    if (h->type == VK_S_DOT) clear("dot", &((vk_dot *)h)->dot);
    if (h->type == VK_S_STORAGE8) clear("storage8", &((vk_storage8 *)h)->storage);
    if (h->type == VK_S_STORAGE16) clear("storage16", &((vk_storage16 *)h)->storage);
  }
}

/* Type 0 is near and not mapped, type 1 far and mapped; both are the real type 0. */
static void memories(vk_object device, vk_memory_properties *p) {
  ((void (*)(vk_object, vk_memory_properties *))real("vkGetPhysicalDeviceMemoryProperties"))(device,
                                                                                             p);
  if (!setting("SHIM_SPLIT")) return;
  p->types[1] = p->types[0];
  p->types[0].flags = VK_MEMORY_LOCAL;
  p->types[1].flags = VK_MEMORY_MAPPED | VK_MEMORY_CACHED;
  p->type_count = 2;
}

static void requirements(vk_object device, vk_handle buffer, vk_requirements *need) {
  ((void (*)(vk_object, vk_handle, vk_requirements *))real("vkGetBufferMemoryRequirements"))(
      device, buffer, need);
  if (setting("SHIM_SPLIT")) need->types = 3;
}

enum { MOST_HIDDEN = 4096 };
static vk_handle hidden[MOST_HIDDEN]; /* memory that cannot be mapped */
static uint32_t hidden_count;
static uint64_t taken;

static vk_result memory_take(vk_object device, const vk_memory_info *info, const void *allocator,
                             vk_handle *out) {
  vk_memory_info own = *info;
  long most = setting("SHIM_MEMORY");
  if (most && taken + info->size > (uint64_t)most) return -2;
  if (setting("SHIM_SPLIT")) own.memory_type = 0;
  vk_result code =
      ((vk_result(*)(vk_object, const vk_memory_info *, const void *, vk_handle *))real(
          "vkAllocateMemory"))(device, &own, allocator, out);
  if (!code) taken += info->size;
  if (!code && setting("SHIM_SPLIT") && info->memory_type == 0 && hidden_count < MOST_HIDDEN)
    hidden[hidden_count++] = *out;
  return code;
}

static vk_result memory_map(vk_object device, vk_handle memory, uint64_t offset, uint64_t bytes,
                            uint32_t flags, void **host) {
  for (uint32_t i = 0; i < hidden_count; i++)
    if (hidden[i] == memory) return -5;
  return ((vk_result(*)(vk_object, vk_handle, uint64_t, uint64_t, uint32_t, void **))real(
      "vkMapMemory"))(device, memory, offset, bytes, flags, host);
}

static void memory_give(vk_object device, vk_handle memory, const void *allocator) {
  for (uint32_t i = 0; i < hidden_count; i++)
    if (hidden[i] == memory) hidden[i] = hidden[--hidden_count];
  ((void (*)(vk_object, vk_handle, const void *))real("vkFreeMemory"))(device, memory, allocator);
}

static vk_result submit(vk_object queue, uint32_t count, const vk_submit *submits,
                        vk_handle fence) {
  static long number;
  long lose = setting("SHIM_LOSE");
  note("submit");
  if (lose && ++number >= lose) return VK_LOST;
  return ((vk_result(*)(vk_object, uint32_t, const vk_submit *, vk_handle))real("vkQueueSubmit"))(
      queue, count, submits, fence);
}

static vk_result pipelines(vk_object device, vk_handle cache, uint32_t count,
                           const vk_pipeline_info *infos, const void *allocator, vk_handle *out) {
  for (uint32_t i = 0; i < count; i++) note(infos[i].stage.entry);
  return ((vk_result(*)(vk_object, vk_handle, uint32_t, const vk_pipeline_info *, const void *,
                        vk_handle *))real("vkCreateComputePipelines"))(device, cache, count, infos,
                                                                       allocator, out);
}

static vk_result begin(vk_object commands, const vk_begin_info *info) {
  note("record");
  return ((vk_result(*)(vk_object, const vk_begin_info *))real("vkBeginCommandBuffer"))(commands,
                                                                                        info);
}

static void barrier(vk_object commands, uint32_t from, uint32_t to, uint32_t flags, uint32_t count,
                    const vk_barrier *all, uint32_t buffers, const void *b, uint32_t images,
                    const void *i) {
  static long number;
  static bool inside; /* the first of a recording stands before all kernels */
  if (!inside || to == VK_PIPE_HOST) {
    inside = to != VK_PIPE_HOST;
  } else {
    number++;
    note("barrier");
    if (number == setting("SHIM_DROP")) return;
  }
  ((void (*)(vk_object, uint32_t, uint32_t, uint32_t, uint32_t, const vk_barrier *, uint32_t,
             const void *, uint32_t, const void *))real("vkCmdPipelineBarrier"))(
      commands, from, to, flags, count, all, buffers, b, images, i);
}

static vk_result create(const vk_instance_info *info, const void *allocator, vk_object *instance) {
  real_instance = NULL;
  vk_result code = ((vk_result(*)(const vk_instance_info *, const void *, vk_object *))real(
      "vkCreateInstance"))(info, allocator, instance);
  if (!code) real_instance = *instance;
  return code;
}

function vkGetInstanceProcAddr(vk_object instance, const char *name);
function vkGetInstanceProcAddr(vk_object instance, const char *name) {
  static const struct {
    const char *name;
    function own;
  } rows[] = {{"vkCreateInstance", (function)create},
              {"vkGetPhysicalDeviceProperties", (function)properties},
              {"vkGetPhysicalDeviceFeatures2", (function)features},
              {"vkGetPhysicalDeviceMemoryProperties", (function)memories},
              {"vkGetBufferMemoryRequirements", (function)requirements},
              {"vkAllocateMemory", (function)memory_take},
              {"vkFreeMemory", (function)memory_give},
              {"vkMapMemory", (function)memory_map},
              {"vkQueueSubmit", (function)submit},
              {"vkCreateComputePipelines", (function)pipelines},
              {"vkBeginCommandBuffer", (function)begin},
              {"vkCmdPipelineBarrier", (function)barrier}};
  if (!real_find) {
    void *library = dlopen(getenv("SHIM_REAL"), 2);
    void *symbol = library ? dlsym(library, "vkGetInstanceProcAddr") : NULL;
    if (!symbol) return NULL;
    memcpy(&real_find, &symbol, sizeof real_find);
  }
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
    if (strcmp(rows[i].name, name) == 0) return rows[i].own;
  return real_find(instance, name);
}
