/* inform.c - what cmzc says about itself and its work: help, version, lists, notes, messages as
 * text or JSON. In: the job and its callbacks. Out: calls of them. */
#include "../ir/op.h"
#include "driver.h"

#ifndef CMZ_VERSION
#define CMZ_VERSION "0"
#endif

const char *cmzc_version(void) { return CMZ_VERSION; }

static void send(cmz_job *job, const cmz_text *text) {
  if (job->callbacks->text && text->length)
    job->callbacks->text(job->callbacks->user, text->data, text->length);
}

void cmz_job_say(cmz_job *job, const char *format, ...) {
  va_list args;
  va_start(args, format);
  const char *text = cmz_arena_vprintf(job->arena, format, args);
  va_end(args);
  if (job->callbacks->text) job->callbacks->text(job->callbacks->user, text, strlen(text));
}

void cmz_job_note(cmz_job *job, const char *format, ...) {
  if (!job->options.verbose) return;
  va_list args;
  va_start(args, format);
  cmz_diagnostic note = {.severity = CMZ_NOTE,
                         .message = cmz_arena_vprintf(job->arena, format, args)};
  va_end(args);
  cmz_job_message(job, &note);
}

static void add_json(cmz_text *text, const char *key, const char *value) {
  if (!value) return;
  cmz_text_add(text, ",\"%s\":\"", key);
  for (const char *c = value; *c; c++) {
    if (*c == '"' || *c == '\\') cmz_text_add(text, "\\%c", *c);
    else if ((unsigned char)*c < 0x20) cmz_text_add(text, "\\u%04x", (unsigned)(unsigned char)*c);
    else cmz_text_add_bytes(text, c, 1);
  }
  cmz_text_add(text, "\"");
}

static void format_json(cmz_text *text, const cmz_diagnostic *d) {
  static const char *const severities[] = {"note", "warning", "error"};
  cmz_text_add(text, "{\"severity\":\"%s\"", severities[d->severity]);
  add_json(text, "file", d->loc.file);
  add_json(text, "node", d->loc.node);
  add_json(text, "op", d->loc.op);
  add_json(text, "tensor", d->loc.tensor);
  add_json(text, "message", d->message);
  add_json(text, "hint", d->hint);
  cmz_text_add(text, "}");
}

/* The word "error: " or "warning: " in colour; it stands before the message. */
static void colour(cmz_arena *arena, cmz_text *text, const cmz_diagnostic *d) {
  static const char *const words[] = {"note: ", "warning: ", "error: "};
  static const char *const colours[] = {"36", "35", "31"};
  char *at = strstr(text->data, words[d->severity]);
  if (!at) return;
  cmz_text coloured = {.arena = arena};
  cmz_text_add(&coloured, "%.*s\033[1;%sm%s\033[0m%s", (int)(at - text->data), text->data,
               colours[d->severity], words[d->severity], at + strlen(words[d->severity]));
  *text = coloured;
}

void cmz_job_message(cmz_job *job, const cmz_diagnostic *d) {
  if (!job->callbacks->message || (job->options.quiet && d->severity != CMZ_ERROR)) return;
  cmz_text text = {.arena = job->arena};
  if (job->options.json) {
    format_json(&text, d);
  } else {
    if (!d->loc.file && !d->loc.node) cmz_text_add(&text, "cmzc: ");
    cmz_diagnostic_format(&text, d);
    bool coloured = job->options.color > 0 || (job->options.color == 0 && job->callbacks->terminal);
    if (coloured) colour(job->arena, &text, d);
  }
  cmzc_message message = {.severity = (int)d->severity,
                          .text = text.data,
                          .file = d->loc.file,
                          .node = d->loc.node,
                          .op = d->loc.op,
                          .tensor = d->loc.tensor,
                          .hint = d->hint,
                          .message = d->message};
  job->callbacks->message(job->callbacks->user, &message);
}

/* ---- lists ---- */

static void list_targets(cmz_text *text) {
  const cmz_os_row *os;
  const cmz_cpu_row *cpu;
  const cmz_gpu_row *gpu;
  const cmz_cpu_extension *extension;
  cmz_text_add(text, "systems (--target):\n  native\n");
  for (uint32_t i = 0; (os = cmz_os_at(i)); i++)
    cmz_text_add(text, "  %s%s\n", os->triple, os->least_version ? "[version]" : "");
  cmz_text_add(text, "GPUs (--target):\n");
  for (uint32_t i = 0; (gpu = cmz_gpu_at(i)); i++) cmz_text_add(text, "  %s\n", gpu->name);
  cmz_text_add(text, "CPU levels (--cpu, or --target on this system):\n  native\n");
  for (uint32_t i = 0; (cpu = cmz_cpu_at(i)); i++)
    if (!cpu->threads) cmz_text_add(text, "  %-16s %s\n", cpu->name, cpu->arch);
  cmz_text_add(text, "extensions of a level (--cpu LEVEL+NAME):\n");
  for (uint32_t i = 0; (extension = cmz_cpu_extension_at(i)); i++)
    cmz_text_add(text, "  +%-15s %s\n", extension->name, extension->arch);
}

static void list_ops(cmz_text *text) {
  const cmz_op *op;
  for (uint32_t i = 0; (op = cmz_op_at(i)); i++) {
    if (!strcmp(op->domain, "cmz")) continue; /* made by passes */
    const char *domain = *op->domain ? op->domain : "ai.onnx";
    cmz_text_add(text, "%-16s %-28s opset %u", domain, op->name, op->since);
    if (op->until) cmz_text_add(text, " to %u", op->until);
    else cmz_text_add(text, " on");
    cmz_text_add(text, "%s%s\n", op->attributes ? "  " : "", op->attributes ? op->attributes : "");
  }
}

static void list_passes(cmz_text *text) {
  for (const cmz_pass *p = cmz_passes; p->name; p++)
    cmz_text_add(text, "%-14s %s%s\n", p->name, p->help,
                 p->level ? cmz_arena_printf(text->arena, " (-O%d on)", p->level) : "");
}

bool cmz_job_inform(cmz_job *job) {
  const cmz_options *o = &job->options;
  cmz_text text = {.arena = job->arena};
  if (o->help) cmz_options_help(&text, o->help);
  if (o->version) cmz_text_add(&text, "cmzc %s, opsets 1 to 28 of ai.onnx\n", cmzc_version());
  if (o->list_targets) list_targets(&text);
  if (o->list_ops) list_ops(&text);
  if (o->list_passes) list_passes(&text);
  send(job, &text);
  return o->help || o->version || o->list_targets || o->list_ops || o->list_passes;
}
