/* vulkan_gpu.c - a Vulkan device, opened at run time: one of the library's own, which all of its
 * instances on it have in common, or a caller's. In: one SPIR-V module a kernel in the program
 * (codegen/images.c). Out: functions, limits, a pipeline a kernel. Always holds: what a device
 * lacks is said by name when it is opened; nothing of a caller's is ended here. */
#include "cpu.h"
#include "vulkan_device.h"

enum { LAZY_LOCAL = 1, VK_1_3 = 0x403000 };

/* ---- opening ---- */

static int load_library(cmz_model *m, vk_gpu *g) {
  g->library = dlopen("libvulkan.so.1", LAZY_LOCAL);
  if (!g->library) g->library = dlopen("libvulkan.so", LAZY_LOCAL); /* Android's */
  if (!g->library)
    return cmz_fail_run(m, CMZ_UNAVAILABLE,
                        "no Vulkan loader: libvulkan.so.1 cannot be opened (%s); this model was "
                        "compiled for %s",
                        dlerror(), m->program->description->target);
  void *symbol = dlsym(g->library, "vkGetInstanceProcAddr");
  memcpy(&g->find, &symbol, sizeof g->find);
  return symbol ? CMZ_SUCCESS
                : cmz_fail_run(m, CMZ_UNAVAILABLE, "libvulkan.so.1 is not a Vulkan loader");
}

static int make_instance(cmz_model *m, vk_gpu *g) {
  void *symbol = g->find(NULL, "vkCreateInstance");
  vk_result (*create)(const vk_instance_info *, const void *, vk_object *);
  memcpy(&create, &symbol, sizeof create);
  vk_application application = {.type = VK_S_APPLICATION, .api = VK_1_3};
  vk_instance_info info = {.type = VK_S_INSTANCE, .application = &application};
  vk_result code = symbol ? create(&info, NULL, &g->instance) : -1;
  return code ? cmz_fail_run(m, CMZ_UNAVAILABLE,
                             "there is a Vulkan loader but no driver that it can use (error %d)",
                             code)
              : CMZ_SUCCESS;
}

static int find_functions(cmz_model *m, vk_gpu *g) {
  static const char *const names[] = {
#define VULKAN_NAME(member, name, result, parameters) name,
      VULKAN_INSTANCE_FUNCTIONS(VULKAN_NAME)
#undef VULKAN_NAME
  };
  void *symbols[sizeof names / sizeof names[0]];
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    symbols[i] = g->find(g->instance, names[i]);
    if (!symbols[i])
      return cmz_fail_run(m, CMZ_UNAVAILABLE, "the Vulkan driver is too old: it has no %s",
                          names[i]);
  }
  memcpy(&g->instance_destroy, symbols, sizeof symbols); /* members stand in the list's order */
  return CMZ_SUCCESS;
}

static int choose_device(cmz_model *m, vk_gpu *g) {
  enum { MOST = 16 };
  vk_object all[MOST];
  uint32_t count = MOST;
  vk_result code = g->devices(g->instance, &count, all);
  if (code < 0 || count == 0)
    return cmz_fail_run(m, CMZ_UNAVAILABLE, "there is a Vulkan driver but no device (error %d)",
                        code);
  if (m->config.device < 0 || (uint32_t)m->config.device >= count)
    return cmz_fail_run(m, CMZ_UNAVAILABLE, "there is no Vulkan device %d; this machine has %u",
                        m->config.device, count);
  g->physical = all[m->config.device];
  return CMZ_SUCCESS;
}

static int choose_family(cmz_model *m, vk_gpu *g) {
  enum { MOST = 16 };
  vk_family family[MOST];
  uint32_t families = MOST;
  g->families(g->physical, &families, family);
  while (g->family < families && !(family[g->family].flags & VK_QUEUE_COMPUTE)) g->family++;
  return g->family < families
             ? CMZ_SUCCESS
             : cmz_fail_run(m, CMZ_UNAVAILABLE, "this device has no queue that computes");
}

