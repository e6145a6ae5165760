/* The inside of a Mamba block: gradients against finite differences, the forward pass against the operations called
 * by hand, every level of recomputation. */
#include "core/context.h"
#include "problem.h"
#include <string.h>

TEST_OP(mamba_inner);
TEST_OP(mamba_inner_backward);

enum {
  CONV_BIAS = 1,
  DELTA_BIAS = 2,
  D = 4,
  OUT_PROJ = 8,
  OUT_BIAS = 16,
  RESIDUAL = 32,
  NORMS = 64,
  NORM_WEIGHTS = 128,
  INITIAL = 256,
  FINAL = 512,
  SEQ_IDX = 1024,
  CU_SEQLENS = 2048,
  REVERSE = 4096,
  FIXED_B = 8192,
  FIXED_C = 16384,
  COMPLEX = 32768,
  NORMS_OF_B = 65536,
  MAMBA = CONV_BIAS | DELTA_BIAS | D | OUT_PROJ,
};

typedef struct inner_case {
  int64_t batch, length, d_inner, d_state, n_groups, dt_rank, width, d_model;
  unsigned flags;
  const char *why;
} inner_case;

static const inner_case cases[] = {
    /* batch length d_inner d_state groups dt_rank width d_model flags why it is here */
    {1, 1, 1, 1, 1, 1, 2, 1, OUT_PROJ, "smallest"},
    {2, 9, 6, 4, 1, 2, 4, 3, MAMBA, "Mamba"},
    {1, 37, 24, 16, 1, 3, 4, 12, MAMBA | RESIDUAL | INITIAL | FINAL, "residual and states"},
    {2, 11, 8, 3, 2, 2, 3, 5, MAMBA | OUT_BIAS | NORMS | NORM_WEIGHTS | INITIAL | FINAL,
     "groups, norms with weights"},
    {2, 17, 12, 8, 1, 4, 4, 6, MAMBA | NORMS, "FalconMamba: norms without weights"},
    {2, 7, 5, 3, 1, 2, 4, 5, D | DELTA_BIAS | FINAL, "without out_proj"},
    {2, 13, 6, 4, 1, 2, 4, 3, MAMBA | INITIAL | FINAL | SEQ_IDX, "several sequences in a row, padding"},
    {2, 11, 6, 4, 2, 2, 4, 3, MAMBA | INITIAL | FINAL | FIXED_B, "the same B for all steps, two groups of C"},
    {2, 11, 6, 4, 1, 2, 4, 3, MAMBA | NORMS_OF_B | FIXED_C, "the same C for all steps, B with its norm"},
    {2, 11, 6, 4, 1, 2, 4, 3, MAMBA | FIXED_B | FIXED_C, "the same B and C for all steps"},
    {2, 11, 6, 4, 2, 3, 4, 3, MAMBA | INITIAL | FINAL | COMPLEX, "complex A"},
    {2, 11, 6, 5, 1, 2, 4, 3, MAMBA | FIXED_B | COMPLEX, "complex A, the same B for all steps"},
    {2, 11, 6, 4, 1, 2, 4, 3, MAMBA | FIXED_B | FIXED_C | COMPLEX, "complex A, the same B and C for all steps"},
    {1, 13, 6, 4, 1, 2, 4, 3, MAMBA | INITIAL | FINAL | CU_SEQLENS | REVERSE, "packed sequences, backwards"},
};
#define CASES (sizeof cases / sizeof cases[0])

static clm_mamba_inner_args args_of(const inner_case *c) {
  bool norms = c->flags & NORMS;
  return (clm_mamba_inner_args){.norm_epsilon = 0.01f,
                                .norm_delta = norms,
                                .norm_B = norms || c->flags & NORMS_OF_B,
                                .norm_C = norms,
                                .delta_softplus = true,
                                .A_is_log = !(c->flags & COMPLEX),
                                .reverse = c->flags & REVERSE};
}

enum { SEQUENCES = 3 };
static const int32_t ends[SEQUENCES + 1] = {0, 4, 5, 13}; /* of the one packed row */
static const int32_t numbers[] = {4, 4, 4, 1, 1, -1, 1, 1, 1, 1, 7, 7, 7, -1, -1, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, -1};

