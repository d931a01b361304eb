/* check_api.c - a compiled model for Vulkan through its C interface: what instances have in common,
 * a caller's device, queue and buffers. usage: check_api MODEL.so. The model has one f32 input and
 * one f32 output. Prints a line a check and `N passed, N failed`. */
#include "../../runtime/vulkan_api.h"

extern int printf(const char *format, ...);

static int passed, failed;
static void check(bool ok, const char *what) {
  if (ok) passed++;
  else failed++;
  printf("%s: %s\n", ok ? "ok" : "FAILED", what);
}

/* ---- a Vulkan of the caller's ---- */
#define MEMBER(member, name, result, parameters) static result(*member) parameters;
VULKAN_INSTANCE_FUNCTIONS(MEMBER)
static void *(*find)(vk_object, const char *);
static vk_features wanted = {.type = VK_S_FEATURES};
static vk_features12 wanted12 = {.type = VK_S_FEATURES12};

static bool open_vulkan(cmz_vulkan *v) {
  enum { VK_1_2 = 0x402000, VK_1_2_FEATURES_BYTES = 208 };
  static unsigned char whole[VK_1_2_FEATURES_BYTES]; /* VkPhysicalDeviceVulkan12Features is longer
                                                        than what is used of it */
  static union { unsigned char bytes[VK_PROPERTY_BYTES]; } properties_of;
  void *library = dlopen("libvulkan.so.1", 2),
       *symbol = library ? dlsym(library, "vkGetInstanceProcAddr") : NULL;
  if (!symbol) return false;
  memcpy(&find, &symbol, sizeof find);
  vk_result (*create)(const vk_instance_info *, const void *, vk_object *);
  symbol = find(NULL, "vkCreateInstance");
  memcpy(&create, &symbol, sizeof create);
  vk_application application = {.type = VK_S_APPLICATION, .api = VK_1_2};
  vk_instance_info info = {.type = VK_S_INSTANCE, .application = &application};
  if (create(&info, NULL, &v->instance)) return false;
#define FIND(member, name, result, parameters)                                                     \
  symbol = find(v->instance, name);                                                                \
  memcpy(&member, &symbol, sizeof member);
  VULKAN_INSTANCE_FUNCTIONS(FIND)
  uint32_t count = 1;
  if (devices(v->instance, &count, &v->physical_device) < 0 || count == 0) return false;
  properties(v->physical_device, &properties_of);
  wanted12.int8 = wanted12.storage8 = 1;
  memcpy(whole, &wanted12, sizeof wanted12);
  wanted.next = whole;
  float priority = 1;
  vk_queue_info queue = {.type = VK_S_QUEUE, .count = 1, .priorities = &priority};
  vk_device_info device = {
      .type = VK_S_DEVICE, .next = &wanted, .queue_count = 1, .queues = &queue};
  if (device_create(v->physical_device, &device, NULL, &v->device)) return false;
  queue_get(v->device, 0, 0, &v->queue);
  v->struct_size = sizeof *v;
  v->features = &wanted;
  return true;
}

typedef struct buffer {
  vk_handle buffer, memory;
  void *host;
} buffer;

static bool make_buffer(const cmz_vulkan *v, size_t bytes, buffer *out) {
  vk_buffer_info info = {.type = VK_S_BUFFER, .size = bytes, .usage = VK_BUFFER_USES};
  vk_requirements need;
  vk_memory_properties p;
  if (buffer_create(v->device, &info, NULL, &out->buffer)) return false;
  requirements(v->device, out->buffer, &need);
  memories(v->physical_device, &p);
  uint32_t type = 0;
  while (type < p.type_count &&
         (!(need.types >> type & 1) || (~p.types[type].flags & VK_MEMORY_MAPPED)))
    type++;
  vk_memory_info memory = {.type = VK_S_MEMORY, .size = need.size, .memory_type = type};
  return type < p.type_count && !memory_take(v->device, &memory, NULL, &out->memory) &&
         !memory_bind(v->device, out->buffer, out->memory, 0) &&
         !memory_map(v->device, out->memory, 0, UINT64_MAX, 0, &out->host);
}

static void free_buffer(const cmz_vulkan *v, const buffer *b) {
  buffer_destroy(v->device, b->buffer, NULL);
  memory_give(v->device, b->memory, NULL);
}

/* Waits for all that was given to the queue. */
static bool wait_for_queue(const cmz_vulkan *v) {
  vk_fence_info info = {.type = VK_S_FENCE};
  vk_handle fence;
  if (fence_create(v->device, &info, NULL, &fence)) return false;
  bool good =
      !submit(v->queue, 0, NULL, fence) && !fences_wait(v->device, 1, &fence, 1, UINT64_MAX);
  fence_destroy(v->device, fence, NULL);
  return good;
}

/* ---- the model ---- */
enum { MOST = 1 << 20 };
static const cmz_api *api;
static float input[MOST], expected[MOST], got[MOST];
static size_t in_bytes, out_bytes;

static size_t bytes_of(const cmz_port *port) {
  size_t bytes = 4;
  for (uint32_t d = 0; d < port->rank; d++) bytes *= port->dims[d] > 0 ? (size_t)port->dims[d] : 1;
  return bytes;
}

