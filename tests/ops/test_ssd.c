/* SSD, forward and backward. */
#include "problem.h"
#include <string.h>

TEST_OP(ssd);
TEST_OP(ssd_backward);

enum {
  HAS_D = 1,
  WIDE_D = 2, /* D of (n_heads, head_dim) */
  HAS_Z = 4,
  BIAS = 8,
  SOFTPLUS = 16,
  LOG_A = 32,
  LIMITS = 64,
  INITIAL = 128,
  FINAL = 256,
  SEQ = 512,     /* seq_idx: sequences of many lengths, and padding */
  PACKED = 1024, /* cu_seqlens: states have TEST_SEQUENCES rows     */
  REVERSE = 2048,
  F16 = 4096,
  BF16 = 8192,   /* and weights as x */
  JUMPS = 16384, /* steps from almost none to so large that nothing is left of the state */
  NOT_SLOW = 32768,
  MAMBA = HAS_D | BIAS | SOFTPLUS | LOG_A,
  STATES = INITIAL | FINAL,
};

typedef struct ssd_case {
  int64_t batch, length, n_heads, head_dim, n_groups, d_state;
  unsigned flags;
  test_layout layout;
  int64_t chunk;
  const char *why;
} ssd_case;

static const ssd_case cases[] = {
    /* batch length n_heads head_dim n_groups d_state */
    {1, 1, 1, 1, 1, 1, 0, TEST_CONTIGUOUS, 0, "smallest"},
    {1, 2, 2, 3, 1, 5, HAS_D | FINAL, TEST_CONTIGUOUS, 0, "two steps"},
    {2, 7, 3, 4, 3, 8, SOFTPLUS | STATES, TEST_CONTIGUOUS, 0, "a group for each head"},
    {1, 64, 4, 16, 1, 16, MAMBA | STATES, TEST_CONTIGUOUS, 0, "one whole piece"},
    {2, 129, 4, 8, 2, 16, MAMBA | HAS_Z | STATES, TEST_CONTIGUOUS, 0, "one past two pieces, two groups"},
    {1, 200, 2, 64, 1, 128, MAMBA | STATES, TEST_CONTIGUOUS, 0, "a head of Mamba-2"},
    {1, 70, 3, 80, 1, 96, MAMBA | HAS_Z | NOT_SLOW, TEST_CONTIGUOUS, 0, "head_dim 80, 96 states"},
    {1, 40, 1, 128, 1, 256, MAMBA | WIDE_D | STATES | NOT_SLOW, TEST_CONTIGUOUS, 0, "head_dim 128, 256 states"},
    {1, 40, 1, 250, 1, 5, MAMBA | STATES | NOT_SLOW, TEST_CONTIGUOUS, 0, "head_dim 250"},
    {2, 90, 20, 4, 1, 8, MAMBA | STATES, TEST_CONTIGUOUS, 0, "many heads share a group"},
    {2, 90, 20, 3, 2, 7, MAMBA | WIDE_D | HAS_Z | LIMITS | STATES, TEST_PADDED, 0, "limits, padded rows, odd sizes"},
    {1, 66, 2, 8, 1, 16, LIMITS | BIAS | STATES, TEST_CONTIGUOUS, 0, "limits without softplus"},
    {2, 66, 4, 5, 2, 16, MAMBA | HAS_Z | STATES, TEST_TRANSPOSED, 0, "length innermost"},
    {2, 66, 4, 8, 2, 16, MAMBA | WIDE_D | STATES, TEST_WIDE, 0, "slices of wider tensors"},
    {1, 34, 4, 8, 1, 16, MAMBA | HAS_Z | STATES, TEST_SPREAD, 0, "every other element"},
    {3, 34, 4, 8, 1, 16, MAMBA | STATES, TEST_REPEATED, 0, "one batch row read for all"},
    {1, 100, 4, 8, 1, 16, MAMBA | STATES, TEST_CONTIGUOUS, 7, "chunks of 7"},
    {1, 150, 4, 8, 1, 16, MAMBA | STATES | REVERSE, TEST_CONTIGUOUS, 97, "chunks of 97, reversed"},
    {1, 300, 2, 8, 1, 16, MAMBA | STATES, TEST_CONTIGUOUS, 256, "chunks of 256"},
    {1, 30, 2, 8, 1, 16, MAMBA | STATES, TEST_CONTIGUOUS, 1 << 30, "a chunk longer than the sequence"},
    {1, 70, 8, 8, 8, 16, MAMBA | HAS_Z | STATES, TEST_CONTIGUOUS, 0, "eight groups"},
    {1, 70, 8, 8, 4, 16, MAMBA | LIMITS | SEQ | STATES, TEST_CONTIGUOUS, 32, "four groups, limits, sequences"},
    {1, 1500, 2, 8, 1, 8, MAMBA | HAS_Z | STATES | NOT_SLOW, TEST_CONTIGUOUS, 0, "long"},
    {1, 100, 3, 8, 1, 16, SOFTPLUS | LOG_A | HAS_D | JUMPS | STATES, TEST_CONTIGUOUS, 0, "jumps"},
    {2, 150, 4, 8, 2, 16, MAMBA | HAS_Z | SEQ | STATES, TEST_CONTIGUOUS, 0, "sequences and padding"},
    {2, 150, 4, 8, 2, 16, MAMBA | SEQ | F16 | STATES | REVERSE, TEST_CONTIGUOUS, 40,
     "sequences and padding, f16, reversed, chunks of 40"},
    {1, 400, 3, 8, 1, 16, MAMBA | HAS_Z | PACKED | STATES, TEST_CONTIGUOUS, 0, "packed"},
    {1, 400, 3, 8, 1, 16, MAMBA | PACKED | BF16 | STATES | REVERSE, TEST_TRANSPOSED, 40,
     "packed, bf16, reversed, chunks of 40"},
    {1, 6, 3, 8, 1, 16, MAMBA | PACKED | STATES, TEST_CONTIGUOUS, 0, "packed, almost nothing"},
    {2, 70, 4, 8, 1, 16, MAMBA | HAS_Z | F16 | STATES, TEST_PADDED, 0, "f16"},
    {2, 70, 4, 8, 1, 16, MAMBA | HAS_Z | WIDE_D | BF16 | STATES, TEST_CONTIGUOUS, 0, "bf16"},
    {1, 200, 2, 64, 1, 128, MAMBA | BF16 | STATES | NOT_SLOW, TEST_CONTIGUOUS, 0, "a head of Mamba-2, bf16"},
    {1, 150, 1, 80, 1, 96, MAMBA | HAS_Z | BF16 | STATES | NOT_SLOW, TEST_CONTIGUOUS, 70,
     "head_dim 80, 96 states, bf16, chunks of 70"},
    {1, 400, 3, 8, 1, 16, MAMBA | HAS_Z | PACKED | BF16 | STATES, TEST_CONTIGUOUS, 40, "packed, bf16, chunks of 40"},
    {4, 40, 50, 8, 2, 16, MAMBA | BF16 | STATES, TEST_CONTIGUOUS, 16, "many rows, bf16"},
};

