/* dlpack.c - cmz_dlpack.h against DLPack's own header: a strided view with an offset there and
 * back, and what cannot be converted. Prints `N passed, N failed`. */
#include <dlpack/dlpack.h>

#include <cmz_dlpack.h>
#include <stdio.h>

static int passed, failed;
static void check(int ok, const char *what) {
  if (ok) passed++;
  else failed++;
  printf("%s: %s\n", ok ? "ok" : "FAILED", what);
}

int main(void) {
  float data[24] = {0};
  int64_t shape[2] = {3, 4}, strides[2] = {8, 1}, shape_back[CMZ_MAX_DIMS],
          strides_back[CMZ_MAX_DIMS];
  DLTensor from = {.data = data,
                   .ndim = 2,
                   .dtype = {kDLFloat, 32, 1},
                   .shape = shape,
                   .strides = strides,
                   .byte_offset = 8};
  DLTensor back = {0};
  cmz_tensor t;
  from.device.device_type = kDLCPU;
  check(cmz_from_dlpack(&from, &t) == CMZ_SUCCESS, "a strided view is taken");
  check(t.data == (void *)(data + 2) && t.element == CMZ_ELEMENT_F32 && t.rank == 2,
        "data, offset, type, rank");
  check(t.dims[0] == 3 && t.dims[1] == 4 && t.strides[0] == 32 && t.strides[1] == 4,
        "dims and byte strides");
  check(t.bytes == 4 * (2 * 8 + 3 + 1), "bytes up to the last element");
  check(cmz_to_dlpack(&t, shape_back, strides_back, &back) == CMZ_SUCCESS, "and given back");
  check(back.data == t.data && back.ndim == 2 && back.shape[1] == 4 && back.strides[0] == 8 &&
            back.strides[1] == 1,
        "the same view");
  from.strides = NULL;
  check(cmz_from_dlpack(&from, &t) == CMZ_SUCCESS && t.bytes == 48 && t.strides[0] == 0,
        "no strides: contiguous");
  check(cmz_to_dlpack(&t, shape_back, strides_back, &back) == CMZ_SUCCESS && back.strides[0] == 4 &&
            back.strides[1] == 1,
        "contiguous strides are filled in");
  DLDevice gpu = {kDLCUDA, 1};
  from.device = gpu;
  check(cmz_from_dlpack(&from, &t) == CMZ_SUCCESS && t.memory == CMZ_MEMORY_DEVICE,
        "a GPU's memory is device memory");
  check(cmz_to_dlpack(&t, shape_back, strides_back, &back) == CMZ_INVALID_ARGUMENT,
        "which is no host memory");
  check(cmz_to_dlpack_on(&t, gpu, shape_back, strides_back, &back) == CMZ_SUCCESS &&
            back.device.device_type == kDLCUDA && back.device.device_id == 1,
        "and becomes the same GPU's again");
  from.device.device_type = kDLCUDAHost;
  check(cmz_from_dlpack(&from, &t) == CMZ_SUCCESS && t.memory == CMZ_MEMORY_HOST,
        "pinned memory is host memory");
  from.dtype.lanes = 2;
  check(cmz_from_dlpack(&from, &t) == CMZ_INVALID_ARGUMENT, "vector elements are refused");
  from.dtype.lanes = 1;
  from.ndim = CMZ_MAX_DIMS + 1;
  check(cmz_from_dlpack(&from, &t) == CMZ_INVALID_ARGUMENT, "too many axes are refused");
  t.element = CMZ_ELEMENT_I4;
  check(cmz_to_dlpack(&t, shape_back, strides_back, &back) == CMZ_INVALID_ARGUMENT,
        "a type that DLPack lacks is refused");
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
