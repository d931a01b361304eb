/* recipe.c - compression rules as words and as JSON, and the report of what was done.
 * In: option words or a recipe file. Out: rules; text. Always holds: what cmz_recipe_print writes,
 * cmz_recipe_read reads back to the same rules. */
#include "../placement.h"
#include "compress.h"

#include <jansson.h>
#include <stdlib.h>

/* One row a way of storing weights that the options and the recipe name. */
static const struct {
  const char *word;
  uint32_t bits;
} weight_words[] = {{"w8a16", 8}, {"w4a16", 4}, {"w2a16", 2}, {"f32", 32}};

bool cmz_rule_set_weights(cmz_compression_rule *rule, const char *word) {
  for (size_t i = 0; i < CMZ_COUNT_OF(weight_words); i++)
    if (!strcmp(weight_words[i].word, word)) return rule->bits = weight_words[i].bits, true;
  return false;
}

bool cmz_rule_set_prune(cmz_compression_rule *rule, const char *word) {
  if (!strcmp(word, "2:4")) return rule->sparsity = CMZ_SPARSITY_2_4, true;
  if (!strcmp(word, "none")) return rule->sparsity = CMZ_SPARSITY_NONE, true;
  return false;
}

bool cmz_rule_set_low_rank(cmz_compression_rule *rule, const char *word) {
  char *end;
  uint32_t rank = 0;
  double value = strtod(word, &end), energy = -1;
  if (!strcmp(word, "none")) {
    energy = -1;
  } else if (*word < '0' || *word > '9' || !(value > 0)) {
    return false;
  } else if (!strcmp(end, "%") && value <= 100) {
    energy = value / 100;
  } else if (!*end && value <= 1e9 && value == (double)(uint32_t)value) {
    rank = (uint32_t)value, energy = 0;
  } else {
    return false;
  }
  rule->low_rank = rank;
  rule->low_rank_energy = energy;
  return true;
}

typedef struct reader {
  cmz_context *ctx;
  cmz_arena *arena;
  const char *path;
} reader;

static cmz_status refuse(const reader *r, size_t layer, const char *what, const char *word) {
  return cmz_fail(r->ctx, CMZ_E_INPUT, (cmz_loc){.file = r->path}, "layers[%zu]: %s \"%s\"", layer,
                  what, word);
}

static cmz_status read_key(const reader *r, size_t layer, const char *key, json_t *value,
                           cmz_compression_rule *rule) {
  const char *word = json_string_value(value);
  if (!strcmp(key, "match") && word) {
    rule->pattern = cmz_arena_string(r->arena, word);
  } else if (!strcmp(key, "weights") && word) {
    if (!cmz_rule_set_weights(rule, word)) return refuse(r, layer, "unknown weights", word);
  } else if (!strcmp(key, "prune") && word) {
    if (!cmz_rule_set_prune(rule, word)) return refuse(r, layer, "unknown sparsity", word);
  } else if (!strcmp(key, "low_rank") && (word || json_is_integer(value))) {
    char number[32];
    snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
    if (!cmz_rule_set_low_rank(rule, word ? word : number))
      return refuse(r, layer, "unknown rank", word ? word : number);
  } else if (!strcmp(key, "group_size") && json_is_integer(value)) {
    json_int_t size = json_integer_value(value);
    if (size == 0 || size < -1 || size > 1 << 20)
      return refuse(r, layer, "value out of range:", key);
    rule->group_size = (int32_t)size;
  } else if (!strcmp(key, "symmetric") && json_is_boolean(value)) {
    rule->symmetric = json_is_true(value) ? 1 : -1;
  } else {
    return refuse(r, layer, "unknown key or wrong type of value:", key);
  }
  return CMZ_OK;
}

static cmz_status read_layers(const reader *r, json_t *root, cmz_compression *compression) {
  const char *key;
  json_t *value;
  if (!json_is_object(root))
    return cmz_fail(r->ctx, CMZ_E_INPUT, (cmz_loc){.file = r->path},
                    "a recipe is an object with the list \"layers\"");
  json_object_foreach(
      root, key,
      value) if (strcmp(key, "layers") ||
                 !json_is_array(
                     value)) return cmz_fail(r->ctx, CMZ_E_INPUT, (cmz_loc){.file = r->path},
                                             "unknown key or wrong type of value: \"%s\"", key);
  json_t *layers = json_object_get(root, "layers"), *layer;
  if (!layers)
    return cmz_fail(r->ctx, CMZ_E_INPUT, (cmz_loc){.file = r->path},
                    "a recipe is an object with the list \"layers\"");
  size_t i;
  json_array_foreach(layers, i, layer) {
    cmz_compression_rule rule = {0};
    if (!json_is_object(layer)) return refuse(r, i, "not an object:", "");
    json_object_foreach(layer, key, value) CMZ_TRY(read_key(r, i, key, value, &rule));
    cmz_vec_push(r->arena, &compression->rules, rule);
  }
  return CMZ_OK;
}

cmz_status cmz_recipe_read(cmz_context *ctx, cmz_arena *arena, const char *path,
                           cmz_compression *compression) {
  const cmz_file *file;
  CMZ_TRY(cmz_file_map(ctx, path, &file));
  json_error_t error;
  json_t *root = json_loadb((const char *)file->data, file->size, JSON_REJECT_DUPLICATES, &error);
  if (!root)
    return cmz_fail(ctx, CMZ_E_INPUT, (cmz_loc){.file = path}, "line %d: %s", error.line,
                    error.text);
  reader r = {ctx, arena, path};
  cmz_status status = read_layers(&r, root, compression);
  json_decref(root);
  return status;
}

