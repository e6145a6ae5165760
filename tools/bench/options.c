#include "bench/bench.h"
#include "common/tool.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

typedef struct choice {
  const char *name;
  int value;
} choice;

/* The value of `text`, `absent` for NULL; -1 after the message for anything unknown. */
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
static const choice kinds[] = {{"mamba1", 0}, {"mamba2", 1}};
static const choice maths[] = {
    {"f32", CLM_MATH_F32}, {"tf32", CLM_MATH_TF32}, {"bf16", CLM_MATH_BF16}, {"f16", CLM_MATH_F16}};
enum { OF_A = 1, OF_B = 2 };
static const choice transposes[] = {{"nn", 0}, {"nt", OF_B}, {"tn", OF_A}, {"tt", OF_A | OF_B}};
static const choice operands[] = {{"a", OF_A}, {"b", OF_B}, {"ab", OF_A | OF_B}};
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

const char *bench_weights_name(clm_weights_type type) {
  for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
    if (weights[i].value == (int)type) return weights[i].name;
  return "?";
}

/* One word, in quotes where a shell would take it apart. Returns how much of `text` is used then. */
static size_t add_word(char *text, size_t size, size_t used, const char *word) {
  bool plain = *word && strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=:,./+%@") ==
                            strlen(word);
  int n = snprintf(text + used, size - used, "%s%s%s%s", used ? " " : "", plain ? "" : "'", word, plain ? "" : "'");
  return n < 0 || used + (size_t)n >= size ? size - 1 : used + (size_t)n;
}

void bench_command(int argc, char **argv, char *text, size_t size) {
  size_t used = 0;
  text[0] = '\0';
  for (char **variable = environ; *variable; variable++)
    if (strncmp(*variable, "CLM_", 4) == 0) used = add_word(text, size, used, *variable);
  used = add_word(text, size, used, "mamba-bench");
  for (int i = 1; i < argc; i++) used = add_word(text, size, used, argv[i]);
}

static bool check_op(const char *name) {
  if (!name) return tool_fail("which operation? (see mamba-bench --help)"), false;
  if (strcmp(name, "all") == 0 || strcmp(name, "limits") == 0 || bench_find_op(name, NULL)) return true;
  return tool_fail("there is no operation \"%s\" (see mamba-bench --help)", name), false;
}

#define SIZE(name, member, help)                                                                                     \
  { name, '\0', POPT_ARG_LONGLONG, &sizes.member, 0, help, "N" }

static struct {
  long long batch, length, dim, heads, kv_heads, head_dim, state, width, groups, m, n, k, prompt, new_tokens;
} sizes = {.prompt = 100, .new_tokens = 100};
static char *dtype, *layout, *format, *cache, *math, *weight, *sweep, *output, *plot, *model, *kind, *transpose,
    *packed;
