/* A backbone's configuration: defaults, ranges, config.json, presets. */
#include "core/context.h"
#include "core/file.h"
#include "core/json_file.h"
#include "core/json_print.h"
#include "core/try.h"
#include "model/backbone.h"
#include "model/config/config.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define MODEL_TYPE       "clmamba_backbone"
#define NAMES_KEY        "output_names"
#define LAYERS_KEY       "layers"
#define MAX_CONFIG_BYTES ((size_t)64 << 20) /* names of a million outputs */
#define MAX_DIMENSION    ((int64_t)1 << 20)

static const struct {
  const char *key;
  size_t member;
  int64_t standard, low, high;
} sizes[] = {
#define SIZE(member) #member, offsetof(clm_backbone_config, member)
    {SIZE(embed_dim), 0, 1, MAX_DIMENSION},
    {SIZE(d_model), 0, 1, MAX_DIMENSION},
    {SIZE(n_layers), 0, 1, 4096},
    {SIZE(d_state), 16, 1, 1024},
    {SIZE(expand), 2, 1, 64},
    {SIZE(d_conv), 4, 1, 32},
    {SIZE(window), 0, 0, MAX_DIMENSION},
    {SIZE(n_outputs), 0, 0, MAX_DIMENSION},
    {SIZE(head_dim), 0, 0, MAX_DIMENSION}, /* worked out with the blocks */
    {SIZE(n_groups), 1, 1, MAX_DIMENSION},
#undef SIZE
};

/* Choices by name; the member is an enum. */
static const char *const outputs[] = {[CLM_OUTPUT_LAST] = "last", [CLM_OUTPUT_EVERY] = "every"};
static const char *const tasks[] = {
    [CLM_TASK_REGRESSION] = "regression", [CLM_TASK_CLASSIFICATION] = "classification"};

#define COUNT(table)      ((int)(sizeof(table) / sizeof *(table)))
#define MEMBER(c, row)    (*(int64_t *)(void *)((char *)(c) + (row).member))
#define IS_CHOICE(v, all) ((int)(v) >= 0 && (int)(v) < COUNT(all))

int64_t backbone_config_output_size(const clm_backbone_config *c) { return c->n_outputs ? c->n_outputs : c->d_model; }

clm_status backbone_config_complete(clm_context *ctx, clm_backbone_config *c, clm_model_config *blocks) {
  if (c->layers && c->n_layers == 0) c->n_layers = blocks_count(c->layers);
  for (int i = 0; i < COUNT(sizes); i++) {
    int64_t *value = &MEMBER(c, sizes[i]);
    if (*value == 0) *value = sizes[i].standard;
    if (*value < sizes[i].low || *value > sizes[i].high)
      return context_fail(ctx, CLM_INVALID_ARGUMENT, "backbone: %s is %lld, expected %lld to %lld", sizes[i].key,
                          (long long)*value, (long long)sizes[i].low, (long long)sizes[i].high);
  }
  if (!(c->dropout >= 0 && c->dropout < 1))
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "backbone: dropout is %g, expected 0 <= dropout < 1",
                        (double)c->dropout);
  if (!IS_CHOICE(c->output, outputs) || !IS_CHOICE(c->task, tasks))
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "backbone: output or task is not one of its names");
  if (c->task == CLM_TASK_CLASSIFICATION && c->n_outputs == 0)
    return context_fail(ctx, CLM_INVALID_ARGUMENT,
                        "backbone: classification needs n_outputs, the number of classes, of at least 1");
  *blocks = (clm_model_config){.vocab_size = 1,
                               .d_model = c->d_model,
                               .n_layer = c->n_layers,
                               .d_state = c->d_state,
                               .d_conv = c->d_conv,
                               .expand = c->expand,
                               .layers = c->layers,
                               .head_dim = c->head_dim,
                               .n_groups = c->n_groups};
  TRY(config_complete(ctx, blocks));
  c->head_dim = blocks->head_dim;
  blocks->vocab_size = 0;
  return CLM_OK;
}

void backbone_names_free(char **names, int64_t count) {
  for (int64_t i = 0; names && i < count; i++) free(names[i]);
  free(names);
}

static clm_status bad_key(clm_context *ctx, const char *path, const char *key, const char *expected) {
  return context_fail(ctx, CLM_BAD_FORMAT, "%s: \"%s\" is not %s", path, key, expected);
}

/* The place of a key's string in a table of names; 0 where the key is absent, -1 where it is something else. */
static int read_choice(const json_t *json, const char *key, const char *const *names, int count) {
  const json_t *value = json_object_get(json, key);
  const char *text = json_string_value(value);
  if (!value) return 0;
  for (int i = 0; text && i < count; i++)
    if (strcmp(names[i], text) == 0) return i;
  return -1;
}

