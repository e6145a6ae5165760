/* Compares one call with the plain C reference in double precision, on sampled channels: every operation here treats
 * its channels independently, so the reference runs on 64 of them. Gradients that are sums over channels (dB, dC)
 * come out right too, because the incoming gradient is made zero outside the sample. */
#include "bench/bench.h"
#include "common/tool.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 64 };

typedef struct sample {
  int64_t count;
  int64_t channel[2 * SAMPLES]; /* ascending */
} sample;

/* The same number from every group, so that channel / (channels / groups) is the group in the sample as well. */
static void draw(sample *s, int64_t channels, int64_t groups, int64_t samples) {
  int64_t each = channels / groups, wanted = (samples + groups - 1) / groups;
  rng random = rng_seed(77, 0);
  if (wanted > each) wanted = each;
  s->count = 0;
  for (int64_t g = 0; g < groups; g++) {
    int64_t left = wanted;
    for (int64_t i = 0; i < each && left > 0; i++) /* selection sampling (Knuth, algorithm S) */
      if (rng_below(&random, (uint64_t)(each - i)) < (uint64_t)left) {
        s->channel[s->count++] = g * each + i;
        left--;
      }
  }
}

/* Walks the sampled elements of a tensor in row-major order: element `n` of the sample lies at the returned place. */
static size_t place(const clm_tensor *t, const bench_tensor *info, const sample *s, size_t n) {
  size_t offset = 0;
  for (int i = t->rank - 1; i >= 0; i--) {
    size_t size = i == info->channel ? (size_t)s->count : (size_t)t->shape[i];
    size_t index = n % size;
    n /= size;
    if (i == info->channel) index = (size_t)s->channel[index];
    offset += index * (size_t)t->stride[i];
  }
  return offset;
}

static size_t sampled_count(const clm_tensor *t, const bench_tensor *info, const sample *s) {
  size_t count = (size_t)clm_tensor_count(*t);
  return info->channel < 0 ? count : count / (size_t)t->shape[info->channel] * (size_t)s->count;
}

/* The sampled part of set 0 in doubles (two for a complex element); NULL if it cannot be had. */
static double *gather(const bench_problem *p, int index, const sample *s) {
  clm_tensor t = p->tensor[index];
  size_t bytes = (size_t)clm_tensor_count(t) * clm_dtype_size(t.dtype), parts = t.dtype == CLM_C64 ? 2 : 1;
  size_t count = sampled_count(&t, &p->info[index], s);
  void *stored = malloc(bytes);
  double *values = malloc(count * parts * sizeof *values);
  if (stored && values && clm_buffer_read(p->buffer[index], 0, bytes, stored) == CLM_OK) {
    clm_dtype real = parts == 2 ? CLM_F32 : t.dtype;
    for (size_t n = 0; n < count; n++)
      for (size_t part = 0; part < parts; part++)
        values[n * parts + part] = bench_load(real, stored, place(&t, &p->info[index], s, n) * parts + part);
    free(stored);
    return values;
  }
  free(stored);
  free(values);
  return NULL;
}

/* Zeroes set 0 of a gradient outside the sampled channels. */
static bool mask(const bench_problem *p, int index, const sample *s) {
  clm_tensor t = p->tensor[index];
  size_t width = clm_dtype_size(t.dtype), bytes = (size_t)clm_tensor_count(t) * width;
  unsigned char *stored = malloc(bytes), *masked = calloc(bytes, 1);
  bool ok = stored && masked && clm_buffer_read(p->buffer[index], 0, bytes, stored) == CLM_OK;
  size_t count = ok ? sampled_count(&t, &p->info[index], s) : 0;
  for (size_t n = 0; n < count; n++) {
    size_t at = place(&t, &p->info[index], s, n) * width;
    memcpy(masked + at, stored + at, width);
  }
  ok = ok && clm_buffer_write(p->buffer[index], 0, bytes, masked) == CLM_OK;
  free(stored);
  free(masked);
  return ok;
}

static bool poison(const bench_problem *p, int index) {
  size_t bytes = (size_t)clm_tensor_count(p->tensor[index]) * clm_dtype_size(p->tensor[index].dtype);
  unsigned char *nan = malloc(bytes);
  bool ok = nan && clm_buffer_write(p->buffer[index], 0, bytes, memset(nan, 0xff, bytes)) == CLM_OK;
  free(nan);
  return ok;
}

