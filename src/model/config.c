#include "model/config.h"
#include "core/context.h"
#include "core/file.h"
#include "core/json_file.h"
#include "core/json_print.h"
#include "core/try.h"
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONFIG_BYTES (1u << 20)
#define MAX_DIMENSION    ((int64_t)1 << 20) /* sums of products of these stay far from 2^63 */
#define MAX_EXPAND       64
#define CONV_MAX         32 /* what clm_causal_conv1d takes */

/* Two forms of config.json. A key that begins with a dot stands in "ssm_cfg"; NULL: the form has none. */
typedef enum form { HUGGINGFACE, ORIGINAL, FORMS } form;

/* The numbers of a config: where they live, what each form calls them, what stands there by default (0: none or
 * worked out from others), and the range that is accepted. */
static const struct {
  size_t member;
  const char *name, *keys[FORMS];
  int64_t standard, low, high;
} sizes[] = {
#define SIZE(member) offsetof(clm_model_config, member), #member
    {SIZE(vocab_size), {"vocab_size", "vocab_size"}, 0, 1, 16 * MAX_DIMENSION},
    {SIZE(d_model), {"hidden_size", "d_model"}, 0, 1, MAX_DIMENSION},
    {SIZE(n_layer), {"num_hidden_layers", "n_layer"}, 0, 1, 4096},
    {SIZE(d_state), {"state_size", ".d_state"}, 16, 1, 1024},
    {SIZE(d_conv), {"conv_kernel", ".d_conv"}, 4, 1, CONV_MAX},
    {SIZE(expand), {"expand", ".expand"}, 2, 1, MAX_EXPAND},
    {SIZE(d_inner), {"intermediate_size", NULL}, 0, 1, MAX_DIMENSION},
    {SIZE(dt_rank), {"time_step_rank", ".dt_rank"}, 0, 1, MAX_DIMENSION},
#undef SIZE
};

static const struct {
  size_t member;
  const char *name, *keys[FORMS];
  float standard;
} reals[] = {
#define REAL(member) offsetof(clm_model_config, member), #member
    {REAL(norm_epsilon), {"layer_norm_epsilon", "norm_epsilon"}, 1e-5f}, /* the original has always 1e-5 */
    {REAL(dt_min), {"time_step_min", ".dt_min"}, 1e-3f},
    {REAL(dt_max), {"time_step_max", ".dt_max"}, 0.1f},
    {REAL(dt_floor), {"time_step_floor", ".dt_init_floor"}, 1e-4f},
    {REAL(embedding_range), {"initializer_range", NULL}, 0.02f},
    {REAL(mixer_norm_epsilon), {"mixer_rms_eps", NULL}, 1e-6f},
#undef REAL
};

/* A flag of ours, and the value of the key at which it is set. */
static const struct {
  size_t member;
  const char *keys[FORMS];
  bool set_when;
} flags[] = {
    {offsetof(clm_model_config, projection_bias), {"use_bias", ".bias"}, true},
    {offsetof(clm_model_config, no_conv_bias), {"use_conv_bias", ".conv_bias"}, false},
    {offsetof(clm_model_config, untied_head), {"tie_word_embeddings", "tie_embeddings"}, false},
    {offsetof(clm_model_config, layer_norm), {NULL, "rms_norm"}, false},
};

/* Hugging Face's two kinds; they differ in mixer_norm. */
static const struct {
  const char *type, *architecture;
} kinds[] = {{"mamba", "MambaForCausalLM"}, {"falcon_mamba", "FalconMambaForCausalLM"}};

#define COUNT(table)         (sizeof(table) / sizeof *(table))
#define MEMBER(type, c, row) (*(type *)(void *)((char *)(c) + (row).member))

clm_status config_complete(clm_context *ctx, clm_model_config *c) {
  for (size_t i = 0; i < COUNT(sizes); i++)
    if (MEMBER(int64_t, c, sizes[i]) == 0) MEMBER(int64_t, c, sizes[i]) = sizes[i].standard;
  if (c->d_inner == 0 && c->d_model > 0 && c->d_model <= MAX_DIMENSION && c->expand > 0 && c->expand <= MAX_EXPAND)
    c->d_inner = c->expand * c->d_model;
  if (c->dt_rank == 0 && c->d_model > 0) c->dt_rank = (c->d_model - 1) / 16 + 1;
  for (size_t i = 0; i < COUNT(sizes); i++) {
    int64_t value = MEMBER(int64_t, c, sizes[i]);
    if (value < sizes[i].low || value > sizes[i].high)
      return context_fail(ctx, CLM_INVALID_ARGUMENT, "model: %s is %lld, expected %lld to %lld", sizes[i].name,
                          (long long)value, (long long)sizes[i].low, (long long)sizes[i].high);
  }
  for (size_t i = 0; i < COUNT(reals); i++) {
    float *value = &MEMBER(float, c, reals[i]);
    if (*value == 0) *value = reals[i].standard;
    if (!(*value > 0) || !isfinite(*value))
      return context_fail(ctx, CLM_INVALID_ARGUMENT, "model: %s is %g, expected a positive number", reals[i].name,
                          (double)*value);
  }
  if (c->layer_norm && c->mixer_norm)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "model: layer_norm and mixer_norm exclude each other");
  if (c->dt_max < c->dt_min)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "model: dt_max %g is less than dt_min %g", (double)c->dt_max,
                        (double)c->dt_min);
  return CLM_OK;
}

