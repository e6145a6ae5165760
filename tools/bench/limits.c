/* What the device can do, measured beside the operations, so that a slow spell of the machine shows in both. */
#include "bench/bench.h"
#include "common/tool.h"
#include "core/context.h"
#include <math.h>

enum { SMALL_CALLS = 200 };

/* The best of a few products of two square matrices, in seconds. */
static clm_status fastest_product(bench *b, int64_t side, double *seconds) {
  const int64_t shape[] = {side, side}, all = 3 * side * side;
  size_t bytes = (size_t)(side * side) * sizeof(float);
  clm_buffer *buffer = NULL;
  clm_tensor t[3];
  clm_status status = clm_buffer_create(b->context, 3 * bytes, &buffer);
  for (size_t i = 0; i < 3; i++) t[i] = clm_tensor_of(buffer, i * bytes, CLM_F32, 2, shape);
  if (status == CLM_OK)
    status = clm_axpby(b->context, &(clm_axpby_args){.out = clm_tensor_of(buffer, 0, CLM_F32, 1, &all)});
  *seconds = INFINITY;
  for (int i = 0; i < 4 && status == CLM_OK; i++) {
    double ms = 0;
    status = clm_profile_begin(b->context);
    if (status == CLM_OK) status = clm_matmul(b->context, &(clm_matmul_args){.a = t[0], .b = t[1], .out = t[2]});
    if (status == CLM_OK) status = clm_profile_end(b->context, &ms);
    if (i > 0 && ms > 0) *seconds = fmin(*seconds, ms * 1e-3); /* the first compiles */
  }
  clm_buffer_destroy(&buffer);
  return status;
}

/* Larger and larger products, until one takes long enough for a dependable time. */
static bool product_rate(bench *b) {
  const double enough = 0.02;
  const int64_t most = b->device.type == CLM_DEVICE_CPU ? 2048 : 8192;
  for (int64_t side = 128; side <= most; side *= 2) {
    double seconds;
    clm_status status = fastest_product(b, side, &seconds);
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

bool bench_measure_limits(bench *b) {
  backend_limits limits = {0};
  if (b->context->backend->limits) {
    clm_status status = b->context->backend->limits(b->context, &limits);
    if (status != CLM_OK) return bench_fail(b, "limits", status);
  }
  b->limits = (bench_limits){
      .copy_bytes = limits.copy_bytes, .read_bytes = limits.read_bytes, .exponentials = limits.exponentials};
  return product_rate(b) && launch_cost(b);
}

double bench_floor_ms(const bench_limits *limits, const bench_cost *cost) {
  double seconds = 0;
  if (limits->copy_bytes > 0) seconds = fmax(seconds, cost->bytes / limits->copy_bytes);
  if (limits->exponentials > 0) seconds = fmax(seconds, cost->exponentials / limits->exponentials);
  if (limits->flops > 0) seconds = fmax(seconds, cost->flops / limits->flops);
  return 1e3 * seconds;
}
