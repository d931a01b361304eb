/* cmz_dlpack.h - cmz_tensor to and from DLPack's DLTensor without a copy. Include the dlpack
 * project's header before this one; it is not needed otherwise. In: a view of the one kind. Out: a
 * view of the same memory. Always holds: nothing is owned; shape and strides that DLPack points to
 * lie in arrays of the caller. */
#ifndef CMZ_DLPACK_H
#define CMZ_DLPACK_H

#include "cmz.h"

#ifdef DLPACK_VERSION
#define CMZ_DLPACK_AVAILABLE 1
#elif defined(DLPACK_MAJOR_VERSION)
#define CMZ_DLPACK_AVAILABLE 1
#endif

#ifdef CMZ_DLPACK_AVAILABLE
/* DLPack's type code and bits of each element type; bits 0: DLPack has no such type. */
static inline int cmz_dlpack_type(uint32_t element, DLDataType *type) {
  static const struct {
    uint8_t code, bits;
  } rows[] = {{0, 0},         {kDLFloat, 32}, {kDLUInt, 8},  {kDLInt, 8},   {kDLUInt, 16},
              {kDLInt, 16},   {kDLInt, 32},   {kDLInt, 64},  {0, 0},        {6 /* bool */, 8},
              {kDLFloat, 16}, {kDLFloat, 64}, {kDLUInt, 32}, {kDLUInt, 64}, {5 /* complex */, 64},
              {5, 128},       {kDLBfloat, 16}};
  if (element >= sizeof rows / sizeof rows[0] || rows[element].bits == 0)
    return CMZ_INVALID_ARGUMENT;
  type->code = rows[element].code;
  type->bits = rows[element].bits;
  type->lanes = 1;
  return CMZ_SUCCESS;
}

/* FROM as a cmz_tensor. */
static inline int cmz_from_dlpack(const DLTensor *from, cmz_tensor *to) {
  cmz_tensor zero = {0};
  uint32_t element;
  int d;
  *to = zero;
  if (from->ndim < 0 || from->ndim > CMZ_MAX_DIMS || from->dtype.lanes != 1)
    return CMZ_INVALID_ARGUMENT;
  for (element = 1; element <= CMZ_ELEMENT_BF16; element++) {
    DLDataType type;
    if (cmz_dlpack_type(element, &type) == CMZ_SUCCESS && type.code == from->dtype.code &&
        type.bits == from->dtype.bits)
      break;
  }
  if (element > CMZ_ELEMENT_BF16) return CMZ_INVALID_ARGUMENT;
  to->data = (char *)from->data + from->byte_offset;
  to->memory = from->device.device_type == kDLCPU || from->device.device_type == kDLCUDAHost
                   ? CMZ_MEMORY_HOST
                   : CMZ_MEMORY_DEVICE;
  to->element = element;
  to->rank = (uint32_t)from->ndim;
  to->bytes = from->dtype.bits / 8u;
  for (d = 0; d < from->ndim; d++) {
    to->dims[d] = from->shape[d];
    if (from->strides) to->strides[d] = from->strides[d] * (from->dtype.bits / 8);
    if (from->shape[d] == 0) to->bytes = 0;
  }
  for (d = 0; d < from->ndim && to->bytes; d++) {
    if (from->strides) to->bytes += (size_t)((from->shape[d] - 1) * to->strides[d]);
    else to->bytes *= (size_t)from->shape[d];
  }
  return CMZ_SUCCESS;
}

/* FROM as a DLTensor on DEVICE (kDLCUDA and the GPU's number, say, where FROM lies in device
 * memory); SHAPE and STRIDES are arrays of CMZ_MAX_DIMS that live as long as TO. */
static inline int cmz_to_dlpack_on(const cmz_tensor *from, DLDevice device, int64_t *shape,
                                   int64_t *strides, DLTensor *to) {
  uint32_t d;
  int64_t step = 1;
  int contiguous = 1;
  if (cmz_dlpack_type(from->element, &to->dtype) != CMZ_SUCCESS) return CMZ_INVALID_ARGUMENT;
  if ((from->memory == CMZ_MEMORY_HOST) !=
      (device.device_type == kDLCPU || device.device_type == kDLCUDAHost))
    return CMZ_INVALID_ARGUMENT;
  for (d = 0; d < from->rank; d++) contiguous &= from->strides[d] == 0;
  for (d = from->rank; d-- > 0;) {
    shape[d] = from->dims[d];
    strides[d] = contiguous ? step : from->strides[d] / (to->dtype.bits / 8);
    step *= from->dims[d];
  }
  to->data = from->data;
  to->device = device;
  to->ndim = (int32_t)from->rank;
  to->shape = shape;
  to->strides = strides;
  to->byte_offset = 0;
  return CMZ_SUCCESS;
}

/* FROM, in host memory, as a DLTensor. */
static inline int cmz_to_dlpack(const cmz_tensor *from, int64_t *shape, int64_t *strides,
                                DLTensor *to) {
  DLDevice host;
  host.device_type = kDLCPU;
  host.device_id = 0;
  return cmz_to_dlpack_on(from, host, shape, strides, to);
}
#endif

#endif