static int read_limits(cmz_model *m, vk_gpu *g) {
  union {
    unsigned char bytes[VK_PROPERTY_BYTES];
    uint32_t words[VK_PROPERTY_BYTES / 4];
    uint64_t wide[VK_PROPERTY_BYTES / 8];
  } p;
  g->properties(g->physical, &p);
  uint32_t api = p.words[VK_PROPERTY_API / 4], type = p.words[VK_PROPERTY_TYPE / 4];
  g->version = 10 * (api >> 22 & 127) + (api >> 12 & 1023);
  g->most_range = p.words[VK_PROPERTY_MOST_RANGE / 4];
  while (g->window_shift < 31 && UINT64_C(2) << g->window_shift <= g->most_range) g->window_shift++;
  g->most_groups = p.words[VK_PROPERTY_MOST_GROUPS / 4];
  g->alignment = p.wide[VK_PROPERTY_ALIGNMENT / 8];
  g->discrete = type == VK_TYPE_DISCRETE;
  g->processor = type == VK_TYPE_PROCESSOR;
  g->memories(g->physical, &g->memory);
  if (p.words[VK_PROPERTY_MOST_BUFFERS / 4] >= g->bindings) return CMZ_SUCCESS;
  return cmz_fail_run(m, CMZ_UNAVAILABLE,
                      "a kernel works on %u buffers; this device takes %u at once", g->bindings,
                      p.words[VK_PROPERTY_MOST_BUFFERS / 4]);
}

/* ---- images ---- */

/* What a device has beyond version 1.0, as it is asked for and as it is switched on. */
typedef struct vk_found {
  vk_features features;
  vk_storage16 storage16;
  vk_storage8 storage8;
  vk_small small;
  vk_dot dot;
} vk_found;

static void link_found(vk_found *f, vk_features *head) {
  f->dot.type = VK_S_DOT;
  f->small.type = VK_S_SMALL;
  f->small.next = &f->dot;
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
              {6018, f->dot.dot, "integer dot products of packed bytes"},
              {6019, f->dot.dot, "integer dot products"},
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
static int choose_image(cmz_model *m, vk_gpu *g, const vk_found *found,
                        const cmz_program_image **image) {
  const cmz_program_device *program = m->program->device;
  const char *wanted = m->config.cpu;
  char lacks[400] = "";
  bool known = false, young = false;
  for (uint32_t i = 0; i < program->image_count; i++) {
    const cmz_program_image *candidate = &program->images[i];
    if (wanted && strcmp(wanted, candidate->name) != 0) continue;
    known = true;
    if (CMZ_IMAGE_VERSION(candidate->needs) > g->version) continue;
    young = true;
    if (!wanted && g->processor && CMZ_IMAGE_TILES(candidate->needs)) continue;
    if (!can_run(m, candidate, found, lacks, sizeof lacks)) continue;
    *image = candidate;
    m->level_number = g->level_number = i;
    return CMZ_SUCCESS;
  }
  if (!known)
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT, "config: cpu: the model has no level \"%s\" (%s)",
                        wanted, m->program->description->target);
  if (!young)
    return cmz_fail_run(m, CMZ_UNAVAILABLE,
                        "this device (Vulkan %u.%u) is older than what the model was compiled for "
                        "(%s)",
                        g->version / 10, g->version % 10, m->program->description->target);
  return cmz_fail_run(m, CMZ_UNAVAILABLE, "this Vulkan device lacks what the model needs:%s",
                      lacks);
}