/* The reference's result replaces the inputs' values in `values`. */
static bool reference(clm_context *context, const bench_problem *p, const sample *s, double **values) {
  bench_shape shape = p->shape;
  *bench_dim(&shape, p->op->channels) = s->count;
  bench_tensor info[BENCH_MAX_TENSORS];
  clm_tensor tensors[BENCH_MAX_TENSORS];
  clm_buffer *buffers[BENCH_MAX_TENSORS] = {0};
  bench_tensors(p->op, &shape, info);
  clm_status status = CLM_OK;
  for (int i = 0; i < p->count && status == CLM_OK; i++) {
    tensors[i] =
        clm_tensor_of(NULL, 0, p->tensor[i].dtype == CLM_C64 ? CLM_C128 : CLM_F64, info[i].rank, info[i].shape);
    size_t bytes = (size_t)clm_tensor_count(tensors[i]) * clm_dtype_size(tensors[i].dtype);
    status = clm_buffer_wrap_host(context, values[i], bytes, &buffers[i]);
    tensors[i].buffer = buffers[i];
  }
  if (status == CLM_OK) status = bench_call_op(p->op, context, &shape, tensors);
  if (status == CLM_OK) status = clm_context_finish(context);
  if (status != CLM_OK)
    tool_fail("%s: the reference: %s", p->op->name,
              clm_context_error(context)[0] ? clm_context_error(context) : clm_status_string(status));
  for (int i = 0; i < p->count; i++) clm_buffer_destroy(&buffers[i]);
  return status == CLM_OK;
}

static double relative_error(const double *got, const double *want, size_t count) {
  double worst = 0, largest = 0;
  for (size_t i = 0; i < count; i++) {
    double difference = fabs(got[i] - want[i]);
    if (!(difference <= worst)) worst = isnan(difference) ? INFINITY : difference;
    if (fabs(want[i]) > largest) largest = fabs(want[i]);
  }
  return worst == 0 ? 0 : worst / largest;
}

static bool compare(const bench_problem *p, const sample *s, double *const *want, bench_row *row) {
  row->max_error = 0;
  for (int i = 0; i < p->count; i++) {
    if (!p->info[i].output) continue;
    double *got = gather(p, i, s);
    if (!got) return tool_fail("%s: out of memory for the check", p->op->name), false;
    size_t parts = p->tensor[i].dtype == CLM_C64 ? 2 : 1;
    double error = relative_error(got, want[i], parts * sampled_count(&p->tensor[i], &p->info[i], s));
    if (error > row->max_error) {
      row->max_error = error;
      row->worst_tensor = p->info[i].name;
    }
    free(got);
  }
  return true;
}

bool bench_check(bench *b, bench_problem *p, bench_row *row) {
  sample s;
  double *values[BENCH_MAX_TENSORS] = {0};
  clm_context *context = NULL;
  bool ok = true;
  const bool of_rows = strcmp(p->op->channels, "batch") == 0; /* each of which has all groups */
  int64_t groups = of_rows                 ? 1
                   : p->shape.groups > 0   ? p->shape.groups
                   : p->shape.kv_heads > 0 ? p->shape.kv_heads
                                           : 1;
  if (groups > SAMPLES) return tool_fail("%s: --check takes at most %d groups", p->op->name, SAMPLES), false;
  draw(&s, *bench_dim(&p->shape, p->op->channels), groups, p->op->samples ? p->op->samples : SAMPLES);
  for (int i = 0; i < p->count && ok; i++) {
    if (p->info[i].gradient) ok = mask(p, i, &s);
    if (!p->info[i].input) ok = poison(p, i);
    if (ok) ok = (values[i] = gather(p, i, &s)) != NULL;
  }
  if (!ok) tool_fail("%s: out of memory for the check", p->op->name);
  clm_status status = ok ? bench_problem_call(b, p, 0) : CLM_OK;
  if (ok && status == CLM_OK) status = clm_context_finish(b->context);
  if (ok && status != CLM_OK) ok = bench_fail(b, p->op->name, status);
  if (ok && clm_context_create(&(clm_context_options){.device = "cpu", .cpu_level = "reference"}, &context) != CLM_OK)
    ok = (tool_fail("%s: no context for the reference", p->op->name), false);
  ok = ok && reference(context, p, &s, values) && compare(p, &s, values, row);
  clm_context_destroy(&context);
  for (int i = 0; i < p->count; i++) free(values[i]);
  return ok;
}
