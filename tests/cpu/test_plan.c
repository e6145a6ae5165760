/* Plans: operations that are recorded and run together, again and again, give the bits that they give one by one. */
#include "backend/cpu/level.h"
#include "cmocka_all.h"
#include "core/context.h"
#include "core/tensor_list.h"
#include "ops/view.h"
#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 200, STATE = 16, WIDTH = 4, MODEL = 72, VOCAB = 31, ROWS = 64, DEPTH = 500, MAX_BATCH = 3 };

/* Everything lies in one block, tensors one after another. */
typedef struct bench {
  clm_context *context;
  clm_buffer *block;
  size_t used;
  clm_tensor ids, table, norm, x, normed, weight, bias, both, conv_state, filter, conv, small, features, delta_weight,
      delta, states, A, D, y, out_weight, extra, large[2], large_out, doubles;
  int64_t batch;
} bench;

#define TAKE(b, dtype, ...)                                                                                          \
  tensor_place((b)->block, &(b)->used, dtype, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8),                           \
               (const int64_t[]){__VA_ARGS__})

static void lay_out(bench *b, clm_dtype weights) {
  const int64_t n = b->batch;
  b->used = 0;
  b->ids = TAKE(b, CLM_I32, n);
  b->table = TAKE(b, CLM_F32, VOCAB, MODEL);
  b->norm = TAKE(b, CLM_F32, MODEL);
  b->x = TAKE(b, CLM_F32, n, MODEL);
  b->normed = TAKE(b, CLM_F32, n, MODEL);
  b->weight = TAKE(b, weights, 2 * CHANNELS, MODEL);
  b->bias = TAKE(b, CLM_F32, 2 * CHANNELS);
  b->both = TAKE(b, CLM_F32, n, 2 * CHANNELS);
  b->conv_state = TAKE(b, CLM_F32, n, CHANNELS, WIDTH - 1);
  b->filter = TAKE(b, CLM_F32, CHANNELS, WIDTH);
  b->conv = TAKE(b, CLM_F32, n, CHANNELS);
  b->small = TAKE(b, weights, 2 * STATE + 5, CHANNELS);
  b->features = TAKE(b, CLM_F32, n, 2 * STATE + 5);
  b->delta_weight = TAKE(b, weights, CHANNELS, 5);
  b->delta = TAKE(b, CLM_F32, n, CHANNELS);
  b->states = TAKE(b, CLM_F32, n, CHANNELS, STATE);
  b->A = TAKE(b, CLM_F32, CHANNELS, STATE);
  b->D = TAKE(b, CLM_F32, CHANNELS);
  b->y = TAKE(b, CLM_F32, n, CHANNELS);
  b->out_weight = TAKE(b, weights, MODEL, CHANNELS);
  b->extra = TAKE(b, CLM_F32, n, MODEL);
  for (int i = 0; i < 2; i++) b->large[i] = TAKE(b, CLM_F32, ROWS, DEPTH);
  b->large_out = TAKE(b, CLM_F32, ROWS, ROWS);
  b->doubles = TAKE(b, CLM_F64, n, MODEL);
}

/* Small numbers of any storage; the same in every bench of the same seed. */
static void fill(bench *b, clm_tensor t, uint32_t seed) {
  const size_t count = (size_t)clm_tensor_count(t);
  float *numbers = malloc(count * sizeof *numbers);
  assert_non_null(numbers);
  for (size_t i = 0; i < count; i++) {
    seed = seed * 1664525u + 1013904223u;
    numbers[i] = ((float)(seed >> 8) * 0x1p-23f - 1) / 4;
  }
  clm_buffer *aside;
  assert_int_equal(clm_buffer_create(b->context, count * sizeof *numbers, &aside), CLM_OK);
  clm_tensor from = clm_tensor_of(aside, 0, CLM_F32, t.rank, t.shape);
  assert_int_equal(clm_tensor_write(from, numbers, count * sizeof *numbers), CLM_OK);
  assert_int_equal(clm_cast(b->context, &(clm_cast_args){.x = from, .out = t}), CLM_OK);
  clm_buffer_destroy(&aside);
  free(numbers);
}

static void bench_create(bench *b, const char *level, int threads, int64_t batch, clm_dtype weights) {
  *b = (bench){.batch = batch};
  clm_context_options options = {.device = "cpu", .threads = threads, .cpu_level = level};
  assert_int_equal(clm_context_create(&options, &b->context), CLM_OK);
  lay_out(b, weights); /* for the size */
  assert_int_equal(clm_buffer_create(b->context, b->used, &b->block), CLM_OK);
  lay_out(b, weights);
  memset(b->block->host, 0, b->used);
  const clm_tensor numbers[] = {
      b->table,        b->norm,   b->x, b->weight, b->bias,       b->conv_state, b->filter,   b->small,
      b->delta_weight, b->states, b->A, b->D,      b->out_weight, b->large[0],   b->large[1], b->doubles};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) fill(b, numbers[i], (uint32_t)i + 1);
  for (int32_t i = 0; i < batch; i++) ((int32_t *)b->block->host)[i] = (7 * i + 3) % VOCAB;
}

