#include "problem.h"
#include "cmocka_all.h"
#include "numbers.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POISON 0xff /* every byte: NaN in all floating dtypes, -1 as an integer */

static void *allocate(size_t count, size_t size) {
  void *memory = calloc(count ? count : 1, size);
  if (!memory) abort();
  return memory;
}

/* To be written whole. */
static void *allocate_bytes(size_t bytes) {
  void *memory = malloc(bytes ? bytes : 1);
  if (!memory) abort();
  return memory;
}

void problem_add(test_problem *p, test_tensor t) {
  if (p->count == TEST_MAX_TENSORS) abort();
  p->tensors[p->count++] = t;
}

test_tensor *problem_find(test_problem *p, const char *name) {
  for (size_t i = 0; i < p->count; i++)
    if (strcmp(p->tensors[i].name, name) == 0) return &p->tensors[i];
  return NULL;
}

/* ---- One tensor: dtype, memory layout, values ---- */

static bool is_complex(clm_dtype dtype) { return dtype == CLM_C64 || dtype == CLM_C128; }

static clm_dtype dtype_of(const test_tensor *t, clm_dtype storage, bool double_precision) {
  switch (t->kind) {
  case TEST_INDEX: return CLM_I32;
  case TEST_INTEGER: return CLM_I8;
  case TEST_COMPLEX: return double_precision ? CLM_C128 : CLM_C64;
  case TEST_PARAMETER: return double_precision ? CLM_F64 : CLM_F32;
  case TEST_STORAGE: return double_precision ? CLM_F64 : storage;
  case TEST_F16: return double_precision ? CLM_F64 : CLM_F16;
  case TEST_BF16: return double_precision ? CLM_F64 : CLM_BF16;
  }
  return storage;
}

static int64_t count_of(const test_tensor *t) {
  int64_t count = 1;
  for (int i = 0; i < t->rank; i++) count *= t->shape[i];
  return count;
}

static bool repeats(const test_problem *p, const test_tensor *t) {
  return p->layout == TEST_REPEATED && t->role == TEST_IN && t->rank >= 3;
}

/* The view without its buffer, and how many elements the buffer needs. */
static clm_tensor lay_out(const test_tensor *t, test_layout layout, bool repeat, clm_dtype dtype, int64_t *elements) {
  clm_tensor view = {.dtype = dtype, .rank = t->rank};
  int order[CLM_MAX_RANK]; /* dimensions from the outermost in memory to the innermost */
  for (int i = 0; i < t->rank; i++) order[i] = i;
  if ((layout == TEST_TRANSPOSED) != t->transposed && t->rank >= 2) {
    int moved = t->rank == 2 ? 0 : 1;
    for (int i = moved; i + 1 < t->rank; i++) order[i] = i + 1;
    order[t->rank - 1] = moved;
  }
  int64_t stride = layout == TEST_SPREAD ? 2 : 1, first = 0;
  for (int i = t->rank - 1; i >= 0; i--) {
    int dim = order[i];
    int64_t extent = view.shape[dim] = t->shape[dim];
    view.stride[dim] = i == 0 && repeat ? 0 : stride;
    if (i > 0 && layout == TEST_PADDED) extent += i == t->rank - 1 ? 3 : 1;
    if (i == t->rank - 1 && layout == TEST_WIDE) {
      first = extent;
      extent *= 3;
    }
    stride *= extent;
  }
  if (layout == TEST_PADDED) first = 5;
  view.offset = (size_t)first * clm_dtype_size(dtype);
  *elements = first + stride;
  return view;
}

/* Where the numbers stand in logical order, counted in numbers from the start of the buffer. */
typedef struct walk {
  const clm_tensor *view;
  size_t parts, part;
  int64_t at, index[CLM_MAX_RANK];
} walk;

static walk walk_of(const clm_tensor *view) {
  return (walk){.view = view,
                .parts = is_complex(view->dtype) ? 2 : 1,
                .at = (int64_t)(view->offset / clm_dtype_size(view->dtype))};
}

static size_t walk_next(walk *w) {
  const size_t number = (size_t)w->at * w->parts + w->part;
  if (++w->part < w->parts) return number;
  w->part = 0;
  for (int dim = w->view->rank - 1; dim >= 0; dim--) {
    w->at += w->view->stride[dim];
    if (++w->index[dim] < w->view->shape[dim]) break;
    w->at -= w->view->shape[dim] * w->view->stride[dim];
    w->index[dim] = 0;
  }
  return number;
}