static const char *const contained[] = {"one past two pieces, two groups", "sequences and padding",
                                        "sequences and padding, f16, reversed, chunks of 40", "packed",
                                        "packed, bf16, reversed, chunks of 40"};

static const ssd_case *case_named(const char *why) {
  for (size_t i = 0; i < TEST_COUNT(cases); i++)
    if (strcmp(cases[i].why, why) == 0) return &cases[i];
  abort();
}

static clm_ssd_args args_of(const ssd_case *c) {
  return (clm_ssd_args){
      .dt_min = c->flags & LIMITS ? 0.05f : 0,
      .dt_max = c->flags & LIMITS ? 0.5f : 0,
      .chunk = c->chunk,
      .dt_softplus = c->flags & SOFTPLUS,
      .A_is_log = c->flags & LOG_A,
      .reverse = c->flags & REVERSE,
  };
}

static double draw_jump(test_random *r) {
  static const double steps[] = {-100, -30, -18, -5, 0, 1, 19.999, 20, 20.001, 60, 1e4};
  return steps[random_below(r, (int64_t)TEST_COUNT(steps))];
}

#define SEQUENCE                      c->batch, c->length, c->n_heads, c->head_dim
#define STEP                          c->batch, c->length, c->n_heads
#define B_OR_C                        c->batch, c->length, c->n_groups, c->d_state
#define STATE                         (c->flags & PACKED ? TEST_SEQUENCES : c->batch), c->n_heads, c->head_dim, c->d_state
#define WEIGHT                        (c->flags & BF16 ? TEST_STORAGE : TEST_PARAMETER)
#define INPUT(field, kind, draw, ...) PROBLEM_ADD(&p, TEST_ROW(clm_ssd_args, field, TEST_IN, kind, draw, __VA_ARGS__))

