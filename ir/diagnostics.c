/* diagnostics.c - errors and warnings: recorded in the context, handed to its sink, formatted as
 * one line. In: a code, a place and a message. Out: diagnostics whose strings live as long as the
 * context. Always holds: nothing is printed here; what becomes of a message is the sink's business.
 */
#include "base.h"

static const char *copy_or_null(cmz_context *ctx, const char *text) {
  return text ? cmz_arena_string(ctx->arena, text) : NULL;
}

static void record(cmz_context *ctx, cmz_severity severity, cmz_status code, cmz_loc loc,
                   const char *hint, const char *format, va_list args) {
  cmz_diagnostic d = {severity, code, {0}, NULL, NULL};
  d.loc = (cmz_loc){copy_or_null(ctx, loc.file), copy_or_null(ctx, loc.node),
                    copy_or_null(ctx, loc.op), copy_or_null(ctx, loc.tensor)};
  d.message = cmz_arena_vprintf(ctx->arena, format, args);
  d.hint = copy_or_null(ctx, hint);
  cmz_vec_push(ctx->arena, &ctx->diagnostics, d);
  if (severity == CMZ_ERROR) ctx->error_count++;
  if (ctx->options.sink) ctx->options.sink(ctx->options.user, &d);
}

cmz_status cmz_fail(cmz_context *ctx, cmz_status code, cmz_loc loc, const char *format, ...) {
  va_list args;
  va_start(args, format);
  record(ctx, CMZ_ERROR, code, loc, NULL, format, args);
  va_end(args);
  return code;
}

cmz_status cmz_fail_hint(cmz_context *ctx, cmz_status code, cmz_loc loc, const char *hint,
                         const char *format, ...) {
  va_list args;
  va_start(args, format);
  record(ctx, CMZ_ERROR, code, loc, hint, format, args);
  va_end(args);
  return code;
}

void cmz_warn(cmz_context *ctx, cmz_loc loc, const char *format, ...) {
  bool error = ctx->options.warnings_are_errors;
  va_list args;
  va_start(args, format);
  record(ctx, error ? CMZ_ERROR : CMZ_WARNING, error ? CMZ_E_INPUT : CMZ_OK, loc, NULL, format,
         args);
  va_end(args);
}

/* Names come from model files: control characters would let one forge further lines of output. */
static void add_name(cmz_text *text, const char *name) {
  for (const char *c = name; *c; c++) {
    if ((unsigned char)*c < 0x20 || *c == 0x7f)
      cmz_text_add(text, "\\x%02x", (unsigned)(unsigned char)*c);
    else cmz_text_add_bytes(text, c, 1);
  }
}

void cmz_diagnostic_format(cmz_text *text, const cmz_diagnostic *d) {
  static const char *const severities[] = {"note", "warning", "error"};
  if (d->loc.file) {
    add_name(text, d->loc.file);
    cmz_text_add(text, ": ");
  }
  if (d->loc.node) {
    cmz_text_add(text, "node \"");
    add_name(text, d->loc.node);
    cmz_text_add(text, "\"");
    if (d->loc.op) cmz_text_add(text, " (%s)", d->loc.op);
    cmz_text_add(text, ": ");
  } else if (d->loc.op) {
    cmz_text_add(text, "operator %s: ", d->loc.op);
  }
  if (d->loc.tensor) {
    cmz_text_add(text, "\"");
    add_name(text, d->loc.tensor);
    cmz_text_add(text, "\": ");
  }
  cmz_text_add(text, "%s: ", severities[d->severity]);
  add_name(text, d->message);
  if (d->hint) cmz_text_add(text, "\nhint: %s", d->hint);
}