static void scatter(const clm_tensor *view, void *memory, const double *values, size_t count) {
  walk w = walk_of(view);
  for (size_t k = 0; k < count; k++) number_set(view->dtype, memory, walk_next(&w), values[k]);
}

static double drawn(const test_tensor *t, test_random *r) {
  if (t->kind == TEST_INDEX) return random_below(r, 8) == 0 ? -1 : (double)random_below(r, t->bound);
  return t->draw ? t->draw(r) : random_normal(r);
}

static double *made_values(const test_tensor *t) {
  test_run *run = run_create(t->made_by, test_reference, true);
  run_call(run);
  double *values = run_read(run, t->name);
  run_destroy(run);
  return values;
}

static double *make_values(const test_problem *p, const test_tensor *t) {
  clm_dtype dtype = dtype_of(t, p->storage, false);
  size_t count = (size_t)count_of(t) * (is_complex(dtype) ? 2 : 1);
  size_t period = repeats(p, t) ? count / (size_t)t->shape[0] : count;
  double *values = t->made_by ? made_values(t) : allocate_bytes(count * sizeof *values);
  test_random r = random_seeded(p->seed, t->name);
  for (size_t i = 0; i < count; i++) {
    double stored[2];
    number_set(dtype, stored, 0,
               t->values    ? t->values[i]
               : t->made_by ? values[i]
               : i < period ? drawn(t, &r)
                            : values[i - period]);
    values[i] = number_get(dtype, stored, 0);
  }
  return values;
}

/* The same values on every context, rounded to what the device stores. Those drawn last are kept: all devices take
 * them, and after the operation its gradient. */
static const double *values_of(const test_problem *p, const test_tensor *t) {
  static struct kept {
    test_tensor of;
    uint64_t seed;
    clm_dtype dtype;
    bool repeats;
    double *values;
  } kept[16];
  static size_t next;
  const struct kept wanted = {*t, p->seed, dtype_of(t, p->storage, false), repeats(p, t), NULL};
  for (size_t i = 0; i < TEST_COUNT(kept) && !t->values && !t->made_by; i++) {
    const struct kept *k = &kept[i];
    if (k->values && !k->of.values && !k->of.made_by && k->seed == wanted.seed && k->dtype == wanted.dtype &&
        k->repeats == wanted.repeats && k->of.kind == t->kind && k->of.draw == t->draw && k->of.bound == t->bound &&
        k->of.rank == t->rank && memcmp(k->of.shape, t->shape, (size_t)t->rank * sizeof t->shape[0]) == 0 &&
        strcmp(k->of.name, t->name) == 0)
      return k->values;
  }
  struct kept *k = &kept[next++ % TEST_COUNT(kept)];
  free(k->values);
  *k = wanted;
  return k->values = make_values(p, t);
}

/* ---- A problem on a context ---- */

static clm_tensor *member(test_run *run, size_t i) {
  return (clm_tensor *)(void *)((char *)run->args + run->problem->tensors[i].member);
}

static void ok(const test_run *run, clm_status status, const char *what) {
  if (status == CLM_OK) return;
  print_error("%s: %s: %s: %s\n", run->problem->op->name, what, clm_status_string(status),
              clm_context_error(run->context));
  fail();
}

test_run *run_create(const test_problem *p, clm_context *context, bool double_precision) {
  test_run *run = allocate(1, sizeof *run);
  run->problem = p;
  run->context = context;
  run->args = allocate(1, p->op->args_size);
  memcpy(run->args, p->args, p->op->args_size);
  for (size_t i = 0; i < p->count; i++) {
    const test_tensor *t = &p->tensors[i];
    int64_t elements;
    clm_tensor view = lay_out(t, double_precision ? TEST_CONTIGUOUS : p->layout, !double_precision && repeats(p, t),
                              dtype_of(t, p->storage, double_precision), &elements);
    size_t bytes = (size_t)elements * clm_dtype_size(view.dtype);
    run->images[i] = allocate_bytes(bytes);
    memset(run->images[i], POISON, bytes);
    if (t->role != TEST_OUT)
      scatter(&view, run->images[i], values_of(p, t), (size_t)count_of(t) * (is_complex(view.dtype) ? 2 : 1));
    ok(run, clm_buffer_create(context, bytes, &run->buffers[i]), "buffer");
    ok(run, clm_buffer_write(run->buffers[i], 0, bytes, run->images[i]), "buffer");
    view.buffer = run->buffers[i];
    run->views[i] = view;
    *member(run, i) = view;
  }
  return run;
}