/* The inputs; also those of the backward, whose args begin with the forward's. */
static test_problem inputs_of(const ssd_case *c, const test_op *op, const void *args) {
  test_problem p = {.op = op, .args = args, .seed = 77, .layout = c->layout, .tolerance = 1e-5};
  p.storage = c->flags & F16 ? CLM_F16 : c->flags & BF16 ? CLM_BF16 : CLM_F32;
  INPUT(x, TEST_STORAGE, NULL, SEQUENCE);
  INPUT(dt, TEST_STORAGE, c->flags & JUMPS ? draw_jump : c->flags & SOFTPLUS ? draw_raw_step : draw_step, STEP);
  INPUT(A, WEIGHT, c->flags & LOG_A ? draw_log_decay : draw_decay, c->n_heads);
  INPUT(B, TEST_STORAGE, NULL, B_OR_C);
  INPUT(C, TEST_STORAGE, NULL, B_OR_C);
  if (c->flags & WIDE_D) INPUT(D, WEIGHT, NULL, c->n_heads, c->head_dim);
  else if (c->flags & HAS_D) INPUT(D, WEIGHT, NULL, c->n_heads);
  if (c->flags & HAS_Z) INPUT(z, TEST_STORAGE, NULL, SEQUENCE);
  if (c->flags & BIAS) INPUT(dt_bias, WEIGHT, draw_step, c->n_heads);
  if (c->flags & SEQ) {
    INPUT(seq_idx, TEST_INDEX, NULL, c->batch, c->length);
    problem_find(&p, "seq_idx")->values = test_sequences(c->batch, c->length, 90);
  }
  if (c->flags & PACKED) {
    INPUT(cu_seqlens, TEST_INDEX, NULL, TEST_SEQUENCES + 1);
    problem_find(&p, "cu_seqlens")->values = test_ends(c->length);
  }
  if (c->flags & INITIAL) INPUT(initial_state, TEST_PARAMETER, NULL, STATE);
  return p;
}

static test_problem forward_of(const ssd_case *c, const clm_ssd_args *args) {
  test_problem p = inputs_of(c, &op_ssd, args);
  PROBLEM_ADD(&p, TEST_ROW(clm_ssd_args, out, TEST_OUT, TEST_STORAGE, NULL, SEQUENCE));
  if (c->flags & FINAL) PROBLEM_ADD(&p, TEST_ROW(clm_ssd_args, final_state, TEST_OUT, TEST_PARAMETER, NULL, STATE));
  return p;
}

enum {
  DX = 1,
  DDT = 2,
  DZ = 4,
  DA = 8,
  DB = 16,
  DC = 32,
  DD = 64,
  DBIAS = 128,
  DINITIAL = 256,
  OUT = 512,
  ALL = 1023
};

#define GRADIENT(field, role, kind, of, ...)                                                                         \
  PROBLEM_ADD(&p, TEST_GRADIENT(clm_ssd_backward_args, field, role, kind, of, __VA_ARGS__))

