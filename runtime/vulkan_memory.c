/* vulkan_memory.c - blocks of a Vulkan device's memory, and what moves between them and the host.
 * In: sizes, addresses. Out: blocks; transfers, direct where the memory is mapped and nothing waits
 * for it, else through a staging block and a copy in the open segment. Always holds: while a
 * segment waits nothing writes mapped memory that it uses but the staging block's next bytes. */
#include "vulkan_device.h"

enum { STAGING_LEAST = 1 << 20, STAGING_MOST = 16 << 20, SMALL_READ = 4096 };

void cmz_vulkan_block_free(cmz_device *d, vk_block *b) {
  if (!b) return;
  for (vk_block **at = &d->blocks; *at; at = &(*at)->next)
    if (*at == b) {
      *at = b->next;
      break;
    }
  if (b->buffer && !b->foreign) d->gpu->buffer_destroy(d->gpu->device, b->buffer, NULL);
  if (b->memory && !b->foreign) d->gpu->memory_give(d->gpu->device, b->memory, NULL);
  cmz_memory_give(d->model, b, sizeof *b);
}

/* Whether heap HEAP is the largest that is near the device: all of its memory then can be mapped.
 */
static bool main_heap(const cmz_device *d, uint32_t heap) {
  for (uint32_t i = 0; i < d->gpu->memory.heap_count; i++)
    if (d->gpu->memory.heaps[i].flags & VK_HEAP_LOCAL &&
        d->gpu->memory.heaps[i].size > d->gpu->memory.heaps[heap].size)
      return false;
  return true;
}

/* The best of the memory types TYPES, by wishes in order of weight; UINT32_MAX: none will do. */
static uint32_t memory_type(const cmz_device *d, uint32_t types, bool local) {
  uint32_t best = UINT32_MAX, best_points = 0;
  for (uint32_t i = 0; i < d->gpu->memory.type_count; i++) {
    uint32_t flags = d->gpu->memory.types[i].flags;
    bool mapped = (~flags & VK_MEMORY_MAPPED) == 0, near = flags & VK_MEMORY_LOCAL;
    if (!(types >> i & 1) || flags & VK_MEMORY_SPECIAL || (!local && !mapped)) continue;
    if (mapped && near && local && !main_heap(d, d->gpu->memory.types[i].heap)) continue;
    if (!mapped && !near) continue;
    bool cached = flags & VK_MEMORY_CACHED;
    uint32_t points = local ? 1u + 8 * near + 4 * mapped + 2 * cached : 1u + 2 * cached + !near;
    if (points > best_points) best = i, best_points = points;
  }
  return best;
}

static vk_result block_memory(cmz_device *d, vk_block *b, bool local) {
  vk_requirements need;
  d->gpu->requirements(d->gpu->device, b->buffer, &need);
  uint32_t type = memory_type(d, need.types, local);
  if (type == UINT32_MAX) return -1;
  vk_memory_info info = {.type = VK_S_MEMORY, .size = need.size, .memory_type = type};
  vk_result code = d->gpu->memory_take(d->gpu->device, &info, NULL, &b->memory);
  if (code) return code;
  uint32_t flags = d->gpu->memory.types[type].flags;
  code = d->gpu->memory_bind(d->gpu->device, b->buffer, b->memory, 0);
  if (code || (~flags & VK_MEMORY_MAPPED)) return code;
  void *host = NULL;
  code = d->gpu->memory_map(d->gpu->device, b->memory, 0, UINT64_MAX, 0, &host);
  b->host = host;
  b->slow_read = d->gpu->discrete && !(flags & VK_MEMORY_CACHED);
  return code;
}

/* Gives B a range of addresses. */
static vk_block *insert(cmz_device *d, vk_block *b) {
  b->address = d->next_address;
  d->next_address +=
      ((b->bytes + VK_WORD_ALIGNMENT - 1) & ~(uint64_t)(VK_WORD_ALIGNMENT - 1)) + VK_WORD_ALIGNMENT;
  b->next = d->blocks;
  d->blocks = b;
  return b;
}

