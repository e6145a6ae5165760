/* First-order recurrence h = a h + b, real or complex: channels are independent and lie in lanes; a task walks a
 * strip of them through the sequence. On the CPU the sequential order is the fastest and the most exact one. */
#include "storage.h"

#define CHANNELS 64

typedef struct assoc_task {
  const assoc_scan_shape *s;
  const clm_assoc_scan_args *f;
  const clm_assoc_scan_backward_args *a;
  int64_t strips;
  char *scratch;
  size_t scratch_bytes;
} assoc_task;

typedef struct strip {
  const assoc_task *task;
  int64_t b, c0, n; /* channels [c0, c0 + n) */
} strip;

static strip strip_at(const assoc_task *task, int64_t index) {
  strip k = {.task = task, .b = index / task->strips, .c0 = index % task->strips * CHANNELS};
  k.n = min_of(CHANNELS, task->s->channels - k.c0);
  return k;
}

/* The step that comes j-th in the direction of the run. */
static int64_t step_at(const assoc_task *task, int64_t j) { return task->f->reverse ? task->s->length - 1 - j : j; }

/* Step t of a (batch, length, channel) tensor, `width` floats an element one after the other: where they lie so,
 * else by way of `scratch`. */
static float *row_at(const clm_tensor *x, const strip *k, int64_t t, float *scratch) {
  int64_t at = k->b * x->stride[0] + t * x->stride[1] + k->c0 * x->stride[2];
  if (x->dtype != CLM_C64) return line_target(line_at(x, at, x->stride[2]), scratch);
  return x->stride[2] == 1 || k->n == 1 ? kernel_data(*x) + 2 * at : scratch;
}

static const float *load_row(const clm_tensor *x, const strip *k, int64_t t, float *scratch) {
  float *p = row_at(x, k, t, scratch);
  int64_t at = k->b * x->stride[0] + t * x->stride[1] + k->c0 * x->stride[2], step = 2 * x->stride[2];
  if (p != scratch) return p;
  if (x->dtype != CLM_C64) line_read(line_at(x, at, x->stride[2]), k->n, scratch);
  else
    for (int64_t c = 0; c < k->n; c++) memcpy(p + 2 * c, kernel_data(*x) + 2 * at + c * step, 2 * sizeof *p);
  return p;
}

static void store_row(const clm_tensor *x, const strip *k, int64_t t, const float *in) {
  int64_t at = k->b * x->stride[0] + t * x->stride[1] + k->c0 * x->stride[2], step = 2 * x->stride[2];
  if (!x->buffer) return;
  if (x->dtype != CLM_C64) line_write(line_at(x, at, x->stride[2]), k->n, in);
  else
    for (int64_t c = 0; c < k->n; c++) memcpy(kernel_data(*x) + 2 * at + c * step, in + 2 * c, 2 * sizeof *in);
}

static void load_state(const clm_tensor *x, const strip *k, int width, float *out) {
  memset(out, 0, (size_t)(CHANNELS * width) * sizeof *out);
  if (!x->buffer) return;
  const float *p = kernel_data(*x) + width * (k->b * x->stride[0] + k->c0 * x->stride[1]);
  for (int64_t c = 0; c < k->n; c++)
    for (int i = 0; i < width; i++) out[c * width + i] = p[width * c * x->stride[1] + i];
}

static void store_state(const clm_tensor *x, const strip *k, int width, const float *in) {
  if (!x->buffer) return;
  float *p = kernel_data(*x) + width * (k->b * x->stride[0] + k->c0 * x->stride[1]);
  for (int64_t c = 0; c < k->n; c++)
    for (int i = 0; i < width; i++) p[width * c * x->stride[1] + i] = in[c * width + i];
}

/* h = a h + b for n elements of `width` floats, one after the other. */
static inline void advance(int width, int64_t n, const float *restrict a, const float *restrict b,
                           float *restrict h) {
  if (width == 1) {
    for (int64_t c = 0; c < n; c++) h[c] = a[c] * h[c] + b[c];
    return;
  }
  for (int64_t c = 0; c < n; c++) {
    float re = h[2 * c], im = h[2 * c + 1];
    h[2 * c] = a[2 * c] * re - a[2 * c + 1] * im + b[2 * c];
    h[2 * c + 1] = a[2 * c] * im + a[2 * c + 1] * re + b[2 * c + 1];
  }
}

/* out = conj(x) y */
static inline void conjugate_product(int width, int64_t n, const float *x, const float *y, float *out) {
  if (width == 1) {
    for (int64_t c = 0; c < n; c++) out[c] = x[c] * y[c];
    return;
  }
  for (int64_t c = 0; c < n; c++) {
    float re = y[2 * c], im = y[2 * c + 1];
    out[2 * c] = x[2 * c] * re + x[2 * c + 1] * im;
    out[2 * c + 1] = x[2 * c] * im - x[2 * c + 1] * re;
  }
}

