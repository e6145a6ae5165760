/* Causal convolution over channels-last tensors: a task is a piece of the sequence by a strip of channels, lanes are
 * channels. With e = the width - 1 steps before the sequence, then the sequence (as in the reference),
 *   s[t] = bias + sum_k weight[k] e[t + k]      de[i] = sum_k weight[k] ds[i - k]
 * The weight's gradient is summed within a task, then over the tasks in order. */
#include "kernels.h"

#define STEPS    64
#define CHANNELS 128
#define BLOCKS   (CHANNELS / LANES)
#define WIDTHS   32 /* the most the header allows */

typedef struct conv_task {
  const causal_conv1d_shape *s;
  const clm_causal_conv1d_args *f;
  const clm_causal_conv1d_backward_args *a;
  int64_t pieces, strips;
  float *parts; /* (batch * pieces, width + 1, channels): dweight by k, then dbias */
} conv_task;

typedef struct conv_tile { /* what a task works on, padded to whole vectors */
  int64_t b, t0, c0, channels;
  int steps, blocks, width;
  vec weight[WIDTHS][BLOCKS], bias[BLOCKS];
  vec before[WIDTHS][BLOCKS]; /* e[0 .. width - 2], for tasks that reach back to it */
} conv_tile;

static void load_tile(const conv_task *task, int64_t index, conv_tile *k) {
  const causal_conv1d_shape *s = task->s;
  const clm_causal_conv1d_args *f = task->f;
  int64_t piece = index / task->strips % task->pieces;
  k->b = index / task->strips / task->pieces;
  k->t0 = piece * STEPS;
  k->c0 = index % task->strips * CHANNELS;
  k->steps = (int)min_of(STEPS, s->length - k->t0);
  k->channels = min_of(CHANNELS, s->channels - k->c0);
  k->blocks = (int)div_up(k->channels, LANES);
  k->width = (int)s->width;
  float row[CHANNELS];
  for (int i = 0; i <= k->width; i++) { /* the weights, then the bias */
    memset(row, 0, sizeof row);
    const float *p = i < k->width ? kernel_data(f->weight) + i * f->weight.stride[1] : kernel_data(f->bias);
    int64_t stride = i < k->width ? f->weight.stride[0] : f->bias.stride[0];
    for (int64_t c = 0; p && c < k->channels; c++) row[c] = p[(k->c0 + c) * stride];
    memcpy(i < k->width ? k->weight[i] : k->bias, row, sizeof row);
  }
  const float *state = kernel_data(f->initial_state);
  for (int i = 0; i < k->width - 1; i++) {
    memset(row, 0, sizeof row);
    for (int64_t c = 0; state && c < k->channels; c++)
      row[c] = state[k->b * f->initial_state.stride[0] + (k->c0 + c) * f->initial_state.stride[1] +
                     i * f->initial_state.stride[2]];
    memcpy(k->before[i], row, sizeof row);
  }
}

/* e[i] for block j of the tile. */
INLINE vec extended(const conv_task *task, const conv_tile *k, int64_t i, int j) {
  int64_t t = i - (k->width - 1);
  if (t < 0) return k->before[i][j];
  const clm_tensor *x = &task->f->x;
  const float *p = kernel_data(*x) + k->b * x->stride[0] + t * x->stride[1] + k->c0 + j * LANES;
  return vec_load_part(p, k->channels - j * LANES);
}

static inline float *row_of(const clm_tensor *x, const conv_tile *k, int64_t t, int j) {
  return kernel_data(*x) + k->b * x->stride[0] + t * x->stride[1] + k->c0 + j * LANES;
}

/* The sum of step t, of a width that the compiler knows where it is the usual one. */
INLINE vec weighted(const conv_task *task, const conv_tile *k, int width, int64_t t, int j) {
  vec sum = k->bias[j];
  if (t >= width - 1 && k->channels - j * LANES >= LANES) {
    const clm_tensor *x = &task->f->x;
    const float *p = row_of(x, k, t - (width - 1), j);
    for (int i = 0; i < width; i++) sum = k->weight[i][j] * vec_load(p + i * x->stride[1]) + sum;
  } else
    for (int i = 0; i < width; i++) sum = k->weight[i][j] * extended(task, k, t + i, j) + sum;
  return sum;
}

INLINE void forward_steps(const conv_task *task, const conv_tile *k, int width) {
  for (int64_t t = k->t0; t < k->t0 + k->steps; t++)
    for (int j = 0; j < k->blocks; j++) {
      vec sum = weighted(task, k, width, t, j);
      if (task->f->silu) sum *= vec_sigmoid(sum);
      vec_store_part(row_of(&task->f->out, k, t, j), sum, k->channels - j * LANES);
    }
}