vk_block *cmz_vulkan_block(cmz_device *d, uint64_t bytes, bool local) {
  vk_block *b = cmz_memory_take(d->model, sizeof *b);
  if (!b) return NULL;
  *b = (vk_block){.bytes = (bytes + 255) & ~UINT64_C(255)};
  vk_buffer_info info = {.type = VK_S_BUFFER, .size = b->bytes, .usage = VK_BUFFER_USES};
  vk_result code = d->gpu->buffer_create(d->gpu->device, &info, NULL, &b->buffer);
  if (!code) code = block_memory(d, b, local);
  if (code && local && b->buffer && !b->memory) code = block_memory(d, b, false); /* farther away */
  if (code) {
    cmz_vulkan_block_free(d, b);
    return NULL;
  }
  return insert(d, b);
}

const vk_block *cmz_vulkan_find(const cmz_device *d, uint64_t address, uint64_t *offset) {
  *offset = 0;
  for (const vk_block *b = d->blocks; b; b = b->next)
    if (address >= b->address && address - b->address < b->bytes) {
      *offset = address - b->address;
      return b;
    }
  return NULL;
}

void *cmz_vulkan_take(cmz_device *d, size_t bytes) {
  const vk_block *b = d->lost ? NULL : cmz_vulkan_block(d, bytes, true);
  return b ? (void *)(uintptr_t)b->address : NULL;
}

void cmz_vulkan_give(cmz_device *d, void *memory, size_t bytes) {
  (void)bytes;
  cmz_vulkan_wait(d->model, d);
  for (vk_block *b = d->blocks; b; b = b->next)
    if (b->address == (uint64_t)(uintptr_t)memory) {
      cmz_vulkan_block_free(d, b);
      return;
    }
}

/* A block whose buffer is another's, as BLOCK says. */
static vk_block *adopt(cmz_device *d, const vk_block *block) {
  vk_block *b = cmz_memory_take(d->model, sizeof *b);
  if (!b) return NULL;
  *b = *block;
  b->foreign = true;
  return insert(d, b);
}

void *cmz_vulkan_take_weights(cmz_device *d, size_t bytes, bool *fresh) {
  vk_gpu *g = d->gpu;
  const vk_block *b;
  *fresh = !g->weights.buffer;
  if (*fresh) {
    vk_block *made = cmz_vulkan_block(d, bytes, true);
    if (!made) return NULL;
    made->foreign = true; /* the device's from now on */
    g->weights = *made;
    b = made;
  } else {
    b = adopt(d, &g->weights);
  }
  return b ? (void *)(uintptr_t)b->address : NULL;
}

/* ---- tensors of the caller's ---- */

enum { MOST_BUFFER = 36 }; /* the logarithm of the bytes that such a buffer may have */

void *cmz_vulkan_address(cmz_device *d, const void *data) {
  const cmz_vulkan_memory *t = data;
  if (!t->buffer || t->offset >> MOST_BUFFER) return NULL;
  vk_block *b = d->blocks;
  while (b && b->buffer != t->buffer) b = b->next;
  vk_block callers = {.bytes = UINT64_C(1) << MOST_BUFFER, .buffer = t->buffer};
  if (!b) b = adopt(d, &callers);
  return b ? (void *)(uintptr_t)(b->address + t->offset) : NULL;
}

void cmz_vulkan_describe(cmz_device *d, const void *address, uint64_t words[2]) {
  uint64_t offset;
  const vk_block *b = cmz_vulkan_find(d, (uint64_t)(uintptr_t)address, &offset);
  words[0] = b ? b->buffer : 0;
  words[1] = offset; /* the words of a cmz_vulkan_memory */
}