static int64_t states_of(const inner_case *c) { return c->flags & CU_SEQLENS ? SEQUENCES : c->batch; }

static int64_t part_of(const inner_case *c) { return c->n_groups * c->d_state * (c->flags & COMPLEX ? 2 : 1); }
static int64_t features_of(const inner_case *c) {
  return c->dt_rank + (!(c->flags & FIXED_B) + !(c->flags & FIXED_C)) * part_of(c);
}
static test_kind number_of(const inner_case *c) { return c->flags & COMPLEX ? TEST_COMPLEX : TEST_PARAMETER; }
static int64_t out_width(const inner_case *c) { return c->flags & OUT_PROJ ? c->d_model : c->d_inner; }

#define IN(field, kind, draw, ...)                                                                                   \
  PROBLEM_ADD(p, TEST_ROW(clm_mamba_inner_args, field, TEST_IN, kind, draw, __VA_ARGS__))
#define OUT(field, kind, ...) PROBLEM_ADD(p, TEST_ROW(clm_mamba_inner_args, field, TEST_OUT, kind, NULL, __VA_ARGS__))

static void add_inputs(test_problem *p, const inner_case *c) {
  IN(xz, TEST_STORAGE, NULL, c->batch, c->length, 2 * c->d_inner);
  IN(conv_weight, TEST_PARAMETER, draw_small, c->d_inner, c->width);
  if (c->flags & CONV_BIAS) IN(conv_bias, TEST_PARAMETER, NULL, c->d_inner);
  IN(x_proj, TEST_PARAMETER, draw_small, features_of(c), c->d_inner);
  IN(dt_proj, TEST_PARAMETER, draw_small, c->d_inner, c->dt_rank);
  if (c->flags & DELTA_BIAS) IN(delta_bias, TEST_PARAMETER, draw_raw_step, c->d_inner);
  IN(A, number_of(c), c->flags & COMPLEX ? draw_complex_decay : draw_log_decay, c->d_inner, c->d_state);
  if (c->flags & FIXED_B) IN(B, number_of(c), NULL, c->d_inner, c->d_state);
  if (c->flags & FIXED_C) IN(C, number_of(c), NULL, c->d_inner, c->d_state);
  if (c->flags & D) IN(D, TEST_PARAMETER, NULL, c->d_inner);
  if (c->flags & OUT_PROJ) IN(out_proj, TEST_PARAMETER, draw_small, c->d_model, c->d_inner);
  if (c->flags & NORM_WEIGHTS) {
    IN(delta_norm, TEST_PARAMETER, NULL, c->dt_rank);
    IN(B_norm, TEST_PARAMETER, NULL, c->d_state);
    IN(C_norm, TEST_PARAMETER, NULL, c->d_state);
  }
  if (c->flags & SEQ_IDX) {
    IN(seq_idx, TEST_INDEX, NULL, c->batch, c->length);
    problem_find(p, "seq_idx")->values = numbers;
  }
  if (c->flags & CU_SEQLENS) {
    IN(cu_seqlens, TEST_INDEX, NULL, SEQUENCES + 1);
    problem_find(p, "cu_seqlens")->values = ends;
  }
  if (c->flags & INITIAL) {
    IN(conv_initial, TEST_STORAGE, NULL, states_of(c), c->d_inner, c->width - 1);
    IN(scan_initial, number_of(c), NULL, states_of(c), c->d_inner, c->d_state);
  }
}

static test_problem forward_of(const inner_case *c, const clm_mamba_inner_args *args) {
  test_problem problem = {.op = &op_mamba_inner, .args = args, .seed = 131, .tolerance = 1e-5}, *p = &problem;
  add_inputs(p, c);
  if (c->flags & OUT_BIAS) IN(out_bias, TEST_PARAMETER, NULL, c->d_model);
  if (c->flags & RESIDUAL) IN(residual, TEST_STORAGE, NULL, c->batch, c->length, c->d_model);
  OUT(out, TEST_STORAGE, c->batch, c->length, out_width(c));
  if (c->flags & FINAL) {
    OUT(conv_final, TEST_STORAGE, states_of(c), c->d_inner, c->width - 1);
    OUT(scan_final, number_of(c), states_of(c), c->d_inner, c->d_state);
  }
  return problem;
}