void run_destroy(test_run *run) {
  for (size_t i = 0; i < run->problem->count; i++) {
    clm_buffer_destroy(&run->buffers[i]);
    free(run->images[i]);
  }
  free(run->args);
  free(run);
}

void run_call(test_run *run) {
  ok(run, run->problem->op->call(run->context, run->args), "call");
  ok(run, clm_context_finish(run->context), "finish");
}

size_t run_index(const test_run *run, const char *name) {
  for (size_t i = 0; i < run->problem->count; i++)
    if (strcmp(run->problem->tensors[i].name, name) == 0) return i;
  print_error("%s: no tensor %s\n", run->problem->op->name, name);
  fail();
  return 0;
}

size_t run_values(const test_run *run, const char *name) {
  size_t i = run_index(run, name);
  return (size_t)count_of(&run->problem->tensors[i]) * (is_complex(run->views[i].dtype) ? 2 : 1);
}

bool run_is_complex(const test_run *run, const char *name) {
  return is_complex(run->views[run_index(run, name)].dtype);
}

static unsigned char *read_buffer(const test_run *run, size_t i) {
  size_t bytes = clm_buffer_size(run->buffers[i]);
  unsigned char *memory = allocate_bytes(bytes);
  ok(run, clm_buffer_read(run->buffers[i], 0, bytes, memory), "read");
  return memory;
}

double *run_read(const test_run *run, const char *name) {
  size_t i = run_index(run, name), count = run_values(run, name);
  unsigned char *memory = read_buffer(run, i);
  double *values = allocate_bytes(count * sizeof *values);
  walk w = walk_of(&run->views[i]);
  for (size_t k = 0; k < count; k++) values[k] = number_get(run->views[i].dtype, memory, walk_next(&w));
  free(memory);
  return values;
}

void run_write(const test_run *run, const char *name, const double *values) {
  size_t i = run_index(run, name), count = run_values(run, name);
  unsigned char *memory = read_buffer(run, i);
  scatter(&run->views[i], memory, values, count);
  size_t bytes = clm_buffer_size(run->buffers[i]);
  ok(run, clm_buffer_write(run->buffers[i], 0, bytes, memory), "write");
  memcpy(run->images[i], memory, bytes);
  free(memory);
}

/* ---- Comparing ---- */

/* "[1, 0, 5]", with the part of a complex number. */
static void print_index(char *text, size_t size, const test_run *run, size_t i, size_t number) {
  const clm_tensor *view = &run->views[i];
  size_t parts = is_complex(view->dtype) ? 2 : 1;
  int64_t index[CLM_MAX_RANK], element = (int64_t)(number / parts);
  for (int dim = view->rank - 1; dim >= 0; dim--) {
    index[dim] = element % view->shape[dim];
    element /= view->shape[dim];
  }
  size_t used = 0;
  for (int dim = 0; dim < view->rank && used < size; dim++)
    used += (size_t)snprintf(text + used, size - used, "%s%lld", dim ? ", " : "[", (long long)index[dim]);
  if (used < size) snprintf(text + used, size - used, "]%s", parts == 1 ? "" : number % 2 ? " imaginary" : " real");
}

static double root_mean_square(const double *values, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += values[i] * values[i];
  return sqrt(sum / (double)count);
}

/* Below this nothing counts: inputs are about 1, so exact zeros may come out as rounding errors of cancelling terms.
 */
#define NEGLIGIBLE 1e-9

/* Half of the last place, relative. */
static double rounding_of(clm_dtype dtype) { return dtype == CLM_F16 ? 0x1p-11 : dtype == CLM_BF16 ? 0x1p-8 : 0; }

/* Numbers of a tensor that are compared by one scale: every `inner` of `period` from `first` on. */
typedef struct slice {
  size_t first, inner, period;
} slice;

static double slice_scale(const double *values, size_t count, slice s) {
  double sum = 0;
  size_t counted = 0;
  for (size_t at = s.first; at < count; at += s.period)
    for (size_t k = at; k < at + s.inner; k++, counted++) sum += values[k] * values[k];
  return sqrt(sum / (double)counted);
}