static void bench_destroy(bench *b) {
  clm_buffer_destroy(&b->block);
  clm_context_destroy(&b->context);
}

static clm_status product(bench *b, clm_tensor a, clm_tensor w, clm_tensor bias, clm_tensor residual,
                          clm_tensor out) {
  return clm_matmul(
      b->context,
      &(clm_matmul_args){.a = a, .b = clm_tensor_transpose(w, 0, 1), .bias = bias, .residual = residual, .out = out});
}

static clm_tensor as_group(clm_tensor t) {
  t.rank = 3;
  t.shape[2] = t.shape[1];
  t.stride[2] = t.stride[1];
  t.shape[1] = 1;
  return t;
}

enum { WITH_OTHER = 1, WITH_LARGE = 2, WITH_REFERENCE = 4 };

/* A layer's step, every operation reading what the one before wrote. */
static void steps(bench *b, unsigned with) {
  const clm_tensor none = {0};
  clm_context *ctx = b->context;
  assert_int_equal(clm_embedding(ctx, &(clm_embedding_args){.ids = b->ids, .table = b->table, .out = b->extra}), 0);
  if (with & WITH_OTHER) /* an operation that has no stages */
    assert_int_equal(clm_axpby(ctx, &(clm_axpby_args){.x = b->extra, .out = b->x, .alpha = 0.5f, .beta = 1}), 0);
  assert_int_equal(clm_norm(ctx, &(clm_norm_args){.x = b->x, .weight = b->norm, .out = b->normed, .epsilon = 1e-5f}),
                   0);
  assert_int_equal(product(b, b->normed, b->weight, b->bias, none, b->both), 0);
  assert_int_equal(
      clm_causal_conv1d_update(ctx, &(clm_causal_conv1d_update_args){.state = b->conv_state,
                                                                     .x = view_columns(b->both, 0, CHANNELS),
                                                                     .weight = b->filter,
                                                                     .out = b->conv,
                                                                     .silu = true}),
      0);
  if (with & WITH_LARGE) /* a kernel without stages, which needs more workspace than there is yet */
    assert_int_equal(product(b, b->large[0], b->large[1], none, none, b->large_out), 0);
  if (with & WITH_REFERENCE) /* no kernel takes these */
    assert_int_equal(clm_norm(ctx, &(clm_norm_args){.x = b->doubles, .out = b->doubles, .epsilon = 1e-5f}), 0);
  assert_int_equal(product(b, b->conv, b->small, none, none, b->features), 0);
  assert_int_equal(product(b, view_columns(b->features, 0, 5), b->delta_weight, none, none, b->delta), 0);
  assert_int_equal(
      clm_selective_state_update(
          ctx, &(clm_selective_state_update_args){.state = b->states,
                                                  .u = b->conv,
                                                  .delta = b->delta,
                                                  .A = b->A,
                                                  .B = as_group(view_columns(b->features, 5, STATE)),
                                                  .C = as_group(view_columns(b->features, 5 + STATE, STATE)),
                                                  .D = b->D,
                                                  .z = view_columns(b->both, CHANNELS, CHANNELS),
                                                  .out = b->y,
                                                  .delta_softplus = true,
                                                  .A_is_log = true}),
      0);
  assert_int_equal(product(b, b->y, b->out_weight, none, b->x, b->x), 0);
}

static void same(const bench *a, const bench *b) {
  assert_int_equal(a->used, b->used);
  assert_memory_equal(a->block->host, b->block->host, a->used);
}

static op_plan *record(bench *b, unsigned with) {
  op_plan *plan;
  assert_int_equal(op_plan_begin(b->context, &plan), CLM_OK);
  steps(b, with);
  assert_int_equal(op_plan_end(&plan, CLM_OK), CLM_OK);
  return plan;
}

/* A plan that runs several times gives what as many steps one by one give. */
static void compare(cpu_level level, int threads, int64_t batch, clm_dtype weights, unsigned with) {
  bench single, planned;
  bench_create(&single, cpu_level_name(level), threads, batch, weights);
  bench_create(&planned, cpu_level_name(level), threads, batch, weights);
  op_plan *plan = record(&planned, with);
  for (int i = 0; i < 4; i++) {
    steps(&single, with);
    assert_int_equal(op_plan_run(plan), CLM_OK);
  }
  same(&single, &planned);
  op_plan_drop(&plan);
  assert_null(plan);
  bench_destroy(&single);
  bench_destroy(&planned);
}

