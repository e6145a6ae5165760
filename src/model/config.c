#include "model/config.h"
#include "core/context.h"
#include "core/file.h"
#include "core/try.h"
#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONFIG_BYTES (1u << 20)
#define MAX_DIMENSION    ((int64_t)1 << 20) /* sums of products of these stay far from 2^63 */
#define CONV_MAX         32                 /* what clm_causal_conv1d takes */

/* The numbers of a config: where they live, what Hugging Face calls them, what stands there by default (0: none or
 * worked out from others), and the range that is accepted. */
static const struct {
  size_t member;
  const char *name, *key;
  int64_t standard, low, high;
} sizes[] = {
#define SIZE(member) offsetof(clm_model_config, member), #member
    {SIZE(vocab_size), "vocab_size", 0, 1, 16 * MAX_DIMENSION},
    {SIZE(d_model), "hidden_size", 0, 1, MAX_DIMENSION},
    {SIZE(n_layer), "num_hidden_layers", 0, 1, 4096},
    {SIZE(d_state), "state_size", 16, 1, 1024},
    {SIZE(d_conv), "conv_kernel", 4, 1, CONV_MAX},
    {SIZE(expand), "expand", 2, 1, 64},
    {SIZE(d_inner), "intermediate_size", 0, 1, MAX_DIMENSION},
    {SIZE(dt_rank), "time_step_rank", 0, 1, MAX_DIMENSION},
#undef SIZE
};

static const struct {
  size_t member;
  const char *name, *key;
  float standard;
} reals[] = {
#define REAL(member) offsetof(clm_model_config, member), #member
    {REAL(norm_epsilon), "layer_norm_epsilon", 1e-5f},
    {REAL(dt_min), "time_step_min", 1e-3f},
    {REAL(dt_max), "time_step_max", 0.1f},
    {REAL(dt_floor), "time_step_floor", 1e-4f},
    {REAL(embedding_range), "initializer_range", 0.02f},
#undef REAL
};

/* A flag of ours, and the value of Hugging Face's key at which it is set. */
static const struct {
  size_t member;
  const char *key;
  bool set_when;
} flags[] = {
    {offsetof(clm_model_config, projection_bias), "use_bias", true},
    {offsetof(clm_model_config, no_conv_bias), "use_conv_bias", false},
    {offsetof(clm_model_config, untied_head), "tie_word_embeddings", false},
};

#define COUNT(table)         (sizeof(table) / sizeof *(table))
#define MEMBER(type, c, row) (*(type *)(void *)((char *)(c) + (row).member))

clm_status config_complete(clm_context *ctx, clm_model_config *c) {
  for (size_t i = 0; i < COUNT(sizes); i++)
    if (MEMBER(int64_t, c, sizes[i]) == 0) MEMBER(int64_t, c, sizes[i]) = sizes[i].standard;
  if (c->d_inner == 0 && c->d_model > 0 && c->d_model <= MAX_DIMENSION && c->expand > 0 && c->expand <= 64)
    c->d_inner = c->expand * c->d_model;
  if (c->dt_rank == 0 && c->d_model > 0) c->dt_rank = (c->d_model - 1) / 16 + 1;
  for (size_t i = 0; i < COUNT(sizes); i++) {
    int64_t value = MEMBER(int64_t, c, sizes[i]);
    if (value < sizes[i].low || value > sizes[i].high)
      return context_fail(ctx, CLM_INVALID_ARGUMENT, "model: %s is %lld, expected %lld to %lld", sizes[i].name,
                          (long long)value, (long long)sizes[i].low, (long long)sizes[i].high);
  }
  if (c->d_inner != c->expand * c->d_model)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "model: d_inner is %lld, expected expand * d_model = %lld",
                        (long long)c->d_inner, (long long)(c->expand * c->d_model));
  for (size_t i = 0; i < COUNT(reals); i++) {
    float *value = &MEMBER(float, c, reals[i]);
    if (*value == 0) *value = reals[i].standard;
    if (!(*value > 0) || !isfinite(*value))
      return context_fail(ctx, CLM_INVALID_ARGUMENT, "model: %s is %g, expected a positive number", reals[i].name,
                          (double)*value);
  }
  if (c->dt_max < c->dt_min)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "model: dt_max %g is less than dt_min %g", (double)c->dt_max,
                        (double)c->dt_min);
  return CLM_OK;
}

static clm_status bad_key(clm_context *ctx, const char *path, const char *key, const char *expected) {
  return context_fail(ctx, CLM_BAD_FORMAT, "%s: \"%s\" is not %s", path, key, expected);
}

static clm_status read_huggingface(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  for (size_t i = 0; i < COUNT(sizes); i++) {
    const json_t *value = json_object_get(json, sizes[i].key);
    if (!value || json_is_null(value) ||
        strcmp(json_string_value(value) ? json_string_value(value) : "", "auto") == 0)
      continue;
    if (!json_is_integer(value) || json_integer_value(value) < 1)
      return bad_key(ctx, path, sizes[i].key, "a whole number of at least 1");
    MEMBER(int64_t, c, sizes[i]) = json_integer_value(value);
  }
  for (size_t i = 0; i < COUNT(reals); i++) {
    const json_t *value = json_object_get(json, reals[i].key);
    if (!value || json_is_null(value)) continue;
    if (!json_is_number(value) || !(json_number_value(value) > 0))
      return bad_key(ctx, path, reals[i].key, "a positive number");
    MEMBER(float, c, reals[i]) = (float)json_number_value(value);
  }
  for (size_t i = 0; i < COUNT(flags); i++) {
    const json_t *value = json_object_get(json, flags[i].key);
    if (!value || json_is_null(value)) continue;
    if (!json_is_boolean(value)) return bad_key(ctx, path, flags[i].key, "true or false");
    MEMBER(bool, c, flags[i]) = json_boolean_value(value) == flags[i].set_when;
  }
  const char *activation = json_string_value(json_object_get(json, "hidden_act"));
  if (activation && strcmp(activation, "silu") != 0 && strcmp(activation, "swish") != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: hidden_act is \"%.40s\", expected \"silu\"", path, activation);
  return CLM_OK;
}