static void add_kept(test_problem *p, const inner_case *c, test_role role, unsigned kept) {
  const test_tensor tensors[] = {
      TEST_ROW(clm_mamba_inner_args, u, role, TEST_STORAGE, NULL, c->batch, c->length, c->d_inner),
      TEST_ROW(clm_mamba_inner_args, delta, role, TEST_STORAGE, NULL, c->batch, c->length, c->d_inner),
      TEST_ROW(clm_mamba_inner_args, dbc, role, TEST_STORAGE, NULL, c->batch, c->length, features_of(c))};
  for (unsigned i = 0; i < 3; i++)
    if (kept >> i & 1) problem_add(p, tensors[i]);
}

#define GRADIENT(field, role, kind, of, ...)                                                                         \
  PROBLEM_ADD(p, TEST_GRADIENT(clm_mamba_inner_backward_args, field, role, kind, of, __VA_ARGS__))

static test_problem backward_of(const inner_case *c, const clm_mamba_inner_backward_args *args) {
  test_problem problem = {.op = &op_mamba_inner_backward, .args = args, .seed = 131, .tolerance = 3e-5},
               *p = &problem;
  add_inputs(p, c);
  GRADIENT(dout, TEST_IN, TEST_STORAGE, out, c->batch, c->length, out_width(c));
  if (c->flags & FINAL) {
    GRADIENT(dconv_final, TEST_IN, TEST_STORAGE, conv_final, states_of(c), c->d_inner, c->width - 1);
    GRADIENT(dscan_final, TEST_IN, number_of(c), scan_final, states_of(c), c->d_inner, c->d_state);
  }
  GRADIENT(dxz, TEST_OUT, TEST_STORAGE, xz, c->batch, c->length, 2 * c->d_inner);
  GRADIENT(dconv_weight, TEST_OUT, TEST_PARAMETER, conv_weight, c->d_inner, c->width);
  if (c->flags & CONV_BIAS) GRADIENT(dconv_bias, TEST_OUT, TEST_PARAMETER, conv_bias, c->d_inner);
  GRADIENT(dx_proj, TEST_OUT, TEST_PARAMETER, x_proj, features_of(c), c->d_inner);
  GRADIENT(ddt_proj, TEST_OUT, TEST_PARAMETER, dt_proj, c->d_inner, c->dt_rank);
  if (c->flags & DELTA_BIAS) GRADIENT(ddelta_bias, TEST_OUT, TEST_PARAMETER, delta_bias, c->d_inner);
  GRADIENT(dA, TEST_OUT, number_of(c), A, c->d_inner, c->d_state);
  if (c->flags & FIXED_B) GRADIENT(dB, TEST_OUT, number_of(c), B, c->d_inner, c->d_state);
  if (c->flags & FIXED_C) GRADIENT(dC, TEST_OUT, number_of(c), C, c->d_inner, c->d_state);
  if (c->flags & D) GRADIENT(dD, TEST_OUT, TEST_PARAMETER, D, c->d_inner);
  if (c->flags & OUT_PROJ) GRADIENT(dout_proj, TEST_OUT, TEST_PARAMETER, out_proj, c->d_model, c->d_inner);
  if (c->flags & OUT_BIAS) GRADIENT(dout_bias, TEST_OUT, TEST_PARAMETER, out_bias, c->d_model);
  if (c->flags & NORM_WEIGHTS) {
    GRADIENT(ddelta_norm, TEST_OUT, TEST_PARAMETER, delta_norm, c->dt_rank);
    GRADIENT(dB_norm, TEST_OUT, TEST_PARAMETER, B_norm, c->d_state);
    GRADIENT(dC_norm, TEST_OUT, TEST_PARAMETER, C_norm, c->d_state);
  }
  if (c->flags & INITIAL) {
    GRADIENT(dconv_initial, TEST_OUT, TEST_STORAGE, conv_initial, states_of(c), c->d_inner, c->width - 1);
    GRADIENT(dscan_initial, TEST_OUT, number_of(c), scan_initial, states_of(c), c->d_inner, c->d_state);
  }
  return problem;
}

