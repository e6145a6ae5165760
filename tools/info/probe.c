/* Runs the main operations once at a small shape, to learn which variants a device gets. */
#include "info/info.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 1, LENGTH = 256, D_INNER = 256, D_STATE = 16, WIDTH = 4 };

/* A tensor over fresh, cleared memory; the buffer is kept in the pool that the probe frees. */
typedef struct pool {
  clm_context *context;
  clm_buffer *buffers[16];
  int count;
  clm_status status;
} pool;

static clm_tensor fresh(pool *p, int rank, int64_t a, int64_t b, int64_t c, int64_t d) {
  int64_t shape[] = {a, b, c, d};
  size_t elements = 1;
  for (int i = 0; i < rank; i++) elements *= (size_t)shape[i];
  clm_buffer *buffer = NULL;
  if (p->status == CLM_OK) p->status = clm_buffer_create(p->context, elements * sizeof(float), &buffer);
  if (buffer) p->buffers[p->count++] = buffer;
  clm_tensor tensor = clm_tensor_of(buffer, 0, CLM_F32, rank, shape);
  if (p->status == CLM_OK) p->status = clm_axpby(p->context, &(clm_axpby_args){.out = tensor});
  return tensor;
}

static clm_status probe_scan(pool *p) {
  clm_selective_scan_args args = {.u = fresh(p, 3, BATCH, LENGTH, D_INNER, 1),
                                  .delta = fresh(p, 3, BATCH, LENGTH, D_INNER, 1),
                                  .A = fresh(p, 2, D_INNER, D_STATE, 1, 1),
                                  .B = fresh(p, 4, BATCH, LENGTH, 1, D_STATE),
                                  .C = fresh(p, 4, BATCH, LENGTH, 1, D_STATE),
                                  .z = fresh(p, 3, BATCH, LENGTH, D_INNER, 1),
                                  .out = fresh(p, 3, BATCH, LENGTH, D_INNER, 1),
                                  .delta_softplus = true};
  return p->status ? p->status : clm_selective_scan(p->context, &args);
}

static clm_status probe_scan_backward(pool *p) {
  clm_selective_scan_args forward = {.u = fresh(p, 3, BATCH, LENGTH, D_INNER, 1),
                                     .delta = fresh(p, 3, BATCH, LENGTH, D_INNER, 1),
                                     .A = fresh(p, 2, D_INNER, D_STATE, 1, 1),
                                     .B = fresh(p, 4, BATCH, LENGTH, 1, D_STATE),
                                     .C = fresh(p, 4, BATCH, LENGTH, 1, D_STATE),
                                     .delta_softplus = true};
  clm_selective_scan_backward_args args = {.dout = fresh(p, 3, BATCH, LENGTH, D_INNER, 1),
                                           .du = fresh(p, 3, BATCH, LENGTH, D_INNER, 1),
                                           .ddelta = fresh(p, 3, BATCH, LENGTH, D_INNER, 1),
                                           .dB = fresh(p, 4, BATCH, LENGTH, 1, D_STATE),
                                           .dC = fresh(p, 4, BATCH, LENGTH, 1, D_STATE),
                                           .dA = fresh(p, 2, D_INNER, D_STATE, 1, 1)};
  args.forward = forward;
  return p->status ? p->status : clm_selective_scan_backward(p->context, &args);
}

static clm_status probe_conv(pool *p) {
  clm_causal_conv1d_args args = {.x = fresh(p, 3, BATCH, LENGTH, D_INNER, 1),
                                 .weight = fresh(p, 2, D_INNER, WIDTH, 1, 1),
                                 .out = fresh(p, 3, BATCH, LENGTH, D_INNER, 1),
                                 .silu = true};
  return p->status ? p->status : clm_causal_conv1d(p->context, &args);
}

static clm_status probe_assoc_scan(pool *p) {
  clm_assoc_scan_args args = {.a = fresh(p, 3, BATCH, LENGTH, D_INNER, 1),
                              .b = fresh(p, 3, BATCH, LENGTH, D_INNER, 1),
                              .h = fresh(p, 3, BATCH, LENGTH, D_INNER, 1)};
  return p->status ? p->status : clm_assoc_scan(p->context, &args);
}

