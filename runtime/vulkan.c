/* vulkan.c - the device driver over Vulkan, opened at run time. In: one SPIR-V module a kernel in
 * the program (codegen/images.c). Out: kernels recorded in order, each behind a full barrier, and
 * submitted when somebody waits. Always holds: an address is made up: each block of memory has a
 * range of its own; all memory is mapped; while commands are recorded nothing writes mapped memory
 * but the words of launches not yet recorded. */
#include "vulkan_api.h"

enum { BATCH = 256, WORD_ALIGNMENT = 256, LAZY_LOCAL = 1, VK_1_1 = 0x401000, VK_1_3 = 0x403000 };

typedef struct block {
  struct block *next;
  uint64_t address, bytes;
  vk_handle buffer, memory;
  char *host;
} block;

struct cmz_device {
  cmz_model *model;
  void *library;
  vk_object instance, physical, device, queue, commands;
  vk_handle set_layout, layout, pool, command_pool;
  vk_memory_properties memory;
  block *blocks, *words; /* WORDS: what launches read besides operands */
  uint64_t next_address, most_range, alignment, words_stride;
  uint32_t most_groups, bindings, recorded, family;
  bool recording;
  size_t bytes;
  vk_handle *pipelines; /* by kernel */
  vk_range *ranges;
  vk_write *writes;
#define VULKAN_MEMBER(member, name, result, parameters) result(*member) parameters;
  VULKAN_INSTANCE_FUNCTIONS(VULKAN_MEMBER)
#undef VULKAN_MEMBER
};

static int fail(cmz_model *m, vk_result code, const char *what) {
  return cmz_fail_run(m, code == -1 || code == -2 ? CMZ_OUT_OF_MEMORY : CMZ_RUN_FAILED,
                      "Vulkan: %s: error %d", what, code);
}

/* ---- opening ---- */

static int load_library(cmz_model *m, cmz_device *d) {
  d->library = dlopen("libvulkan.so.1", LAZY_LOCAL);
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

static int choose_device(cmz_model *m, cmz_device *d, const cmz_program_image **image) {
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
  uint32_t api = p.words[VK_PROPERTY_API / 4];
  uint32_t version = 10 * (api >> 22 & 127) + (api >> 12 & 1023);
  d->most_range = p.words[VK_PROPERTY_MOST_RANGE / 4];
  d->most_groups = p.words[VK_PROPERTY_MOST_GROUPS / 4];
  d->alignment = p.wide[VK_PROPERTY_ALIGNMENT / 8];
  const cmz_program_device *program = m->program->device;
  *image = NULL;
  for (uint32_t i = 0; i < program->image_count && !*image; i++)
    if (program->images[i].needs <= version) *image = &program->images[i];
  if (!*image || api < VK_1_1)
    return cmz_fail_run(m, CMZ_UNAVAILABLE,
                        "this device (Vulkan %u.%u) is older than what the model was compiled for "
                        "(%s)",
                        version / 10, version % 10, m->program->description->target);
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

static const uint32_t *module_of(const cmz_program_image *image, uint32_t kernel, size_t *bytes) {
  const uint32_t *places = image->data;
  *bytes = places[2 * kernel + 1] - places[2 * kernel];
  return (const uint32_t *)(const void *)((const char *)image->data + places[2 * kernel]);
}

/* That the device has all capabilities of the kernels: OpCapability is 17, they come first. */
static int check_features(cmz_model *m, const cmz_program_image *image, const vk_features *f,
                          const vk_storage16 *s16, const vk_storage8 *s8, const vk_small *small) {
  const struct {
    uint32_t capability, has;
    const char *name;
  } rows[] = {{10, f->features[VK_FEATURE_FLOAT64], "64-bit floats"},
              {11, f->features[VK_FEATURE_INT64], "64-bit integers"},
              {22, f->features[VK_FEATURE_INT16], "16-bit integers"},
              {39, small->int8, "8-bit integers"},
              {4433, s16->storage, "16-bit storage"},
              {4448, s8->storage, "8-bit storage"}};
  for (uint32_t k = 0; k < m->program->kernel_count; k++) {
    size_t bytes;
    const uint32_t *code = module_of(image, k, &bytes);
    for (size_t at = 5; at + 1 < bytes / 4 && (code[at] & 0xffff) == 17; at += code[at] >> 16)
      for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].capability == code[at + 1] && !rows[i].has)
          return cmz_fail_run(m, CMZ_UNAVAILABLE,
                              "this Vulkan device has no %s, which this model needs", rows[i].name);
  }
  return CMZ_SUCCESS;
}

