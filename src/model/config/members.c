#include "model/config/members.h"
#include "core/context.h"
#include "core/json.h"
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONV_MAX   32 /* what clm_causal_conv1d takes */
#define FILE_FORMS 6  /* those that have keys of their own */

/* The numbers of a config: where they live, what each form calls them (a key that begins with a dot stands in
 * "ssm_cfg"; NULL: the form has none), what stands there by default (0: none or worked out from others), and the
 * range that is accepted. */
static const struct {
  size_t member;
  const char *name, *keys[FILE_FORMS];
  int64_t standard, low, high;
} sizes[] = {
#define SIZE(member) offsetof(clm_model_config, member), #member
    {SIZE(vocab_size),
     {"vocab_size", "vocab_size", "vocab_size",
      "vocab_size", [FORM_HYBRID] = "vocab_size", [FORM_NEMOTRON_H] = "vocab_size"},
     0,
     1,
     MAX_VOCAB},
    {SIZE(d_model),
     {"hidden_size", "d_model", "hidden_size",
      "d_model", [FORM_HYBRID] = "hidden_size", [FORM_NEMOTRON_H] = "hidden_size"},
     0,
     1,
     MAX_DIMENSION},
    {SIZE(n_layer), {"num_hidden_layers", "n_layer", "num_hidden_layers", "n_layer"}, 0, 1, 4096},
    {SIZE(d_state),
     {"state_size", ".d_state", "state_size",
      ".d_state", [FORM_HYBRID] = "mamba_d_state", [FORM_NEMOTRON_H] = "ssm_state_size"},
     16,
     1,
     1024},
    {SIZE(d_conv),
     {"conv_kernel", ".d_conv", "conv_kernel",
      ".d_conv", [FORM_HYBRID] = "mamba_d_conv", [FORM_NEMOTRON_H] = "conv_kernel"},
     4,
     1,
     CONV_MAX},
    {SIZE(expand),
     {"expand", ".expand", "expand", ".expand", [FORM_HYBRID] = "mamba_expand", [FORM_NEMOTRON_H] = "expand"},
     2,
     1,
     MAX_EXPAND},
    {SIZE(d_inner), {"intermediate_size", NULL, NULL, ".d_ssm"}, 0, 1, MAX_DIMENSION},
    {SIZE(dt_rank), {"time_step_rank", ".dt_rank", NULL, NULL}, 0, 1, MAX_DIMENSION},
    {SIZE(head_dim),
     {NULL, NULL, "head_dim", ".headdim", [FORM_HYBRID] = "mamba_d_head", [FORM_NEMOTRON_H] = "mamba_head_dim"},
     0,
     1,
     MAX_DIMENSION},
    {SIZE(n_groups),
     {NULL, NULL, "n_groups", ".ngroups", [FORM_HYBRID] = "mamba_n_groups", [FORM_NEMOTRON_H] = "n_groups"},
     1,
     1,
     MAX_DIMENSION},
    {SIZE(d_mlp), {NULL, NULL, NULL, NULL}, 0, 0, MAX_DIMENSION},
    {SIZE(attention_heads),
     {NULL, [FORM_HYBRID] = "num_attention_heads", [FORM_NEMOTRON_H] = "num_attention_heads"},
     0,
     1,
     MAX_DIMENSION},
    {SIZE(kv_heads),
     {NULL, [FORM_HYBRID] = "num_key_value_heads", [FORM_NEMOTRON_H] = "num_key_value_heads"},
     0,
     1,
     MAX_DIMENSION},
    {SIZE(attention_head_dim), {NULL, [FORM_NEMOTRON_H] = "head_dim"}, 0, 1, MAX_DIMENSION},
    {SIZE(rotary_dim), {NULL}, 0, 1, MAX_DIMENSION},
    {SIZE(attention_window), {NULL}, 0, 0, INT32_MAX},
#undef SIZE
};

