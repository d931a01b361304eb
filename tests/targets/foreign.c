/* foreign.c - foreign.h. Always holds: symbolic dims are 1; nothing but the model's table is
 * called. */
#include "foreign.h"

enum { HEADER_BYTES = 128 }; /* of a .npy file of version 1 */

static uint8_t *put_text(uint8_t *at, const char *text) {
  while (*text) *at++ = (uint8_t)*text++;
  return at;
}

static uint8_t *put_number(uint8_t *at, int64_t value) {
  if (value >= 10) at = put_number(at, value / 10);
  *at++ = (uint8_t)('0' + value % 10);
  return at;
}

static void put_header(uint8_t *out, const cmz_tensor *t) {
  static const uint8_t magic[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, HEADER_BYTES - 10, 0};
  for (int i = 0; i < HEADER_BYTES; i++) out[i] = i < 10 ? magic[i] : ' ';
  uint8_t *at = put_text(out + 10, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
  for (uint32_t d = 0; d < t->rank; d++) {
    at = put_number(at, t->dims[d]);
    if (d + 1 < t->rank || t->rank == 1) at = put_text(at, d + 1 < t->rank ? ", " : ",");
  }
  put_text(at, "), }");
  out[HEADER_BYTES - 1] = '\n';
}

static long run(const cmz_api *api, cmz_model *model, const uint8_t *data, size_t bytes,
                uint32_t runs, uint8_t *out, size_t capacity) {
  const cmz_port *port = &api->description->inputs[0];
  cmz_tensor input = {.data = (void *)(uintptr_t)data,
                      .element = CMZ_ELEMENT_F32,
                      .rank = port->rank,
                      .bytes = bytes},
             output = {0};
  for (uint32_t d = 0; d < port->rank; d++) input.dims[d] = port->dims[d] < 0 ? 1 : port->dims[d];
  for (uint32_t i = 0; i < runs; i++) {
    output = (cmz_tensor){0};
    if (api->run(model, &input, &output) != CMZ_SUCCESS) return FOREIGN_NOT_RUN;
  }
  if (output.element != CMZ_ELEMENT_F32 || output.bytes > capacity ||
      capacity - output.bytes < HEADER_BYTES)
    return FOREIGN_TOO_LARGE;
  put_header(out, &output);
  size_t size = 4;
  for (uint32_t d = 0; d < output.rank; d++) size *= (size_t)output.dims[d];
  for (size_t i = 0; i < size; i++) out[HEADER_BYTES + i] = ((const uint8_t *)output.data)[i];
  return (long)(HEADER_BYTES + size);
}

long foreign_run(const cmz_api *api, const uint8_t *npy, size_t npy_bytes, uint32_t threads,
                 uint32_t runs, uint8_t *out, size_t capacity, const char **said) {
  *said = "";
  size_t header = npy_bytes > 10 ? 10u + npy[8] + 256u * npy[9] : 0;
  if (!header || header > npy_bytes || api->abi_version != CMZ_ABI_VERSION ||
      api->struct_size != sizeof *api)
    return FOREIGN_BAD_INPUT;
  cmz_config config = {.struct_size = sizeof config, .threads = threads};
  cmz_model *model = 0;
  if (api->create(&config, &model) != CMZ_SUCCESS) {
    if (model) *said = api->error(model);
    return FOREIGN_NOT_CREATED;
  }
  long written = run(api, model, npy + header, npy_bytes - header, runs, out, capacity);
  if (written < 0) *said = api->error(model);
  else api->destroy(model);
  return written;
}