/* The convolution and the scan of a backend may lack a dtype or several sequences in a row: a message then. */
static void check_if_supported(const test_problem *p, const test_device *device) {
  test_run *run = run_create(p, device->context, false);
  clm_status status = p->op->call(device->context, run->args);
  if (status == CLM_UNSUPPORTED) assert_string_not_equal(clm_context_error(device->context), "");
  run_destroy(run);
  if (status != CLM_UNSUPPORTED || !device->opencl) problem_check(p, device);
}

static void test_forward(const test_device *device, const void *data) {
  const clm_mamba_inner_args args = args_of(data);
  test_problem p = forward_of(data, &args);
  add_kept(&p, data, TEST_OUT, 7);
  check_if_supported(&p, device);
}

static void test_backward(const test_device *device, const void *data) {
  const clm_mamba_inner_backward_args args = {.forward = args_of(data)};
  const test_problem p = backward_of(data, &args);
  check_if_supported(&p, device);
}

static void test_gradients(const test_device *device, const void *data) {
  (void)device;
  const clm_mamba_inner_backward_args args = {.forward = args_of(data)};
  const test_problem forward = forward_of(data, &args.forward), backward = backward_of(data, &args);
  problem_check_gradients(&forward, &backward, 12);
}

/* Storage in 16 bits; weights f32, then as the activations. What passes between the steps is rounded too. */
static void test_16bit(const test_device *device, const void *data) {
  static const clm_dtype narrow[] = {CLM_F16, CLM_BF16};
  static const char *const weights[] = {
      "conv_weight", "conv_bias", "x_proj",       "dt_proj",    "delta_bias",  "A",        "D",
      "out_proj",    "out_bias",  "delta_norm",   "B_norm",     "C_norm",      "B",        "C",
      "dB",          "dC",        "dconv_weight", "dconv_bias", "dx_proj",     "ddt_proj", "ddelta_bias",
      "dA",          "dD",        "dout_proj",    "dout_bias",  "ddelta_norm", "dB_norm",  "dC_norm"};
  const clm_mamba_inner_backward_args args = {.forward = args_of(data)};
  for (size_t i = 0; i < TEST_COUNT(narrow); i++)
    for (int own = 0; own < 2; own++) {
      test_problem problems[] = {forward_of(data, &args.forward), backward_of(data, &args)};
      for (int k = 0; k < 2; k++) {
        problems[k].storage = narrow[i];
        problems[k].tolerance = narrow[i] == CLM_F16 ? 6e-3 : 5e-2;
        for (size_t w = 0; own && w < TEST_COUNT(weights); w++) {
          test_tensor *t = problem_find(&problems[k], weights[w]);
          if (t && t->kind != TEST_COMPLEX) t->kind = TEST_STORAGE;
        }
        check_if_supported(&problems[k], device);
      }
    }
}

/* A branch in 16 bits of a residual stream and states in f32, whose f32 weights may be multiplied as the branch is.
 */
static void test_stream(const test_device *device, const void *data) {
  static const char *const stream[] = {"out",  "residual",    "conv_initial", "conv_final",
                                       "dout", "dconv_final", "dconv_initial"};
  static const struct {
    clm_dtype dtype;
    clm_math math;
    double tolerance;
  } branches[] = {{CLM_F16, CLM_MATH_F16, 6e-3}, {CLM_BF16, CLM_MATH_BF16, 5e-2}};
  for (size_t i = 0; i < TEST_COUNT(branches); i++) {
    clm_mamba_inner_backward_args args = {.forward = args_of(data)};
    args.forward.math = branches[i].math;
    test_problem problems[] = {forward_of(data, &args.forward), backward_of(data, &args)};
    for (int k = 0; k < 2; k++) {
      problems[k].storage = branches[i].dtype;
      problems[k].tolerance = branches[i].tolerance;
      for (size_t t = 0; t < TEST_COUNT(stream); t++)
        if (problem_find(&problems[k], stream[t])) problem_find(&problems[k], stream[t])->kind = TEST_PARAMETER;
      check_if_supported(&problems[k], device);
    }
  }
}