static const struct {
  size_t member;
  const char *name, *keys[FILE_FORMS];
  float standard;
} reals[] = {
#define REAL(member) offsetof(clm_model_config, member), #member
    {REAL(norm_epsilon),
     {"layer_norm_epsilon", "norm_epsilon", "layer_norm_epsilon",
      "norm_epsilon", [FORM_HYBRID] = "rms_norm_eps", [FORM_NEMOTRON_H] = "layer_norm_epsilon"},
     1e-5f}, /* the original has always 1e-5 */
    {REAL(dt_min),
     {"time_step_min", ".dt_min", "time_step_min", ".dt_min", [FORM_NEMOTRON_H] = "time_step_min"},
     1e-3f},
    {REAL(dt_max),
     {"time_step_max", ".dt_max", "time_step_max", ".dt_max", [FORM_NEMOTRON_H] = "time_step_max"},
     0.1f},
    {REAL(dt_floor),
     {"time_step_floor", ".dt_init_floor", "time_step_floor",
      ".dt_init_floor", [FORM_NEMOTRON_H] = "time_step_floor"},
     1e-4f},
    {REAL(embedding_range),
     {"initializer_range", NULL, "initializer_range",
      NULL, [FORM_HYBRID] = "initializer_range", [FORM_NEMOTRON_H] = "initializer_range"},
     0.02f},
    {REAL(mixer_norm_epsilon), {"mixer_rms_eps", NULL, NULL, NULL}, 1e-6f},
    {REAL(residual_scale), {NULL, NULL, NULL, NULL}, 1},
    {REAL(dt_limit_low), {NULL, NULL, NULL, NULL}, 0},
    {REAL(dt_limit_high), {NULL, NULL, NULL, NULL}, 0},
    {REAL(expert_scale), {NULL, NULL, NULL, NULL}, 1},
    {REAL(rope_theta), {NULL}, 0},
    {REAL(attention_scale), {NULL}, 0},
    {REAL(logit_scale), {NULL}, 1},
#undef REAL
};

/* Flags, and the value of the forms' keys at which each is set. */
static const struct {
  size_t member;
  const char *name, *keys[FILE_FORMS];
  bool set_when;
} flags[] = {
#define FLAG(member) offsetof(clm_model_config, member), #member
    {FLAG(projection_bias),
     {"use_bias", ".bias", "use_bias", ".bias", [FORM_HYBRID] = "mamba_proj_bias", [FORM_NEMOTRON_H] = "use_bias"},
     true},
    {FLAG(no_conv_bias),
     {"use_conv_bias", ".conv_bias", "use_conv_bias",
      ".conv_bias", [FORM_HYBRID] = "mamba_conv_bias", [FORM_NEMOTRON_H] = "use_conv_bias"},
     false},
    {FLAG(untied_head),
     {"tie_word_embeddings", "tie_embeddings", "tie_word_embeddings",
      "tie_embeddings", [FORM_HYBRID] = "tie_word_embeddings", [FORM_NEMOTRON_H] = "tie_word_embeddings"},
     false},
    {FLAG(layer_norm), {NULL, "rms_norm", NULL, "rms_norm"}, false},
    {FLAG(mixer_norm), {NULL, NULL, NULL, NULL}, true},
    {FLAG(mixer_norm_weights), {NULL}, true},
    {FLAG(D_per_channel), {NULL, NULL, NULL, ".D_has_hdim"}, true},
    {FLAG(norm_before_gate), {NULL, NULL, NULL, ".norm_before_gate"}, true},
    {FLAG(no_gated_norm), {NULL, NULL, NULL, ".rmsnorm"}, false},
    {FLAG(attention_bias), {NULL, [FORM_HYBRID] = "attention_bias"}, true},
    {FLAG(rope_interleaved), {NULL}, true},
    {FLAG(qk_norm), {NULL}, true},
#undef FLAG
};

#define COUNT(table)         (sizeof(table) / sizeof *(table))
#define MEMBER(type, c, row) (*(type *)(void *)((char *)(c) + (row).member))
#define KEY(row, form)       ((form) == FORM_OWN ? (row).name : (row).keys[form])

/* A number whose default is 0 may be 0. */
static bool is_allowed(double value, float standard) { return standard == 0 ? value >= 0 : value > 0; }

clm_status members_complete(clm_context *ctx, clm_model_config *c) {
  for (size_t i = 0; i < COUNT(sizes); i++) {
    int64_t *value = &MEMBER(int64_t, c, sizes[i]);
    if (*value == 0) *value = sizes[i].standard;
    if (*value < sizes[i].low || *value > sizes[i].high)
      return context_fail(ctx, CLM_INVALID_ARGUMENT, "model: %s is %lld, expected %lld to %lld", sizes[i].name,
                          (long long)*value, (long long)sizes[i].low, (long long)sizes[i].high);
  }
  for (size_t i = 0; i < COUNT(reals); i++) {
    float *value = &MEMBER(float, c, reals[i]);
    if (*value == 0) *value = reals[i].standard;
    if (!is_allowed((double)*value, reals[i].standard) || !isfinite(*value))
      return context_fail(ctx, CLM_INVALID_ARGUMENT, "model: %s is %g, expected a positive number", reals[i].name,
                          (double)*value);
  }
  return CLM_OK;
}