static void forward_tile(void *arg, int64_t index, int worker) {
  const conv_task *task = arg;
  conv_tile k;
  (void)worker;
  load_tile(task, index, &k);
  if (k.width == 4) forward_steps(task, &k, 4);
  else forward_steps(task, &k, k.width);
}

/* After the steps are done: the state may be written in place of the one that they read. */
static void store_state(void *arg, int64_t index, int worker) {
  const conv_task *task = arg;
  const causal_conv1d_shape *s = task->s;
  const clm_tensor *initial = &task->f->initial_state, *final = &task->f->final_state, *x = &task->f->x;
  int64_t b = index / task->strips, c0 = index % task->strips * CHANNELS, before = s->width - 1;
  (void)worker;
  for (int64_t c = c0; c < min_of(c0 + CHANNELS, s->channels); c++)
    for (int64_t i = 0; i < before; i++) {
      int64_t t = s->length + i - before;
      float value = 0;
      if (t >= 0) value = kernel_data(*x)[b * x->stride[0] + t * x->stride[1] + c * x->stride[2]];
      else if (initial->buffer)
        value = kernel_data(
            *initial)[b * initial->stride[0] + c * initial->stride[1] + (s->length + i) * initial->stride[2]];
      kernel_data(*final)[b * final->stride[0] + c * final->stride[1] + i * final->stride[2]] = value;
    }
}

static bool channels_last(const clm_tensor *t) { return !t->buffer || t->shape[2] == 1 || t->stride[2] == 1; }

static conv_task task_of(const causal_conv1d_shape *s, const clm_causal_conv1d_args *f) {
  return (conv_task){.s = s, .f = f, .pieces = div_up(s->length, STEPS), .strips = div_up(s->channels, CHANNELS)};
}

clm_status KERNEL(causal_conv1d)(clm_context *ctx, const causal_conv1d_shape *s, const clm_causal_conv1d_args *a) {
  if (!ALL_F32(a->x, a->weight, a->bias, a->initial_state, a->out, a->final_state) || s->width > WIDTHS ||
      s->packed || present(a->seq_idx))
    return ref_causal_conv1d(ctx, s, a);
  if (!channels_last(&a->x) || !channels_last(&a->out)) return KERNEL(conv_rows)(ctx, s, a);
  conv_task task = task_of(s, a);
  cpu_pool_run(cpu_context_pool(ctx), s->batch * task.pieces * task.strips, forward_tile, &task);
  if (present(a->final_state)) cpu_pool_run(cpu_context_pool(ctx), s->batch * task.strips, store_state, &task);
  context_explain(ctx, "causal_conv1d: cpu %s, tiles of %d steps x %d channels", cpu_context_level(ctx), STEPS,
                  CHANNELS);
  return CLM_OK;
}

/* ds of the tile's steps and of the width - 1 after them, which the tile's dx needs too. */
static void sum_gradients(const conv_task *task, const conv_tile *k, vec *ds) {
  int64_t end = min_of(k->t0 + k->steps + k->width - 1, task->s->length);
  for (int64_t t = k->t0; t < end; t++)
    for (int j = 0; j < k->blocks; j++) {
      vec d = vec_load_part(row_of(&task->a->dout, k, t, j), k->channels - j * LANES);
      if (task->f->silu) {
        vec sum = k->width == 4 ? weighted(task, k, 4, t, j) : weighted(task, k, k->width, t, j);
        vec sigmoid = vec_sigmoid(sum);
        d *= sigmoid * (vec_set(1.0f) + sum * (vec_set(1.0f) - sigmoid));
      }
      ds[(t - k->t0) * BLOCKS + j] = d;
    }
  for (int64_t t = end; t < k->t0 + k->steps + k->width - 1; t++)
    memset(ds + (t - k->t0) * BLOCKS, 0, BLOCKS * sizeof *ds);
}

static float state_at(const clm_tensor *x, int64_t b, int64_t c, int64_t i) {
  return x->buffer ? kernel_data(*x)[b * x->stride[0] + c * x->stride[1] + i * x->stride[2]] : 0;
}

/* The gradient that comes in through the final state belongs to the last width - 1 entries of e. */
static void add_final(const conv_task *task, const conv_tile *k, int64_t i, int j, vec *de) {
  if (i < task->s->length || !task->a->dfinal_state.buffer) return;
  for (int lane = 0; lane < min_of(LANES, k->channels - j * LANES); lane++)
    (*de)[lane] += state_at(&task->a->dfinal_state, k->b, k->c0 + j * LANES + lane, i - task->s->length);
}