static clm_status read_members(clm_context *ctx, const char *path, const json_t *json, clm_backbone_config *c) {
  for (int i = 0; i < COUNT(sizes); i++) {
    const json_t *value = json_object_get(json, sizes[i].key);
    if (!value) continue;
    if (!json_is_integer(value) || json_integer_value(value) < sizes[i].low)
      return bad_key(ctx, path, sizes[i].key, sizes[i].low ? "a whole number of at least 1" : "a whole number");
    MEMBER(c, sizes[i]) = json_integer_value(value);
  }
  const json_t *dropout = json_object_get(json, "dropout");
  if (dropout && !json_is_number(dropout)) return bad_key(ctx, path, "dropout", "a number");
  c->dropout = (float)json_number_value(dropout);
  int output = read_choice(json, "output", outputs, COUNT(outputs)),
      task = read_choice(json, "task", tasks, COUNT(tasks));
  if (output < 0) return bad_key(ctx, path, "output", "\"last\" or \"every\"");
  if (task < 0) return bad_key(ctx, path, "task", "\"regression\" or \"classification\"");
  const json_t *layers = json_object_get(json, LAYERS_KEY);
  if (layers && !json_is_string(layers)) return bad_key(ctx, path, LAYERS_KEY, "a text, as in \"mamba1 mlp\"");
  if (layers && !(c->layers = strdup(json_string_value(layers))))
    return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  c->output = (clm_backbone_output)output;
  c->task = (clm_backbone_task)task;
  return CLM_OK;
}

static clm_status read_names(clm_context *ctx, const char *path, const json_t *json, int64_t count, char ***names) {
  const json_t *list = json_object_get(json, NAMES_KEY);
  if (!list) return CLM_OK;
  if (!json_is_array(list) || (int64_t)json_array_size(list) != count)
    return bad_key(ctx, path, NAMES_KEY, "a list with a name for each output");
  *names = calloc((size_t)count, sizeof **names);
  if (!*names) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  for (int64_t i = 0; i < count; i++) {
    const char *name = json_string_value(json_array_get(list, (size_t)i));
    if (!name) return bad_key(ctx, path, NAMES_KEY, "a list of strings");
    (*names)[i] = strdup(name);
    if (!(*names)[i]) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  }
  return CLM_OK;
}

static clm_status read_json(clm_context *ctx, const char *path, const json_t *json, clm_backbone_config *c,
                            clm_model_config *blocks, char ***names) {
  const char *type = json_string_value(json_object_get(json, "model_type"));
  if (!type || strcmp(type, MODEL_TYPE) != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: model_type is \"%.40s\", expected \"" MODEL_TYPE "\"", path,
                        type ? type : "absent");
  TRY(read_members(ctx, path, json, c));
  if (backbone_config_complete(ctx, c, blocks)) {
    char why[256];
    strncpy(why, clm_context_error(ctx), sizeof why - 1);
    why[sizeof why - 1] = '\0';
    return context_fail(ctx, CLM_BAD_FORMAT, "%s: %s", path, why);
  }
  clm_status status = read_names(ctx, path, json, backbone_config_output_size(c), names);
  if (status) {
    backbone_names_free(*names, backbone_config_output_size(c));
    *names = NULL;
  }
  return status;
}

clm_status backbone_config_read(clm_context *ctx, const char *path, clm_backbone_config *c, clm_model_config *blocks,
                                char ***names) {
  *c = (clm_backbone_config){0};
  *names = NULL;
  json_t *json;
  TRY(json_read_object(ctx, path, MAX_CONFIG_BYTES, JSON_PYTHON, &json));
  clm_status status = read_json(ctx, path, json, c, blocks, names);
  json_decref(json);
  if (status) backbone_config_free(c);
  return status;
}

void backbone_config_free(clm_backbone_config *c) {
  free((char *)(uintptr_t)c->layers);
  c->layers = NULL;
}

clm_status backbone_config_write(clm_context *ctx, const char *path, const clm_backbone_config *c,
                                 char *const *names) {
  json_t *json = json_pack("{s:s, s:s, s:s, s:f}", "model_type", MODEL_TYPE, "output", outputs[c->output], "task",
                           tasks[c->task], "dropout", (double)c->dropout);
  int failed = json ? 0 : -1;
  for (int i = 0; i < COUNT(sizes); i++)
    failed |= json_object_set_new(json, sizes[i].key, json_integer(MEMBER(c, sizes[i])));
  json_t *list = names ? json_array() : NULL;
  for (int64_t i = 0; names && i < backbone_config_output_size(c); i++)
    failed |= json_array_append_new(list, json_string(names[i]));
  if (names) failed |= json_object_set_new(json, NAMES_KEY, list);
  if (c->layers) failed |= json_object_set_new(json, LAYERS_KEY, json_string(c->layers));
  char *text = failed ? NULL : json_print(json, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(9));
  json_decref(json);
  if (!text) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  clm_status status = file_replace(ctx, path, (file_part[]){{text, strlen(text)}, {"\n", 1}}, 2);
  free(text);
  return status;
}

static const clm_backbone_preset presets[] = {
    {.name = "small",
     .description = "two layers: for short signals of few channels, minutes of training on a CPU",
     .config = {.d_model = 64, .n_layers = 2, .d_state = 16}},
    {.name = "real-time",
     .description = "four layers: a step far within a frame of 60 Hz on one CPU core",
     .config = {.d_model = 128, .n_layers = 4, .d_state = 16}},
    {.name = "base",
     .description = "six wider layers: for long recordings and many channels",
     .config = {.d_model = 256, .n_layers = 6, .d_state = 16, .dropout = 0.1f}},
    {.name = "large",
     .description = "twelve layers: for features of other models, on a GPU",
     .config = {.d_model = 512, .n_layers = 12, .d_state = 16, .dropout = 0.1f}},
    {.name = "tiny", .description = "for tests", .config = {.d_model = 16, .n_layers = 2, .d_state = 4}},
};

const clm_backbone_preset *clm_backbone_presets(size_t *count) {
  if (count) *count = sizeof presets / sizeof *presets;
  return presets;
}