/* VALUE's text at the end of TEXT; VALUE is given up. */
static void add_json(cmz_text *text, json_t *value) {
  char *dump = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
  cmz_text_add(text, "%s\n", dump ? dump : "{}");
  free(dump);
  json_decref(value);
}

/* The share as the words of --low-rank, with as many digits as give the same share back. */
static json_t *energy_word(double energy) {
  char word[40];
  if (energy < 0) return json_string("none");
  for (int digits = 4; digits <= 17; digits++) {
    snprintf(word, sizeof word, "%.*g%%", digits, energy * 100);
    if (strtod(word, NULL) / 100 == energy) break;
  }
  return json_string(word);
}

cmz_status cmz_recipe_print(const cmz_compression *compression, cmz_text *text) {
  json_t *layers = json_array();
  for (uint32_t i = 0; i < compression->rules.count; i++) {
    const cmz_compression_rule *r = &compression->rules.data[i];
    json_t *layer = json_object();
    if (r->pattern) json_object_set_new(layer, "match", json_string(r->pattern));
    for (size_t j = 0; j < CMZ_COUNT_OF(weight_words); j++)
      if (weight_words[j].bits == r->bits)
        json_object_set_new(layer, "weights", json_string(weight_words[j].word));
    if (r->group_size) json_object_set_new(layer, "group_size", json_integer(r->group_size));
    if (r->symmetric) json_object_set_new(layer, "symmetric", json_boolean(r->symmetric > 0));
    if (r->sparsity)
      json_object_set_new(layer, "prune",
                          json_string(r->sparsity == CMZ_SPARSITY_2_4 ? "2:4" : "none"));
    if (r->low_rank) json_object_set_new(layer, "low_rank", json_integer(r->low_rank));
    else if (r->low_rank_energy != 0)
      json_object_set_new(layer, "low_rank", energy_word(r->low_rank_energy));
    json_array_append_new(layers, layer);
  }
  add_json(text, json_pack("{s:o}", "layers", layers));
  return CMZ_OK;
}

/* ---- the report ---- */

/* A name from the model: bytes that are no UTF-8 become '?'. */
static json_t *name_json(const char *name) {
  json_t *string = json_string(name);
  if (string) return string;
  char clean[256];
  size_t length = 0;
  for (; name[length] && length + 1 < sizeof clean; length++)
    clean[length] = (unsigned char)name[length] < 128 ? name[length] : '?';
  clean[length] = 0;
  return json_string(clean);
}

static void set_part(json_t *to, const cmz_layer_part *part) {
  json_object_set_new(to, "rows", json_integer(part->rows));
  json_object_set_new(to, "columns", json_integer(part->columns));
  json_object_set_new(to, "format", json_string(part->format));
  json_object_set_new(to, "bits", json_integer(part->bits));
  json_object_set_new(to, "group_size", json_integer(part->group_size));
  json_object_set_new(to, "sparse_2_4", json_boolean(part->sparse));
}

static json_t *layer_json(const cmz_layer_result *r) {
  json_t *layer = json_object(), *shape = json_array(), *factors = json_array();
  for (uint32_t i = 0; i < r->dims_count; i++)
    json_array_append_new(shape, json_integer(r->dims[i]));
  const cmz_layer_part *largest = &r->parts[0];
  for (uint32_t i = 0; i < r->part_count; i++) {
    json_t *factor = json_object();
    set_part(factor, &r->parts[i]);
    json_object_set_new(factor, "bytes", json_integer((json_int_t)r->parts[i].bytes));
    json_array_append_new(factors, factor);
    if (r->parts[i].bytes > largest->bytes) largest = &r->parts[i];
  }
  json_object_set_new(layer, "name", name_json(r->name));
  json_object_set_new(layer, "op", json_string(r->op));
  json_object_set_new(layer, "weight", name_json(r->weight));
  json_object_set_new(layer, "shape", shape);
  set_part(layer, largest);
  json_object_set_new(layer, "rows", json_integer(r->rows));
  json_object_set_new(layer, "columns", json_integer(r->columns));
  json_object_set_new(layer, "rank", json_integer(r->rank));
  json_object_set_new(layer, "energy", json_real(r->energy));
  json_object_set_new(layer, "relative_error", json_real(r->relative_error));
  json_object_set_new(layer, "bytes_before", json_integer((json_int_t)r->bytes_before));
  json_object_set_new(layer, "bytes_after", json_integer((json_int_t)r->bytes_after));
  if (r->rank) json_object_set(layer, "factors", factors);
  if (r->note) json_object_set_new(layer, "note", json_string(r->note));
  json_decref(factors);
  return layer;
}

void cmz_report_print(const cmz_compression *compression, const struct cmz_plan *device,
                      const char *model, cmz_text *text) {
  json_t *layers = json_array(), *report = json_object();
  json_int_t before = 0, after = 0;
  for (uint32_t i = 0; i < compression->results.count; i++) {
    const cmz_layer_result *r = &compression->results.data[i];
    before += (json_int_t)r->bytes_before;
    after += (json_int_t)r->bytes_after;
    json_array_append_new(layers, layer_json(r));
  }
  json_object_set_new(report, "model", name_json(model));
  json_object_set_new(report, "weight_bytes_before", json_integer(before));
  json_object_set_new(report, "weight_bytes_after", json_integer(after));
  json_object_set_new(report, "layers", layers);
  if (device) json_object_set_new(report, "device", cmz_placement_json(device));
  add_json(text, report);
}
