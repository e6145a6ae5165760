#include "bench/bench.h"
#include "common/tool.h"
#include <stdlib.h>
#include <string.h>

typedef struct choice {
  const char *name;
  int value;
} choice;

/* The value behind `text`, `absent` for NULL; -1 after the sentence for anything unknown. */
static int choose(const char *option, const char *text, int absent, const choice *choices, size_t count) {
  if (!text) return absent;
  for (size_t i = 0; i < count; i++)
    if (strcmp(choices[i].name, text) == 0) return choices[i].value;
  char list[128] = "";
  for (size_t i = 0, used = 0; i < count; i++) {
    int n = snprintf(list + used, sizeof list - used, "%s%s",
                     i == 0           ? ""
                     : i + 1 == count ? " or "
                                      : ", ",
                     choices[i].name);
    used += n > 0 ? (size_t)n : 0;
    if (used >= sizeof list) break;
  }
  tool_fail("--%s %s is unknown: it is one of %s", option, text, list);
  return -1;
}
#define CHOOSE(option, text, absent, choices)                                                                        \
  choose(option, text, absent, choices, sizeof(choices) / sizeof *(choices))

static const choice dtypes[] = {{"f32", CLM_F32}, {"bf16", CLM_BF16}, {"f16", CLM_F16}};
static const choice layouts[] = {{"bld", BENCH_BLD}, {"bdl", BENCH_BDL}};
static const choice formats[] = {{"table", BENCH_TABLE}, {"csv", BENCH_CSV}, {"json", BENCH_JSON}};
static const choice caches[] = {{"cold", 0}, {"warm", 1}};
static const choice maths[] = {{"f32", 0}, {"tf32", 1}};
static const choice weights[] = {
    {"f32", CLM_WEIGHTS_F32}, {"bf16", CLM_WEIGHTS_BF16}, {"f16", CLM_WEIGHTS_F16}, {"int8", CLM_WEIGHTS_INT8}};

/* "length=512:131072" */
static bool parse_sweep(const char *text, bench_settings *s) {
  static char name[16];
  char *colon, *end;
  const char *equals = strchr(text, '=');
  size_t n = equals ? (size_t)(equals - text) : 0;
  if (n > 0 && n < sizeof name) {
    memcpy(name, text, n);
    name[n] = '\0';
    if (!bench_dim(&s->shape, name)) return tool_fail("--sweep: there is no size \"%s\"", name), false;
    s->sweep.first = strtoll(equals + 1, &colon, 10);
    s->sweep.last = *colon == ':' ? strtoll(colon + 1, &end, 10) : s->sweep.first;
    if (*colon == '\0' || (*colon == ':' && *end == '\0'))
      if (s->sweep.first >= 1 && s->sweep.last >= s->sweep.first) {
        s->sweep.name = name;
        return true;
      }
  }
  return tool_fail("--sweep %s is not NAME=FIRST:LAST, such as length=512:131072", text), false;
}

static bool check_sizes(bench_settings *s) {
  static const char *const names[] = {"batch", "length", "dim", "state", "width", "groups", "m", "n", "k"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    long long size = *bench_dim(&s->shape, names[i]);
    if (size < 0 || size > INT32_MAX)
      return tool_fail("--%s is %lld, 1 to %d is expected", names[i], size, INT32_MAX), false;
  }
  if (s->repeat < 0 || s->repeat > 100000)
    return tool_fail("--repeat is %d, 1 to 100000 is expected", s->repeat), false;
  if (!(s->rate >= 0 && s->rate <= 1e6)) return tool_fail("--rate is %g, 0 to 1e6 is expected", s->rate), false;
  if (s->model && !bench_model_known(s->model))
    return tool_fail("--model %s is unknown: it is one of %s", s->model, bench_model_names()), false;
  if (s->prompt < 1 || s->new_tokens < 0) return tool_fail("--prompt must be at least 1, --new at least 0"), false;
  return true;
}

static bool check_op(const char *name) {
  if (!name) return tool_fail("which operation? (see mamba-bench --help)"), false;
  if (strcmp(name, "all") == 0 || strcmp(name, "limits") == 0 || bench_find_op(name)) return true;
  char list[256] = "limits";
  size_t used = strlen(list);
  for (int i = 0; bench_ops[i] && used < sizeof list; i++)
    used += (size_t)snprintf(list + used, sizeof list - used, " %s", bench_ops[i]->name);
  return tool_fail("there is no operation \"%s\"; there are: %s all", name, list), false;
}

#define SIZE(name, member, help)                                                                                     \
  { name, '\0', POPT_ARG_LONGLONG, &sizes.member, 0, help, "N" }