/* Without out_proj the scan writes out: it is as xz. */
static void test_stream_alone(const test_device *device, const void *data) {
  clm_mamba_inner_args args = args_of(data);
  test_problem p = forward_of(data, &args);
  p.storage = CLM_BF16;
  problem_find(&p, "out")->kind = TEST_PARAMETER;
  test_run *run = run_create(&p, device->context, false);
  assert_int_equal(clm_mamba_inner(device->context, run->args), CLM_INVALID_ARGUMENT);
  assert_string_equal(clm_context_error(device->context),
                      "mamba_inner: out is f32, expected bf16 as xz without out_proj");
  run_check_unwritten(run);
  run_destroy(run);
}

/* Whatever the forward pass kept, the backward pass gives the same bits. */
static void test_recomputation(const test_device *device, const void *data) {
  const inner_case *c = data;
  static const char *const names[] = {"u", "delta", "dbc"};
  const clm_mamba_inner_backward_args args = {.forward = args_of(c)};
  test_problem forward = forward_of(c, &args.forward);
  add_kept(&forward, c, TEST_OUT, 7);
  const test_problem plain = backward_of(c, &args);
  test_run *made = run_create(&forward, device->context, false), *want = run_create(&plain, device->context, false);
  run_call(made);
  run_call(want);
  for (unsigned kept = 1; kept < 8; kept++) {
    test_problem p = backward_of(c, &args);
    add_kept(&p, c, TEST_IN, kept);
    test_run *got = run_create(&p, device->context, false);
    for (unsigned i = 0; i < 3; i++) {
      if (!(kept >> i & 1)) continue;
      double *values = run_read(made, names[i]);
      run_write(got, names[i], values);
      free(values);
    }
    run_call(got);
    for (size_t i = 0; i < plain.count; i++) {
      if (plain.tensors[i].role != TEST_OUT) continue;
      const char *name = plain.tensors[i].name;
      double *x = run_read(want, name), *y = run_read(got, name);
      assert_memory_equal(x, y, run_values(want, name) * sizeof *x);
      free(x);
      free(y);
    }
    run_destroy(got);
  }
  run_destroy(made);
  run_destroy(want);
}

/* One that the backend has but for these arguments; and none at all. */
#define REFUSED(op, shape)                                                                                           \
  static clm_status refused_##op(clm_context *context, const shape *s, const clm_##op##_args *args) {                \
    (void)context, (void)s, (void)args;                                                                              \
    return CLM_UNSUPPORTED;                                                                                          \
  }
REFUSED(causal_conv1d, causal_conv1d_shape)
REFUSED(causal_conv1d_backward, causal_conv1d_shape)
REFUSED(selective_scan, selective_scan_shape)
REFUSED(selective_scan_backward, selective_scan_shape)
REFUSED(matmul, matmul_shape)
REFUSED(norm, matrix_shape)
REFUSED(norm_backward, matrix_shape)
REFUSED(column_sum, matrix_shape)

static const struct lacking {
  const char *name;
  bool pass[2]; /* whether the forward, the backward pass needs it */
  backend_ops has;
} lacking[] = {
#define LACKING(op, ...)                                                                                             \
  {                                                                                                                  \
#op, {__VA_ARGS__ }, { .op = refused_##op }                                                                      \
  }
    LACKING(causal_conv1d, true, true),   LACKING(causal_conv1d_backward, false, true),
    LACKING(selective_scan, true, false), LACKING(selective_scan_backward, false, true),
    LACKING(matmul, true, true),          LACKING(norm, true, true),
    LACKING(norm_backward, false, true),  LACKING(column_sum, false, true)};