static test_problem backward_of(const ssd_case *c, const clm_ssd_backward_args *args, unsigned wanted) {
  test_problem p = inputs_of(c, &op_ssd_backward, args);
  p.tolerance = 3e-5;
  GRADIENT(dout, TEST_IN, TEST_STORAGE, out, SEQUENCE);
  if (c->flags & FINAL) GRADIENT(dfinal_state, TEST_IN, TEST_PARAMETER, final_state, STATE);
  if (wanted & DX) GRADIENT(dx, TEST_OUT, TEST_STORAGE, x, SEQUENCE);
  if (wanted & DDT) GRADIENT(ddt, TEST_OUT, TEST_STORAGE, dt, STEP);
  if (wanted & DZ && c->flags & HAS_Z) GRADIENT(dz, TEST_OUT, TEST_STORAGE, z, SEQUENCE);
  if (wanted & DA) GRADIENT(dA, TEST_OUT, WEIGHT, A, c->n_heads);
  if (wanted & DB) GRADIENT(dB, TEST_OUT, TEST_STORAGE, B, B_OR_C);
  if (wanted & DC) GRADIENT(dC, TEST_OUT, TEST_STORAGE, C, B_OR_C);
  if (wanted & DD && c->flags & WIDE_D) GRADIENT(dD, TEST_OUT, WEIGHT, D, c->n_heads, c->head_dim);
  else if (wanted & DD && c->flags & HAS_D) GRADIENT(dD, TEST_OUT, WEIGHT, D, c->n_heads);
  if (wanted & DBIAS && c->flags & BIAS) GRADIENT(ddt_bias, TEST_OUT, WEIGHT, dt_bias, c->n_heads);
  if (wanted & DINITIAL && c->flags & INITIAL)
    GRADIENT(dinitial_state, TEST_OUT, TEST_PARAMETER, initial_state, STATE);
  if (wanted & OUT) PROBLEM_ADD(&p, TEST_ROW(clm_ssd_backward_args, out, TEST_OUT, TEST_STORAGE, NULL, SEQUENCE));
  return p;
}

static void test_forward(const test_device *device, const void *data) {
  const clm_ssd_args args = args_of(data);
  const test_problem p = forward_of(data, &args);
  problem_check(&p, device);
}

static void test_backward(const test_device *device, const void *data) {
  const clm_ssd_backward_args args = {.forward = args_of(data)};
  const test_problem p = backward_of(data, &args, ALL);
  problem_check(&p, device);
}

/* Every subset of the options on one shape, forward and backward. */
static void test_flags(const test_device *device, const void *data) {
  (void)data;
  for (unsigned flags = 0; flags < 2 * FINAL; flags += device->slow ? 71 : 3) {
    const ssd_case c = {2, 41, 4, 6, 2, 9, flags, TEST_CONTIGUOUS, 16, "flags"};
    test_forward(device, &c);
    test_backward(device, &c);
  }
}

/* Each gradient alone, and each missing alone. */
static void test_some_gradients(const test_device *device, const void *data) {
  const clm_ssd_backward_args args = {.forward = args_of(data)};
  for (unsigned bit = 1; bit < ALL; bit *= device->slow ? 4 : 2) {
    const test_problem alone = backward_of(data, &args, bit), others = backward_of(data, &args, ALL & ~bit);
    problem_check(&alone, device);
    problem_check(&others, device);
  }
}

static void test_gradients(const test_device *device, const void *data) {
  (void)device;
  const clm_ssd_backward_args args = {.forward = args_of(data)};
  const test_problem forward = forward_of(data, &args.forward);
  const test_problem backward = backward_of(data, &args, ALL & ~(unsigned)OUT);
  problem_check_gradients(&forward, &backward, 16);
}

static void test_contained(const test_device *device, const void *data) {
  const clm_ssd_backward_args args = {.forward = args_of(data)};
  const test_problem forward = forward_of(data, &args.forward), backward = backward_of(data, &args, ALL);
  problem_check_contained(&forward, device);
  problem_check_contained(&backward, device);
}

static size_t forward_bytes(clm_context *context, const void *args) { return clm_ssd_workspace_size(context, args); }
static size_t backward_bytes(clm_context *context, const void *args) {
  return clm_ssd_backward_workspace_size(context, args);
}

static void test_workspace(const test_device *device, const void *data) {
  const clm_ssd_backward_args args = {.forward = args_of(data)};
  const test_problem forward = forward_of(data, &args.forward), backward = backward_of(data, &args, ALL);
  problem_check_workspace(&forward, device, forward_bytes);
  problem_check_workspace(&backward, device, backward_bytes);
}