/* Results of one tensor and the numbers that they should be. */
typedef struct comparison {
  const double *got, *want;
  size_t count;
  double tolerance;
  double least, most; /* smaller differences do not count, nor do larger numbers */
} comparison;

typedef struct worst {
  size_t off, at;
  double excess;
} worst;

static double tolerance_of(const test_run *run, size_t i) {
  return run->problem->tolerance + rounding_of(run->views[i].dtype);
}

static void compare_slice(const comparison *c, slice s, worst *w) {
  const double scale = slice_scale(c->want, c->count, s);
  for (size_t at = s.first; at < c->count; at += s.period)
    for (size_t k = at; k < at + s.inner; k++) {
      const double excess = fabs(c->got[k] - c->want[k]) / (c->tolerance * (fabs(c->want[k]) + scale) + c->least);
      if (excess <= 1 || fabs(c->want[k]) > c->most) continue;
      if (w->off++ == 0 || !(excess <= w->excess)) { /* not a number is the worst */
        w->at = k;
        w->excess = isnan(excess) ? (double)INFINITY : excess;
      }
    }
}

static bool report(const test_run *run, size_t i, const double *got, const double *want, const worst *w) {
  if (w->off == 0) return true;
  const char *op = run->problem->op->name;
  char index[120];
  print_index(index, sizeof index, run, i, w->at);
  print_error("%s: %s%s is %.9g, expected %.9g (%.3g times the tolerance); %zu of %zu numbers are off\n", op,
              run->problem->tensors[i].name, index, got[w->at], want[w->at], w->excess, w->off,
              run_values(run, run->problem->tensors[i].name));
  if (clm_context_explain(run->context)[0]) print_error("%s was run as: %s\n", op, clm_context_explain(run->context));
  return false;
}

static bool compare_tensor(const test_run *got_run, const test_run *want_run, size_t i) {
  const char *name = got_run->problem->tensors[i].name;
  const size_t count = run_values(got_run, name);
  double *got = run_read(got_run, name), *want = run_read(want_run, name);
  worst w = {0};
  const comparison c = {.got = got,
                        .want = want,
                        .count = count,
                        .tolerance = tolerance_of(got_run, i),
                        .least = got_run->views[i].dtype == CLM_F16 ? 0x1p-25
                                                                    : NEGLIGIBLE, /* f16 has fixed steps near 0 */
                        .most = (double)INFINITY};
  compare_slice(&c, (slice){0, count, count}, &w);
  const bool right = report(got_run, i, got, want, &w);
  free(got);
  free(want);
  return right;
}

/* A decay below 2^-126 may come out as that, and meets numbers up to 1e14 where inputs are extreme; a half has fixed
 * steps near 0. */
static double least_of(clm_dtype dtype) { return dtype == CLM_F16 ? 0x1p-25 : 1e-24; }

static double most_of(clm_dtype dtype) { return dtype == CLM_F16 ? 65504 : (double)FLT_MAX; }

void run_compare_slices(const test_run *got_run, const test_run *want_run, int64_t size) {
  bool right = true;
  for (size_t i = 0; i < got_run->problem->count; i++) {
    const test_tensor *t = &got_run->problem->tensors[i];
    if (t->role == TEST_IN) continue;
    const clm_dtype dtype = got_run->views[i].dtype;
    const size_t count = run_values(got_run, t->name);
    size_t inner = is_complex(dtype) ? 2 : 1, period = inner;
    bool found = false;
    for (int dim = t->rank - 1; dim >= 0 && !found; dim--) {
      inner = period;
      period *= (size_t)t->shape[dim];
      found = t->shape[dim] == size;
    }
    double *got = run_read(got_run, t->name), *want = run_read(want_run, t->name);
    const comparison c = {.got = got,
                          .want = want,
                          .count = count,
                          .tolerance = tolerance_of(got_run, i),
                          .least = least_of(dtype),
                          .most = most_of(dtype)};
    worst w = {0};
    for (size_t first = 0; first < (found ? period : 1); first += inner)
      compare_slice(&c, (slice){first, found ? inner : count, period}, &w);
    right &= report(got_run, i, got, want, &w);
    free(got);
    free(want);
  }
  if (!right) fail();
}