/* `ops` without one of its operations. */
static void take_away(backend_ops *ops, const backend_ops *refused, bool all) {
#define X(name, shape)                                                                                               \
  if (refused->name) ops->name = all ? NULL : refused->name;
  BACKEND_OPS(X)
#undef X
}

/* A backend that lacks any piece answers before anything is written: what is kept for the backward pass, states,
 * gradients. */
static void test_lacking(const test_device *device, const void *data) {
  const clm_mamba_inner_backward_args args = {.forward = args_of(data)};
  test_problem problems[] = {forward_of(data, &args.forward), backward_of(data, &args)};
  clm_context *context = device->context;
  const backend_ops whole = context->ops;
  add_kept(&problems[0], data, TEST_OUT, 7);
  for (size_t i = 0; i < TEST_COUNT(lacking); i++)
    for (int pass = 0; pass < 2; pass++)
      for (int all = !context->supports.matmul; all < 2; all++) {
        if (!lacking[i].pass[pass]) continue;
        test_run *run = run_create(&problems[pass], context, false);
        take_away(&context->ops, &lacking[i].has, all);
        clm_status status = problems[pass].op->call(context, run->args);
        context->ops = whole;
        assert_int_equal(status, CLM_UNSUPPORTED);
        const char *message = clm_context_error(context);
        assert_ptr_equal(strstr(message, problems[pass].op->name), message);
        assert_non_null(strstr(message, lacking[i].name));
        run_check_unwritten(run);
        run_destroy(run);
      }
}

static clm_tensor piece(clm_buffer *buffer, size_t *at, int rank, const int64_t *shape) {
  clm_tensor t = clm_tensor_of(buffer, *at, CLM_F32, rank, shape);
  *at += (size_t)clm_tensor_count(t) * sizeof(float);
  return t;
}

static void ok(const test_device *device, clm_status status) {
  if (status) fail_msg("%s", clm_context_error(device->context));
}

/* B or C of each step, copied out of dbc's columns from `begin` on: of complex ones real and imaginary part in turn.
 */
static clm_tensor part_by_hand(const test_device *device, const inner_case *c, clm_tensor dbc, int64_t begin,
                               clm_buffer **buffer) {
  const int64_t rows = c->batch * c->length, part = part_of(c), features = features_of(c);
  float *all = malloc((size_t)(rows * features) * sizeof *all), *own = malloc((size_t)(rows * part) * sizeof *own);
  assert_true(all && own);
  ok(device, clm_tensor_read(dbc, all, (size_t)(rows * features) * sizeof *all));
  for (int64_t i = 0; i < rows; i++)
    for (int64_t k = 0; k < part; k++) own[i * part + k] = all[i * features + begin + k];
  ok(device, clm_buffer_create(device->context, (size_t)(rows * part) * sizeof *own, buffer));
  ok(device, clm_buffer_write(*buffer, 0, (size_t)(rows * part) * sizeof *own, own));
  free(all);
  free(own);
  return clm_tensor_of(*buffer, 0, c->flags & COMPLEX ? CLM_C64 : CLM_F32, 4,
                       (const int64_t[]){c->batch, c->length, c->n_groups, c->d_state});
}