static double rate;
static int repeat, is_complex, check, explain;
static const struct poptOption options[] = {
    SIZE("batch", batch, "sequences"),
    SIZE("length", length, "steps of each"),
    SIZE("dim", dim, "channels: d_inner of scan, conv and update, d_model of block, embed_dim of backbone-step"),
    SIZE("heads", heads, "heads of ssd and attention"),
    SIZE("kv-heads", kv_heads, "heads of keys and values of attention"),
    SIZE("head-dim", head_dim, "channels of a head, of ssd, attention and a mamba2 block"),
    SIZE("state", state, "states of a channel (d_state)"),
    SIZE("width", width, "taps of the convolution"),
    SIZE("groups", groups, "groups of channels that share B and C"),
    SIZE("m", m, "rows of the product"),
    SIZE("n", n, "columns of the product"),
    SIZE("k", k, "summands of the product"),
    {"kind", '\0', POPT_ARG_STRING, &kind, 0, "the layer of block and block-train (default: mamba1)",
     "mamba1|mamba2"},
    {"dtype", '\0', POPT_ARG_STRING, &dtype, 0,
     "storage (of the file for lm-load, of activations for other lm operations; default: f32)", "f32|bf16|f16"},
    {"weights", '\0', POPT_ARG_STRING, &weight, 0, "how a model holds its matrices (default: f32)",
     "f32|bf16|f16|int8"},
    {"math", '\0', POPT_ARG_STRING, &math, 0, "arithmetic of products (default: f32)", "f32|tf32|bf16|f16"},
    {"transpose", '\0', POPT_ARG_STRING, &transpose, 0,
     "a and b of gemm: n, stored by rows, or t, by columns (default: nn)", "nn|nt|tn|tt"},
    {"packed", '\0', POPT_ARG_STRING, &packed, 0, "operands of gemm that are packed once, before the timing",
     "a|b|ab"},
    {"complex", '\0', POPT_ARG_NONE, &is_complex, 0, "complex state", NULL},
    {"layout", '\0', POPT_ARG_STRING, &layout, 0, "bld: (batch, length, channel), the default; bdl: length innermost",
     "bld|bdl"},
    {"model", '\0', POPT_ARG_STRING, &model, 0, "model of the lm operations", "NAME"},
    {"prompt", '\0', POPT_ARG_LONGLONG, &sizes.prompt, 0, "tokens before the first new one (lm-decode)", "N"},
    {"new", '\0', POPT_ARG_LONGLONG, &sizes.new_tokens, 0, "tokens to generate (lm-decode)", "N"},
    {"rate", '\0', POPT_ARG_DOUBLE, &rate, 0, "steps per second (backbone-step; default: one after another)", "HZ"},
    {"cache", '\0', POPT_ARG_STRING, &cache, 0,
     "cold, the default: inputs rotate through more memory than the cache has", "cold|warm"},
    {"repeat", '\0', POPT_ARG_INT, &repeat, 0, "timed calls (default: about a second of them)", "N"},
    {"sweep", '\0', POPT_ARG_STRING, &sweep, 0, "one row for each doubling of a size, such as length=512:131072",
     "NAME=FIRST:LAST"},
    {"check", '\0', POPT_ARG_NONE, &check, 0, "compare with the double-precision reference; fail past the tolerance",
     NULL},
    {"explain", '\0', POPT_ARG_NONE, &explain, 0, "show how each operation was run, and why", NULL},
    {"format", '\0', POPT_ARG_STRING, &format, 0, "format of the rows (default: table)", "table|csv|json"},
    {"output", '\0', POPT_ARG_STRING, &output, 0, "write the rows to this file", "FILE"},
    {"plot", '\0', POPT_ARG_STRING, &plot, 0, "draw the sweep, with the device's floor", "FILE.svg"},
    {NULL, '\0', POPT_ARG_INCLUDE_TABLE, tool_device_options, 0, "Device:", NULL},
    POPT_TABLEEND,
};

/* "all" and "limits" are not in the table of operations. */
static bool list_ops(size_t i, tool_entry *entry) {
  static const tool_entry others[] = {{"limits", "what the device can do: copies, exponentials, products a second"},
                                      {"all", "limits, then every operation"}};
  size_t count = 0; /* of the names */
  for (int k = 0; bench_ops[k]; k++) {
    if (bench_ops[k]->kind) continue;
    if (count++ == i) return *entry = (tool_entry){bench_ops[k]->name, bench_ops[k]->help}, true;
  }
  if (i >= count + 2) return false;
  *entry = others[i - count];
  return true;
}

static const tool_list lists[] = {
    {"Operations", NULL, list_ops}, {"Models", "model", bench_model_entry}, {NULL, NULL, NULL}};

static const tool_entry examples[] = {
    {"mamba-bench scan --check --explain", "time the selective scan, check it, show how it was run"},
    {"mamba-bench scan --sweep length=512:131072 --plot scan.svg", "draw time over length"},
    {"mamba-bench lm-decode --model 130m --weights int8", "tokens a second of a model"},
    {NULL, NULL},
};

static const tool_about about = {
    .name = "mamba-bench",
    .summary = "time the operations of clmamba",
    .description =
        "Times an operation, or all of them, and prints each time as a fraction of what the device can do: "
        "its copy rate, its exponentials and its products per second, measured in the same run. Sizes that "
        "are not given are chosen for the device.",
    .operand = "OPERATION",
    .options = options,
    .lists = lists,
    .examples = examples,
};

