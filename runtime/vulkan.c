/* vulkan.c - the device driver over Vulkan, opened at run time. In: one SPIR-V module a kernel in
 * the program (codegen/images.c). Out: a device that vulkan_memory.c and vulkan_commands.c work on,
 * with a pipeline a kernel. Always holds: what a device lacks is said by name when it is opened. */
#include "cpu.h"
#include "vulkan_device.h"

enum { LAZY_LOCAL = 1, VK_1_1 = 0x401000, VK_1_3 = 0x403000 };

int cmz_vulkan_fail(cmz_model *m, cmz_device *d, vk_result code, const char *what) {
  if (code == VK_LOST) {
    d->lost = true;
    return cmz_fail_run(m, CMZ_RUN_FAILED,
                        "Vulkan: %s: the device was lost; a new instance may find it again", what);
  }
  return cmz_fail_run(m, code == -1 || code == -2 ? CMZ_OUT_OF_MEMORY : CMZ_RUN_FAILED,
                      "Vulkan: %s: %s %d", what,
                      code == -1 || code == -2 ? "out of memory, error" : "error", code);
}

/* ---- opening ---- */

static int load_library(cmz_model *m, cmz_device *d) {
  d->library = dlopen("libvulkan.so.1", LAZY_LOCAL);
  if (!d->library) d->library = dlopen("libvulkan.so", LAZY_LOCAL); /* Android's */
  if (!d->library)
    return cmz_fail_run(m, CMZ_UNAVAILABLE,
                        "no Vulkan loader: libvulkan.so.1 cannot be opened (%s); this model was "
                        "compiled for %s",
                        dlerror(), m->program->description->target);
  void *symbol = dlsym(d->library, "vkGetInstanceProcAddr");
  void *(*find)(vk_object, const char *);
  memcpy(&find, &symbol, sizeof find);
  if (!symbol) return cmz_fail_run(m, CMZ_UNAVAILABLE, "libvulkan.so.1 is not a Vulkan loader");
  symbol = find(NULL, "vkCreateInstance");
  vk_result (*create)(const vk_instance_info *, const void *, vk_object *);
  memcpy(&create, &symbol, sizeof create);
  vk_application application = {.type = VK_S_APPLICATION, .api = VK_1_3};
  vk_instance_info info = {.type = VK_S_INSTANCE, .application = &application};
  vk_result code = symbol ? create(&info, NULL, &d->instance) : -1;
  if (code)
    return cmz_fail_run(m, CMZ_UNAVAILABLE,
                        "there is a Vulkan loader but no driver that it can use (error %d)", code);
  static const char *const names[] = {
#define VULKAN_NAME(member, name, result, parameters) name,
      VULKAN_INSTANCE_FUNCTIONS(VULKAN_NAME)
#undef VULKAN_NAME
  };
  void *symbols[sizeof names / sizeof names[0]];
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    symbols[i] = find(d->instance, names[i]);
    if (!symbols[i])
      return cmz_fail_run(m, CMZ_UNAVAILABLE, "the Vulkan driver is too old: it has no %s",
                          names[i]);
  }
  memcpy(&d->instance_destroy, symbols, sizeof symbols); /* members stand in the list's order */
  return CMZ_SUCCESS;
}

static int choose_device(cmz_model *m, cmz_device *d) {
  enum { MOST = 16 };
  vk_object all[MOST];
  uint32_t count = MOST, families = MOST;
  vk_family family[MOST];
  union {
    unsigned char bytes[VK_PROPERTY_BYTES];
    uint32_t words[VK_PROPERTY_BYTES / 4];
    uint64_t wide[VK_PROPERTY_BYTES / 8];
  } p;
  vk_result code = d->devices(d->instance, &count, all);
  if (code < 0 || count == 0)
    return cmz_fail_run(m, CMZ_UNAVAILABLE, "there is a Vulkan driver but no device (error %d)",
                        code);
  if (m->config.device < 0 || (uint32_t)m->config.device >= count)
    return cmz_fail_run(m, CMZ_UNAVAILABLE, "there is no Vulkan device %d; this machine has %u",
                        m->config.device, count);
  d->physical = all[m->config.device];
  d->properties(d->physical, &p);
  uint32_t api = p.words[VK_PROPERTY_API / 4], type = p.words[VK_PROPERTY_TYPE / 4];
  d->version = 10 * (api >> 22 & 127) + (api >> 12 & 1023);
  d->most_range = p.words[VK_PROPERTY_MOST_RANGE / 4];
  while (d->window_shift < 31 && UINT64_C(2) << d->window_shift <= d->most_range) d->window_shift++;
  d->most_groups = p.words[VK_PROPERTY_MOST_GROUPS / 4];
  d->alignment = p.wide[VK_PROPERTY_ALIGNMENT / 8];
  d->discrete = type == VK_TYPE_DISCRETE;
  d->processor = type == VK_TYPE_PROCESSOR;
  if (p.words[VK_PROPERTY_MOST_BUFFERS / 4] < d->bindings)
    return cmz_fail_run(m, CMZ_UNAVAILABLE,
                        "a kernel works on %u buffers; this device takes %u at once", d->bindings,
                        p.words[VK_PROPERTY_MOST_BUFFERS / 4]);
  d->families(d->physical, &families, family);
  while (d->family < families && !(family[d->family].flags & VK_QUEUE_COMPUTE)) d->family++;
  if (d->family == families)
    return cmz_fail_run(m, CMZ_UNAVAILABLE, "this device has no queue that computes");
  d->memories(d->physical, &d->memory);
  return CMZ_SUCCESS;
}

