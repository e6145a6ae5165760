/* Attention, forward and backward. */
#include "attention_torch.h"
#include "problem.h"
#include <string.h>

TEST_OP(attention);
TEST_OP(attention_backward);

enum {
  LSE = 1,
  PACKED = 2,  /* cu_seqlens */
  OFFSETS = 4, /* rows of different lengths, one with queries that see no key */
  F16 = 8,
  BF16 = 16,
  NOT_SLOW = 32,     /* large, or a program of its own where each takes seconds to compile */
  SLOW_FORWARD = 64, /* there without the gradient, whose programs take the most seconds */
};

typedef struct attention_case {
  int64_t batch, length, keys, n_heads, kv_heads, head_dim;
  unsigned flags;
  test_layout layout;
  int64_t window;
  float scale;
  const char *why;
} attention_case;

static const attention_case cases[] = {
    /* batch length keys n_heads kv_heads head_dim */
    {1, 1, 1, 1, 1, 1, LSE, TEST_CONTIGUOUS, 0, 0, "smallest"},
    {2, 3, 3, 2, 1, 5, LSE, TEST_CONTIGUOUS, 0, 0, "three steps, odd head_dim"},
    {1, 64, 64, 2, 2, 64, LSE, TEST_CONTIGUOUS, 0, 0, "head_dim 64, whole tiles"},
    {1, 130, 130, 4, 2, 20, LSE, TEST_CONTIGUOUS, 0, 0, "two heads share keys, past whole tiles"},
    {2, 33, 33, 6, 2, 80, LSE, TEST_CONTIGUOUS, 0, 0, "three heads share keys, head_dim 80"},
    {1, 40, 40, 3, 1, 96, 0, TEST_CONTIGUOUS, 0, 0, "head_dim 96"},
    {1, 35, 35, 2, 1, 128, 0, TEST_CONTIGUOUS, 0, 0, "head_dim 128"},
    {1, 20, 20, 2, 2, 256, NOT_SLOW, TEST_CONTIGUOUS, 0, 0, "head_dim 256"},
    {1, 9, 9, 300, 2, 3, LSE | NOT_SLOW, TEST_CONTIGUOUS, 0, 0, "more heads than a tile has rows"},
    {1, 300, 300, 2, 1, 16, LSE | NOT_SLOW, TEST_CONTIGUOUS, 0, 0, "long"},
    {1, 1, 200, 8, 2, 20, LSE, TEST_CONTIGUOUS, 0, 0, "a step against a cache"},
    {2, 1, 60, 4, 2, 16, LSE, TEST_CONTIGUOUS, 16, 0, "a step against a cache, window"},
    {1, 50, 170, 4, 2, 20, LSE, TEST_CONTIGUOUS, 0, 0, "a chunk of a prompt"},
    {1, 40, 25, 2, 1, 8, 0, TEST_CONTIGUOUS, 0, 0, "fewer keys than queries"},
    {3, 1, 90, 4, 1, 20, OFFSETS, TEST_CONTIGUOUS, 0, 0, "a step of rows of different lengths"},
    {3, 7, 90, 4, 4, 8, OFFSETS, TEST_CONTIGUOUS, 9, 0, "steps of rows of different lengths, window"},
    {2, 100, 100, 2, 1, 16, LSE, TEST_CONTIGUOUS, 17, 0, "window"},
    {1, 150, 150, 2, 2, 8, LSE, TEST_CONTIGUOUS, 2, 0, "window of two keys"},
    {1, 70, 70, 2, 1, 16, LSE, TEST_CONTIGUOUS, 1000, 0, "window longer than the sequence"},
    {1, 70, 70, 2, 1, 8, LSE, TEST_CONTIGUOUS, 0, 5, "large scores"},
    {1, 400, 400, 4, 2, 16, LSE | PACKED, TEST_CONTIGUOUS, 0, 0, "packed"},
    {1, 400, 400, 2, 1, 8, LSE | PACKED, TEST_PADDED, 30, 0.3f, "packed, window"},
    {1, 6, 6, 3, 1, 8, LSE | PACKED, TEST_CONTIGUOUS, 0, 0, "packed, almost nothing"},
    {2, 40, 50, 4, 2, 20, LSE, TEST_PADDED, 0, 0, "padded rows"},
    {2, 40, 50, 4, 2, 20, LSE, TEST_TRANSPOSED, 0, 0, "length innermost"},
    {2, 40, 50, 4, 2, 20, LSE, TEST_WIDE, 0, 0, "slices of wider tensors"},
    {2, 40, 50, 4, 2, 20, LSE, TEST_SPREAD, 0, 0, "every other element"},
    {3, 40, 50, 4, 2, 20, LSE, TEST_REPEATED, 0, 0, "one batch row read for all"},
    {2, 40, 50, 4, 2, 80, LSE | F16, TEST_PADDED, 20, 0, "f16, head_dim 80, padded rows, window"},
    {2, 50, 70, 4, 2, 64, LSE | F16 | NOT_SLOW, TEST_CONTIGUOUS, 0, 0, "f16"},
    {2, 50, 70, 4, 2, 20, LSE | BF16 | NOT_SLOW, TEST_PADDED, 40, 0, "bf16, window"},
    {1, 90, 90, 2, 1, 64, LSE | BF16 | PACKED | SLOW_FORWARD, TEST_TRANSPOSED, 0, 0,
     "bf16, head_dim 64, packed, length innermost"},
};

