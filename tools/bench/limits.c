/* What the device can do, measured along with the operations, so that a slow spell of the machine shows in both. */
#include "bench/bench.h"
#include "common/tool.h"
#include "core/context.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL_CALLS = 200, RUNS = 8, PRODUCT_RUNS = 3 };

/* The best of some products of two square matrices at the beginning of `buffer`, in seconds. */
static clm_status fastest_product(bench *b, clm_buffer *buffer, int64_t side, int runs, double *seconds) {
  const int64_t shape[] = {side, side};
  const clm_dtype dtype = b->settings.shape.dtype;
  size_t bytes = (size_t)(side * side) * clm_dtype_size(dtype);
  clm_tensor t[3];
  clm_status status = CLM_OK;
  for (size_t i = 0; i < 3; i++) t[i] = clm_tensor_of(buffer, i * bytes, dtype, 2, shape);
  const clm_matmul_args args = {.a = t[0], .b = t[1], .out = t[2], .math = b->settings.shape.math};
  *seconds = INFINITY;
  for (int i = 0; i < runs && status == CLM_OK; i++) {
    double ms = 0;
    status = clm_profile_begin(b->context);
    if (status == CLM_OK) status = clm_matmul(b->context, &args);
    if (status == CLM_OK) status = clm_profile_end(b->context, &ms);
    if (ms > 0) *seconds = fmin(*seconds, ms * 1e-3);
  }
  return status;
}

/* Three matrices of random numbers (a device may be faster on zeros), the same ones again and again. */
static clm_status product_buffer(bench *b, int64_t side, clm_buffer **buffer) {
  enum { PIECE = 1 << 20 };
  const clm_dtype dtype = b->settings.shape.dtype;
  const size_t size = clm_dtype_size(dtype), all = 3 * (size_t)(side * side);
  float *floats = malloc(PIECE * sizeof *floats);
  unsigned char *stored = malloc(PIECE * size);
  clm_status status = floats && stored ? clm_buffer_create(b->context, all * size, buffer) : CLM_OUT_OF_MEMORY;
  if (status == CLM_OK) {
    rng random = rng_seed(1, 0);
    bench_fill_floats(&random, BENCH_NORMAL, 1, floats, PIECE);
    for (size_t i = 0; i < PIECE; i++) bench_store(dtype, stored, i, floats[i]);
  }
  for (size_t done = 0; done < all && status == CLM_OK; done += PIECE) {
    const size_t piece = all - done < PIECE ? all - done : PIECE;
    status = clm_buffer_write(*buffer, done * size, piece * size, stored);
  }
  free(floats);
  free(stored);
  return status;
}

/* Larger and larger products, until one takes long enough for a dependable time. */
static bool product_rate(bench *b) {
  const double enough = 0.02;
  const int64_t max_side = b->device.type == CLM_DEVICE_CPU ? 2048 : 8192;
  for (int64_t side = 128; side <= max_side; side *= 2) {
    double seconds;
    clm_buffer *buffer = NULL;
    clm_status status = product_buffer(b, side, &buffer);
    if (status == CLM_OK) status = fastest_product(b, buffer, side, 1, &seconds); /* compiles */
    if (status == CLM_OK) status = fastest_product(b, buffer, side, PRODUCT_RUNS, &seconds);
    clm_buffer_destroy(&buffer);
    if (status == CLM_UNSUPPORTED) return true;
    if (status != CLM_OK) return bench_fail(b, "limits", status);
    b->limits.flops = fmax(b->limits.flops, 2 * pow((double)side, 3) / seconds);
    if (seconds > enough) break;
  }
  return true;
}

