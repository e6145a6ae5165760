/* Rotary position embedding: a task for each step, whose angles all heads share. */
#include "ops/rows.h"
#include "storage.h"
#include <math.h>

typedef struct rope_task {
  const rope_shape *s;
  const clm_rope_args *a;
  double *factor; /* of each pair: the angle for each position */
  float *scratch;
  int64_t scratch_floats;
} rope_task;

typedef struct rope_scratch {
  float *cosine, *sine; /* of each pair */
  float *x;
} rope_scratch;

static int64_t scratch_layout(const rope_shape *s, float *memory, rope_scratch *k) {
  int64_t used = 0;
  *k = (rope_scratch){.cosine = scratch_take(memory, &used, s->rotary / 2),
                      .sine = scratch_take(memory, &used, s->rotary / 2),
                      .x = scratch_take(memory, &used, s->head_dim)};
  return used;
}

static int64_t position_of(const rope_task *task, int64_t batch, int64_t step) {
  const rope_shape *s = task->s;
  const clm_rope_args *a = task->a;
  if (!s->packed) return seq_offset_of(&a->offsets, batch) + step;
  for (int64_t i = 0; i < s->sequences; i++) {
    const seq_row r = seq_row_of(&a->cu_seqlens, false, s->length, i);
    if (step >= r.begin && step < r.end) return seq_offset_of(&a->offsets, i) + step - r.begin;
  }
  return 0;
}

static void find_angles(const rope_task *task, int64_t position, rope_scratch *k) {
  for (int64_t i = 0; i < task->s->rotary / 2; i++) {
    const double angle = (double)position * task->factor[i];
    k->cosine[i] = (float)cos(angle);
    k->sine[i] = (float)sin(angle);
  }
}

static void rotate_halves(const rope_shape *s, const rope_scratch *k) {
  const int64_t half = s->rotary / 2;
  for (int64_t i = 0; i < half; i += LANES) {
    const int64_t left = half - i;
    const vec x = vec_load_part(k->x + i, left), y = vec_load_part(k->x + half + i, left),
              c = vec_load_part(k->cosine + i, left), d = vec_load_part(k->sine + i, left);
    vec_store_part(k->x + i, x * c - y * d, left);
    vec_store_part(k->x + half + i, y * c + x * d, left);
  }
}

static void rotate_pairs(const rope_shape *s, const rope_scratch *k) {
  for (int64_t i = 0; i < s->rotary / 2; i++) {
    const float x = k->x[2 * i], y = k->x[2 * i + 1];
    k->x[2 * i] = x * k->cosine[i] - y * k->sine[i];
    k->x[2 * i + 1] = y * k->cosine[i] + x * k->sine[i];
  }
}

INLINE line head_line(const clm_tensor *t, int64_t batch, int64_t step, int64_t head) {
  return line_at(t, batch * t->stride[0] + step * t->stride[1] + head * t->stride[2], t->stride[3]);
}

static void run_step(void *arg, int64_t index, int worker) {
  const rope_task *task = arg;
  const rope_shape *s = task->s;
  const int64_t batch = index / s->length, step = index % s->length;
  rope_scratch k;
  scratch_layout(s, task->scratch + worker * task->scratch_floats, &k);
  find_angles(task, position_of(task, batch, step), &k);
  for (int64_t head = 0; head < s->n_heads; head++) {
    line_read(head_line(&task->a->x, batch, step, head), s->head_dim, k.x);
    (task->a->interleaved ? rotate_pairs : rotate_halves)(s, &k);
    line_write(head_line(&task->a->out, batch, step, head), s->head_dim, k.x);
  }
}

/* The pairs' factors, and scratch for each worker. */
static clm_status make_scratch(clm_context *ctx, rope_task *task) {
  const rope_shape *s = task->s;
  const int64_t pairs = s->rotary / 2, threads = cpu_pool_threads(cpu_context_pool(ctx));
  rope_scratch k;
  clm_buffer *workspace;
  task->scratch_floats = round_up(scratch_layout(s, NULL, &k), 16);
  const int64_t first = round_up(pairs * 2, 16); /* a double is two */
  clm_status status =
      context_workspace(ctx, (size_t)(first + threads * task->scratch_floats) * sizeof(float), &workspace);
  if (status) return status;
  task->factor = workspace->host;
  task->scratch = (float *)workspace->host + first;
  for (int64_t i = 0; i < pairs; i++)
    task->factor[i] = pow(s->theta, -2 * (double)i / (double)s->rotary) * (task->a->inverse ? -1 : 1);
  return CLM_OK;
}

clm_status KERNEL(rope)(clm_context *ctx, const rope_shape *s, const clm_rope_args *a) {
  if (!ALL_STORAGE(a->x)) return ref_rope(ctx, s, a);
  rope_task task = {.s = s, .a = a};
  clm_status status = make_scratch(ctx, &task);
  if (status) return status;
  cpu_pool_run(cpu_context_pool(ctx), s->batch * s->length, run_step, &task);
  context_explain(ctx, "rope: cpu %s, a step a task", cpu_context_level(ctx));
  return CLM_OK;
}