static void test_same_bits(void **state) {
  (void)state;
  static const clm_dtype weights[] = {CLM_F32, CLM_BF16, CLM_F16};
  static const unsigned with[] = {0, WITH_OTHER, WITH_LARGE, WITH_REFERENCE,
                                  WITH_OTHER | WITH_LARGE | WITH_REFERENCE};
  for (int level = 0; level < CPU_LEVEL_COUNT; level++)
    for (int threads = 1; threads <= 3 && cpu_has((cpu_level)level); threads++)
      for (int64_t batch = 1; batch <= MAX_BATCH; batch++)
        for (size_t i = 0; i < sizeof with / sizeof *with; i++)
          compare((cpu_level)level, threads, batch, weights[((size_t)(level + threads) + i) % 3], with[i]);
}

/* Recording writes nothing but the plan. */
static void test_recording(void **state) {
  (void)state;
  const unsigned with = WITH_OTHER | WITH_LARGE | WITH_REFERENCE;
  bench b, untouched;
  bench_create(&b, NULL, 2, 1, CLM_F32);
  bench_create(&untouched, NULL, 2, 1, CLM_F32);
  op_plan *plan = record(&b, with);
  same(&b, &untouched);
  op_plan_drop(&plan);
  bench_destroy(&b);
  bench_destroy(&untouched);
}

/* Plans do not know of each other, nor of what the context does between their runs. */
static void test_two_plans(void **state) {
  (void)state;
  bench single, planned;
  bench_create(&single, NULL, 2, 1, CLM_F16);
  bench_create(&planned, NULL, 2, 1, CLM_F16);
  op_plan *plans[2] = {record(&planned, 0), record(&planned, WITH_OTHER)};
  for (int i = 0; i < 5; i++) {
    steps(&single, i % 2 ? WITH_OTHER : 0);
    assert_int_equal(op_plan_run(plans[i % 2]), CLM_OK);
    if (i == 1) { /* the context's workspace grows */
      steps(&single, WITH_LARGE);
      steps(&planned, WITH_LARGE);
    }
    if (i == 2) {
      op_plan_drop(&plans[1]);
      plans[1] = record(&planned, WITH_OTHER);
    }
  }
  same(&single, &planned);
  for (int i = 0; i < 2; i++) op_plan_drop(&plans[i]);
  bench_destroy(&single);
  bench_destroy(&planned);
}

/* What cannot be recorded says so, and a recording that failed leaves no plan. */
static void test_refused(void **state) {
  (void)state;
  bench b;
  bench_create(&b, NULL, 2, 1, CLM_F32);
  op_plan *plan, *second;
  float number = 1;
  void *memory;
  assert_int_equal(op_plan_begin(b.context, &plan), CLM_OK);
  assert_int_equal(op_plan_begin(b.context, &second), CLM_UNSUPPORTED);
  assert_null(second);
  assert_int_equal(clm_buffer_read(b.block, 0, sizeof number, &number), CLM_UNSUPPORTED);
  assert_non_null(strstr(clm_context_error(b.context), "buffer_read: a plan"));
  assert_int_equal(clm_buffer_write(b.block, 0, sizeof number, &number), CLM_UNSUPPORTED);
  assert_int_equal(clm_buffer_map(b.block, &memory), CLM_UNSUPPORTED);
  const clm_norm_args wrong = {.x = b.x, .out = b.both, .epsilon = 1e-5f};
  assert_int_equal(op_plan_end(&plan, clm_norm(b.context, &wrong)), CLM_INVALID_ARGUMENT);
  assert_null(plan);
  assert_int_equal(clm_buffer_read(b.block, 0, sizeof number, &number), CLM_OK);
  plan = record(&b, 0);
  assert_int_equal(op_plan_begin(b.context, &second), CLM_OK);
  assert_int_equal(op_plan_run(plan), CLM_UNSUPPORTED);
  assert_int_equal(op_plan_end(&second, CLM_OK), CLM_OK);
  assert_int_equal(op_plan_run(plan), CLM_OK);
  op_plan_drop(&second);
  op_plan_drop(&plan);
  bench_destroy(&b);
}

/* More stages and calls than fit the memory that a plan begins with. */
static void test_long(void **state) {
  (void)state;
  enum { STEPS = 300 };
  bench single, planned;
  bench_create(&single, NULL, 2, 2, CLM_BF16);
  bench_create(&planned, NULL, 2, 2, CLM_BF16);
  op_plan *plan;
  assert_int_equal(op_plan_begin(planned.context, &plan), CLM_OK);
  for (int i = 0; i < STEPS; i++) {
    steps(&single, WITH_OTHER);
    steps(&planned, WITH_OTHER);
  }
  assert_int_equal(op_plan_end(&plan, CLM_OK), CLM_OK);
  assert_int_equal(op_plan_run(plan), CLM_OK);
  same(&single, &planned);
  op_plan_drop(&plan);
  bench_destroy(&single);
  bench_destroy(&planned);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_same_bits), cmocka_unit_test(test_recording), cmocka_unit_test(test_two_plans),
      cmocka_unit_test(test_refused),   cmocka_unit_test(test_long),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