INLINE void input_gradient(const conv_task *task, const conv_tile *k, int width, const vec *ds) {
  for (int64_t t = k->t0; t < k->t0 + k->steps; t++)
    for (int j = 0; j < k->blocks; j++) {
      vec de = vec_set(0);
      for (int i = 0; i < width; i++) de = k->weight[i][j] * ds[(t - k->t0 + width - 1 - i) * BLOCKS + j] + de;
      add_final(task, k, t + width - 1, j, &de);
      vec_store_part(row_of(&task->a->dx, k, t, j), de, k->channels - j * LANES);
    }
}

static void state_gradient(const conv_task *task, const conv_tile *k, const vec *ds) {
  const clm_tensor *out = &task->a->dinitial_state;
  for (int64_t i = 0; i < k->width - 1; i++)
    for (int j = 0; j < k->blocks; j++) {
      vec de = vec_set(0);
      for (int64_t n = max_of(0, i + 1 - task->s->length); n <= i; n++) /* ds[i - n], which this tile has */
        de = k->weight[n][j] * ds[(i - n) * BLOCKS + j] + de;
      add_final(task, k, i, j, &de);
      for (int lane = 0; lane < min_of(LANES, k->channels - j * LANES); lane++)
        kernel_data(*out)[k->b * out->stride[0] + (k->c0 + j * LANES + lane) * out->stride[1] + i * out->stride[2]] =
            de[lane];
    }
}

INLINE void weight_gradient(const conv_task *task, const conv_tile *k, int width, const vec *ds, float *part) {
  int64_t channels = task->s->channels;
  for (int j = 0; j < k->blocks; j++) {
    vec sum[WIDTHS + 1] = {{0}};
    for (int t = 0; t < k->steps; t++) {
      vec d = ds[t * BLOCKS + j];
      for (int i = 0; i < width; i++) sum[i] = d * extended(task, k, k->t0 + t + i, j) + sum[i];
      sum[width] += d;
    }
    for (int i = 0; i <= width; i++)
      vec_store_part(part + i * channels + k->c0 + j * LANES, sum[i], k->channels - j * LANES);
  }
}

static void backward_tile(void *arg, int64_t index, int worker) {
  const conv_task *task = arg;
  conv_tile k;
  vec ds[(STEPS + WIDTHS - 1) * BLOCKS];
  (void)worker;
  load_tile(task, index, &k);
  sum_gradients(task, &k, ds);
  if (present(task->a->dx)) {
    if (k.width == 4) input_gradient(task, &k, 4, ds);
    else input_gradient(task, &k, k.width, ds);
  }
  if (k.t0 == 0 && present(task->a->dinitial_state)) state_gradient(task, &k, ds);
  if (!task->parts) return;
  float *part = task->parts + index / task->strips * (k.width + 1) * task->s->channels;
  if (k.width == 4) weight_gradient(task, &k, 4, ds, part);
  else weight_gradient(task, &k, k.width, ds, part);
}

clm_status KERNEL(causal_conv1d_backward)(clm_context *ctx, const causal_conv1d_shape *s,
                                          const clm_causal_conv1d_backward_args *a) {
  const clm_causal_conv1d_args *f = &a->forward;
  if (!ALL_F32(f->x, f->weight, f->bias, f->initial_state, a->dout, a->dfinal_state) ||
      !ALL_F32(a->dx, a->dweight, a->dbias, a->dinitial_state) || !channels_last(&f->x) || !channels_last(&a->dout) ||
      !channels_last(&a->dx) || s->width > WIDTHS || s->packed || present(f->seq_idx))
    return ref_causal_conv1d_backward(ctx, s, a);
  conv_task task = task_of(s, f);
  task.a = a;
  int64_t parts = s->batch * task.pieces, numbers = (s->width + 1) * s->channels;
  if (present(a->dweight) || present(a->dbias)) {
    clm_buffer *workspace;
    clm_status status = context_workspace(ctx, (size_t)((parts + 1) * numbers) * sizeof(float), &workspace);
    if (status) return status;
    task.parts = workspace->host;
  }
  cpu_pool_run(cpu_context_pool(ctx), parts * task.strips, backward_tile, &task);
  if (task.parts) {
    float *sums = task.parts + parts * numbers;
    kernel_sum_parts(task.parts, parts, numbers, sums, 1);
    for (int64_t c = 0; c < s->channels; c++) {
      for (int64_t k = 0; k < s->width && present(a->dweight); k++)
        kernel_data(a->dweight)[c * a->dweight.stride[0] + k * a->dweight.stride[1]] = sums[k * s->channels + c];
      if (present(a->dbias)) kernel_data(a->dbias)[c * a->dbias.stride[0]] = sums[s->width * s->channels + c];
    }
  }
  context_explain(ctx, "causal_conv1d_backward: cpu %s, tiles of %d steps x %d channels", cpu_context_level(ctx),
                  STEPS, CHANNELS);
  return CLM_OK;
}