/* ---- The reference against the equations, written out for one shape ---- */

enum { STEPS = 9, HEADS = 4, DIM = 3, GROUPS = 2, NUMBERS = 5 };

static void recurrence(test_run *run, double out[STEPS][HEADS][DIM], double state[HEADS][DIM][NUMBERS]) {
  static const char *const names[] = {"x", "dt", "A", "B", "C", "D", "z", "dt_bias", "initial_state"};
  double *v[TEST_COUNT(names)];
  for (size_t i = 0; i < TEST_COUNT(names); i++) v[i] = run_read(run, names[i]);
  memcpy(state, v[8], sizeof(double[HEADS][DIM][NUMBERS]));
  for (int t = 0; t < STEPS; t++)
    for (int h = 0; h < HEADS; h++) {
      const double *B = v[3] + (t * GROUPS + h / 2) * NUMBERS, *C = v[4] + (t * GROUPS + h / 2) * NUMBERS;
      double d = log1p(exp(v[1][t * HEADS + h] + v[7][h]));
      d = d < (double)0.05f ? (double)0.05f : d > (double)0.5f ? (double)0.5f : d;
      for (int i = 0; i < DIM; i++) {
        const int at = (t * HEADS + h) * DIM + i;
        double y = v[5][h] * v[0][at];
        for (int n = 0; n < NUMBERS; n++) {
          state[h][i][n] = exp(-d * exp(v[2][h])) * state[h][i][n] + d * v[0][at] * B[n];
          y += state[h][i][n] * C[n];
        }
        out[t][h][i] = y * v[6][at] / (1 + exp(-v[6][at]));
      }
    }
  for (size_t i = 0; i < TEST_COUNT(names); i++) free(v[i]);
}

static void test_reference_itself(const test_device *device, const void *data) {
  (void)device, (void)data;
  const ssd_case c = {1, STEPS, HEADS, DIM, GROUPS, NUMBERS, MAMBA | HAS_Z | LIMITS | STATES, TEST_CONTIGUOUS, 0, ""};
  const clm_ssd_args args = args_of(&c);
  const test_problem p = forward_of(&c, &args);
  double out[STEPS][HEADS][DIM], state[HEADS][DIM][NUMBERS];
  test_run *run = run_create(&p, test_reference, true);
  recurrence(run, out, state);
  run_call(run);
  double *got_out = run_read(run, "out"), *got_state = run_read(run, "final_state");
  for (size_t i = 0; i < sizeof out / sizeof(double); i++)
    assert_true(fabs(got_out[i] - ((double *)out)[i]) <= 1e-12 * (1 + fabs(got_out[i])));
  for (size_t i = 0; i < sizeof state / sizeof(double); i++)
    assert_true(fabs(got_state[i] - ((double *)state)[i]) <= 1e-12 * (1 + fabs(got_state[i])));
  free(got_out);
  free(got_state);
  run_destroy(run);
}

/* ---- A sequence in parts, the state carried in place ---- */

typedef struct cut {
  int64_t length, n_groups, chunk, ends[6];
  unsigned flags;
  double tolerance; /* 0: the same bits */
  const char *why;
} cut;

static const cut cuts[] = {
    {200, 2, 16, {16, 64, 200}, MAMBA, 0, "at chunks of 16"},
    {200, 2, 97, {97, 194, 200}, MAMBA | HAS_Z, 0, "at chunks of 97"},
    {200, 2, 100, {100, 200}, MAMBA | REVERSE | BF16, 0, "at chunks of 100, reversed, bf16"},
    {200, 2, 7, {7, 70, 84, 200}, MAMBA | F16 | NOT_SLOW, 0, "at chunks of 7, f16"},
    {300, 8, 64, {64, 192, 300}, MAMBA | LIMITS, 0, "at chunks of 64, limits, eight groups"},
    {600, 1, 256, {256, 512, 600}, MAMBA | HAS_Z, 0, "at chunks of 256"},
    {200, 2, 0, {1, 8, 41, 42, 97, 200}, MAMBA, 1e-5, "anywhere"},
    {200, 2, 16, {1, 17, 40, 200}, MAMBA | REVERSE, 1e-5, "not at chunks, reversed"},
    {600, 8, 256, {255, 257, 599, 600}, MAMBA | LIMITS, 1e-5, "not at chunks of 256, limits, eight groups"},
};

