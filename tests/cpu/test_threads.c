/* On the CPU the number of threads changes no bit of any result: sums are cut by the shape alone. */
#include "cmocka_all.h"
#include <clmamba/clmamba.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BATCH = 3, LENGTH = 150, CHANNELS = 200, STATE = 16, WIDTH = 4, ROWS = BATCH * LENGTH };

static const int threads[] = {1, 2, 3, 7};

typedef struct run {
  clm_context *context;
  clm_buffer *buffers[40];
  size_t count;
  void *out[40];
  size_t out_bytes[40];
  size_t outs;
  uint32_t random;
} run;

static void fill(run *r, clm_dtype dtype, void *memory, size_t count) {
  for (size_t i = 0; i < count; i++) {
    r->random = r->random * 1664525u + 1013904223u;
    float x = (float)(r->random >> 8) * 0x1p-23f - 1;
    if (dtype == CLM_F32) ((float *)memory)[i] = x;
    else if (dtype == CLM_F16)
      ((uint16_t *)memory)[i] = (uint16_t)(0x2c00 | (r->random >> 9 & 0x8fff)); /* 2^-4 to 1 */
    else ((int32_t *)memory)[i] = x < -0.8f ? -1 : (int32_t)(i / 41);
  }
}

static clm_tensor tensor(run *r, bool output, clm_dtype dtype, int rank, const int64_t *shape) {
  clm_dtype part = dtype == CLM_C64 ? CLM_F32 : dtype;
  clm_tensor t = clm_tensor_of(NULL, 0, dtype, rank, shape);
  size_t count = (size_t)clm_tensor_count(t), bytes = count * clm_dtype_size(dtype);
  void *memory = calloc(1, bytes);
  assert_non_null(memory);
  if (!output) fill(r, part, memory, bytes / clm_dtype_size(part));
  assert_int_equal(clm_buffer_wrap_host(r->context, memory, bytes, &r->buffers[r->count]), CLM_OK);
  t.buffer = r->buffers[r->count++];
  r->out[r->outs] = memory; /* inputs too: they must come out as they went in */
  r->out_bytes[r->outs++] = bytes;
  return t;
}

