/* op.c - looking up operators. In: a domain, a name, an opset. Out: the row of the family tables
 * that defines it. Always holds: the tables are constant data; nothing is built at run time. */
#include "ops/ops.h"

#include <stdlib.h>

#define FAMILY_ROW(family) cmz_ops_##family,
static const cmz_op *const families[] = {CMZ_OP_FAMILIES(FAMILY_ROW)};
#undef FAMILY_ROW

static bool domain_equal(const char *a, const char *b) {
  if (!a || !strcmp(a, "ai.onnx")) a = "";
  if (!b || !strcmp(b, "ai.onnx")) b = "";
  return !strcmp(a, b);
}

/* A first look at the first letter keeps the walk over some hundred rows cheap. */
static bool name_equal(const cmz_op *op, const char *name) {
  return op->name[0] == name[0] && !strcmp(op->name, name);
}

const cmz_op *cmz_op_find(const char *domain, const char *name, uint32_t opset) {
  for (size_t f = 0; f < CMZ_COUNT_OF(families); f++)
    for (const cmz_op *op = families[f]; op->name; op++)
      if (name_equal(op, name) && domain_equal(op->domain, domain) &&
          (opset == 0 || (opset >= op->since && (op->until == 0 || opset <= op->until))))
        return op;
  return NULL;
}

bool cmz_op_known(const char *domain, const char *name) {
  return cmz_op_find(domain, name, 0) != NULL;
}

const cmz_op *cmz_op_get(const char *name) {
  const cmz_op *op = cmz_op_find("", name, 0);
  if (!op) op = cmz_op_find("cmz", name, 0);
  return op ? op : cmz_op_find("com.microsoft", name, 0);
}

const cmz_op *cmz_op_at(uint32_t index) {
  for (size_t f = 0; f < CMZ_COUNT_OF(families); f++)
    for (const cmz_op *op = families[f]; op->name; op++)
      if (index-- == 0) return op;
  return NULL;
}

bool cmz_op_attr_next(const char **at, uint32_t opset, cmz_op_attr *out) {
  while (*at && **at) {
    const char *colon = strchr(*at, ':'), *c = colon + 2;
    *out = (cmz_op_attr){.name = *at, .length = (size_t)(colon - *at), .kind = colon[1]};
    unsigned long since = 0, until = UINT32_MAX;
    for (char *end; *c && *c != ' '; c = end) {
      end = (char *)(uintptr_t)c + 1;
      if (*c == '!') out->required = true;
      else if (*c == '@') since = strtoul(c + 1, &end, 10);
      else if (*c == '<') until = strtoul(c + 1, &end, 10);
    }
    *at = *c ? c + 1 : c;
    if (opset >= since && opset < until) return true;
  }
  return false;
}