/* ---- images ---- */

/* What a device has beyond version 1.0, as it is asked for and as it is switched on. */
typedef struct vk_found {
  vk_features features;
  vk_storage16 storage16;
  vk_storage8 storage8;
  vk_small small;
} vk_found;

static void link_found(vk_found *f, vk_features *head) {
  f->small.type = VK_S_SMALL;
  f->storage8.type = VK_S_STORAGE8;
  f->storage8.next = &f->small;
  f->storage16.type = VK_S_STORAGE16;
  f->storage16.next = &f->storage8;
  head->type = VK_S_FEATURES;
  head->next = &f->storage16;
}

static const uint32_t *module_of(const cmz_program_image *image, uint32_t kernel, size_t *bytes) {
  const uint32_t *places = (const uint32_t *)image->data + image->first;
  *bytes = places[2 * kernel + 1] - places[2 * kernel];
  return (const uint32_t *)(const void *)((const char *)image->data + places[2 * kernel]);
}

/* Whether the device has all capabilities of IMAGE's kernels (OpCapability is 17, they come first).
 * What it lacks is appended to TEXT by name, with the first kernel that needs it. */
static bool can_run(const cmz_model *m, const cmz_program_image *image, const vk_found *f,
                    char *text, size_t size) {
  enum { MATRIX = 0, SHADER = 1 };
  const struct {
    uint32_t capability, has;
    const char *name;
  } rows[] = {{MATRIX, 1, ""},
              {SHADER, 1, ""},
              {9, f->small.float16, "16-bit floats"},
              {10, f->features.features[VK_FEATURE_FLOAT64], "64-bit floats"},
              {11, f->features.features[VK_FEATURE_INT64], "64-bit integers"},
              {22, f->features.features[VK_FEATURE_INT16], "16-bit integers"},
              {39, f->small.int8, "8-bit integers"},
              {4433, f->storage16.storage, "16-bit storage"},
              {4448, f->storage8.storage, "8-bit storage"},
              {UINT32_MAX, 0, "SPIR-V capability that is known here"}};
  enum { COUNT = sizeof rows / sizeof rows[0] };
  bool said[COUNT] = {false};
  size_t used = 0;
  text[0] = 0;
  for (uint32_t k = 0; k < m->program->kernel_count; k++) {
    size_t bytes;
    const uint32_t *code = module_of(image, k, &bytes);
    for (size_t at = 5; at + 1 < bytes / 4 && (code[at] & 0xffff) == 17; at += code[at] >> 16) {
      size_t row = 0;
      while (row < COUNT - 1 && rows[row].capability != code[at + 1]) row++;
      if (rows[row].has || said[row] || used >= size) continue;
      said[row] = true;
      int added = snprintf(text + used, size - used, "%s no %s (kernel %s)", used ? "," : "",
                           rows[row].name, image->kernels[k]);
      used += added > 0 ? (size_t)added : 0;
    }
  }
  return used == 0;
}

/* The best image that the device runs, or the one that the caller names; without a name, processors
 * take none that is made for GPUs. */
