/* Options of a run: defaults, ranges, the schedule they describe, and the presets. */
#include "core/context.h"
#include "train/trainer.h"
#include <math.h>
#include <stddef.h>

#define INFINITE 1e300

static const struct {
  size_t member;
  const char *name;
  double standard, low, high;
  bool whole;
} ranges[] = {
#define ROW(member) offsetof(clm_train_options, member), #member
    {ROW(batch), 16, 1, 1 << 20, true},
    {ROW(length), 256, 1, 1 << 24, true},
    {ROW(accumulate), 1, 1, 1 << 20, true},
    {ROW(steps), 0, 0, INFINITE, true},
    {ROW(minutes), 0, 0, INFINITE, false},
    {ROW(lr), 3e-3, 0, 10, false},
    {ROW(lr_end), 0, 0, 1, false},
    {ROW(warmup), 0.03, 0, 1, false},
    {ROW(beta1), 0.9, 0, 0.999999, false},
    {ROW(beta2), 0.95, 0, 0.999999, false},
    {ROW(weight_decay), 0.1, -INFINITE, 100, false},
    {ROW(clip), 1, -INFINITE, INFINITE, false},
    {ROW(dropout), 0, -INFINITE, 0.99, false},
    {ROW(validation_tokens), 0, 0, INFINITE, true},
#undef ROW
};

clm_status train_options_complete(clm_context *ctx, clm_train_options *o) {
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
    void *member = (char *)o + ranges[i].member;
    int64_t *whole = ranges[i].whole ? member : NULL;
    double *real = ranges[i].whole ? NULL : member;
    if (whole && *whole == 0) *whole = (int64_t)ranges[i].standard;
    if (real && *real == 0) *real = ranges[i].standard;
    double value = whole ? (double)*whole : *real;
    if (!(value >= ranges[i].low && value <= ranges[i].high))
      return context_fail(ctx, CLM_INVALID_ARGUMENT, "training: %s is %g, expected %g to %g", ranges[i].name, value,
                          ranges[i].low, ranges[i].high);
  }
  if (o->batch > (int64_t)INT32_MAX / o->length)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "training: batch %lld times length %lld is more than 2^31 tokens",
                        (long long)o->batch, (long long)o->length);
  if (o->activations != CLM_F32 && o->activations != CLM_BF16 && o->activations != CLM_F16)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "training: activations is %s, expected f32, bf16 or f16",
                        clm_dtype_name(o->activations));
  if ((o->steps > 0) == (o->minutes > 0))
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "training: give either steps or minutes");
  return CLM_OK;
}

double schedule_lr(const clm_train_options *o, double fraction) {
  if (fraction < o->warmup) return o->lr * fraction / o->warmup;
  double rest = o->warmup < 1 ? fmin((fraction - o->warmup) / (1 - o->warmup), 1) : 1;
  double cosine = 0.5 * (1 + cos(3.14159265358979323846 * rest));
  return o->lr * (o->lr_end + (1 - o->lr_end) * cosine);
}

/* The published sizes of Mamba-2 (130 million to 2.7 billion parameters with their vocabulary of 50,288), over bytes.
 */
#define MAMBA2_PRESET(size, width, layers_, rate)                                                                    \
  {                                                                                                                  \
    .name = "mamba2-" size, .description = "the layers of mamba2-" size " over bytes: for a GPU",                    \
    .vocabulary = CLM_VOCABULARY_BYTE,                                                                               \
    .model = {.d_model = width, .n_layer = layers_, .d_state = 128, .layers = "mamba2"},                             \
    .train = {.batch = 8, .length = 1024, .lr = rate, .dropout = 0.1},                                               \
  }

static const clm_train_preset presets[] = {
    {
        .name = "char-small",
        .description = "0.7 million parameters: readable text after three minutes on two cores",
        .vocabulary = CLM_VOCABULARY_CHAR,
        .model = {.d_model = 160, .n_layer = 4, .d_state = 16},
        .train = {.batch = 8, .length = 128, .lr = 6e-3},
    },
    {
        .name = "char-mamba2",
        .description = "as char-small, of Mamba-2 layers and as many parameters",
        .vocabulary = CLM_VOCABULARY_CHAR,
        .model = {.d_model = 160, .n_layer = 4, .d_state = 64, .layers = "mamba2"},
        .train = {.batch = 8, .length = 128, .lr = 6e-3},
    },
    {
        .name = "hybrid-small",
        .description = "0.8 million parameters of Mamba-2, attention and MLPs, as Bamba has them",
        .vocabulary = CLM_VOCABULARY_CHAR,
        .model = {.d_model = 128,
                  .d_state = 64,
                  .attention_heads = 4,
                  .kv_heads = 2,
                  .rotary_dim = 16,
                  .rope_theta = 10000,
                  .layers =
                      "mamba2 mlp(width=256) mamba2 mlp(width=256) attention mlp(width=256) mamba2 mlp(width=256)"},
        .train = {.batch = 8, .length = 128, .lr = 6e-3},
    },
    {
        .name = "char-quick",
        .description = "0.2 million parameters: for a first try of one or two minutes",
        .vocabulary = CLM_VOCABULARY_CHAR,
        .model = {.d_model = 96, .n_layer = 3, .d_state = 8},
        .train = {.batch = 8, .length = 128, .lr = 8e-3},
    },
    {
        .name = "char-medium",
        .description = "1.5 million parameters: for a GPU, or an hour on a CPU",
        .vocabulary = CLM_VOCABULARY_CHAR,
        .model = {.d_model = 192, .n_layer = 6, .d_state = 16},
        .train = {.batch = 64, .length = 256, .lr = 3e-3, .dropout = 0.1},
    },
    {
        .name = "byte-medium",
        .description = "as char-medium over bytes: any file at all",
        .vocabulary = CLM_VOCABULARY_BYTE,
        .model = {.d_model = 192, .n_layer = 6, .d_state = 16},
        .train = {.batch = 64, .length = 256, .lr = 3e-3, .dropout = 0.1},
    },
    {
        .name = "tiny",
        .description = "ten thousand parameters: for tests",
        .vocabulary = CLM_VOCABULARY_CHAR,
        .model = {.d_model = 16, .n_layer = 2, .d_state = 4},
        .train = {.batch = 4, .length = 32, .lr = 1e-2},
    },
    MAMBA2_PRESET("130m", 768, 24, 6e-4),
    MAMBA2_PRESET("370m", 1024, 48, 3e-4),
    MAMBA2_PRESET("780m", 1536, 48, 2.5e-4),
    MAMBA2_PRESET("1.3b", 2048, 48, 2e-4),
    MAMBA2_PRESET("2.7b", 2560, 64, 1.6e-4),
};

const clm_train_preset *clm_train_presets(size_t *count) {
  if (count) *count = sizeof presets / sizeof *presets;
  return presets;
}