static const char *const contained[] = {"three heads share keys, head_dim 80", "window", "packed", "packed, window"};

static const attention_case *case_named(const char *why) {
  for (size_t i = 0; i < TEST_COUNT(cases); i++)
    if (strcmp(cases[i].why, why) == 0) return &cases[i];
  abort();
}

#define QUERY c->batch, c->length, c->n_heads, c->head_dim
#define KEY   c->batch, c->keys, c->kv_heads, c->head_dim
#define INPUT(field, kind, draw, ...)                                                                                \
  PROBLEM_ADD(&p, TEST_ROW(clm_attention_args, field, TEST_IN, kind, draw, __VA_ARGS__))

/* The inputs; also those of the backward, whose args begin with the forward's. */
static test_problem inputs_of(const attention_case *c, const test_op *op, const void *args) {
  static const int32_t offsets[] = {12, -3, 80};
  test_problem p = {.op = op, .args = args, .seed = 78, .layout = c->layout, .tolerance = 1e-5};
  p.storage = c->flags & F16 ? CLM_F16 : c->flags & BF16 ? CLM_BF16 : CLM_F32;
  INPUT(q, TEST_STORAGE, NULL, QUERY);
  INPUT(k, TEST_STORAGE, NULL, KEY);
  INPUT(v, TEST_STORAGE, NULL, KEY);
  if (c->flags & OFFSETS) {
    INPUT(offsets, TEST_INDEX, NULL, c->batch);
    problem_find(&p, "offsets")->values = offsets;
  }
  if (c->flags & PACKED) {
    INPUT(cu_seqlens, TEST_INDEX, NULL, TEST_SEQUENCES + 1);
    problem_find(&p, "cu_seqlens")->values = test_ends(c->length);
  }
  return p;
}

static test_problem forward_of(const attention_case *c, const clm_attention_args *args, bool lse) {
  test_problem p = inputs_of(c, &op_attention, args);
  PROBLEM_ADD(&p, TEST_ROW(clm_attention_args, out, TEST_OUT, TEST_STORAGE, NULL, QUERY));
  if (lse)
    PROBLEM_ADD(&p,
                TEST_ROW(clm_attention_args, lse, TEST_OUT, TEST_PARAMETER, NULL, c->batch, c->length, c->n_heads));
  return p;
}

enum { DQ = 1, DK = 2, DV = 4, ALL = 7 };

#define GRADIENT(field, role, of, ...)                                                                               \
  PROBLEM_ADD(&p, TEST_GRADIENT(clm_attention_backward_args, field, role, TEST_STORAGE, of, __VA_ARGS__))