/* What is or was an extension; these are named when the device lists them. */
enum { EXTENSION_8BIT, EXTENSION_SMALL, EXTENSION_DOT, EXTENSIONS };
/* Those that the device has go to NAMES; the features of others out of FOUND. */
static int list_extensions(cmz_model *m, vk_gpu *g, vk_found *found, const char **names,
                           uint32_t *count) {
  static const char *const all[EXTENSIONS] = {"VK_KHR_8bit_storage", "VK_KHR_shader_float16_int8",
                                              "VK_KHR_shader_integer_dot_product"};
  uint32_t listed = 0, got;
  g->extensions(g->physical, NULL, &listed, NULL);
  vk_extension *list = cmz_memory_take(m, (listed + 1) * sizeof *list);
  if (!list) return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for the device's extensions");
  got = listed;
  g->extensions(g->physical, NULL, &got, list);
  *count = 0;
  for (uint32_t n = 0; n < EXTENSIONS; n++) {
    uint32_t i = 0;
    while (i < got && strcmp(list[i].name, all[n]) != 0) i++;
    if (i < got) names[(*count)++] = all[n];
    if (i == got && n == EXTENSION_DOT && g->version < 13) found->dot.dot = 0;
  }
  cmz_memory_give(m, list, (listed + 1) * sizeof *list);
  return CMZ_SUCCESS;
}

static int make_device(cmz_model *m, vk_gpu *g, const cmz_program_image **image) {
  vk_found found = {0};
  const char *extensions[EXTENSIONS];
  uint32_t count = 0;
  link_found(&found, &found.features);
  g->features(g->physical, &found.features);
  int rc = list_extensions(m, g, &found, extensions, &count);
  if (!rc) rc = choose_image(m, g, &found, image);
  if (rc) return rc;
  vk_features wanted = {0};
  const int used[] = {VK_FEATURE_FLOAT64, VK_FEATURE_INT64, VK_FEATURE_INT16};
  for (int i = 0; i < 3; i++) wanted.features[used[i]] = found.features.features[used[i]];
  link_found(&found, &wanted);
  if (!found.dot.dot) found.small.next = NULL;
  found.storage16.uniform = found.storage16.push = found.storage16.in_out = 0;
  found.storage8.uniform = found.storage8.push = 0;
  const float priority = 1;
  vk_queue_info queue = {
      .type = VK_S_QUEUE, .family = g->family, .count = 1, .priorities = &priority};
  vk_device_info info = {.type = VK_S_DEVICE,
                         .next = &wanted,
                         .queue_count = 1,
                         .queues = &queue,
                         .extension_count = count,
                         .extensions = extensions};
  vk_result code = g->device_create(g->physical, &info, NULL, &g->device);
  if (code) return cmz_vulkan_fail(m, NULL, code, "opening the device");
  g->queue_get(g->device, g->family, 0, &g->queue);
  return CMZ_SUCCESS;
}

/* What a caller's device was made with. */
static void read_found(const void *chain, vk_found *found) {
  for (const vk_head *h = chain; h; h = h->next) {
    if (h->type == VK_S_FEATURES)
      memcpy(found->features.features, ((const vk_features *)h)->features,
             sizeof found->features.features);
    if (h->type == VK_S_STORAGE16) found->storage16.storage |= ((const vk_storage16 *)h)->storage;
    if (h->type == VK_S_STORAGE8) found->storage8.storage |= ((const vk_storage8 *)h)->storage;
    if (h->type == VK_S_FEATURES11)
      found->storage16.storage |= ((const vk_features11 *)h)->storage16;
    if (h->type == VK_S_FEATURES12) found->storage8.storage |= ((const vk_features12 *)h)->storage8;
    if (h->type == VK_S_DOT) found->dot.dot |= ((const vk_dot *)h)->dot;
    if (h->type == VK_S_FEATURES13) found->dot.dot |= ((const vk_features13 *)h)->dot;
    const uint32_t float16 = h->type == VK_S_SMALL        ? ((const vk_small *)h)->float16
                             : h->type == VK_S_FEATURES12 ? ((const vk_features12 *)h)->float16
                                                          : 0;
    const uint32_t int8 = h->type == VK_S_SMALL        ? ((const vk_small *)h)->int8
                          : h->type == VK_S_FEATURES12 ? ((const vk_features12 *)h)->int8
                                                       : 0;
    found->small.float16 |= float16;
    found->small.int8 |= int8;
  }
}