static cmz_tensor tensor(const cmz_port *port, void *data, uint32_t memory, size_t bytes) {
  cmz_tensor t = {
      .data = data, .memory = memory, .element = port->element, .rank = port->rank, .bytes = bytes};
  for (uint32_t d = 0; d < port->rank; d++) t.dims[d] = port->dims[d] > 0 ? port->dims[d] : 1;
  return t;
}

static bool run_host(cmz_model *m, float *out) {
  cmz_tensor in = tensor(&api->description->inputs[0], input, CMZ_MEMORY_HOST, in_bytes),
             result = tensor(&api->description->outputs[0], out, CMZ_MEMORY_HOST, out_bytes);
  if (api->run(m, &in, &result) == 0) return true;
  printf("%s\n", api->error(m));
  return false;
}

static cmz_model *make(const cmz_config *config) {
  cmz_model *m = NULL;
  if (api->create(config, &m) == 0) return m;
  printf("%s\n", m ? api->error(m) : "no instance");
  if (m) api->destroy(m);
  return NULL;
}

static bool same(const float *a) {
  for (size_t i = 0; i < out_bytes / 4; i++) {
    float difference = a[i] - expected[i];
    if (difference > 1e-3f || difference < -1e-3f) return false;
  }
  return true;
}

static void check_common(void) {
  cmz_model *first = make(NULL);
  check(first && run_host(first, expected), "an instance");
  cmz_model *second = make(NULL);
  check(second && run_host(second, got) && same(got), "another one on the same device");
  if (first) api->destroy(first);
  memset(got, 0, out_bytes);
  check(second && run_host(second, got) && same(got), "the weights outlive the first");
  cmz_model *third = make(NULL);
  if (second) api->destroy(second);
  check(third && run_host(third, got) && same(got), "and the second");
  if (third) api->destroy(third);
}

static void check_buffers(const cmz_vulkan *v, cmz_model *m, size_t offset) {
  buffer from, to;
  if (!make_buffer(v, in_bytes + offset, &from) ||
      !make_buffer(v, (out_bytes + offset + 3) / 4 * 4, &to)) {
    check(false, "buffers");
    return;
  }
  memcpy((char *)from.host + offset, input, in_bytes);
  cmz_vulkan_memory source = {from.buffer, offset}, target = {to.buffer, offset}, nothing = {0};
  cmz_tensor in = tensor(&api->description->inputs[0], &source, CMZ_MEMORY_DEVICE, in_bytes), out;
  for (int i = 0; i < 3; i++) {
    memset(to.host, 0, out_bytes + offset);
    out = tensor(&api->description->outputs[0], &target, CMZ_MEMORY_DEVICE, out_bytes);
    bool good = api->run(m, &in, &out) == 0 && out.data == &target && wait_for_queue(v);
    check(good && same((float *)(void *)((char *)to.host + offset)),
          "from a buffer of the caller's into one");
  }
  out = tensor(&api->description->outputs[0], NULL, CMZ_MEMORY_DEVICE, 0);
  check(api->run(m, &in, &out) == 0 && out.data && ((cmz_vulkan_memory *)out.data)->buffer &&
            out.bytes == out_bytes,
        "an output that stays where the instance has it");
  check(run_host(m, got) && same(got), "and host memory again");
  in.data = &nothing;
  check(api->run(m, &in, &out) == CMZ_INVALID_ARGUMENT, "a tensor without a buffer is refused");
  api->destroy(m);
  free_buffer(v, &from);
  free_buffer(v, &to);
}

int main(int count, char **arguments) {
  void *library = count > 1 ? dlopen(arguments[1], 2) : NULL,
       *symbol = library ? dlsym(library, "cmz_model_api") : NULL;
  const cmz_api *(*get)(void);
  memcpy(&get, &symbol, sizeof get);
  if (!symbol) return 2;
  api = get();
  in_bytes = bytes_of(&api->description->inputs[0]);
  out_bytes = bytes_of(&api->description->outputs[0]);
  if (in_bytes > sizeof input || out_bytes > sizeof expected) return 2;
  for (size_t i = 0; i < in_bytes / 4; i++) input[i] = (float)(i * 7 % 256);
  check_common();
  cmz_vulkan v = {0};
  cmz_config config = {.struct_size = sizeof config, .stream = &v};
  cmz_model *m = NULL;
  check(api->create(&config, &m) == CMZ_INVALID_ARGUMENT,
        "a device without its objects is refused");
  if (m) api->destroy(m);
  check(open_vulkan(&v), "a device of the caller's");
  for (size_t offset = 0; offset < 16;
       offset += 8) { /* at a multiple of what kernels count on, and not */
    m = make(&config);
    check(m && run_host(m, got) && same(got), "a model on it");
    cmz_model *other = make(&config);
    check(other && run_host(other, got) && same(got), "two of them");
    if (other) api->destroy(other);
    if (m) check_buffers(&v, m, offset);
  }
  device_destroy(v.device, NULL);
  instance_destroy(v.instance, NULL);
  printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}