/* The block of Mamba by its operations, called one by one. */
static void test_by_hand(const test_device *device, const void *data) {
  const inner_case *c = data;
  const clm_mamba_inner_args args = args_of(c);
  const test_problem p = forward_of(c, &args);
  test_run *run = run_create(&p, device->context, false);
  run_call(run);
  const clm_mamba_inner_args *a = run->args;
  int64_t rows = c->batch * c->length, features = features_of(c), d_inner = c->d_inner;
  size_t at = 0, count = (size_t)(rows * c->d_model);
  clm_buffer *buffer;
  ok(device, clm_buffer_create(device->context,
                               (size_t)(rows * (3 * d_inner + features + c->d_model)) * sizeof(float), &buffer));
  clm_tensor u = piece(buffer, &at, 3, (const int64_t[]){c->batch, c->length, d_inner});
  clm_tensor delta = piece(buffer, &at, 3, (const int64_t[]){c->batch, c->length, d_inner});
  clm_tensor y = piece(buffer, &at, 3, (const int64_t[]){c->batch, c->length, d_inner});
  clm_tensor dbc = piece(buffer, &at, 2, (const int64_t[]){rows, features});
  clm_tensor out = piece(buffer, &at, 2, (const int64_t[]){rows, c->d_model});
  const int64_t matrix[] = {rows, d_inner};
  clm_context *ctx = device->context;
  ok(device, clm_causal_conv1d(ctx, &(clm_causal_conv1d_args){.x = clm_tensor_slice(a->xz, 2, 0, d_inner),
                                                              .weight = a->conv_weight,
                                                              .bias = a->conv_bias,
                                                              .initial_state = a->conv_initial,
                                                              .out = u,
                                                              .silu = true}));
  ok(device, clm_matmul(ctx, &(clm_matmul_args){.a = clm_tensor_reshape(u, 2, matrix),
                                                .b = clm_tensor_transpose(a->x_proj, 0, 1),
                                                .out = dbc}));
  ok(device, clm_matmul(ctx, &(clm_matmul_args){.a = clm_tensor_slice(dbc, 1, 0, c->dt_rank),
                                                .b = clm_tensor_transpose(a->dt_proj, 0, 1),
                                                .out = clm_tensor_reshape(delta, 2, matrix)}));
  clm_tensor B = a->B, C = a->C;
  clm_buffer *inputs[2] = {NULL, NULL};
  if (!(c->flags & FIXED_B)) B = part_by_hand(device, c, dbc, c->dt_rank, &inputs[0]);
  if (!(c->flags & FIXED_C)) C = part_by_hand(device, c, dbc, features - part_of(c), &inputs[1]);
  ok(device, clm_selective_scan(ctx, &(clm_selective_scan_args){.u = u,
                                                                .delta = delta,
                                                                .A = a->A,
                                                                .B = B,
                                                                .C = C,
                                                                .D = a->D,
                                                                .z = clm_tensor_slice(a->xz, 2, d_inner, d_inner),
                                                                .delta_bias = a->delta_bias,
                                                                .initial_state = a->scan_initial,
                                                                .out = y,
                                                                .delta_softplus = true,
                                                                .A_is_log = args.A_is_log}));
  ok(device, clm_matmul(ctx, &(clm_matmul_args){.a = clm_tensor_reshape(y, 2, matrix),
                                                .b = clm_tensor_transpose(a->out_proj, 0, 1),
                                                .out = out}));
  if (a->residual.buffer)
    ok(device,
       clm_axpby(ctx, &(clm_axpby_args){
                          .x = clm_tensor_reshape(a->residual, 2, out.shape), .out = out, .alpha = 1, .beta = 1}));
  float *want = malloc(count * sizeof *want);
  assert_non_null(want);
  ok(device, clm_tensor_read(out, want, count * sizeof *want));
  double *got = run_read(run, "out");
  for (size_t i = 0; i < count; i++)
    if (!(fabs(got[i] - (double)want[i]) <= 1e-5 * (1 + fabs(got[i]))))
      fail_msg("out[%zu] is %g, the operations give %g", i, got[i], (double)want[i]);
  free(want);
  free(got);
  clm_buffer_destroy(&buffer);
  clm_buffer_destroy(&inputs[0]);
  clm_buffer_destroy(&inputs[1]);
  run_destroy(run);
}