/* `forward` gives out and lse. */
static test_problem backward_of(const attention_case *c, const clm_attention_backward_args *args,
                                const test_problem *forward, unsigned wanted) {
  test_problem p = inputs_of(c, &op_attention_backward, args);
  p.tolerance = 3e-5;
  INPUT(out, TEST_STORAGE, NULL, QUERY);
  INPUT(lse, TEST_PARAMETER, NULL, c->batch, c->length, c->n_heads);
  problem_find(&p, "out")->made_by = problem_find(&p, "lse")->made_by = forward;
  GRADIENT(dout, TEST_IN, out, QUERY);
  if (wanted & DQ) GRADIENT(dq, TEST_OUT, q, QUERY);
  if (wanted & DK) GRADIENT(dk, TEST_OUT, k, KEY);
  if (wanted & DV) GRADIENT(dv, TEST_OUT, v, KEY);
  return p;
}

static clm_attention_args args_of(const attention_case *c) {
  return (clm_attention_args){.scale = c->scale, .window = c->window};
}

static void test_forward(const test_device *device, const void *data) {
  const attention_case *c = data;
  const clm_attention_args args = args_of(c);
  const test_problem p = forward_of(c, &args, c->flags & LSE);
  problem_check(&p, device);
}

static void test_backward(const test_device *device, const void *data) {
  const clm_attention_backward_args args = {.forward = args_of(data)};
  const test_problem forward = forward_of(data, &args.forward, true);
  const test_problem p = backward_of(data, &args, &forward, ALL);
  problem_check(&p, device);
}

/* Each gradient alone, and each missing alone. */
static void test_some_gradients(const test_device *device, const void *data) {
  const clm_attention_backward_args args = {.forward = args_of(data)};
  const test_problem forward = forward_of(data, &args.forward, true);
  for (unsigned bit = 1; bit < ALL; bit *= 2) {
    const test_problem alone = backward_of(data, &args, &forward, bit);
    const test_problem others = backward_of(data, &args, &forward, ALL & ~bit);
    problem_check(&alone, device);
    problem_check(&others, device);
  }
}

static void test_gradients(const test_device *device, const void *data) {
  (void)device;
  const clm_attention_backward_args args = {.forward = args_of(data)};
  const test_problem forward = forward_of(data, &args.forward, true);
  const test_problem backward = backward_of(data, &args, &forward, ALL);
  problem_check_gradients(&forward, &backward, 16);
}

static void test_contained(const test_device *device, const void *data) {
  const clm_attention_backward_args args = {.forward = args_of(data)};
  const test_problem forward = forward_of(data, &args.forward, true);
  const test_problem backward = backward_of(data, &args, &forward, ALL);
  problem_check_contained(&forward, device);
  problem_check_contained(&backward, device);
}

/* Queries that see no key: out is 0, lse -infinity, gradients 0, though what lies in the cache is not a number. */
static void test_unseen(const test_device *device, const void *data) {
  (void)data;
  static const attention_case c = {3, 2, 90, 4, 2, 8, OFFSETS, TEST_CONTIGUOUS, 0, 0, "unseen"};
  const clm_attention_backward_args args = {.forward = args_of(&c)};
  const test_problem forward = forward_of(&c, &args.forward, true);
  const test_problem backward = backward_of(&c, &args, &forward, ALL);
  test_run *run = run_create(&forward, device->context, false);
  const size_t cached = (size_t)(c.keys * c.kv_heads * c.head_dim), row = (size_t)(c.length * c.n_heads);
  static const char *const inputs[] = {"k", "v"};
  for (size_t n = 0; n < TEST_COUNT(inputs); n++) {
    double *values = run_read(run, inputs[n]);
    for (size_t i = 0; i < cached; i++) /* past the last query of row 0, all of row 1 */
      if (i >= (size_t)(14 * c.kv_heads * c.head_dim)) values[i] = (double)NAN;
    for (size_t i = cached; i < 2 * cached; i++) values[i] = (double)NAN;
    run_write(run, inputs[n], values);
    free(values);
  }
  run_call(run);
  double *out = run_read(run, "out"), *lse = run_read(run, "lse");
  for (size_t i = 0; i < 3 * row; i++) {
    const bool unseen = i / row == 1;
    assert_true(unseen ? lse[i] == -(double)INFINITY : isfinite(lse[i]));
    for (size_t p = 0; p < (size_t)c.head_dim; p++) {
      const double x = out[i * (size_t)c.head_dim + p];
      assert_true(unseen ? x == 0 : isfinite(x));
    }
  }
  free(out);
  free(lse);
  run_destroy(run);
  problem_check(&backward, device);
}