static int choose_image(cmz_model *m, const cmz_device *d, const vk_found *found,
                        const cmz_program_image **image) {
  const cmz_program_device *program = m->program->device;
  const char *wanted = m->config.cpu;
  char lacks[400] = "";
  bool known = false, young = false;
  for (uint32_t i = 0; i < program->image_count; i++) {
    const cmz_program_image *candidate = &program->images[i];
    if (wanted && strcmp(wanted, candidate->name) != 0) continue;
    known = true;
    if (CMZ_IMAGE_VERSION(candidate->needs) > d->version) continue;
    young = true;
    if (!wanted && d->processor && CMZ_IMAGE_TILES(candidate->needs)) continue;
    if (!can_run(m, candidate, found, lacks, sizeof lacks)) continue;
    *image = candidate;
    m->level_number = i;
    return CMZ_SUCCESS;
  }
  if (!known)
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT, "config: cpu: the model has no level \"%s\" (%s)",
                        wanted, m->program->description->target);
  if (!young)
    return cmz_fail_run(m, CMZ_UNAVAILABLE,
                        "this device (Vulkan %u.%u) is older than what the model was compiled for "
                        "(%s)",
                        d->version / 10, d->version % 10, m->program->description->target);
  return cmz_fail_run(m, CMZ_UNAVAILABLE, "this Vulkan device lacks what the model needs:%s",
                      lacks);
}

/* Vulkan 1.1 has these as extensions, which are named when the device lists them. NAMES has room
 * for all; returns how many there are. */
static int list_extensions(cmz_model *m, cmz_device *d, const char **names, uint32_t *count) {
  static const char *const all[] = {"VK_KHR_8bit_storage", "VK_KHR_shader_float16_int8"};
  uint32_t listed = 0;
  d->extensions(d->physical, NULL, &listed, NULL);
  vk_extension *list = cmz_memory_take(m, (listed + 1) * sizeof *list);
  if (!list) return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for the device's extensions");
  uint32_t got = listed;
  d->extensions(d->physical, NULL, &got, list);
  *count = 0;
  for (size_t n = 0; n < sizeof all / sizeof all[0]; n++)
    for (uint32_t i = 0; i < got; i++)
      if (strcmp(list[i].name, all[n]) == 0) {
        names[(*count)++] = all[n];
        break;
      }
  cmz_memory_give(m, list, (listed + 1) * sizeof *list);
  return CMZ_SUCCESS;
}

static int open_device(cmz_model *m, cmz_device *d, const cmz_program_image **image) {
  vk_found found = {0};
  const char *extensions[2];
  uint32_t count = 0;
  link_found(&found, &found.features);
  d->features(d->physical, &found.features);
  int rc = choose_image(m, d, &found, image);
  if (!rc) rc = list_extensions(m, d, extensions, &count);
  if (rc) return rc;
  vk_features wanted = {0};
  const int used[] = {VK_FEATURE_FLOAT64, VK_FEATURE_INT64, VK_FEATURE_INT16};
  for (int i = 0; i < 3; i++) wanted.features[used[i]] = found.features.features[used[i]];
  link_found(&found, &wanted);
  found.storage16.uniform = found.storage16.push = found.storage16.in_out = 0;
  found.storage8.uniform = found.storage8.push = 0;
  const float priority = 1;
  vk_queue_info queue = {
      .type = VK_S_QUEUE, .family = d->family, .count = 1, .priorities = &priority};
  vk_device_info info = {.type = VK_S_DEVICE,
                         .next = &wanted,
                         .queue_count = 1,
                         .queues = &queue,
                         .extension_count = count,
                         .extensions = extensions};
  vk_result code = d->device_create(d->physical, &info, NULL, &d->device);
  if (code) return cmz_vulkan_fail(m, d, code, "opening the device");
  d->queue_get(d->device, d->family, 0, &d->queue);
  return CMZ_SUCCESS;
}

static int make_pipelines(cmz_model *m, cmz_device *d, const cmz_program_image *image) {
  for (uint32_t k = 0; k < m->program->kernel_count; k++) {
    vk_shader_info shader = {.type = VK_S_SHADER};
    shader.code = module_of(image, k, &shader.bytes);
    vk_handle module = 0;
    vk_result code = d->shader_create(d->device, &shader, NULL, &module);
    if (code) return cmz_vulkan_fail(m, d, code, "loading a kernel");
    vk_pipeline_info info = {.type = VK_S_PIPELINE,
                             .stage = {.type = VK_S_STAGE,
                                       .stage = VK_STAGE_COMPUTE,
                                       .module = module,
                                       .entry = image->kernels[k]},
                             .layout = d->layout};
    code = d->pipelines_create(d->device, 0, 1, &info, NULL, &d->pipelines[k]);
    d->shader_destroy(d->device, module, NULL);
    if (code) return cmz_vulkan_fail(m, d, code, "compiling a kernel");
  }
  return CMZ_SUCCESS;
}