/* A model's sizes are not too large together: the 130m model's, with inputs that repeat one number. */
static void test_large_sizes(const test_device *device, const void *data) {
  enum { BATCH = 8, LENGTH = 2048, D_MODEL = 768, D_INNER = 1536, STATES = 16, RANK = 48, WIDTH = 4 };
  (void)data;
  clm_buffer *number, *memory;
  ok(device, clm_buffer_create(device->context, sizeof(float), &number));
  ok(device, clm_buffer_create(device->context, sizeof(float) * BATCH * LENGTH * D_MODEL, &memory));
#define REPEATED(rank, ...)                                                                                          \
  (clm_tensor) {                                                                                                     \
    number, 0, CLM_F32, rank, {__VA_ARGS__}, { 0 }                                                                   \
  }
  clm_mamba_inner_args args = {
      .xz = REPEATED(3, BATCH, LENGTH, 2 * D_INNER),
      .conv_weight = REPEATED(2, D_INNER, WIDTH),
      .x_proj = REPEATED(2, RANK + 2 * STATES, D_INNER),
      .dt_proj = REPEATED(2, D_INNER, RANK),
      .A = REPEATED(2, D_INNER, STATES),
      .out_proj = REPEATED(2, D_MODEL, D_INNER),
      .out = clm_tensor_of(memory, 0, CLM_F32, 3, (const int64_t[]){BATCH, LENGTH, D_MODEL}),
  };
#undef REPEATED
  size_t bytes = clm_mamba_inner_workspace_size(device->context, &args);
  if (bytes == 0) fail_msg("%s", clm_context_error(device->context));
  args.out_proj.shape[0] = INT64_C(1) << 40;
  assert_int_equal(clm_mamba_inner_workspace_size(device->context, &args), 0);
  clm_buffer_destroy(&number);
  clm_buffer_destroy(&memory);
}

/* A call takes no more workspace than it says, and the second call none. */
static void test_workspace(const test_device *device, const void *data) {
  const clm_mamba_inner_backward_args args = {.forward = args_of(data)};
  const test_problem p = backward_of(data, &args);
  test_run *run = run_create(&p, device->context, false);
  assert_true(clm_mamba_inner_backward_workspace_size(device->context, run->args) > 0);
  run_call(run);
  uint64_t before, after;
  clm_context_memory(device->context, &before, NULL);
  run_call(run);
  clm_context_memory(device->context, &after, NULL);
  assert_int_equal(before, after);
  run_destroy(run);
}

/* Where kernels take long to compile: the usual case, and packed sequences. */
static bool left_out(const test_device *device, size_t i) {
  return device->slow && device->opencl && i != 1 && i + 3 < CASES;
}

static void add(void) {
  for (size_t i = 0; i < CASES; i++) {
    for (size_t d = 0; d < test_device_count; d++) {
      if (left_out(&test_devices[d], i)) continue;
      test_add(&test_devices[d], test_forward, &cases[i], "mamba_inner: %s", cases[i].why);
      test_add(&test_devices[d], test_backward, &cases[i], "mamba_inner backward: %s", cases[i].why);
      if (!test_devices[d].slow || (i == 1 && !test_devices[d].opencl))
        test_add(&test_devices[d], test_16bit, &cases[i], "mamba_inner in 16 bits: %s", cases[i].why);
    }
    test_add(NULL, test_gradients, &cases[i], "mamba_inner gradients: %s", cases[i].why);
  }
  for (size_t d = 0; d < test_device_count; d++) {
    if (left_out(&test_devices[d], 2)) continue;
    for (size_t i = 0; i < CASES; i++)
      if (cases[i].flags & (FIXED_B | FIXED_C | COMPLEX) && !(cases[i].flags & NORMS_OF_B))
        test_add(&test_devices[d], test_by_hand, &cases[i], "mamba_inner: by hand: %s", cases[i].why);
    test_add(&test_devices[d], test_by_hand, &cases[1], "mamba_inner: by hand");
    test_add(&test_devices[d], test_by_hand, &cases[2], "mamba_inner: by hand, with states and residual");
    test_add(&test_devices[d], test_stream, &cases[2], "mamba_inner: a residual stream in f32");
    test_add(&test_devices[d], test_stream_alone, &cases[5], "mamba_inner: f32 without out_proj");
    test_add(&test_devices[d], test_recomputation, &cases[3], "mamba_inner: what is kept changes no bit");
    test_add(&test_devices[d], test_workspace, &cases[2], "mamba_inner: workspace");
    if (!test_devices[d].opencl) test_add(&test_devices[d], test_large_sizes, NULL, "mamba_inner: large sizes");
    test_add(&test_devices[d], test_lacking, &cases[3], "mamba_inner: a backend without one of the pieces");
  }
}

int main(void) { return test_main("mamba_inner", add); }