/* The caller's device in place of one of the instance's own. */
static int take_callers(cmz_model *m, vk_gpu *g, const cmz_vulkan *callers,
                        const cmz_program_image **image) {
  vk_found found = {0};
  if (callers->get_instance_proc_addr)
    memcpy(&g->find, &callers->get_instance_proc_addr, sizeof g->find);
  g->callers = true;
  g->instance = callers->instance;
  g->physical = callers->physical_device;
  g->device = callers->device;
  g->queue = callers->queue;
  g->family = callers->queue_family;
  read_found(callers->features, &found);
  int rc = g->find ? CMZ_SUCCESS : load_library(m, g);
  if (!rc) rc = find_functions(m, g);
  if (!rc) rc = read_limits(m, g);
  return rc ? rc : choose_image(m, g, &found, image);
}

static int make_own(cmz_model *m, vk_gpu *g, const cmz_program_image **image) {
  int rc = load_library(m, g);
  if (!rc) rc = make_instance(m, g);
  if (!rc) rc = find_functions(m, g);
  if (!rc) rc = choose_device(m, g);
  if (!rc) rc = choose_family(m, g);
  if (!rc) rc = read_limits(m, g);
  return rc ? rc : make_device(m, g, image);
}

static int make_pipelines(cmz_model *m, vk_gpu *g, const cmz_program_image *image) {
  for (uint32_t k = 0; k < m->program->kernel_count; k++) {
    vk_shader_info shader = {.type = VK_S_SHADER};
    shader.code = module_of(image, k, &shader.bytes);
    vk_handle module = 0;
    vk_result code = g->shader_create(g->device, &shader, NULL, &module);
    if (code) return cmz_vulkan_fail(m, NULL, code, "loading a kernel");
    vk_pipeline_info info = {.type = VK_S_PIPELINE,
                             .stage = {.type = VK_S_STAGE,
                                       .stage = VK_STAGE_COMPUTE,
                                       .module = module,
                                       .entry = image->kernels[k]},
                             .layout = g->layout};
    code = g->pipelines_create(g->device, 0, 1, &info, NULL, &g->pipelines[k]);
    g->shader_destroy(g->device, module, NULL);
    if (code) return cmz_vulkan_fail(m, NULL, code, "compiling a kernel");
  }
  return CMZ_SUCCESS;
}

static int make_layouts(cmz_model *m, vk_gpu *g) {
  vk_binding *bindings = cmz_memory_take(m, g->bindings * sizeof *bindings);
  if (!bindings) return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for the device's tables");
  for (uint32_t i = 0; i < g->bindings; i++)
    bindings[i] = (vk_binding){i, VK_STORAGE_BUFFER, 1, VK_STAGE_COMPUTE, NULL};
  vk_set_layout_info sets = {.type = VK_S_SET_LAYOUT, .count = g->bindings, .bindings = bindings};
  vk_result code = g->set_layout_create(g->device, &sets, NULL, &g->set_layout);
  cmz_memory_give(m, bindings, g->bindings * sizeof *bindings);
  vk_layout_info layout = {.type = VK_S_LAYOUT, .set_count = 1, .sets = &g->set_layout};
  if (!code) code = g->layout_create(g->device, &layout, NULL, &g->layout);
  return code ? cmz_vulkan_fail(m, NULL, code, "preparing the device") : CMZ_SUCCESS;
}

/* ---- in common ---- */

static void gpu_free(const cmz_program *p, vk_gpu *g) {
  if (g->device) {
    for (uint32_t k = 0; k < p->kernel_count; k++)
      if (g->pipelines[k]) g->pipeline_destroy(g->device, g->pipelines[k], NULL);
    if (g->layout) g->layout_destroy(g->device, g->layout, NULL);
    if (g->set_layout) g->set_layout_destroy(g->device, g->set_layout, NULL);
    if (g->weights.buffer) g->buffer_destroy(g->device, g->weights.buffer, NULL);
    if (g->weights.memory) g->memory_give(g->device, g->weights.memory, NULL);
    if (!g->callers) g->device_destroy(g->device, NULL);
  }
  if (g->instance && g->instance_destroy && !g->callers) g->instance_destroy(g->instance, NULL);
  if (g->library) dlclose(g->library);
  cmz_block_give(g);
}