/* {"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}, "pad_vocab_size_multiple": 8, ...} */
static clm_status read_original(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  static const struct {
    const char *key;
    size_t member;
    bool nested; /* in ssm_cfg */
  } keys[] = {
      {"d_model", offsetof(clm_model_config, d_model), false},
      {"n_layer", offsetof(clm_model_config, n_layer), false},
      {"vocab_size", offsetof(clm_model_config, vocab_size), false},
      {"d_state", offsetof(clm_model_config, d_state), true},
      {"d_conv", offsetof(clm_model_config, d_conv), true},
      {"expand", offsetof(clm_model_config, expand), true},
  };
  const json_t *ssm = json_object_get(json, "ssm_cfg");
  const char *layer = json_string_value(json_object_get(ssm, "layer"));
  if (layer && strcmp(layer, "Mamba1") != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: the model is a \"%.40s\", expected Mamba1", path, layer);
  for (size_t i = 0; i < COUNT(keys); i++) {
    const json_t *value = json_object_get(keys[i].nested ? ssm : json, keys[i].key);
    if (!value) continue;
    if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > 16 * MAX_DIMENSION)
      return bad_key(ctx, path, keys[i].key, "a whole number of at least 1");
    MEMBER(int64_t, c, keys[i]) = json_integer_value(value);
  }
  json_int_t multiple = json_integer_value(json_object_get(json, "pad_vocab_size_multiple"));
  if (multiple == 0) multiple = 8;
  if (multiple > 0 && multiple <= MAX_DIMENSION) c->vocab_size = (c->vocab_size + multiple - 1) / multiple * multiple;
  return CLM_OK;
}

static clm_status read_json(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  const char *type = json_string_value(json_object_get(json, "model_type"));
  if (!type && json_object_get(json, "d_model") && json_object_get(json, "n_layer"))
    TRY(read_original(ctx, path, json, c));
  else if (type && strcmp(type, "mamba") == 0) TRY(read_huggingface(ctx, path, json, c));
  else
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: model_type is \"%.40s\", expected \"mamba\"", path,
                        type ? type : "absent");
  if (config_complete(ctx, c) == CLM_OK) return CLM_OK;
  char why[256];
  strncpy(why, clm_context_error(ctx), sizeof why - 1);
  why[sizeof why - 1] = '\0';
  return context_fail(ctx, CLM_BAD_FORMAT, "%s: %s", path, why);
}

clm_status config_read(clm_context *ctx, const char *path, clm_model_config *c) {
  *c = (clm_model_config){0};
  char *text;
  size_t bytes;
  TRY(file_read(ctx, path, MAX_CONFIG_BYTES, &text, &bytes));
  json_error_t error;
  json_t *json = json_loadb(text, bytes, 0, &error);
  free(text);
  clm_status status = json_is_object(json)
                          ? read_json(ctx, path, json, c)
                          : context_fail(ctx, CLM_BAD_FORMAT, "%s is not a JSON object: line %d: %.100s", path,
                                         json ? 1 : error.line, json ? "something else stands there" : error.text);
  json_decref(json);
  return status;
}

/* What Hugging Face writes besides: its own reader expects some of these. Special tokens are null, or its generate()
 * would stop at token 0, an ordinary character here; and a rescale_prenorm_residual that is true makes transformers
 * scale out_proj once more after loading it. */
static json_t *constants(const clm_model_config *c) {
  return json_pack("{s:[s], s:s, s:s, s:b, s:b, s:b, s:s, s:f, s:I, s:s, s:b, s:n, s:n, s:n}", "architectures",
                   "MambaForCausalLM", "model_type", "mamba", "hidden_act", "silu", "residual_in_fp32", 1,
                   "rescale_prenorm_residual", 0, "rms_norm", 1, "time_step_init_scheme", "random", "time_step_scale",
                   1.0, "n_layer", (json_int_t)c->n_layer, "torch_dtype", "float32", "use_cache", 1, "bos_token_id",
                   "eos_token_id", "pad_token_id");
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

clm_status config_write(clm_context *ctx, const char *path, const clm_model_config *c) {
  json_t *json = constants(c);
  int failed = json ? 0 : -1;
  for (size_t i = 0; i < COUNT(sizes); i++)
    failed |= json_object_set_new(json, sizes[i].key, json_integer(MEMBER(const int64_t, c, sizes[i])));
  for (size_t i = 0; i < COUNT(reals); i++)
    failed |= json_object_set_new(json, reals[i].key, json_real(shortest(MEMBER(const float, c, reals[i]))));
  for (size_t i = 0; i < COUNT(flags); i++)
    failed |=
        json_object_set_new(json, flags[i].key, json_boolean(MEMBER(const bool, c, flags[i]) == flags[i].set_when));
  char *text = failed ? NULL : json_dumps(json, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(9));
  json_decref(json);
  if (!text) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  clm_status status = file_replace(ctx, path, (file_part[]){{text, strlen(text)}, {"\n", 1}}, 2);
  free(text);
  return status;
}