static void check_same(const test_run *a, const char *name_a, const test_run *b, const char *name_b,
                       double tolerance) {
  double *x = run_read(a, name_a), *y = run_read(b, name_b);
  for (size_t i = 0; i < run_values(a, name_a); i++)
    if (!(fabs(x[i] - y[i]) <= tolerance * (1 + fabs(y[i]))))
      fail_msg("%s[%zu] is %.9g in parts, %.9g whole", name_a, i, x[i], y[i]);
  free(x);
  free(y);
}

static void test_cut(const test_device *device, const void *data) {
  const cut *k = data;
  const int64_t heads = k->n_groups < 4 ? 4 : k->n_groups;
  const ssd_case c = {2, k->length, heads, 8, k->n_groups, 16, k->flags | STATES, TEST_CONTIGUOUS, k->chunk, "cut"};
  const clm_ssd_args args = args_of(&c);
  const test_problem p = forward_of(&c, &args);
  test_run *whole = run_create(&p, device->context, false), *parts = run_create(&p, device->context, false);
  run_call(whole);
  int64_t begin = 0;
  for (int i = 0; begin < c.length; begin = k->ends[i++]) {
    clm_ssd_args part = *(clm_ssd_args *)parts->args;
    clm_tensor *sequences[] = {&part.x, &part.dt, &part.B, &part.C, &part.z, &part.out};
    const int64_t from = k->flags & REVERSE ? c.length - k->ends[i] : begin;
    for (size_t j = 0; j < TEST_COUNT(sequences); j++)
      if (sequences[j]->buffer) *sequences[j] = clm_tensor_slice(*sequences[j], 1, from, k->ends[i] - begin);
    part.final_state = part.initial_state;
    assert_int_equal(clm_ssd(device->context, &part), CLM_OK);
  }
  check_same(parts, "out", whole, "out", k->tolerance);
  check_same(parts, "initial_state", whole, "final_state", k->tolerance);
  run_destroy(whole);
  run_destroy(parts);
}

static void add(void) {
  static const char *const slopes[] = {"two steps",
                                       "a group for each head",
                                       "limits, padded rows, odd sizes",
                                       "limits without softplus",
                                       "sequences and padding",
                                       "packed, almost nothing"};
  test_add(NULL, test_reference_itself, NULL, "ssd: the reference against the recurrence");
  for (size_t i = 0; i < TEST_COUNT(slopes); i++)
    test_add(NULL, test_gradients, case_named(slopes[i]), "ssd_backward: finite differences: %s", slopes[i]);
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
      if (device->slow && cases[i].flags & NOT_SLOW) continue;
      test_add(device, test_forward, &cases[i], "ssd: %s", cases[i].why);
      test_add(device, test_backward, &cases[i], "ssd_backward: %s", cases[i].why);
    }
    if (device->simulated) continue; /* minutes each: the kernels are those of the cases above */
    test_add(device, test_flags, NULL, "ssd: subsets of options");
    test_add(device, test_some_gradients, case_named("one past two pieces, two groups"),
             "ssd_backward: some gradients");
    for (size_t i = 0; i < TEST_COUNT(cuts); i++)
      if (!(device->slow && cuts[i].flags & NOT_SLOW))
        test_add(device, test_cut, &cuts[i], "ssd in parts: %s", cuts[i].why);
    for (size_t i = 0; i < TEST_COUNT(contained); i++) {
      test_add(device, test_contained, case_named(contained[i]), "ssd: NaN stays in its sequence: %s", contained[i]);
      test_add(device, test_workspace, case_named(contained[i]), "ssd: workspace: %s", contained[i]);
    }
  }
}

int main(void) { return test_main("ssd", add); }