void run_compare(const test_run *got, const test_run *want) {
  bool equal = true;
  for (size_t i = 0; i < got->problem->count; i++)
    if (got->problem->tensors[i].role != TEST_IN) equal &= compare_tensor(got, want, i);
  if (!equal) fail();
}

void run_compare_bits(const test_run *a, const test_run *b) {
  bool equal = true;
  for (size_t i = 0; i < a->problem->count; i++) {
    unsigned char *x = read_buffer(a, i), *y = read_buffer(b, i);
    if (memcmp(x, y, clm_buffer_size(a->buffers[i])) != 0) {
      print_error("%s: %s differs between two equal calls\n", a->problem->op->name, a->problem->tensors[i].name);
      equal = false;
    }
    free(x);
    free(y);
  }
  if (!equal) fail();
}

void run_check_untouched(const test_run *run) {
  bool untouched = true;
  for (size_t i = 0; i < run->problem->count; i++) {
    const clm_tensor *view = &run->views[i];
    size_t bytes = clm_buffer_size(run->buffers[i]),
           number = clm_dtype_size(view->dtype) / (is_complex(view->dtype) ? 2 : 1);
    unsigned char *memory = read_buffer(run, i);
    if (run->problem->tensors[i].role != TEST_IN) { /* what may have been written counts as unchanged */
      size_t count = run_values(run, run->problem->tensors[i].name);
      walk w = walk_of(view);
      for (size_t k = 0; k < count; k++) {
        size_t at = walk_next(&w) * number;
        memcpy(memory + at, run->images[i] + at, number);
      }
    }
    for (size_t at = 0; at < bytes; at++) {
      if (memory[at] == run->images[i][at]) continue;
      print_error("%s: wrote to byte %zu of the buffer of %s, which is not its to write\n", run->problem->op->name,
                  at, run->problem->tensors[i].name);
      untouched = false;
      break;
    }
    free(memory);
  }
  if (!untouched) fail();
}

void run_check_unwritten(const test_run *run) {
  for (size_t i = 0; i < run->problem->count; i++) {
    unsigned char *memory = read_buffer(run, i);
    if (memcmp(memory, run->images[i], clm_buffer_size(run->buffers[i])) != 0)
      fail_msg("%s: %s was written", run->problem->op->name, run->problem->tensors[i].name);
    free(memory);
  }
}

/* Elements of all tensors, which the work of an operation grows with, that a simulator takes a second or two for. */
#define SMALL_PROBLEM 2500

static bool small(const test_problem *p) {
  int64_t elements = 0;
  for (size_t i = 0; i < p->count; i++) {
    int64_t product = 1;
    for (int k = 0; k < p->tensors[i].rank; k++) product *= p->tensors[i].shape[k];
    elements += product;
  }
  return elements <= SMALL_PROBLEM;
}

void problem_check(const test_problem *p, const test_device *device) {
  if (device->simulated && !small(p)) return;
  test_run *want = run_create(p, test_reference, true), *got = run_create(p, device->context, false);
  run_call(want);
  run_call(got);
  run_compare(got, want);
  run_check_untouched(got);
  run_destroy(want);
  if (device->simulated) {
    run_destroy(got);
    return;
  }
  test_run *again = run_create(p, device->context, false);
  run_call(again);
  run_compare_bits(got, again);
  run_destroy(again);
  run_destroy(got);
}

void problem_check_16bit(const test_problem *p, const test_device *device) {
  static const clm_dtype narrow[] = {CLM_F16, CLM_BF16};
  for (size_t i = 0; i < sizeof narrow / sizeof narrow[0]; i++) {
    test_problem half = *p;
    half.storage = narrow[i];
    problem_check(&half, device);
  }
}

void problem_check_or_unsupported(const test_problem *p, const test_device *device) {
  if (device->opencl) {
    test_run *run = run_create(p, device->context, false);
    clm_status status = p->op->call(device->context, run->args);
    if (status == CLM_UNSUPPORTED) {
      assert_string_not_equal(clm_context_error(device->context), "");
      run_check_unwritten(run);
      run_destroy(run);
      return;
    }
    run_destroy(run);
  }
  problem_check(p, device);
}

/* ---- Rows and sequences ---- */

#define MAX_STEPS 600