/* ---- Against torch ---- */

static void fill(const test_run *run, const char *name, double phase) {
  const size_t count = run_values(run, name);
  double *values = malloc(count * sizeof *values);
  if (!values) abort();
  for (size_t i = 0; i < count; i++) values[i] = sin(0.7 * (double)i + phase);
  run_write(run, name, values);
  free(values);
}

static void check_values(const test_run *run, const char *name, const double *want) {
  double *got = run_read(run, name);
  for (size_t i = 0; i < run_values(run, name); i++)
    if (!(fabs(got[i] - want[i]) <= 1e-12 * (1 + fabs(want[i]))))
      fail_msg("%s[%zu] is %.17g, torch gives %.17g", name, i, got[i], want[i]);
  free(got);
}

static void test_torch(const test_device *device, const void *data) {
  (void)device;
  const struct torch_case *t = data;
  const attention_case c = {1,   t->length,       t->keys,   t->n_heads, t->kv_heads, t->head_dim,
                            LSE, TEST_CONTIGUOUS, t->window, t->scale,   t->why};
  const clm_attention_backward_args args = {.forward = args_of(&c)};
  const test_problem fp = forward_of(&c, &args.forward, true), bp = backward_of(&c, &args, &fp, ALL);
  test_run *forward = run_create(&fp, test_reference, true), *backward = run_create(&bp, test_reference, true);
  static const struct {
    const char *name;
    double phase;
  } inputs[] = {{"q", 0.1}, {"k", 0.5}, {"v", 1.1}, {"dout", 1.7}};
  for (size_t i = 0; i < TEST_COUNT(inputs); i++) {
    if (i < 3) fill(forward, inputs[i].name, inputs[i].phase);
    fill(backward, inputs[i].name, inputs[i].phase);
  }
  run_call(forward);
  check_values(forward, "out", t->out);
  static const char *const kept[] = {"out", "lse"};
  for (size_t i = 0; i < TEST_COUNT(kept); i++) {
    double *values = run_read(forward, kept[i]);
    run_write(backward, kept[i], values);
    free(values);
  }
  run_call(backward);
  check_values(backward, "dq", t->dq);
  check_values(backward, "dk", t->dk);
  check_values(backward, "dv", t->dv);
  run_destroy(forward);
  run_destroy(backward);
}

static void add(void) {
  static const char *const slopes[] = {"three steps, odd head_dim", "a step against a cache, window",
                                       "steps of rows of different lengths, window", "packed, almost nothing",
                                       "fewer keys than queries"};
  for (size_t i = 0; i < TEST_COUNT(torch_cases); i++)
    test_add(NULL, test_torch, &torch_cases[i], "attention: the reference against torch: %s", torch_cases[i].why);
  for (size_t i = 0; i < TEST_COUNT(slopes); i++)
    test_add(NULL, test_gradients, case_named(slopes[i]), "attention_backward: finite differences: %s", slopes[i]);
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    for (size_t i = 0; i < TEST_COUNT(cases); i++)
      if (!device->slow || !(cases[i].flags & NOT_SLOW))
        test_add(device, test_forward, &cases[i], "attention: %s", cases[i].why);
    for (size_t i = 0; i < TEST_COUNT(cases); i++)
      if (!device->slow || !(cases[i].flags & (NOT_SLOW | SLOW_FORWARD)))
        test_add(device, test_backward, &cases[i], "attention_backward: %s", cases[i].why);
    if (device->simulated) continue; /* minutes each: the kernels are those of the cases above */
    test_add(device, test_unseen, NULL, "attention: queries that see no key");
    test_add(device, test_some_gradients, case_named("three steps, odd head_dim"),
             "attention_backward: some gradients");
    for (size_t i = 0; i < TEST_COUNT(contained); i++)
      test_add(device, test_contained, case_named(contained[i]), "attention: NaN stays in its sequence: %s",
               contained[i]);
  }
}

int main(void) { return test_main("attention", add); }