static void scan_strip(void *arg, int64_t index, int worker) {
  const assoc_task *task = arg;
  const clm_assoc_scan_args *f = task->f;
  strip k = strip_at(task, index);
  int width = task->s->complex ? 2 : 1;
  float h[2 * CHANNELS], scratch[2][2 * CHANNELS];
  (void)worker;
  load_state(&f->initial, &k, width, h);
  for (int64_t j = 0; j < task->s->length; j++) {
    int64_t t = step_at(task, j);
    if (f->exclusive) store_row(&f->h, &k, t, h);
    advance(width, k.n, load_row(&f->a, &k, t, scratch[0]), load_row(&f->b, &k, t, scratch[1]), h);
    if (!f->exclusive) store_row(&f->h, &k, t, h);
  }
  store_state(&f->final, &k, width, h);
}

/* Keeps every H[j-1] of the strip, then runs the other way: da = conj(H[j-1]) dH, db = dH, dH = conj(a) dH + dh. */
static void scan_strip_backward(void *arg, int64_t index, int worker) {
  const assoc_task *task = arg;
  const clm_assoc_scan_backward_args *a = task->a;
  const clm_assoc_scan_args *f = task->f;
  strip k = strip_at(task, index);
  int width = task->s->complex ? 2 : 1;
  int64_t row = CHANNELS * width;
  float *before = (float *)(void *)(task->scratch + (size_t)worker * task->scratch_bytes), dH[2 * CHANNELS];
  float scratch[2][2 * CHANNELS];
  size_t bytes = (size_t)(k.n * width) * sizeof *dH;
  load_state(&f->initial, &k, width, before);
  for (int64_t j = 0; j + 1 < task->s->length; j++) {
    int64_t t = step_at(task, j);
    memcpy(before + (j + 1) * row, before + j * row, bytes);
    advance(width, k.n, load_row(&f->a, &k, t, scratch[0]), load_row(&f->b, &k, t, scratch[1]),
            before + (j + 1) * row);
  }
  load_state(&a->dfinal, &k, width, dH);
  for (int64_t j = task->s->length - 1; j >= 0; j--) {
    int64_t t = step_at(task, j);
    const float *dh = load_row(&a->dh, &k, t, scratch[0]);
    if (!f->exclusive)
      for (int64_t c = 0; c < k.n * width; c++) dH[c] += dh[c];
    if (present(a->da)) {
      float *da = row_at(&a->da, &k, t, scratch[1]);
      conjugate_product(width, k.n, before + j * row, dH, da);
      if (da == scratch[1]) store_row(&a->da, &k, t, da);
    }
    store_row(&a->db, &k, t, dH);
    conjugate_product(width, k.n, load_row(&f->a, &k, t, scratch[1]), dH, dH);
    if (f->exclusive)
      for (int64_t c = 0; c < k.n * width; c++) dH[c] += dh[c];
  }
  store_state(&a->dinitial, &k, width, dH);
}

static bool usable(const assoc_scan_shape *s, const clm_assoc_scan_args *f) {
  return s->complex ? f->a.dtype == CLM_C64 : ALL_STORAGE(f->a);
}

clm_status KERNEL(assoc_scan)(clm_context *ctx, const assoc_scan_shape *s, const clm_assoc_scan_args *f) {
  if (!usable(s, f)) return ref_assoc_scan(ctx, s, f);
  assoc_task task = {.s = s, .f = f, .strips = div_up(s->channels, CHANNELS)};
  cpu_pool_run(cpu_context_pool(ctx), s->batch * task.strips, scan_strip, &task);
  context_explain(ctx, "assoc_scan: cpu %s, sequential, %d channels a task", cpu_context_level(ctx), CHANNELS);
  return CLM_OK;
}

clm_status KERNEL(assoc_scan_backward)(clm_context *ctx, const assoc_scan_shape *s,
                                       const clm_assoc_scan_backward_args *a) {
  const clm_assoc_scan_args *f = &a->forward;
  if (!usable(s, f)) return ref_assoc_scan_backward(ctx, s, a);
  assoc_task task = {.s = s, .f = f, .a = a, .strips = div_up(s->channels, CHANNELS)};
  int threads = cpu_pool_threads(cpu_context_pool(ctx));
  task.scratch_bytes = (size_t)(s->length * CHANNELS * (s->complex ? 2 : 1)) * sizeof(float);
  clm_buffer *workspace;
  clm_status status = context_workspace(ctx, task.scratch_bytes * (size_t)threads, &workspace);
  if (status) return status;
  task.scratch = workspace->host;
  cpu_pool_run(cpu_context_pool(ctx), s->batch * task.strips, scan_strip_backward, &task);
  context_explain(ctx, "assoc_scan_backward: cpu %s, sequential, %d channels a task", cpu_context_level(ctx),
                  CHANNELS);
  return CLM_OK;
}
