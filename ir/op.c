/* op.c - looking up operators. In: a domain, a name, an opset. Out: the row of the family tables
 * that defines it. Always holds: the tables are constant data; nothing is built at run time. */
#include "ops/ops.h"

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
