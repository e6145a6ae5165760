/* Warm-up, repeats and device time of one row. */
#include "bench/bench.h"
#include "common/tool.h"
#include "core/context.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_REPEATS = 5, MAX_REPEATS = 200 };
static const double seconds_wanted = 1.0, seconds_max = 10.0, seconds_between_limits = 0.25;

bool bench_fail(const bench *b, const char *what, clm_status status) {
  const char *message = clm_context_error(b->context);
  if (message[0]) tool_fail("%s", message);
  else if (status == CLM_IO_ERROR) tool_fail("%s: its temporary files: %s", what, strerror(errno));
  else tool_fail("%s: %s", what, clm_status_string(status));
  return false;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double bench_median(double *values, int count) {
  qsort(values, (size_t)count, sizeof *values, compare);
  return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

void bench_statistics(double *ms, int count, bench_row *row) {
  row->ms_median = bench_median(ms, count);
  row->ms_min = ms[0];
  row->ms_max = ms[count - 1];
}

/* What the device can do now. It took caches with it: where they are to be warm, the next call is not counted. */
static bool limits_now(bench *b, bench_samples *samples, bench_call call, void *user) {
  if (!bench_sample_limits(b, samples)) return false;
  if (!b->settings.warm) return true;
  clm_status status = call(user, 0);
  if (status == CLM_OK) status = clm_context_finish(b->context);
  return status == CLM_OK || bench_fail(b, "limits", status);
}

/* A time as a part of its floor, by the limits taken last before it and first after it. */
static double part_of_floor(const bench_samples *samples, int taken, const bench_cost *cost, double ms) {
  const bench_limits *before = &samples->each[taken - 1], *after = taken < samples->count ? before + 1 : before;
  return (bench_floor_ms(before, cost) + bench_floor_ms(after, cost)) / 2 / ms;
}

/* A machine that is now fast, now slow gives a median time of one spell and a median limit of another: each time is
 * held against its own limits, and the median of those is what counts. `taken`: how many limits were before each. */
static double median_part(const bench_samples *samples, const bench_cost *cost, const double *ms, const int *taken,
                          int count, double *parts) {
  for (int i = 0; i < count; i++) parts[i] = part_of_floor(samples, taken[i], cost, ms[i]);
  return bench_median(parts, count);
}

/* Before limits are taken in turn, whose memory is none of the row's. The copies that keep a problem out of the
 * caches are none of the operation's either: run_problem takes them off. */
void bench_peak(const bench *b, bench_row *row) {
  uint64_t peak;
  clm_context_memory(b->context, NULL, &peak);
  row->peak_bytes = peak - row->memory_before;
}

/* The first call compiles and plans; it is not counted. */
bool bench_time(bench *b, bench_call call, void *user, bench_row *row) {
  int wanted = b->settings.repeat, count = 0, max_count = wanted ? wanted : MAX_REPEATS;
  double *ms = malloc(2 * (size_t)max_count * sizeof *ms), spent = 0, limits_due = 0;
  int *taken = malloc((size_t)max_count * sizeof *taken);
  bench_samples samples = {0};
  if (!ms || !taken) {
    free(ms);
    free(taken);
    return tool_fail("out of memory"), false;
  }
  clm_status status = call(user, 0);
  if (status == CLM_OK) {
    row->explain = strdup(clm_context_explain(b->context));
    status = clm_context_finish(b->context);
  }
  bench_peak(b, row);
  bool sampled = true;
  while (status == CLM_OK && sampled && count < max_count) {
    if (spent >= limits_due) {
      sampled = limits_now(b, &samples, call, user);
      limits_due = spent + seconds_between_limits;
    }
    double begun = tool_seconds();
    status = clm_profile_begin(b->context);
    if (status == CLM_OK) status = call(user, count + 1);
    if (status == CLM_OK) status = clm_profile_end(b->context, &ms[count]);
    if (status == CLM_OK) taken[count++] = samples.count;
    spent += tool_seconds() - begun;
    if (!wanted && ((count >= MIN_REPEATS && spent > seconds_wanted) || spent > seconds_max)) break;
  }
  if (status != CLM_OK) bench_fail(b, row->op, status);
  bool ok = status == CLM_OK && sampled && limits_now(b, &samples, call, user);
  double part = ok && samples.count > 0 ? median_part(&samples, &row->cost, ms, taken, count, ms + max_count) : 0;
  if (ok) bench_statistics(ms, count, row);
  row->limits = bench_end_samples(b, &samples);
  row->floor_ms = part * row->ms_median;
  b->unsupported = status == CLM_UNSUPPORTED;
  free(ms);
  free(taken);
  return ok;
}

typedef struct rotation {
  bench *bench;
  const bench_problem *problem;
} rotation;

static clm_status call_set(void *user, int repeat) {
  const rotation *r = user;
  return bench_problem_call(r->bench, r->problem, repeat % r->problem->sets);
}

static bool run_problem(bench *b, const bench_op *op, const bench_shape *shape, bench_row *row) {
  bench_problem problem;
  if (!bench_problem_create(b, op, shape, &problem)) return false;
  row->cost = op->cost(shape);
  row->cost.bytes = bench_problem_bytes(&problem);
  clm_status status = CLM_OK; /* weights are packed by the first call that multiplies them */
  for (int set = 1; set < problem.sets && (shape->a_packed || shape->b_packed) && !status; set++)
    status = bench_problem_call(b, &problem, set);
  bool ok = status ? bench_fail(b, op->name, status) : bench_time(b, call_set, &(rotation){b, &problem}, row);
  for (int i = 0; i < problem.count; i++) row->peak_bytes -= problem.stride[i] * (uint64_t)(problem.sets - 1);
  if (ok && b->settings.check) ok = bench_check(b, &problem, row);
  bench_problem_destroy(&problem);
  return ok;
}

static bench_row *new_row(bench *b) {
  if (b->row_count == b->row_capacity) {
    size_t capacity = b->row_capacity ? 2 * b->row_capacity : 16;
    bench_row *rows = realloc(b->rows, capacity * sizeof *rows);
    if (!rows) return tool_fail("out of memory"), NULL;
    b->rows = rows;
    b->row_capacity = capacity;
  }
  return memset(&b->rows[b->row_count], 0, sizeof(bench_row));
}

/* Frees the workspace and counts the peak of the memory anew: rows share a context. */
static void forget_memory(clm_context *context) {
  for (int i = 0; i < CONTEXT_NESTING; i++) clm_buffer_destroy(&context->workspace[i]);
  context->memory_peak = context->memory_now;
}

bool bench_run_op(bench *b, const bench_op *op, const bench_shape *shape) {
  bench_row *row = new_row(b);
  if (!row) return false;
  row->op = op->name;
  row->shape = *shape;
  row->limits = b->limits;
  row->max_error = NAN;
  row->tolerance = op->tolerance * (shape->dtype == CLM_BF16 || shape->math == CLM_MATH_BF16 ? 500
                                    : shape->dtype == CLM_F16 || shape->math == CLM_MATH_F16 ? 100
                                    : shape->math == CLM_MATH_TF32                           ? 200
                                                                                             : 1);
  bench_shape_text(op, shape, row->shape_text, sizeof row->shape_text);
  if (clm_context_finish(b->context) != CLM_OK) return bench_fail(b, op->name, CLM_DEVICE_ERROR);
  forget_memory(b->context);
  clm_context_memory(b->context, &row->memory_before, NULL);
  bool ok = op->measure ? op->measure(b, op, shape, row) : run_problem(b, op, shape, row);
  if (!ok) {
    free(row->explain);
    return false;
  }
  if (row->floor_ms == 0) row->floor_ms = bench_floor_ms(&row->limits, &row->cost);
  b->row_count++;
  return true;
}