#define SHAPE(...)                                                                                                   \
  (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (const int64_t[]) { __VA_ARGS__ }
#define IN_OF(dtype, ...)  tensor(r, false, dtype, SHAPE(__VA_ARGS__))
#define OUT_OF(dtype, ...) tensor(r, true, dtype, SHAPE(__VA_ARGS__))
#define IN(...)            IN_OF(CLM_F32, __VA_ARGS__)
#define OUT(...)           OUT_OF(CLM_F32, __VA_ARGS__)

static clm_status scan(run *r) {
  return clm_selective_scan_backward(
      r->context, &(clm_selective_scan_backward_args){.forward = {.u = IN(BATCH, LENGTH, CHANNELS),
                                                                  .delta = IN(BATCH, LENGTH, CHANNELS),
                                                                  .A = IN(CHANNELS, STATE),
                                                                  .B = IN(BATCH, LENGTH, 1, STATE),
                                                                  .C = IN(BATCH, LENGTH, 1, STATE),
                                                                  .D = IN(CHANNELS),
                                                                  .z = IN(BATCH, LENGTH, CHANNELS),
                                                                  .delta_softplus = true,
                                                                  .A_is_log = true},
                                                      .dout = IN(BATCH, LENGTH, CHANNELS),
                                                      .du = OUT(BATCH, LENGTH, CHANNELS),
                                                      .ddelta = OUT(BATCH, LENGTH, CHANNELS),
                                                      .dz = OUT(BATCH, LENGTH, CHANNELS),
                                                      .dA = OUT(CHANNELS, STATE),
                                                      .dB = OUT(BATCH, LENGTH, 1, STATE),
                                                      .dC = OUT(BATCH, LENGTH, 1, STATE),
                                                      .dD = OUT(CHANNELS),
                                                      .out = OUT(BATCH, LENGTH, CHANNELS)});
}

static clm_status scan_forward(run *r) {
  return clm_selective_scan(r->context, &(clm_selective_scan_args){.u = IN(BATCH, LENGTH, CHANNELS),
                                                                   .delta = IN(BATCH, LENGTH, CHANNELS),
                                                                   .A = IN(CHANNELS, STATE),
                                                                   .B = IN(BATCH, LENGTH, 1, STATE),
                                                                   .C = IN(BATCH, LENGTH, 1, STATE),
                                                                   .out = OUT(BATCH, LENGTH, CHANNELS),
                                                                   .delta_softplus = true,
                                                                   .A_is_log = true});
}

/* Packed sequences of unequal length. */
static clm_status scan_packed(run *r) {
  static const int32_t ends[] = {0, 3, 3, 90, 91, 140, LENGTH};
  enum { SEQUENCES = sizeof ends / sizeof *ends - 1 };
  clm_tensor cu_seqlens = OUT_OF(CLM_I32, SEQUENCES + 1);
  memcpy(r->out[r->outs - 1], ends, sizeof ends);
  return clm_selective_scan_backward(
      r->context, &(clm_selective_scan_backward_args){.forward = {.u = IN_OF(CLM_F16, 1, LENGTH, CHANNELS),
                                                                  .delta = IN_OF(CLM_F16, 1, LENGTH, CHANNELS),
                                                                  .A = IN(CHANNELS, STATE),
                                                                  .B = IN_OF(CLM_F16, 1, LENGTH, 1, STATE),
                                                                  .C = IN(CHANNELS, STATE),
                                                                  .gate = IN_OF(CLM_F16, 1, LENGTH, CHANNELS),
                                                                  .initial_state = IN(SEQUENCES, CHANNELS, STATE),
                                                                  .cu_seqlens = cu_seqlens,
                                                                  .delta_softplus = true,
                                                                  .A_is_log = true,
                                                                  .reverse = true},
                                                      .dout = IN_OF(CLM_F16, 1, LENGTH, CHANNELS),
                                                      .du = OUT_OF(CLM_F16, 1, LENGTH, CHANNELS),
                                                      .dgate = OUT_OF(CLM_F16, 1, LENGTH, CHANNELS),
                                                      .dA = OUT(CHANNELS, STATE),
                                                      .dB = OUT(1, LENGTH, 1, STATE),
                                                      .dC = OUT(CHANNELS, STATE),
                                                      .dinitial_state = OUT(SEQUENCES, CHANNELS, STATE)});
}

/* Complex A; sequences that begin anywhere, and padding. */
static clm_status scan_complex(run *r) {
  return clm_selective_scan_backward(
      r->context, &(clm_selective_scan_backward_args){.forward = {.u = IN(BATCH, LENGTH, CHANNELS),
                                                                  .delta = IN(BATCH, LENGTH, CHANNELS),
                                                                  .A = IN_OF(CLM_C64, CHANNELS, STATE),
                                                                  .B = IN_OF(CLM_C64, BATCH, LENGTH, 1, STATE),
                                                                  .C = IN_OF(CLM_C64, BATCH, LENGTH, 1, STATE),
                                                                  .seq_idx = IN_OF(CLM_I32, BATCH, LENGTH),
                                                                  .delta_softplus = true,
                                                                  .A_is_log = true},
                                                      .dout = IN(BATCH, LENGTH, CHANNELS),
                                                      .du = OUT(BATCH, LENGTH, CHANNELS),
                                                      .ddelta = OUT(BATCH, LENGTH, CHANNELS),
                                                      .dA = OUT_OF(CLM_C64, CHANNELS, STATE),
                                                      .dB = OUT_OF(CLM_C64, BATCH, LENGTH, 1, STATE),
                                                      .dC = OUT_OF(CLM_C64, BATCH, LENGTH, 1, STATE),
                                                      .out = OUT(BATCH, LENGTH, CHANNELS)});
}

static clm_status conv(run *r) {
  return clm_causal_conv1d_backward(r->context,
                                    &(clm_causal_conv1d_backward_args){.forward = {.x = IN(BATCH, LENGTH, CHANNELS),
                                                                                   .weight = IN(CHANNELS, WIDTH),
                                                                                   .bias = IN(CHANNELS),
                                                                                   .silu = true},
                                                                       .dout = IN(BATCH, LENGTH, CHANNELS),
                                                                       .dx = OUT(BATCH, LENGTH, CHANNELS),
                                                                       .dweight = OUT(CHANNELS, WIDTH),
                                                                       .dbias = OUT(CHANNELS)});
}

static clm_status product(run *r) {
  return clm_matmul(r->context, &(clm_matmul_args){.a = clm_tensor_transpose(IN(ROWS, CHANNELS), 0, 1),
                                                   .b = IN(ROWS, 3 * CHANNELS),
                                                   .out = OUT(CHANNELS, 3 * CHANNELS)});
}

static clm_status product_of_few(run *r) {
  return clm_matmul(r->context, &(clm_matmul_args){.a = IN(3, CHANNELS),
                                                   .b = clm_tensor_transpose(IN_OF(CLM_F16, ROWS, CHANNELS), 0, 1),
                                                   .out = OUT(3, ROWS)});
}

static clm_status norm(run *r) {
  return clm_norm_backward(r->context,
                           &(clm_norm_backward_args){.forward = {.x = IN(ROWS, CHANNELS), .weight = IN(CHANNELS)},
                                                     .dout = IN(ROWS, CHANNELS),
                                                     .dx = OUT(ROWS, CHANNELS),
                                                     .dweight = OUT(CHANNELS),
                                                     .dbias = OUT(CHANNELS)});
}

static clm_status discretize(run *r) {
  return clm_discretize_backward(
      r->context,
      &(clm_discretize_backward_args){
          .forward = {.delta = IN(BATCH, LENGTH, CHANNELS), .A = IN(CHANNELS, STATE), .B = IN(CHANNELS, STATE)},
          .dA_bar = IN(BATCH, LENGTH, CHANNELS, STATE),
          .dB_bar = IN(BATCH, LENGTH, CHANNELS, STATE),
          .ddelta = OUT(BATCH, LENGTH, CHANNELS),
          .dA = OUT(CHANNELS, STATE),
          .dB = OUT(CHANNELS, STATE)});
}

static clm_status columns(run *r) {
  return clm_column_sum(r->context, &(clm_column_sum_args){.x = IN(ROWS, CHANNELS), .out = OUT(CHANNELS)});
}

static clm_status squares(run *r) {
  return clm_sum_squares(r->context, &(clm_sum_squares_args){.x = IN(ROWS * CHANNELS), .out = OUT(1)});
}

static const struct {
  const char *name;
  clm_status (*call)(run *);
} ops[] = {
    {"selective_scan", scan_forward},
    {"selective_scan_backward", scan},
    {"selective_scan_backward, packed", scan_packed},
    {"selective_scan_backward, complex", scan_complex},
    {"causal_conv1d_backward", conv},
    {"matmul", product},
    {"matmul of few rows", product_of_few},
    {"norm_backward", norm},
    {"column_sum", columns},
    {"sum_squares", squares},
    {"discretize_backward", discretize},
};

static void test_bits(void **state) {
  (void)state;
  for (size_t op = 0; op < sizeof ops / sizeof ops[0]; op++) {
    run runs[sizeof threads / sizeof threads[0]] = {0};
    for (size_t i = 0; i < sizeof threads / sizeof threads[0]; i++) {
      run *r = &runs[i];
      r->random = 7;
      clm_context_options options = {.device = "cpu", .threads = threads[i]};
      assert_int_equal(clm_context_create(&options, &r->context), CLM_OK);
      clm_status status = ops[op].call(r);
      if (status) fail_msg("%s: %s", ops[op].name, clm_context_error(r->context));
      for (size_t k = 0; k < r->outs; k++)
        if (memcmp(r->out[k], runs[0].out[k], r->out_bytes[k]) != 0)
          fail_msg("%s: tensor %zu differs between %d threads and %d", ops[op].name, k, threads[0], threads[i]);
    }
    for (size_t i = 0; i < sizeof threads / sizeof threads[0]; i++) {
      for (size_t k = 0; k < runs[i].count; k++) {
        clm_buffer_destroy(&runs[i].buffers[k]);
        free(runs[i].out[k]);
      }
      clm_context_destroy(&runs[i].context);
    }
  }
}

/* ---- Which threads there are ---- */

#ifdef FOREIGN_THREADS
static const bool foreign = true; /* an emulator or a sanitizer has threads of its own in this process */
#else
static const bool foreign = false;
#endif

static int count_threads(void) {
  DIR *folder = opendir("/proc/self/task");
  if (!folder) return -1;
  int count = -2; /* "." and ".." */
  while (readdir(folder)) count++;
  closedir(folder);
  return count;
}

/* A thread that has been joined may be listed for a moment longer. */
static void expect_threads(int count) {
  for (int tries = 0; tries < 500 && count_threads() > count; tries++)
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
  assert_int_equal(count_threads(), count);
}

static int threads_at_start;

/* The program's own thread and nobody else's before a context is made and after it has gone; with a context those
 * that it was told to have, whatever library makes its products (OpenBLAS has a thread for each processor, unless it
 * is kept from it as it is loaded). */
static void test_own_threads(void **state) {
  (void)state;
  static const char *const levels[] = {"reference", "baseline", "avx2", "avx512", "neon"};
  if (foreign || threads_at_start < 0) skip();
  assert_int_equal(threads_at_start, 1);
  for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
    run r = {.random = 7};
    if (clm_context_create(&(clm_context_options){.device = "cpu", .threads = 3, .cpu_level = levels[i]}, &r.context))
      continue; /* of another processor */
    expect_threads(3);
    if (product(&r) || product_of_few(&r)) fail_msg("%s: %s", levels[i], clm_context_error(r.context));
    expect_threads(3);
    for (size_t k = 0; k < r.count; k++) {
      clm_buffer_destroy(&r.buffers[k]);
      free(r.out[k]);
    }
    clm_context_destroy(&r.context);
    expect_threads(1);
  }
}

int main(void) {
  threads_at_start = count_threads();
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_own_threads), cmocka_unit_test(test_bits)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