clm_status members_bad_key(clm_context *ctx, const char *path, const char *key, const char *expected) {
  return context_fail(ctx, CLM_BAD_FORMAT, "%s: \"%s\" is not %s", path, key, expected);
}

static bool is_nested(const char *key) { return *key == '.'; }

static const char *name_of(const char *key) { return key + is_nested(key); }

const json_t *members_find(const json_t *json, const char *key) {
  if (!key) return NULL;
  const json_t *value = json_object_get(is_nested(key) ? json_object_get(json, "ssm_cfg") : json, name_of(key));
  return json_is_null(value) ? NULL : value;
}

clm_status members_read(clm_context *ctx, const char *path, const json_t *json, config_form f, clm_model_config *c) {
  for (size_t i = 0; i < COUNT(sizes); i++) {
    const char *key = KEY(sizes[i], f);
    const json_t *value = members_find(json, key);
    if (!value || strcmp(json_string_value(value) ? json_string_value(value) : "", "auto") == 0) continue;
    if (!json_is_integer(value) || json_integer_value(value) < sizes[i].low)
      return members_bad_key(ctx, path, name_of(key),
                             sizes[i].low ? "a whole number of at least 1" : "a whole number of at least 0");
    MEMBER(int64_t, c, sizes[i]) = json_integer_value(value);
  }
  for (size_t i = 0; i < COUNT(reals); i++) {
    const char *key = KEY(reals[i], f);
    const json_t *value = members_find(json, key);
    if (!value) continue;
    double number;
    if (!json_to_double(value, &number) || !is_allowed(number, reals[i].standard))
      return members_bad_key(ctx, path, name_of(key), "a positive number");
    MEMBER(float, c, reals[i]) = (float)number;
  }
  for (size_t i = 0; i < COUNT(flags); i++) {
    const char *key = KEY(flags[i], f);
    const json_t *value = members_find(json, key);
    if (!value) continue;
    if (!json_is_boolean(value)) return members_bad_key(ctx, path, name_of(key), "true or false");
    MEMBER(bool, c, flags[i]) = json_boolean_value(value) == (f == FORM_OWN || flags[i].set_when);
  }
  return CLM_OK;
}

clm_status members_read_limits(clm_context *ctx, const char *path, const json_t *json, const char *key,
                               clm_model_config *c) {
  const json_t *pair = members_find(json, key);
  double low, high;
  if (!pair) return CLM_OK;
  if (json_array_size(pair) != 2 || !json_to_double(json_array_get(pair, 0), &low) ||
      !json_to_double(json_array_get(pair, 1), &high) || !(low <= high) || !(high > 0) || isinf(low))
    return members_bad_key(ctx, path, name_of(key), "two numbers, the lower limit first");
  c->dt_limit_low = low > 0 ? (float)low : 0; /* what softplus gives is positive */
  c->dt_limit_high = isinf(high) ? 0 : (float)high;
  return CLM_OK;
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

int members_write(const clm_model_config *c, config_form f, json_t *json) {
  int failed = json ? 0 : -1;
  for (size_t i = 0; i < COUNT(sizes); i++)
    failed |= set(json, KEY(sizes[i], f), json_integer(MEMBER(const int64_t, c, sizes[i])));
  for (size_t i = 0; i < COUNT(reals); i++)
    failed |= set(json, KEY(reals[i], f), json_real(shortest(MEMBER(const float, c, reals[i]))));
  for (size_t i = 0; i < COUNT(flags); i++) {
    const bool set_when = f == FORM_OWN || flags[i].set_when;
    failed |= set(json, KEY(flags[i], f), json_boolean(MEMBER(const bool, c, flags[i]) == set_when));
  }
  return failed;
}

const char *members_dtype(clm_dtype dtype) {
  return dtype == CLM_F16 ? "float16" : dtype == CLM_BF16 ? "bfloat16" : "float32";
}

int members_write_limits(const clm_model_config *c, const char *key, json_t *json) {
  if (c->dt_limit_low == 0 && c->dt_limit_high == 0) return 0; /* every form's default */
  json_t *high =
      c->dt_limit_high > 0 ? json_real(shortest(c->dt_limit_high)) : json_pack("{s:s}", "__float__", "Infinity");
  return set(json, key, json_pack("[f, o]", shortest(c->dt_limit_low), high));
}