bool bench_options(int argc, char **argv, bench_settings *s, int *exit_status) {
  static struct {
    long long batch, length, dim, state, width, groups, m, n, k, prompt, new_tokens;
  } sizes = {.prompt = 100, .new_tokens = 100};
  static char *dtype, *layout, *format, *cache, *math, *weight, *sweep, *output, *plot, *model;
  static double rate;
  static int repeat, is_complex, check, explain;
  static const struct poptOption options[] = {
      SIZE("batch", batch, "sequences"),
      SIZE("length", length, "steps of each"),
      SIZE("dim", dim, "channels: d_inner of scan, conv and update, d_model of block, embed_dim of backbone-step"),
      SIZE("state", state, "states of a channel (d_state)"),
      SIZE("width", width, "taps of the convolution"),
      SIZE("groups", groups, "groups of channels that share B and C"),
      SIZE("m", m, "rows of the product"),
      SIZE("n", n, "columns of the product"),
      SIZE("k", k, "summands of the product"),
      {"dtype", '\0', POPT_ARG_STRING, &dtype, 0, "storage (of the file for lm-load): f32 (default), bf16 or f16",
       "TYPE"},
      {"weights", '\0', POPT_ARG_STRING, &weight, 0,
       "how a model holds its matrices: f32 (default), bf16, f16 or int8", "TYPE"},
      {"math", '\0', POPT_ARG_STRING, &math, 0, "arithmetic of products: f32 (default)", "TYPE"},
      {"complex", '\0', POPT_ARG_NONE, &is_complex, 0, "complex state", NULL},
      {"layout", '\0', POPT_ARG_STRING, &layout, 0, "bld: (batch, length, channel), default; bdl: length innermost",
       "ORDER"},
      {"model", '\0', POPT_ARG_STRING, &model, 0, "preset of the lm operations", "NAME"},
      {"prompt", '\0', POPT_ARG_LONGLONG, &sizes.prompt, 0, "tokens before the first new one (lm-decode)", "N"},
      {"new", '\0', POPT_ARG_LONGLONG, &sizes.new_tokens, 0, "tokens to generate (lm-decode)", "N"},
      {"rate", '\0', POPT_ARG_DOUBLE, &rate, 0, "steps a second (backbone-step; default: one after another)", "HZ"},
      {"cache", '\0', POPT_ARG_STRING, &cache, 0, "cold (default): inputs rotate through more than the cache; warm",
       "STATE"},
      {"repeat", '\0', POPT_ARG_INT, &repeat, 0, "timed calls (default: about a second of them)", "N"},
      {"sweep", '\0', POPT_ARG_STRING, &sweep, 0, "one row for each doubling of a size, such as length=512:131072",
       "NAME=FIRST:LAST"},
      {"check", '\0', POPT_ARG_NONE, &check, 0,
       "compare with the double-precision reference; fail past the tolerance", NULL},
      {"explain", '\0', POPT_ARG_NONE, &explain, 0, "show how each operation was run, and why", NULL},
      {"format", '\0', POPT_ARG_STRING, &format, 0, "table (default), csv or json", "FORMAT"},
      {"output", '\0', POPT_ARG_STRING, &output, 0, "write the rows there", "FILE"},
      {"plot", '\0', POPT_ARG_STRING, &plot, 0, "draw the sweep, with the device's floor", "FILE.svg"},
      {NULL, '\0', POPT_ARG_INCLUDE_TABLE, tool_device_options, 0, "Device:", NULL},
      POPT_TABLEEND,
  };
  const char *op = NULL;
  if (!tool_parse(argc, argv, "mamba-bench", options, &op, exit_status)) return false;
  *exit_status = TOOL_USAGE;
  *s = (bench_settings){
      .op = op,
      .shape = {.batch = sizes.batch,
                .length = sizes.length,
                .dim = sizes.dim,
                .state = sizes.state,
                .width = sizes.width,
                .groups = sizes.groups,
                .m = sizes.m,
                .n = sizes.n,
                .k = sizes.k,
                .complex = is_complex},
      .repeat = repeat,
      .check = check,
      .explain = explain,
      .output = output,
      .plot = plot,
      .model = model,
      .prompt = sizes.prompt,
      .new_tokens = sizes.new_tokens,
      .rate = rate,
  };
  int chosen[] = {CHOOSE("dtype", dtype, CLM_F32, dtypes),
                  CHOOSE("layout", layout, BENCH_BLD, layouts),
                  CHOOSE("format", format, BENCH_TABLE, formats),
                  CHOOSE("cache", cache, 0, caches),
                  CHOOSE("math", math, 0, maths),
                  CHOOSE("weights", weight, CLM_WEIGHTS_F32, weights)};
  for (size_t i = 0; i < sizeof chosen / sizeof *chosen; i++)
    if (chosen[i] < 0) return false;
  s->shape.dtype = (clm_dtype)chosen[0];
  s->shape.layout = (bench_layout)chosen[1];
  s->format = (bench_format)chosen[2];
  s->warm = chosen[3];
  if (chosen[4]) return tool_fail("--math tf32 is not supported yet: products are exact fp32"), false;
  s->weights = (clm_weights_type)chosen[5];
  if (!check_op(op) || !check_sizes(s)) return false;
  bool whole_model = strncmp(op, "lm-", 3) == 0 || strncmp(op, "backbone-", 9) == 0;
  if (s->check && whole_model)
    return tool_fail("--check: %s has none; the tests compare whole models with the reference", op), false;
  if (s->weights != CLM_WEIGHTS_F32 && (strncmp(op, "lm-", 3) != 0 || strcmp(op, "lm-train") == 0))
    return tool_fail("--weights: only lm-prefill, lm-decode and lm-load have other than f32"), false;
  if (s->shape.dtype != CLM_F32 && whole_model && strcmp(op, "lm-load") != 0)
    return tool_fail("--dtype: %s runs in f32 only", op), false;
  return !sweep || parse_sweep(sweep, s);
}