/* The block of BYTES bytes at ADDRESS, or NULL and a message. */
static const vk_block *reach(cmz_model *m, cmz_device *d, const void *address, size_t bytes,
                             uint64_t *offset) {
  const vk_block *b = cmz_vulkan_find(d, (uint64_t)(uintptr_t)address, offset);
  if (b && bytes <= b->bytes - *offset) return b;
  cmz_fail_run(m, CMZ_RUN_FAILED, "Vulkan: an address is not in the device's memory");
  return NULL;
}

/* Room for up to BYTES bytes (*ROOM) in the staging block, which the open segment may use. */
static int stage(cmz_model *m, cmz_device *d, uint64_t bytes, uint64_t *at, uint64_t *room) {
  uint64_t want = bytes < STAGING_MOST ? bytes : STAGING_MOST;
  bool full = d->staging && d->staging->bytes - d->staging_used < want;
  if (full) {
    int rc = cmz_vulkan_wait(m, d);
    if (rc) return rc;
  }
  if (!d->staging || (full && d->staging->bytes < STAGING_MOST)) {
    uint64_t size = d->staging ? 2 * d->staging->bytes : STAGING_LEAST;
    while (size < want) size *= 2;
    cmz_vulkan_block_free(d, d->staging);
    d->staging = cmz_vulkan_block(d, size, false);
    if (!d->staging)
      return cmz_fail_run(m, CMZ_OUT_OF_MEMORY, "the device has no memory that the host can reach");
  }
  *at = d->staging_used;
  *room = want;
  d->staging_used += (want + 15) & ~UINT64_C(15);
  if (d->staging_used > d->staging->bytes) d->staging_used = d->staging->bytes;
  return CMZ_SUCCESS;
}

int cmz_vulkan_read(cmz_model *m, cmz_device *d, void *host, const void *from, size_t bytes) {
  uint64_t offset, at = 0, room = 0;
  const vk_block *b = reach(m, d, from, bytes, &offset);
  if (!b) return CMZ_RUN_FAILED;
  int rc = CMZ_SUCCESS;
  if (b->host && (!b->slow_read || bytes <= SMALL_READ)) {
    rc = cmz_vulkan_wait(m, d);
    if (!rc) memcpy(host, b->host + offset, bytes);
    return rc;
  }
  for (size_t done = 0; !rc && done < bytes; done += room) {
    rc = stage(m, d, bytes - done, &at, &room);
    if (!rc)
      rc = cmz_vulkan_add_copy(m, d, d->staging->address + at, b->address + offset + done, room);
    if (!rc) rc = cmz_vulkan_wait(m, d);
    if (!rc) memcpy((char *)host + done, d->staging->host + at, room);
  }
  return rc;
}

int cmz_vulkan_write(cmz_model *m, cmz_device *d, void *to, const void *host, size_t bytes) {
  uint64_t offset, at = 0, room = 0;
  const vk_block *b = reach(m, d, to, bytes, &offset);
  if (!b) return CMZ_RUN_FAILED;
  if (b->host && !d->open) {
    memcpy(b->host + offset, host, bytes);
    return CMZ_SUCCESS;
  }
  int rc = CMZ_SUCCESS;
  for (size_t done = 0; !rc && done < bytes; done += room) {
    rc = stage(m, d, bytes - done, &at, &room);
    if (rc) break;
    memcpy(d->staging->host + at, (const char *)host + done, room);
    rc = cmz_vulkan_add_copy(m, d, b->address + offset + done, d->staging->address + at, room);
  }
  return rc;
}

int cmz_vulkan_copy(cmz_model *m, cmz_device *d, void *to, const void *from, size_t bytes) {
  uint64_t offset;
  if (!reach(m, d, from, bytes, &offset) || !reach(m, d, to, bytes, &offset)) return CMZ_RUN_FAILED;
  return cmz_vulkan_add_copy(m, d, (uint64_t)(uintptr_t)to, (uint64_t)(uintptr_t)from, bytes);
}