static clm_status probe_update(pool *p) {
  clm_selective_state_update_args args = {.state = fresh(p, 3, BATCH, D_INNER, D_STATE, 1),
                                          .u = fresh(p, 2, BATCH, D_INNER, 1, 1),
                                          .delta = fresh(p, 2, BATCH, D_INNER, 1, 1),
                                          .A = fresh(p, 2, D_INNER, D_STATE, 1, 1),
                                          .B = fresh(p, 3, BATCH, 1, D_STATE, 1),
                                          .C = fresh(p, 3, BATCH, 1, D_STATE, 1),
                                          .out = fresh(p, 2, BATCH, D_INNER, 1, 1)};
  return p->status ? p->status : clm_selective_state_update(p->context, &args);
}

/* Large enough for a matrix engine, where there is one. */
static clm_status probe_product(pool *p, clm_dtype dtype, clm_math math) {
  enum { SIDE = 512 };
  const int64_t shape[] = {SIDE, SIDE};
  clm_matmul_args args = {.a = fresh(p, 2, SIDE, SIDE, 1, 1),
                          .b = fresh(p, 2, SIDE, SIDE, 1, 1),
                          .out = fresh(p, 2, SIDE, SIDE, 1, 1),
                          .math = math};
  clm_tensor *t[] = {&args.a, &args.b, &args.out};
  for (int i = 0; i < 3; i++) *t[i] = clm_tensor_of(t[i]->buffer, 0, dtype, 2, shape);
  return p->status ? p->status : clm_matmul(p->context, &args);
}

static clm_status probe_f32(pool *p) { return probe_product(p, CLM_F32, CLM_MATH_F32); }
static clm_status probe_tf32(pool *p) { return probe_product(p, CLM_F32, CLM_MATH_TF32); }
static clm_status probe_bf16(pool *p) { return probe_product(p, CLM_BF16, CLM_MATH_F32); }
static clm_status probe_f16(pool *p) { return probe_product(p, CLM_F16, CLM_MATH_F32); }

static const struct {
  const char *op;
  clm_status (*run)(pool *);
} probes[] = {
    {"selective_scan", probe_scan},
    {"selective_scan_backward", probe_scan_backward},
    {"selective_state_update", probe_update},
    {"causal_conv1d", probe_conv},
    {"assoc_scan", probe_assoc_scan},
    {"matmul f32", probe_f32},
    {"matmul tf32", probe_tf32},
    {"matmul bf16", probe_bf16},
    {"matmul f16", probe_f16},
};
enum { PROBES = sizeof probes / sizeof probes[0] };

/* False: out of memory. */
static bool run_probe(clm_context *context, int i, info_variant *variant) {
  pool p = {.context = context};
  clm_status status = probes[i].run(&p);
  variant->op = probes[i].op;
  variant->failed = status != CLM_OK;
  variant->explain = strdup(status == CLM_OK ? clm_context_explain(context) : clm_context_error(context));
  for (int b = 0; b < p.count; b++) clm_buffer_destroy(&p.buffers[b]);
  return variant->explain != NULL;
}

static void ignore_log(void *user, clm_log_level level, const char *message) {
  (void)user, (void)level, (void)message;
}

bool info_probe(info_device *entry) {
  if (entry->device.unusable[0]) return true;
  char message[512] = "";
  clm_context_options options = {
      .device = entry->option, .log = ignore_log, .error = message, .error_size = sizeof message};
  clm_context *context;
  clm_status status = clm_context_create(&options, &context);
  if (status != CLM_OK) {
    entry->failure = strdup(message[0] ? message : clm_status_string(status));
    return entry->failure != NULL;
  }
  clm_context_device(context, &entry->device);
  entry->variants = calloc(PROBES + 1, sizeof *entry->variants);
  bool ok = entry->variants != NULL;
  for (int i = 0; ok && i < PROBES; i++) ok = run_probe(context, i, &entry->variants[i]);
  clm_context_destroy(&context);
  return ok;
}

void info_automatic(char *name, size_t size) {
  clm_context_options options = {.log = ignore_log};
  clm_context *context;
  clm_device_info device;
  snprintf(name, size, "none");
  if (clm_context_create(&options, &context) != CLM_OK) return;
  if (clm_context_device(context, &device) == CLM_OK) snprintf(name, size, "%s", device.name);
  clm_context_destroy(&context);
}

void info_free(info_device *entry) {
  for (info_variant *v = entry->variants; v && v->op; v++) free(v->explain);
  free(entry->variants);
  free(entry->failure);
}