/* How many bindings a kernel has at most, and the 64-bit words besides them. */
static void count_bindings(const cmz_program *p, uint32_t *bindings, uint32_t *words) {
  *bindings = *words = 1;
  for (uint32_t i = 0; i < p->step_count; i++) {
    const cmz_program_step *step = &p->steps[i];
    uint32_t own = 1, own_words = 2 + step->operand_count + step->param_count;
    if (step->kind != CMZ_PS_KERNEL) continue;
    for (uint32_t o = 0; o < step->operand_count; o++)
      own += p->lists[step->access + o] >> CMZ_ACCESS_WINDOWS;
    if (own > *bindings) *bindings = own;
    if (own_words > *words) *words = own_words;
  }
}

static int gpu_make(cmz_model *m, const cmz_vulkan *callers, vk_gpu **out) {
  const cmz_program *p = m->program;
  const cmz_program_image *image = NULL;
  size_t bytes = sizeof(vk_gpu) + p->kernel_count * sizeof(vk_handle);
  vk_gpu *g = cmz_block_take(CMZ_MEMORY_ALIGNMENT, bytes); /* may outlive the instance */
  if (!g) return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for the device's tables");
  memset(g, 0, bytes);
  uint32_t words;
  count_bindings(p, &g->bindings, &words);
  g->words_stride =
      ((uint64_t)words * 8 + VK_WORD_ALIGNMENT - 1) & ~(uint64_t)(VK_WORD_ALIGNMENT - 1);
  g->pipelines = (vk_handle *)(void *)(g + 1);
  int rc = callers ? take_callers(m, g, callers, &image) : make_own(m, g, &image);
  if (!rc) rc = make_layouts(m, g);
  if (!rc) rc = make_pipelines(m, g, image);
  if (rc) gpu_free(p, g);
  else *out = g;
  return rc;
}

/* Whether G is what M asks for. */
static bool gpu_serves(const cmz_model *m, const vk_gpu *g, const cmz_vulkan *callers) {
  const char *wanted = m->config.cpu, *name = m->program->device->images[g->level_number].name;
  if (wanted ? strcmp(wanted, name) != 0 : g->named) return false;
  return callers ? g->callers && g->device == callers->device && g->queue == callers->queue
                 : !g->callers && g->ordinal == m->config.device;
}

int cmz_vulkan_gpu_open(cmz_model *m, vk_gpu **out) {
  const cmz_program *p = m->program;
  const cmz_vulkan *callers = m->config.stream;
  if (callers && (callers->struct_size < sizeof *callers || !callers->instance ||
                  !callers->physical_device || !callers->device || !callers->queue))
    return cmz_fail_run(m, CMZ_INVALID_ARGUMENT,
                        "config: stream: for a model for Vulkan it points to a cmz_vulkan, all of "
                        "whose objects are there");
  for (cmz_shared *s = p->device->commons->entries; s; s = s->next)
    if (gpu_serves(m, (vk_gpu *)s, callers)) {
      *out = (vk_gpu *)s;
      s->users++;
      m->level_number = (*out)->level_number;
      return CMZ_SUCCESS;
    }
  int rc = gpu_make(m, callers, out);
  if (rc) return rc;
  (*out)->ordinal = m->config.device;
  (*out)->named = m->config.cpu != NULL;
  cmz_shared_add(p, &(*out)->shared);
  return CMZ_SUCCESS;
}

void cmz_vulkan_gpu_close(const cmz_program *p, vk_gpu *g) {
  if (cmz_shared_leave(p, &g->shared)) gpu_free(p, g);
}
