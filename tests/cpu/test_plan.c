/* Batches: operations that are kept and run in one go, and once more, give the bits that they give one by one. */
#include "backend/cpu/level.h"
#include "cmocka_all.h"
#include "core/context.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 200, STATE = 16, WIDTH = 4, MODEL = 72, VOCAB = 31, MOST_BATCH = 3 };

/* Everything lies in one block: tensors one behind the other, 64 bytes apart at least. */
typedef struct bench {
  clm_context *context;
  clm_buffer *block;
  size_t used;
  clm_tensor ids, table, norm, x, normed, weight, bias, both, conv_state, filter, conv, small, features, delta_weight,
      delta, states, A, D, y, out_weight, extra;
  int64_t batch;
} bench;

static clm_tensor take(bench *b, clm_dtype dtype, int rank, const int64_t *shape) {
  clm_tensor t = clm_tensor_of(b->block, b->used, dtype, rank, shape);
  b->used += ((size_t)clm_tensor_count(t) * clm_dtype_size(dtype) + 63) / 64 * 64;
  return t;
}
#define TAKE(dtype, ...) take(b, dtype, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (const int64_t[]){__VA_ARGS__})

static void lay_out(bench *b, clm_dtype weights) {
  const int64_t n = b->batch;
  b->used = 0;
  b->ids = TAKE(CLM_I32, n);
  b->table = TAKE(CLM_F32, VOCAB, MODEL);
  b->norm = TAKE(CLM_F32, MODEL);
  b->x = TAKE(CLM_F32, n, MODEL);
  b->normed = TAKE(CLM_F32, n, MODEL);
  b->weight = TAKE(weights, 2 * CHANNELS, MODEL);
  b->bias = TAKE(CLM_F32, 2 * CHANNELS);
  b->both = TAKE(CLM_F32, n, 2 * CHANNELS);
  b->conv_state = TAKE(CLM_F32, n, CHANNELS, WIDTH - 1);
  b->filter = TAKE(CLM_F32, CHANNELS, WIDTH);
  b->conv = TAKE(CLM_F32, n, CHANNELS);
  b->small = TAKE(weights, 2 * STATE + 5, CHANNELS);
  b->features = TAKE(CLM_F32, n, 2 * STATE + 5);
  b->delta_weight = TAKE(weights, CHANNELS, 5);
  b->delta = TAKE(CLM_F32, n, CHANNELS);
  b->states = TAKE(CLM_F32, n, CHANNELS, STATE);
  b->A = TAKE(CLM_F32, CHANNELS, STATE);
  b->D = TAKE(CLM_F32, CHANNELS);
  b->y = TAKE(CLM_F32, n, CHANNELS);
  b->out_weight = TAKE(weights, MODEL, CHANNELS);
  b->extra = TAKE(CLM_F32, n, MODEL);
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
  const clm_tensor numbers[] = {b->table, b->norm,         b->x,      b->weight, b->bias, b->conv_state, b->filter,
                                b->small, b->delta_weight, b->states, b->A,      b->D,    b->out_weight};
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

static clm_tensor columns(clm_tensor t, int64_t begin, int64_t count) {
  return clm_tensor_slice(t, t.rank - 1, begin, count);
}

static clm_tensor as_group(clm_tensor t) {
  t.rank = 3;
  t.shape[2] = t.shape[1];
  t.stride[2] = t.stride[1];
  t.shape[1] = 1;
  return t;
}

enum { WITH_OTHER = 1, WITH_READ = 2, WITH_LARGE = 4 };

/* A layer's step, every operation reading what the one before wrote. */
static void steps(bench *b, unsigned with) {
  const clm_tensor none = {0};
  clm_context *ctx = b->context;
  assert_int_equal(clm_embedding(ctx, &(clm_embedding_args){.ids = b->ids, .table = b->table, .out = b->extra}), 0);
  if (with & WITH_OTHER) /* an operation that is not kept */
    assert_int_equal(clm_axpby(ctx, &(clm_axpby_args){.x = b->extra, .out = b->x, .alpha = 0.5f, .beta = 1}), 0);
  assert_int_equal(clm_norm(ctx, &(clm_norm_args){.x = b->x, .weight = b->norm, .out = b->normed, .epsilon = 1e-5f}),
                   0);
  ((float *)b->block->host)[b->both.offset / 4] = NAN;
  assert_int_equal(product(b, b->normed, b->weight, b->bias, none, b->both), 0);
  if (with & WITH_READ) { /* it is there when it is looked at */
    float seen;
    assert_int_equal(clm_buffer_read(b->block, b->both.offset, sizeof seen, &seen), 0);
    assert_true(seen == seen);
  }
  assert_int_equal(clm_causal_conv1d_update(ctx, &(clm_causal_conv1d_update_args){.state = b->conv_state,
                                                                                  .x = columns(b->both, 0, CHANNELS),
                                                                                  .weight = b->filter,
                                                                                  .out = b->conv,
                                                                                  .silu = true}),
                   0);
  if (with & WITH_LARGE) { /* needs a workspace that is not there yet */
    const int64_t rows = 64, wide = 500;
    clm_buffer *own;
    assert_int_equal(clm_buffer_create(ctx, (size_t)(2 * rows * wide + rows * rows) * 4, &own), 0);
    memset(own->host, 0, clm_buffer_size(own));
    clm_tensor a = clm_tensor_of(own, 0, CLM_F32, 2, (int64_t[]){rows, wide});
    clm_tensor c = clm_tensor_of(own, (size_t)(rows * wide) * 4, CLM_F32, 2, (int64_t[]){rows, wide});
    clm_tensor out = clm_tensor_of(own, (size_t)(2 * rows * wide) * 4, CLM_F32, 2, (int64_t[]){rows, rows});
    assert_int_equal(product(b, a, c, none, none, out), 0);
    clm_buffer_destroy(&own);
  }
  assert_int_equal(product(b, b->conv, b->small, none, none, b->features), 0);
  assert_int_equal(product(b, columns(b->features, 0, 5), b->delta_weight, none, none, b->delta), 0);
  assert_int_equal(clm_selective_state_update(
                       ctx, &(clm_selective_state_update_args){.state = b->states,
                                                               .u = b->conv,
                                                               .delta = b->delta,
                                                               .A = b->A,
                                                               .B = as_group(columns(b->features, 5, STATE)),
                                                               .C = as_group(columns(b->features, 5 + STATE, STATE)),
                                                               .D = b->D,
                                                               .z = columns(b->both, CHANNELS, CHANNELS),
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

/* Kept, kept again, and repeated by key: what as many steps one by one give. */
static void compare(cpu_level level, int threads, int64_t batch, clm_dtype weights, unsigned with) {
  const batch_key key = {{1, 2, 3}}, other = {{1, 2, 4}};
  bench single, kept;
  bench_create(&single, cpu_level_name(level), threads, batch, weights);
  bench_create(&kept, cpu_level_name(level), threads, batch, weights);
  for (int i = 0; i < 4; i++) steps(&single, with);
  assert_false(context_batch_again(kept.context, &key));
  for (int i = 0; i < 2; i++) {
    context_batch_begin(kept.context);
    steps(&kept, with);
    context_batch_end(kept.context, i == 0 ? NULL : &key);
  }
  assert_false(context_batch_again(kept.context, &other));
  for (int i = 0; i < 2; i++) {
    const bool again = context_batch_again(kept.context, &key);
    assert_int_equal(again, level != CPU_REFERENCE && with == 0);
    if (!again) steps(&kept, with);
  }
  same(&single, &kept);
  bench_destroy(&single);
  bench_destroy(&kept);
}

static void test_same_bits(void **state) {
  (void)state;
  static const clm_dtype weights[] = {CLM_F32, CLM_BF16, CLM_F16};
  static const unsigned with[] = {0, WITH_OTHER, WITH_READ, WITH_LARGE, WITH_OTHER | WITH_READ | WITH_LARGE};
  for (int level = 0; level < CPU_LEVEL_COUNT; level++)
    for (int threads = 1; threads <= 3 && cpu_has((cpu_level)level); threads++)
      for (int64_t batch = 1; batch <= MOST_BATCH; batch++)
        for (size_t i = 0; i < sizeof with / sizeof *with; i++)
          compare((cpu_level)level, threads, batch, weights[((size_t)(level + threads) + i) % 3], with[i]);
}

/* A batch whose buffers are not all there any more, or that did not end well, is not repeated. */
static void test_forgotten(void **state) {
  (void)state;
  const batch_key key = {{9}};
  bench b;
  bench_create(&b, NULL, 2, 1, CLM_F32);
  clm_buffer *another;
  assert_int_equal(clm_buffer_create(b.context, 64, &another), CLM_OK);
  for (int i = 0; i < 2; i++) { /* in the first the workspace grows */
    context_batch_begin(b.context);
    steps(&b, 0);
    context_batch_end(b.context, &key);
  }
  assert_true(context_batch_again(b.context, &key));
  clm_buffer_destroy(&another);
  assert_false(context_batch_again(b.context, &key));
  context_batch_begin(b.context);
  steps(&b, 0);
  context_batch_end(b.context, &key);
  context_batch_begin(b.context);
  assert_int_equal(clm_norm(b.context, &(clm_norm_args){.x = b.x, .out = b.both, .epsilon = 1e-5f}),
                   CLM_INVALID_ARGUMENT);
  context_batch_end(b.context, NULL);
  assert_false(context_batch_again(b.context, &key));
  bench_destroy(&b);
}

/* As many as there is no room for. */
static void test_long(void **state) {
  (void)state;
  bench single, kept;
  const batch_key key = {{5}};
  bench_create(&single, NULL, 2, 2, CLM_BF16);
  bench_create(&kept, NULL, 2, 2, CLM_BF16);
  for (int i = 0; i < 300; i++) steps(&single, 0);
  context_batch_begin(kept.context);
  for (int i = 0; i < 300; i++) steps(&kept, 0);
  context_batch_end(kept.context, &key);
  assert_false(context_batch_again(kept.context, &key));
  same(&single, &kept);
  bench_destroy(&single);
  bench_destroy(&kept);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_same_bits),
      cmocka_unit_test(test_forgotten),
      cmocka_unit_test(test_long),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