/* Back-to-back operations on one element: what a launch costs when nothing hides it. */
static bool launch_cost(bench *b) {
  clm_buffer *buffer = NULL;
  clm_status status = clm_buffer_create(b->context, sizeof(float), &buffer);
  clm_tensor one = clm_tensor_of(buffer, 0, CLM_F32, 1, &(int64_t){1});
  double ms = 0;
  for (int pass = 0; pass < 2 && status == CLM_OK; pass++) { /* the first compiles */
    status = clm_profile_begin(b->context);
    for (int i = 0; i < SMALL_CALLS && status == CLM_OK; i++)
      status = clm_axpby(b->context, &(clm_axpby_args){.out = one});
    if (status == CLM_OK) status = clm_profile_end(b->context, &ms);
  }
  clm_buffer_destroy(&buffer);
  if (status != CLM_OK) return bench_fail(b, "limits", status);
  b->limits.launch = ms * 1e-3 / SMALL_CALLS;
  return true;
}

static clm_status device_rates(bench *b, int runs, bench_limits *limits) {
  backend_limits rates = {0};
  clm_status status = CLM_OK;
  if (b->context->backend->limits) status = b->context->backend->limits(b->context, runs, &rates);
  limits->copy_bytes = rates.copy_bytes;
  limits->read_bytes = rates.read_bytes;
  limits->exponentials = rates.exponentials;
  return status;
}

bool bench_measure_limits(bench *b) {
  clm_status status = device_rates(b, RUNS, &b->limits);
  if (status != CLM_OK) return bench_fail(b, "limits", status);
  return product_rate(b) && launch_cost(b);
}

/* Only where other programs take their part of cores and memory. The products' memory is none of the row's. */
bool bench_sample_limits(bench *b, bench_samples *s) {
  const int64_t side = 1024;
  const size_t bytes = 3 * (size_t)(side * side) * sizeof(float);
  if (strcmp(b->context->backend->name, "cpu") != 0 || s->count == BENCH_MAX_SAMPLES) return true;
  bench_limits *limits = &s->each[s->count];
  double seconds = INFINITY;
  clm_buffer *buffer = NULL;
  if (!s->memory) s->memory = calloc(1, bytes);
  if (!s->memory) return tool_fail("out of memory"), false;
  *limits = (bench_limits){.launch = b->limits.launch};
  clm_status status = device_rates(b, 1, limits);
  if (status == CLM_OK) status = clm_buffer_wrap_host(b->context, s->memory, bytes, &buffer);
  if (status == CLM_OK) status = fastest_product(b, buffer, side, 2, &seconds);
  clm_buffer_destroy(&buffer);
  if (status != CLM_OK) return bench_fail(b, "limits", status);
  limits->flops = 2 * pow((double)side, 3) / seconds;
  s->count++;
  return true;
}

static double median(const bench_samples *s, size_t member) {
  double values[BENCH_MAX_SAMPLES];
  for (int i = 0; i < s->count; i++) values[i] = *(const double *)(const void *)((const char *)&s->each[i] + member);
  return bench_median(values, s->count);
}

bench_limits bench_end_samples(const bench *b, bench_samples *s) {
  bench_limits limits = b->limits;
  if (s->count > 0) {
    limits.copy_bytes = median(s, offsetof(bench_limits, copy_bytes));
    limits.read_bytes = median(s, offsetof(bench_limits, read_bytes));
    limits.flops = median(s, offsetof(bench_limits, flops));
    limits.exponentials = median(s, offsetof(bench_limits, exponentials));
  }
  free(s->memory);
  *s = (bench_samples){0};
  return limits;
}

double bench_floor_ms(const bench_limits *limits, const bench_cost *cost) {
  double memory = 0, seconds = 0;
  if (limits->copy_bytes > 0) memory += cost->bytes / limits->copy_bytes;
  if (limits->read_bytes > 0) memory += cost->read_bytes / limits->read_bytes;
  if (limits->exponentials > 0) seconds = fmax(seconds, cost->exponentials / limits->exponentials);
  if (limits->flops > 0) seconds = fmax(seconds, cost->flops / limits->flops);
  return 1e3 * fmax(seconds, memory);
}