static clm_status bad_key(clm_context *ctx, const char *path, const char *key, const char *expected) {
  return context_fail(ctx, CLM_BAD_FORMAT, "%s: \"%s\" is not %s", path, key, expected);
}

static bool is_nested(const char *key) { return *key == '.'; }

static const char *name_of(const char *key) { return key + is_nested(key); }

/* NULL: absent, null, or no key of this form. */
static const json_t *find(const json_t *json, const char *key) {
  if (!key) return NULL;
  const json_t *value = json_object_get(is_nested(key) ? json_object_get(json, "ssm_cfg") : json, name_of(key));
  return json_is_null(value) ? NULL : value;
}

static clm_status read_form(clm_context *ctx, const char *path, const json_t *json, form f, clm_model_config *c) {
  for (size_t i = 0; i < COUNT(sizes); i++) {
    const json_t *value = find(json, sizes[i].keys[f]);
    if (!value || strcmp(json_string_value(value) ? json_string_value(value) : "", "auto") == 0) continue;
    if (!json_is_integer(value) || json_integer_value(value) < 1)
      return bad_key(ctx, path, name_of(sizes[i].keys[f]), "a whole number of at least 1");
    MEMBER(int64_t, c, sizes[i]) = json_integer_value(value);
  }
  for (size_t i = 0; i < COUNT(reals); i++) {
    const json_t *value = find(json, reals[i].keys[f]);
    if (!value) continue;
    double number;
    if (!json_to_double(value, &number) || !(number > 0))
      return bad_key(ctx, path, name_of(reals[i].keys[f]), "a positive number");
    MEMBER(float, c, reals[i]) = (float)number;
  }
  for (size_t i = 0; i < COUNT(flags); i++) {
    const json_t *value = find(json, flags[i].keys[f]);
    if (!value) continue;
    if (!json_is_boolean(value)) return bad_key(ctx, path, name_of(flags[i].keys[f]), "true or false");
    MEMBER(bool, c, flags[i]) = json_boolean_value(value) == flags[i].set_when;
  }
  return CLM_OK;
}

static clm_status read_huggingface(clm_context *ctx, const char *path, const json_t *json, bool falcon,
                                   clm_model_config *c) {
  TRY(read_form(ctx, path, json, HUGGINGFACE, c));
  c->mixer_norm = falcon;
  const char *activation = json_string_value(json_object_get(json, "hidden_act"));
  if (activation && strcmp(activation, "silu") != 0 && strcmp(activation, "swish") != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: hidden_act is \"%.40s\", expected \"silu\"", path, activation);
  return CLM_OK;
}