/* Numbers that were given: a size of 0 is not the default. */
static bool check_numbers(const bench_settings *s) {
  const struct {
    const char *name;
    const long long *value;
    long long low;
  } sizes_given[] = {{"batch", &sizes.batch, 1},
                     {"length", &sizes.length, 1},
                     {"dim", &sizes.dim, 1},
                     {"heads", &sizes.heads, 1},
                     {"kv-heads", &sizes.kv_heads, 1},
                     {"head-dim", &sizes.head_dim, 1},
                     {"state", &sizes.state, 1},
                     {"width", &sizes.width, 1},
                     {"groups", &sizes.groups, 1},
                     {"m", &sizes.m, 1},
                     {"n", &sizes.n, 1},
                     {"k", &sizes.k, 1},
                     {"prompt", &sizes.prompt, 1},
                     {"new", &sizes.new_tokens, 0}};
  for (size_t i = 0; i < sizeof sizes_given / sizeof *sizes_given; i++) {
    long long value = *sizes_given[i].value, low = sizes_given[i].low;
    if (tool_given(sizes_given[i].value) && (value < low || value > INT32_MAX))
      return tool_fail("--%s is %lld, expected %lld to %d", sizes_given[i].name, value, low, INT32_MAX), false;
  }
  if (tool_given(&repeat) && (repeat < 1 || repeat > 100000))
    return tool_fail("--repeat is %d, expected 1 to 100000", repeat), false;
  if (tool_given(&rate) && !(rate > 0 && rate <= 1e6))
    return tool_fail("--rate is %g, expected more than 0, up to 1e6", rate), false;
  if (s->model && !bench_model_known(s->model))
    return tool_fail("there is no model \"%s\" (see mamba-bench --help)", s->model), false;
  return true;
}

bool bench_options(int argc, char **argv, bench_settings *s, int *exit_status) {
  const char *op = NULL;
  if (!tool_parse(argc, argv, &about, &op, exit_status)) return false;
  *exit_status = TOOL_USAGE;
  *s = (bench_settings){
      .op = op,
      .shape = {.batch = sizes.batch,
                .length = sizes.length,
                .dim = sizes.dim,
                .heads = sizes.heads,
                .kv_heads = sizes.kv_heads,
                .head_dim = sizes.head_dim,
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
                  CHOOSE("weights", weight, CLM_WEIGHTS_F32, weights),
                  CHOOSE("transpose", transpose, 0, transposes),
                  CHOOSE("packed", packed, 0, operands),
                  CHOOSE("kind", kind, 0, kinds)};
  for (size_t i = 0; i < sizeof chosen / sizeof *chosen; i++)
    if (chosen[i] < 0) return false;
  s->shape.dtype = (clm_dtype)chosen[0];
  s->shape.layout = (bench_layout)chosen[1];
  s->format = (bench_format)chosen[2];
  s->warm = chosen[3];
  s->shape.math = (clm_math)chosen[4];
  s->shape.a_transposed = chosen[6] & OF_A;
  s->shape.b_transposed = chosen[6] & OF_B;
  s->shape.a_packed = chosen[7] & OF_A;
  s->shape.b_packed = chosen[7] & OF_B;
  s->weights = (clm_weights_type)chosen[5];
  s->kind = chosen[8] ? kind : NULL;
  bench_command(argc, argv, s->command, sizeof s->command);
  if (!check_op(op) || !check_numbers(s)) return false;
  if (kind && !bench_find_op(op, "mamba2")) return tool_fail("--kind: only block and block-train have it"), false;
  const bool products = strcmp(op, "gemm") == 0 || strcmp(op, "limits") == 0;
  if ((chosen[4] || chosen[6] || chosen[7]) && !products)
    return tool_fail("--%s: only gemm has it", chosen[4] ? "math" : chosen[6] ? "transpose" : "packed"), false;
  bool whole_model = strncmp(op, "lm-", 3) == 0 || strncmp(op, "backbone-", 9) == 0;
  if (s->check && whole_model)
    return tool_fail("--check: %s has none; the tests compare whole models with the reference", op), false;
  if (s->weights != CLM_WEIGHTS_F32 && (strncmp(op, "lm-", 3) != 0 || strcmp(op, "lm-train") == 0))
    return tool_fail("--weights: only lm-prefill, lm-decode and lm-load have other than f32"), false;
  if (s->shape.dtype != CLM_F32 && strncmp(op, "backbone-", 9) == 0)
    return tool_fail("--dtype: %s runs in f32 only", op), false;
  return !sweep || parse_sweep(sweep, s);
}