const int32_t *test_sequences(int64_t batch, int64_t length, int64_t longest) {
  static int32_t numbers[MAX_STEPS];
  if (batch * length > MAX_STEPS) abort();
  test_random r = random_seeded(44, "sequences");
  for (int64_t t = 0, left = 5, number = -1; t < batch * length; t++) {
    numbers[t] = (int32_t)number;
    if (--left > 0) continue;
    left = 1 + random_below(&r, longest);
    number = random_below(&r, 5) == 0 ? -1 : random_below(&r, 3);
  }
  return numbers;
}

const int32_t *test_ends(int64_t length) {
  static int32_t ends[TEST_SEQUENCES + 1];
  const int32_t n = (int32_t)length;
  memcpy(ends, (const int32_t[]){0, n / 3, n / 3, n / 3 + 2, n / 3 * 2, n}, sizeof ends);
  return ends;
}

static const test_tensor *find(const test_problem *p, const char *name) {
  for (size_t i = 0; i < p->count; i++)
    if (strcmp(p->tensors[i].name, name) == 0) return &p->tensors[i];
  return NULL;
}

/* The row or sequence that an element belongs to; -1: to none, or to many. */
static int64_t owner_of(const test_problem *p, const test_tensor *t, int64_t element) {
  const test_tensor *x = &p->tensors[0], *numbers = find(p, "seq_idx"), *ends = find(p, "cu_seqlens");
  const int64_t batch = x->shape[0], length = x->shape[1], row = element / (count_of(t) / t->shape[0]);
  const bool has_rows = t->rank >= 3 || (t->rank == 2 && x->rank == 2 && t->kind == TEST_STORAGE);
  if (!has_rows || t->kind == TEST_INDEX) return -1;
  if (!numbers && !ends) return t->shape[0] == batch ? row : -1;
  if (t->shape[0] != batch || t->shape[1] != length) return ends && t->shape[0] == ends->shape[0] - 1 ? row : -1;
  const int64_t step = element / (count_of(t) / (batch * length));
  if (ends) {
    int64_t i = 0;
    while (ends->values[i + 1] <= step) i++;
    return i;
  }
  if (numbers->values[step] < 0) return -1;
  int64_t begins = row * length, last = -1; /* a sequence is named by its first step */
  for (int64_t i = row * length; i <= step; i++) {
    if (numbers->values[i] < 0) continue;
    if (last >= 0 && numbers->values[i] != last) begins = i;
    last = numbers->values[i];
  }
  return begins;
}

/* Makes the middle one of the owner's numbers NaN; false if it has none. */
static bool spoil(test_run *run, size_t i, int64_t owner) {
  const test_tensor *t = &run->problem->tensors[i];
  const int64_t count = count_of(t);
  int64_t own = 0, middle = -1;
  for (int64_t k = 0; k < count; k++) own += owner_of(run->problem, t, k) == owner;
  for (int64_t k = 0, left = own / 2; k < count && own > 0 && middle < 0; k++)
    if (owner_of(run->problem, t, k) == owner && left-- == 0) middle = k;
  if (middle < 0) return false;
  double *values = run_read(run, t->name);
  values[(size_t)middle * (is_complex(run->views[i].dtype) ? 2 : 1)] = (double)NAN;
  run_write(run, t->name, values);
  free(values);
  return true;
}

/* How many numbers of the owner's outputs are NaN; fails where another's differ from `clean`. */
static size_t count_spoiled(const test_run *dirty, const test_run *clean, const char *input, int64_t owner) {
  size_t spoiled = 0;
  for (size_t i = 0; i < dirty->problem->count; i++) {
    const test_tensor *t = &dirty->problem->tensors[i];
    if (t->role == TEST_IN) continue;
    double *got = run_read(dirty, t->name), *want = run_read(clean, t->name);
    const size_t parts = is_complex(dirty->views[i].dtype) ? 2 : 1, count = run_values(dirty, t->name);
    for (size_t k = 0; k < count; k++) {
      const int64_t of = owner_of(dirty->problem, t, (int64_t)(k / parts));
      if (of == owner) spoiled += isnan(got[k]) != 0;
      else if (of >= 0 && got[k] != want[k])
        fail_msg("%s: a NaN in %s of row %lld reaches %s[%zu] of row %lld: %.9g, without it %.9g",
                 dirty->problem->op->name, input, (long long)owner, t->name, k, (long long)of, got[k], want[k]);
    }
    free(got);
    free(want);
  }
  return spoiled;
}

