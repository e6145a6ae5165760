/* Adds up what the experts of each token gave, and its gradient: a task takes some tokens, or some rows. */
#include "storage.h"

#define TASK_NUMBERS 16384 /* of a task, or one row */

typedef struct combine_task {
  const combine_shape *s;
  const clm_combine_args *a;
  const clm_combine_backward_args *b; /* NULL: forward */
  int64_t rows;                       /* of a task     */
  float *scratch;                     /* of each worker: two lines */
  int64_t scratch_floats;
} combine_task;

static float *scratch_of(const combine_task *task, int worker) {
  return task->scratch + worker * task->scratch_floats;
}

static int64_t index_at(const clm_tensor *t, int64_t at) {
  return ((const int32_t *)(const void *)element_data(t))[at];
}

/* The row of y that is added `j`th; -1: none. */
static int64_t place_of(const combine_task *task, int64_t t, int64_t j) {
  const clm_tensor *places = &task->a->places;
  const int64_t row = index_at(places, t * places->stride[0] + j * places->stride[1]);
  return row >= 0 && row < task->s->rows ? row : -1;
}

static float weight_of(const combine_task *task, int64_t t, int64_t j) {
  const clm_tensor *w = &task->a->weights;
  return w->buffer ? ((const float *)(const void *)element_data(w))[t * w->stride[0] + j * w->stride[1]] : 1;
}

static void combine_token(const combine_task *task, int64_t t, float *scratch) {
  const combine_shape *s = task->s;
  const clm_combine_args *a = task->a;
  const int64_t dim = s->dim;
  float *sum = scratch, *row = scratch + round_up(dim, 16);
  memset(sum, 0, (size_t)dim * sizeof *sum);
  for (int64_t j = 0; j < s->chosen; j++) {
    const int64_t place = place_of(task, t, j);
    if (place < 0) continue;
    const float *y = line_load(line_row(&a->y, place), dim, row);
    const vec weight = vec_set(weight_of(task, t, j));
    for (int64_t d = 0; d < dim; d += LANES)
      vec_store_part(sum + d, weight * vec_load_part(y + d, dim - d) + vec_load_part(sum + d, dim - d), dim - d);
  }
  if (a->residual.buffer) {
    const float *residual = line_load(line_row(&a->residual, t), dim, row);
    for (int64_t d = 0; d < dim; d += LANES)
      vec_store_part(sum + d, vec_load_part(sum + d, dim - d) + vec_load_part(residual + d, dim - d), dim - d);
  }
  line_write(line_row(&a->out, t), dim, sum);
}

static void row_gradient(const combine_task *task, int64_t row, float *scratch) {
  const combine_shape *s = task->s;
  const clm_combine_backward_args *b = task->b;
  const int64_t dim = s->dim, pair = index_at(&b->order, row * b->order.stride[0]), t = pair / s->chosen;
  float *dy = scratch;
  memset(dy, 0, (size_t)dim * sizeof *dy);
  if (pair >= 0 && pair < s->tokens * s->chosen) {
    const float *dout = line_load(line_row(&b->dout, t), dim, scratch + round_up(dim, 16));
    const vec weight = vec_set(weight_of(task, t, pair % s->chosen));
    for (int64_t d = 0; d < dim; d += LANES)
      vec_store_part(dy + d, weight * vec_load_part(dout + d, dim - d), dim - d);
  }
  line_write(line_row(&b->dy, row), dim, dy);
}

static void weight_gradients(const combine_task *task, int64_t t, float *scratch) {
  const combine_shape *s = task->s;
  const clm_combine_backward_args *b = task->b;
  const int64_t dim = s->dim;
  const float *dout = line_load(line_row(&b->dout, t), dim, scratch);
  for (int64_t j = 0; j < s->chosen; j++) {
    const int64_t place = place_of(task, t, j);
    vec sum = vec_set(0);
    if (place >= 0) {
      const float *y = line_load(line_row(&task->a->y, place), dim, scratch + round_up(dim, 16));
      for (int64_t d = 0; d < dim; d += LANES)
        sum = vec_load_part(y + d, dim - d) * vec_load_part(dout + d, dim - d) + sum;
    }
    const float total = vec_sum(sum);
    line_write(line_at(&b->dweights, t * b->dweights.stride[0] + j * b->dweights.stride[1], 1), 1, &total);
  }
}

static void run_tokens(void *arg, int64_t index, int worker) {
  const combine_task *task = arg;
  const int64_t end = min_of((index + 1) * task->rows, task->s->tokens);
  for (int64_t t = index * task->rows; t < end; t++)
    (task->b ? weight_gradients : combine_token)(task, t, scratch_of(task, worker));
}

static void run_rows(void *arg, int64_t index, int worker) {
  const combine_task *task = arg;
  const int64_t end = min_of((index + 1) * task->rows, task->s->rows);
  for (int64_t row = index * task->rows; row < end; row++) row_gradient(task, row, scratch_of(task, worker));
}

static clm_status prepare(clm_context *ctx, combine_task *task) {
  task->rows = max_of(TASK_NUMBERS / task->s->dim, 1);
  return kernel_scratch(ctx, 2 * round_up(task->s->dim, 16), &task->scratch_floats, &task->scratch);
}

clm_status KERNEL(combine)(clm_context *ctx, const combine_shape *s, const clm_combine_args *a) {
  if (!ALL_STORAGE(a->y, a->weights, a->residual, a->out)) return ref_combine(ctx, s, a);
  combine_task task = {.s = s, .a = a};
  const clm_status status = prepare(ctx, &task);
  if (status) return status;
  cpu_pool_run(cpu_context_pool(ctx), div_up(s->tokens, task.rows), run_tokens, &task);
  context_explain(ctx, "combine: cpu %s, %lld tokens a task", cpu_context_level(ctx), (long long)task.rows);
  return CLM_OK;
}

clm_status KERNEL(combine_backward)(clm_context *ctx, const combine_shape *s, const clm_combine_backward_args *b) {
  const clm_combine_args *a = &b->forward;
  if (!ALL_STORAGE(a->y, a->weights, b->dout, b->dy, b->dweights)) return ref_combine_backward(ctx, s, b);
  combine_task task = {.s = s, .a = a, .b = b};
  const clm_status status = prepare(ctx, &task);
  if (status) return status;
  if (b->dy.buffer) cpu_pool_run(cpu_context_pool(ctx), div_up(s->rows, task.rows), run_rows, &task);
  if (b->dweights.buffer) cpu_pool_run(cpu_context_pool(ctx), div_up(s->tokens, task.rows), run_tokens, &task);
  context_explain(ctx, "combine_backward: cpu %s, %lld rows a task", cpu_context_level(ctx), (long long)task.rows);
  return CLM_OK;
}