static int make_layouts(cmz_model *m, cmz_device *d) {
  vk_binding *bindings = cmz_memory_take(m, d->bindings * sizeof *bindings);
  if (!bindings) return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for the device's tables");
  for (uint32_t i = 0; i < d->bindings; i++)
    bindings[i] = (vk_binding){i, VK_STORAGE_BUFFER, 1, VK_STAGE_COMPUTE, NULL};
  vk_set_layout_info sets = {.type = VK_S_SET_LAYOUT, .count = d->bindings, .bindings = bindings};
  vk_result code = d->set_layout_create(d->device, &sets, NULL, &d->set_layout);
  cmz_memory_give(m, bindings, d->bindings * sizeof *bindings);
  vk_layout_info layout = {.type = VK_S_LAYOUT, .set_count = 1, .sets = &d->set_layout};
  if (!code) code = d->layout_create(d->device, &layout, NULL, &d->layout);
  vk_command_pool_info commands = {
      .type = VK_S_COMMAND_POOL, .flags = VK_RESETTABLE, .family = d->family};
  if (!code) code = d->command_pool_create(d->device, &commands, NULL, &d->command_pool);
  return code ? cmz_vulkan_fail(m, d, code, "preparing the device") : CMZ_SUCCESS;
}

/* ---- open, close ---- */

static void vulkan_close(cmz_model *m, cmz_device *d) {
  if (d->device) {
    d->device_wait(d->device);
    cmz_vulkan_segments_free(d);
    while (d->blocks) cmz_vulkan_block_free(d, d->blocks);
    for (uint32_t k = 0; k < m->program->kernel_count; k++)
      if (d->pipelines[k]) d->pipeline_destroy(d->device, d->pipelines[k], NULL);
    if (d->command_pool) d->command_pool_destroy(d->device, d->command_pool, NULL);
    if (d->layout) d->layout_destroy(d->device, d->layout, NULL);
    if (d->set_layout) d->set_layout_destroy(d->device, d->set_layout, NULL);
    d->device_destroy(d->device, NULL);
  }
  if (d->instance && d->instance_destroy) d->instance_destroy(d->instance, NULL);
  if (d->library) dlclose(d->library);
  cmz_memory_give(m, d, d->bytes);
}

static int vulkan_open(cmz_model *m, cmz_device **out) {
  const cmz_program *p = m->program;
  uint32_t bindings = 1, words = 1;
  for (uint32_t i = 0; i < p->step_count; i++) {
    const cmz_program_step *step = &p->steps[i];
    uint32_t own = 1, own_words = 2 + step->operand_count + step->param_count;
    if (step->kind != CMZ_PS_KERNEL) continue;
    for (uint32_t o = 0; o < step->operand_count; o++)
      own += p->lists[step->access + o] >> CMZ_ACCESS_WINDOWS;
    if (own > bindings) bindings = own;
    if (own_words > words) words = own_words;
  }
  size_t bytes = sizeof(cmz_device) + p->kernel_count * sizeof(vk_handle) +
                 bindings * (sizeof(vk_range) + sizeof(vk_write));
  cmz_device *d = cmz_memory_take(m, bytes);
  if (!d) return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for the device's tables");
  memset(d, 0, bytes);
  d->model = m;
  d->bytes = bytes;
  d->bindings = bindings;
  d->next_address = 1u << 20;
  d->words_stride =
      ((uint64_t)words * 8 + VK_WORD_ALIGNMENT - 1) & ~(uint64_t)(VK_WORD_ALIGNMENT - 1);
  d->pipelines = (vk_handle *)(void *)(d + 1);
  d->ranges = (vk_range *)(void *)(d->pipelines + p->kernel_count);
  d->writes = (vk_write *)(void *)(d->ranges + bindings);
  const cmz_program_image *image = NULL;
  int rc = load_library(m, d);
  if (!rc) rc = choose_device(m, d);
  if (!rc) rc = open_device(m, d, &image);
  if (!rc) rc = make_layouts(m, d);
  if (!rc) rc = make_pipelines(m, d, image);
  if (rc) vulkan_close(m, d);
  else *out = d;
  return rc;
}

const cmz_device_driver cmz_vulkan_driver = {.open = vulkan_open,
                                             .close = vulkan_close,
                                             .take = cmz_vulkan_take,
                                             .give = cmz_vulkan_give,
                                             .read = cmz_vulkan_read,
                                             .write = cmz_vulkan_write,
                                             .copy = cmz_vulkan_copy,
                                             .launch = cmz_vulkan_launch,
                                             .wait = cmz_vulkan_wait,
                                             .begin = cmz_vulkan_begin,
                                             .count = cmz_vulkan_count};