void problem_check_contained(const test_problem *p, const test_device *device) {
  if (device->simulated) return;
  test_run *clean = run_create(p, device->context, false);
  run_call(clean);
  const test_tensor *x = &p->tensors[0];
  int64_t middle = count_of(x) / 2;
  while (owner_of(p, x, middle) < 0) middle++;
  const int64_t owner = owner_of(p, x, middle);
  for (size_t i = 0; i < p->count; i++) {
    if (p->tensors[i].role == TEST_OUT) continue;
    test_run *dirty = run_create(p, device->context, false);
    if (spoil(dirty, i, owner)) {
      run_call(dirty);
      if (count_spoiled(dirty, clean, p->tensors[i].name, owner) == 0)
        fail_msg("%s: a NaN in %s disappeared", p->op->name, p->tensors[i].name);
    }
    run_destroy(dirty);
  }
  run_destroy(clean);
}

/* ---- Workspace ---- */

void problem_check_workspace(const test_problem *p, const test_device *device,
                             size_t (*bytes)(clm_context *, const void *)) {
  if (device->simulated) return;
  clm_context *context = test_device_open(device);
  assert_non_null(context);
  test_run *run = run_create(p, context, false);
  const size_t told = bytes(context, run->args);
  uint64_t before, after, later, peak;
  clm_context_memory(context, &before, NULL);
  run_call(run);
  clm_context_memory(context, &after, &peak);
  run_call(run);
  clm_context_memory(context, &later, NULL);
  if (after - before != told || peak != after)
    fail_msg("%s: %llu bytes of workspace, at most %llu, and it told %zu", p->op->name,
             (unsigned long long)(after - before), (unsigned long long)(peak - before), told);
  assert_true(later == after);
  run_destroy(run);
  clm_context_destroy(&context);
}

/* ---- Finite differences ---- */

/* What the gradients are of: the sum of all outputs, weighted with the gradients that come in. */
static double objective(test_run *forward, const test_run *backward) {
  run_call(forward);
  double sum = 0;
  for (size_t i = 0; i < backward->problem->count; i++) {
    const test_tensor *t = &backward->problem->tensors[i];
    if (t->role != TEST_IN || !t->of) continue;
    double *weights = run_read(backward, t->name), *values = run_read(forward, t->of);
    for (size_t k = 0; k < run_values(backward, t->name); k++) sum += weights[k] * values[k];
    free(weights);
    free(values);
  }
  return sum;
}

static double difference(test_run *forward, const test_run *backward, const char *input, double *values, size_t k) {
  const double value = values[k], step = 1e-5 * (1 + fabs(value));
  values[k] = value + step;
  run_write(forward, input, values);
  double above = objective(forward, backward);
  values[k] = value - step;
  run_write(forward, input, values);
  double below = objective(forward, backward);
  values[k] = value;
  run_write(forward, input, values);
  return (above - below) / (2 * step);
}

void problem_check_gradients(const test_problem *fp, const test_problem *bp, int most) {
  test_run *forward = run_create(fp, test_reference, true), *backward = run_create(bp, test_reference, true);
  run_call(backward);
  bool right = true;
  for (size_t i = 0; i < bp->count; i++) {
    const test_tensor *t = &bp->tensors[i];
    if (t->role != TEST_OUT || !t->of) continue;
    size_t count = run_values(backward, t->name), tested = count < (size_t)most ? count : (size_t)most;
    double *gradient = run_read(backward, t->name), *values = run_read(forward, t->of);
    const double scale = root_mean_square(gradient, count);
    test_random r = random_seeded(bp->seed, "numbers to test");
    for (size_t n = 0; n < tested; n++) {
      size_t k = tested == count ? n : (size_t)random_below(&r, (int64_t)count);
      double want = difference(forward, backward, t->of, values, k);
      if (fabs(gradient[k] - want) <= 1e-6 * (fabs(want) + scale) + 1e-9) continue;
      char index[120];
      print_index(index, sizeof index, backward, i, k);
      print_error("%s: %s%s is %.12g, finite differences give %.12g\n", bp->op->name, t->name, index, gradient[k],
                  want);
      right = false;
      break;
    }
    free(gradient);
    free(values);
  }
  run_destroy(forward);
  run_destroy(backward);
  if (!right) fail();
}