static int open_device(cmz_model *m, cmz_device *d, const cmz_program_image *image) {
  vk_small small = {.type = VK_S_SMALL};
  vk_storage8 s8 = {.type = VK_S_STORAGE8, .next = &small};
  vk_storage16 s16 = {.type = VK_S_STORAGE16, .next = &s8};
  vk_features f = {.type = VK_S_FEATURES, .next = &s16};
  d->features(d->physical, &f);
  int rc = check_features(m, image, &f, &s16, &s8, &small);
  if (rc) return rc;
  vk_features wanted = {.type = VK_S_FEATURES, .next = &s16};
  const int used[] = {VK_FEATURE_FLOAT64, VK_FEATURE_INT64, VK_FEATURE_INT16};
  for (int i = 0; i < 3; i++) wanted.features[used[i]] = f.features[used[i]];
  s16.uniform = s16.push = s16.in_out = s8.uniform = s8.push = small.float16 = 0;
  /* Vulkan 1.1 has the last two as extensions, which are named when the device lists them. */
  static const char *const names[] = {"VK_KHR_8bit_storage", "VK_KHR_shader_float16_int8"};
  const char *extensions[2];
  uint32_t listed = 0, count = 0;
  d->extensions(d->physical, NULL, &listed, NULL);
  vk_extension *list = cmz_memory_take(m, (listed + 1) * sizeof *list);
  if (!list) return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for the device's extensions");
  uint32_t got = listed;
  d->extensions(d->physical, NULL, &got, list);
  for (int n = 0; n < 2; n++)
    for (uint32_t i = 0; i < got; i++)
      if (strcmp(list[i].name, names[n]) == 0) {
        extensions[count++] = names[n];
        break;
      }
  cmz_memory_give(m, list, (listed + 1) * sizeof *list);
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
  if (code) return fail(m, code, "opening the device");
  d->queue_get(d->device, d->family, 0, &d->queue);
  return CMZ_SUCCESS;
}