/* {"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}, "pad_vocab_size_multiple": 8, ...} */
static clm_status read_original(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  const char *layer = json_string_value(find(json, ".layer"));
  if (layer && strcmp(layer, "Mamba1") != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: the model is a \"%.40s\", expected Mamba1", path, layer);
  if (json_array_size(json_object_get(json, "attn_layer_idx")) > 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: the model has attention layers, expected none", path);
  if (json_integer_value(json_object_get(json, "d_intermediate")) > 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: the model has MLP layers, expected d_intermediate 0", path);
  TRY(read_form(ctx, path, json, ORIGINAL, c));
  const json_t *padding = find(json, "pad_vocab_size_multiple");
  int64_t multiple = padding ? json_integer_value(padding) : 8;
  if (multiple < 1 || multiple > MAX_DIMENSION)
    return bad_key(ctx, path, "pad_vocab_size_multiple", "a whole number of at least 1");
  if (c->vocab_size <= 16 * MAX_DIMENSION) c->vocab_size = (c->vocab_size + multiple - 1) / multiple * multiple;
  return CLM_OK;
}

clm_status config_check(clm_context *ctx, const char *path, clm_model_config *c) {
  if (c->d_model > 0 && c->d_inner > 0) { /* d_inner counts, whatever the file says of expand */
    const int64_t whole = c->d_inner / c->d_model;
    c->expand = whole < 1 ? 1 : whole > MAX_EXPAND ? MAX_EXPAND : whole;
  }
  if (config_complete(ctx, c) == CLM_OK) return CLM_OK;
  char why[256];
  strncpy(why, clm_context_error(ctx), sizeof why - 1);
  why[sizeof why - 1] = '\0';
  return context_fail(ctx, CLM_BAD_FORMAT, "%s: %s", path, why);
}

static clm_status read_json(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  const char *type = json_string_value(json_object_get(json, "model_type"));
  size_t kind = 0;
  while (type && kind < COUNT(kinds) && strcmp(type, kinds[kind].type) != 0) kind++;
  if (!type && json_object_get(json, "d_model") && json_object_get(json, "n_layer"))
    TRY(read_original(ctx, path, json, c));
  else if (type && kind < COUNT(kinds)) TRY(read_huggingface(ctx, path, json, kind == 1, c));
  else
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: model_type is \"%.40s\", expected \"mamba\" or \"falcon_mamba\"",
                        path, type ? type : "absent");
  return config_check(ctx, path, c);
}

clm_status config_read(clm_context *ctx, const char *path, clm_model_config *c) {
  *c = (clm_model_config){0};
  json_t *json;
  TRY(json_read_object(ctx, path, MAX_CONFIG_BYTES, JSON_PYTHON, &json));
  clm_status status = read_json(ctx, path, json, c);
  json_decref(json);
  return status;
}

/* What Hugging Face writes besides: its own reader expects some of these. Special tokens that nothing is known of are
 * null, or its generate() would stop at token 0, which may be an ordinary character; and a rescale_prenorm_residual
 * that is true makes transformers scale out_proj once more after loading it. */
static json_t *huggingface_constants(const clm_model_config *c, clm_dtype dtype) {
  const char *type = dtype == CLM_F16 ? "float16" : dtype == CLM_BF16 ? "bfloat16" : "float32";
  return json_pack("{s:[s], s:s, s:s, s:b, s:b, s:b, s:s, s:f, s:I, s:s, s:b, s:n, s:n, s:n}", "architectures",
                   kinds[c->mixer_norm].architecture, "model_type", kinds[c->mixer_norm].type, "hidden_act", "silu",
                   "residual_in_fp32", 1, "rescale_prenorm_residual", 0, "rms_norm", 1, "time_step_init_scheme",
                   "random", "time_step_scale", 1.0, "n_layer", (json_int_t)c->n_layer, "torch_dtype", type,
                   "use_cache", 1, "bos_token_id", "eos_token_id", "pad_token_id");
}

static json_t *original_constants(void) {
  return json_pack("{s:{s:s}, s:b, s:b, s:i}", "ssm_cfg", "layer", "Mamba1", "residual_in_fp32", 1, "fused_add_norm",
                   1, "pad_vocab_size_multiple", 1);
}

static int set(json_t *json, const char *key, json_t *value) {
  if (key) return json_object_set_new(is_nested(key) ? json_object_get(json, "ssm_cfg") : json, name_of(key), value);
  json_decref(value);
  return 0;
}

/* The shortest decimal number that reads back as this f32: 0.001, not 0.0010000000474974513. */
static double shortest(float value) {
  char text[32];
  for (int digits = 1; digits < 9; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, (double)value);
    if (strtof(text, NULL) == value) break;
  }
  return strtod(text, NULL);
}

clm_status config_write(clm_context *ctx, const char *path, const clm_model_config *c, clm_dtype dtype, json_t *ids) {
  const form f = c->layer_norm ? ORIGINAL : HUGGINGFACE;
  json_t *json = f == ORIGINAL ? original_constants() : huggingface_constants(c, dtype);
  int failed = json ? 0 : -1;
  if (ids && f == HUGGINGFACE) failed |= json_object_update(json, ids);
  for (size_t i = 0; i < COUNT(sizes); i++)
    failed |= set(json, sizes[i].keys[f], json_integer(MEMBER(const int64_t, c, sizes[i])));
  for (size_t i = 0; i < COUNT(reals); i++)
    failed |= set(json, reals[i].keys[f], json_real(shortest(MEMBER(const float, c, reals[i]))));
  for (size_t i = 0; i < COUNT(flags); i++)
    failed |= set(json, flags[i].keys[f], json_boolean(MEMBER(const bool, c, flags[i]) == flags[i].set_when));
  char *text = failed ? NULL : json_print(json, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(9));
  json_decref(json);
  if (!text) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  clm_status status = file_replace(ctx, path, (file_part[]){{text, strlen(text)}, {"\n", 1}}, 2);
  free(text);
  return status;
}
