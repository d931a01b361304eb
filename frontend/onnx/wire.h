/* wire.h - from the bytes of an ONNX file to the messages of onnx.proto, with tensor payloads left
 * in place. */
#ifndef CMZ_FRONTEND_ONNX_WIRE_H
#define CMZ_FRONTEND_ONNX_WIRE_H

#include "../../ir/base.h"
#include "onnx.pb-c.h"

/* Reads the model in FILE. Everything in *MODEL lives in ARENA; payloads of tensors above a few
 * bytes are given by view_field, view_offset and view_size, which lie inside the file. CMZ_E_INPUT
 * names the byte that is wrong. */
cmz_status cmz_onnx_read(cmz_context *ctx, cmz_arena *arena, const cmz_file *file,
                         Onnx__ModelProto **model);

/* Reads one varint at *AT (advanced); false when it is cut off or longer than 64 bits. */
bool cmz_wire_varint(const uint8_t **at, const uint8_t *end, uint64_t *value);

#endif