static int make_pipelines(cmz_model *m, cmz_device *d, const cmz_program_image *image) {
  for (uint32_t k = 0; k < m->program->kernel_count; k++) {
    vk_shader_info shader = {.type = VK_S_SHADER};
    shader.code = module_of(image, k, &shader.bytes);
    vk_handle module = 0;
    vk_result code = d->shader_create(d->device, &shader, NULL, &module);
    if (code) return fail(m, code, "loading a kernel");
    vk_pipeline_info info = {.type = VK_S_PIPELINE,
                             .stage = {.type = VK_S_STAGE,
                                       .stage = VK_STAGE_COMPUTE,
                                       .module = module,
                                       .entry = image->kernels[k]},
                             .layout = d->layout};
    code = d->pipelines_create(d->device, 0, 1, &info, NULL, &d->pipelines[k]);
    d->shader_destroy(d->device, module, NULL);
    if (code) return fail(m, code, "compiling a kernel");
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
  vk_pool_size size = {VK_STORAGE_BUFFER, BATCH * d->bindings};
  vk_pool_info pool = {.type = VK_S_POOL, .sets = BATCH, .size_count = 1, .sizes = &size};
  if (!code) code = d->pool_create(d->device, &pool, NULL, &d->pool);
  vk_command_pool_info commands = {
      .type = VK_S_COMMAND_POOL, .flags = VK_RESETTABLE, .family = d->family};
  if (!code) code = d->command_pool_create(d->device, &commands, NULL, &d->command_pool);
  vk_command_info command = {.type = VK_S_COMMANDS, .pool = d->command_pool, .count = 1};
  if (!code) code = d->commands_take(d->device, &command, &d->commands);
  return code ? fail(m, code, "preparing the device") : CMZ_SUCCESS;
}

/* ---- memory ---- */

static void block_free(cmz_device *d, block *b) {
  if (b->buffer) d->buffer_destroy(d->device, b->buffer, NULL);
  if (b->memory) d->memory_give(d->device, b->memory, NULL);
  cmz_memory_give(d->model, b, sizeof *b);
}

/* The first type of TYPES that is mapped and coherent; one near the device when there is. */
static uint32_t memory_type(const cmz_device *d, uint32_t types) {
  for (uint32_t near = VK_MEMORY_LOCAL;; near = 0) {
    for (uint32_t i = 0; i < d->memory.type_count; i++)
      if (types >> i & 1 && (~d->memory.types[i].flags & (VK_MEMORY_WANTED | near)) == 0) return i;
    if (!near) return UINT32_MAX;
  }
}

static block *block_take(cmz_device *d, size_t bytes) {
  block *b = cmz_memory_take(d->model, sizeof *b);
  if (!b) return NULL;
  *b = (block){.bytes = ((uint64_t)bytes + 255) & ~UINT64_C(255)};
  vk_buffer_info info = {.type = VK_S_BUFFER, .size = b->bytes, .usage = VK_BUFFER_USES};
  vk_requirements need;
  vk_result code = d->buffer_create(d->device, &info, NULL, &b->buffer);
  if (!code) {
    d->requirements(d->device, b->buffer, &need);
    vk_memory_info memory = {
        .type = VK_S_MEMORY, .size = need.size, .memory_type = memory_type(d, need.types)};
    code = memory.memory_type == UINT32_MAX ? -1
                                            : d->memory_take(d->device, &memory, NULL, &b->memory);
  }
  void *host = NULL;
  if (!code) code = d->memory_bind(d->device, b->buffer, b->memory, 0);
  if (!code) code = d->memory_map(d->device, b->memory, 0, UINT64_MAX, 0, &host);
  if (code) {
    block_free(d, b);
    return NULL;
  }
  b->host = host;
  b->address = d->next_address;
  d->next_address += b->bytes + WORD_ALIGNMENT;
  b->next = d->blocks;
  d->blocks = b;
  return b;
}

static const block *block_of(const cmz_device *d, const void *address, uint64_t *offset) {
  uint64_t a = (uint64_t)(uintptr_t)address;
  *offset = 0;
  for (const block *b = d->blocks; b; b = b->next)
    if (a >= b->address && a - b->address < b->bytes) {
      *offset = a - b->address;
      return b;
    }
  return NULL;
}

/* No larger than what one binding reaches: an operand beyond that would be cut. */
static void *vulkan_take(cmz_device *d, size_t bytes) {
  const block *b = bytes <= d->most_range ? block_take(d, bytes) : NULL;
  return b ? (void *)(uintptr_t)b->address : NULL;
}

/* ---- commands ---- */

static int begin(cmz_model *m, cmz_device *d) {
  if (d->recording) return CMZ_SUCCESS;
  vk_begin_info info = {.type = VK_S_BEGIN, .flags = VK_ONE_TIME};
  vk_result code = d->begin(d->commands, &info);
  d->recording = code == 0;
  return code ? fail(m, code, "recording") : CMZ_SUCCESS;
}

static void barrier(cmz_device *d, uint32_t to) {
  vk_barrier all = {.type = VK_S_BARRIER,
                    .from = VK_WRITES,
                    .to = to == VK_PIPE_HOST ? VK_HOST_READS : VK_READS | VK_WRITES};
  d->barrier(d->commands, VK_PIPE_COMPUTE | VK_PIPE_TRANSFER, to, 0, 1, &all, 0, NULL, 0, NULL);
}

static int vulkan_wait(cmz_model *m, cmz_device *d) {
  if (!d->recording) return CMZ_SUCCESS;
  barrier(d, VK_PIPE_HOST);
  d->recording = false;
  d->recorded = 0;
  vk_result code = d->end(d->commands);
  vk_submit submit = {.type = VK_S_SUBMIT, .command_count = 1, .commands = &d->commands};
  if (!code) code = d->submit(d->queue, 1, &submit, 0);
  if (!code) code = d->queue_wait(d->queue);
  if (!code) code = d->pool_reset(d->device, d->pool, 0);
  return code ? fail(m, code, "running the model") : CMZ_SUCCESS;
}

static void vulkan_give(cmz_device *d, void *memory, size_t bytes) {
  (void)bytes;
  vulkan_wait(d->model, d);
  for (block **at = &d->blocks; *at; at = &(*at)->next)
    if ((*at)->address == (uint64_t)(uintptr_t)memory) {
      block *b = *at;
      *at = b->next;
      block_free(d, b);
      return;
    }
}

static int lost(cmz_model *m) {
  return cmz_fail_run(m, CMZ_RUN_FAILED, "Vulkan: an address is not in the device's memory");
}

static int vulkan_read(cmz_model *m, cmz_device *d, void *host, const void *from, size_t bytes) {
  uint64_t offset;
  const block *b = block_of(d, from, &offset);
  int rc = b && bytes <= b->bytes - offset ? vulkan_wait(m, d) : lost(m);
  if (!rc) memcpy(host, b->host + offset, bytes);
  return rc;
}

static int vulkan_write(cmz_model *m, cmz_device *d, void *to, const void *host, size_t bytes) {
  uint64_t offset;
  const block *b = block_of(d, to, &offset);
  int rc = b && bytes <= b->bytes - offset ? vulkan_wait(m, d) : lost(m);
  if (!rc) memcpy(b->host + offset, host, bytes);
  return rc;
}

static int vulkan_copy(cmz_model *m, cmz_device *d, void *to, const void *from, size_t bytes) {
  uint64_t source, target;
  const block *a = block_of(d, from, &source), *b = block_of(d, to, &target);
  if (!a || !b || bytes > a->bytes - source || bytes > b->bytes - target) return lost(m);
  int rc = begin(m, d);
  if (rc) return rc;
  vk_copy region = {source, target, bytes};
  barrier(d, VK_PIPE_COMPUTE | VK_PIPE_TRANSFER);
  d->copy(d->commands, a->buffer, b->buffer, 1, &region);
  return CMZ_SUCCESS;
}

/* Binds the operands and writes the launch's words: tiles, the rest of each address, params. */
static void bind_operands(cmz_device *d, vk_handle set, int64_t *words, void *const *operands,
                          uint32_t count) {
  for (uint32_t i = 0; i <= count; i++) {
    uint64_t offset = d->recorded * d->words_stride;
    const block *b = i ? block_of(d, operands[i - 1], &offset) : d->words;
    if (!b) { /* an operand without elements: nothing of it is read */
      b = d->words;
      offset = 0;
    }
    uint64_t rest = i ? offset % d->alignment : 0, bytes = b->bytes - (offset - rest);
    if (i) words[i] = (int64_t)rest;
    if (bytes > d->most_range) bytes = d->most_range & ~UINT64_C(3);
    d->ranges[i] = (vk_range){b->buffer, offset - rest, bytes};
    d->writes[i] = (vk_write){.type = VK_S_WRITE,
                              .set = set,
                              .binding = i,
                              .count = 1,
                              .kind = VK_STORAGE_BUFFER,
                              .buffers = &d->ranges[i]};
  }
  d->sets_write(d->device, count + 1, d->writes, 0, NULL);
}

static int vulkan_launch(cmz_model *m, cmz_device *d, uint32_t kernel, void *const *operands,
                         uint32_t operand_count, const int64_t *params, uint32_t param_count,
                         uint32_t tiles) {
  if (tiles == 0) return CMZ_SUCCESS;
  int rc = d->recorded == BATCH ? vulkan_wait(m, d) : CMZ_SUCCESS;
  if (!rc) rc = begin(m, d);
  if (rc) return rc;
  vk_set_info info = {.type = VK_S_SET, .pool = d->pool, .count = 1, .layouts = &d->set_layout};
  vk_handle set = 0;
  vk_result code = d->sets_take(d->device, &info, &set);
  if (code) return fail(m, code, "binding operands");
  int64_t *words = (int64_t *)(void *)(d->words->host + d->recorded * d->words_stride);
  words[0] = tiles;
  bind_operands(d, set, words, operands, operand_count);
  if (param_count) memcpy(words + 1 + operand_count, params, param_count * sizeof *params);
  uint32_t threads = m->program->device->threads, groups = (tiles - 1) / threads + 1;
  if (groups > d->most_groups) groups = d->most_groups;
  barrier(d, VK_PIPE_COMPUTE | VK_PIPE_TRANSFER);
  d->bind_pipeline(d->commands, VK_BIND_COMPUTE, d->pipelines[kernel]);
  d->bind_sets(d->commands, VK_BIND_COMPUTE, d->layout, 0, 1, &set, 0, NULL);
  d->dispatch(d->commands, groups, 1, 1);
  d->recorded++;
  return CMZ_SUCCESS;
}

/* ---- open, close ---- */

static void vulkan_close(cmz_model *m, cmz_device *d) {
  if (d->device) {
    d->device_wait(d->device);
    while (d->blocks) {
      block *b = d->blocks;
      d->blocks = b->next;
      block_free(d, b);
    }
    for (uint32_t k = 0; k < m->program->kernel_count; k++)
      if (d->pipelines[k]) d->pipeline_destroy(d->device, d->pipelines[k], NULL);
    if (d->command_pool) d->command_pool_destroy(d->device, d->command_pool, NULL);
    if (d->pool) d->pool_destroy(d->device, d->pool, NULL);
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
  uint32_t operands = 0, words = 1;
  for (uint32_t i = 0; i < p->step_count; i++) {
    if (p->steps[i].kind != CMZ_PS_KERNEL) continue;
    uint32_t count = p->steps[i].operand_count;
    if (count > operands) operands = count;
    if (1 + count + p->steps[i].param_count > words) words = 1 + count + p->steps[i].param_count;
  }
  uint32_t bindings = operands + 1;
  size_t bytes = sizeof(cmz_device) + p->kernel_count * sizeof(vk_handle) +
                 bindings * (sizeof(vk_range) + sizeof(vk_write));
  cmz_device *d = cmz_memory_take(m, bytes);
  if (!d) return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "no memory for the device's tables");
  memset(d, 0, bytes);
  d->model = m;
  d->bytes = bytes;
  d->bindings = bindings;
  d->next_address = 1u << 20;
  d->words_stride = ((uint64_t)words * 8 + WORD_ALIGNMENT - 1) & ~(uint64_t)(WORD_ALIGNMENT - 1);
  d->pipelines = (vk_handle *)(void *)(d + 1);
  d->ranges = (vk_range *)(void *)(d->pipelines + p->kernel_count);
  d->writes = (vk_write *)(void *)(d->ranges + bindings);
  const cmz_program_image *image = NULL;
  int rc = load_library(m, d);
  if (!rc) rc = choose_device(m, d, &image);
  if (!rc) rc = open_device(m, d, image);
  if (!rc) rc = make_layouts(m, d);
  if (!rc) rc = make_pipelines(m, d, image);
  if (!rc && !(d->words = block_take(d, BATCH * d->words_stride)))
    rc = cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "the device has no memory that the host can reach");
  if (rc) vulkan_close(m, d);
  else *out = d;
  return rc;
}

const cmz_device_driver cmz_vulkan_driver = {.open = vulkan_open,
                                             .close = vulkan_close,
                                             .take = vulkan_take,
                                             .give = vulkan_give,
                                             .read = vulkan_read,
                                             .write = vulkan_write,
                                             .copy = vulkan_copy,
                                             .launch = vulkan_launch,
                                             .wait = vulkan_wait};
