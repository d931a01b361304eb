/* text_form.h - what the printer and the parser of the text form share. */
#ifndef CMZ_IR_TEXT_FORM_H
#define CMZ_IR_TEXT_FORM_H

#include "module.h"
#include "op.h"

#define CMZ_TEXT_INLINE_BYTES 64 /* constants up to this stand in the text itself */

/* The row of SINCE, or (SINCE 0) the one that handles OPSET (0: the newest), or any row of that
 * name; NULL when there is none. */
const struct cmz_op *cmz_text_find_op(const char *domain, const char *name, uint32_t opset,
                                      uint32_t since);

#endif
