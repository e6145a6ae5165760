/* The steps of generation: a task is a strip of channels of one batch row, lanes are channels. */
#include "storage.h"

#define CHANNELS 256
#define WIDTHS   32

typedef struct update_task {
  conv_update_shape s;
  clm_causal_conv1d_update_args a;
  int64_t strips;
} update_task;

static int32_t number_of(const clm_tensor *t, int64_t b) {
  return *(const int32_t *)(const void *)(element_data(t) + b * t->stride[0] * (int64_t)sizeof(int32_t));
}

/* n channels of a state at place k. */
static line place_of(const clm_tensor *state, int64_t row, int64_t c0, int64_t k) {
  return line_at(state, row * state->stride[0] + c0 * state->stride[1] + k * state->stride[2], state->stride[1]);
}

static line step_of(const clm_tensor *t, int64_t b, int64_t step, int64_t c0) {
  return line_at(t, b * t->stride[0] + step * t->stride[1] + c0 * t->stride[2], t->stride[2]);
}

/* `taps` numbers of each of n channels, side by side in memory, as a row for each tap, and back. */
INLINE void taps_apart(int taps, const float *in, int64_t n, float out[][CHANNELS]) {
  for (int64_t c = 0; c < n; c++) UNROLL for (int k = 0; k < taps; k++) out[k][c] = in[c * taps + k];
}
INLINE void taps_together(int taps, float *const in[], int64_t n, float *restrict out) {
  const float *row[WIDTHS];
  for (int k = 0; k < taps; k++) row[k] = in[k];
  for (int64_t c = 0; c < n; c++) UNROLL for (int k = 0; k < taps; k++) out[c * taps + k] = row[k][c];
}

/* Whether they lie like that: dimension `dim` of t is the channels, the next one the taps. */
static bool taps_adjoin(const clm_tensor *t, int dim, int64_t taps) {
  return t->dtype == CLM_F32 && t->stride[dim] == taps && t->stride[dim + 1] == 1;
}

/* From element `at` on; the widths that models have are compiled. */
static void taps_read(const clm_tensor *t, int dim, int64_t at, int64_t taps, int64_t n, float out[][CHANNELS]) {
  switch (taps_adjoin(t, dim, taps) ? taps : 0) {
  case 2: taps_apart(2, kernel_data(*t) + at, n, out); break;
  case 3: taps_apart(3, kernel_data(*t) + at, n, out); break;
  case 4: taps_apart(4, kernel_data(*t) + at, n, out); break;
  default:
    for (int64_t k = 0; k < taps; k++) line_read(line_at(t, at + k * t->stride[dim + 1], t->stride[dim]), n, out[k]);
  }
}
static void taps_write(const clm_tensor *t, int dim, int64_t at, int64_t taps, int64_t n, float *const in[]) {
  switch (taps_adjoin(t, dim, taps) ? taps : 0) {
  case 2: taps_together(2, in, n, kernel_data(*t) + at); break;
  case 3: taps_together(3, in, n, kernel_data(*t) + at); break;
  case 4: taps_together(4, in, n, kernel_data(*t) + at); break;
  default:
    for (int64_t k = 0; k < taps; k++) line_write(line_at(t, at + k * t->stride[dim + 1], t->stride[dim]), n, in[k]);
  }
}

static void write_zeros(const update_task *task, int64_t b, int64_t c0, int64_t n) {
  const float zeros[CHANNELS] = {0};
  for (int64_t t = 0; t < task->s.steps; t++) line_write(step_of(&task->a.out, b, t, c0), n, zeros);
}

/* The places of a plain state before those that the filter sees, when `steps` inputs have come. */
static void move_places(const update_task *task, int64_t b, int64_t row, int64_t c0, int64_t n) {
  const conv_update_shape *s = &task->s;
  float moved[CHANNELS];
  for (int64_t k = 0; k < s->size - (s->width - 1); k++) {
    const int64_t from = k + s->steps;
    line_read(from < s->size ? place_of(&task->a.state, row, c0, from) : step_of(&task->a.x, b, from - s->size, c0),
              n, moved);
    line_write(place_of(&task->a.state, row, c0, k), n, moved);
  }
}

static void update_channels(void *arg, int64_t index, int worker) {
  const update_task *task = arg;
  const conv_update_shape *s = &task->s;
  const clm_causal_conv1d_update_args *a = &task->a;
  const int64_t b = index / task->strips, c0 = index % task->strips * CHANNELS, before = s->width - 1;
  const int64_t n = min_of(CHANNELS, s->channels - c0), size = s->size;
  const bool circular = present(a->cache_seqlens) && present(a->state);
  const int64_t row = present(a->state_indices) ? number_of(&a->state_indices, b) : b;
  (void)worker;
  if (row < 0 || row >= s->pool) {
    write_zeros(task, b, c0, n);
    return;
  }
  _Alignas(64) float memory[WIDTHS][CHANNELS], weight[WIDTHS][CHANNELS], bias[CHANNELS] = {0}, sums[CHANNELS];
  float *e[WIDTHS]; /* the last width inputs, oldest first */
  int64_t now = circular ? (number_of(&a->cache_seqlens, b) % size + size) % size : 0;
  const int64_t state_at =
      row * a->state.stride[0] + c0 * a->state.stride[1] + (circular ? 0 : size - before) * a->state.stride[2];
  taps_read(&a->weight, 0, c0 * a->weight.stride[0], s->width, n, weight);
  if (!circular) taps_read(&a->state, 1, state_at, before, n, memory);
  for (int64_t k = 0; k < s->width; k++) {
    e[k] = memory[k];
    if (circular && k < before) line_read(place_of(&a->state, row, c0, (now - before + k + size) % size), n, e[k]);
  }
  if (present(a->bias)) line_read(line_at(&a->bias, c0 * a->bias.stride[0], a->bias.stride[0]), n, bias);
  for (int64_t t = 0; t < s->steps; t++) {
    line_read(step_of(&a->x, b, t, c0), n, e[before]);
    for (int64_t c = 0; c < n; c += LANES) {
      vec sum = vec_load(bias + c);
      for (int64_t k = 0; k <= before; k++) sum = vec_load(weight[k] + c) * vec_load(e[k] + c) + sum;
      vec_store(sums + c, a->silu ? sum * vec_sigmoid(sum) : sum);
    }
    line_write(step_of(&a->out, b, t, c0), n, sums);
    if (circular) line_write(place_of(&a->state, row, c0, (now + t) % size), n, e[before]);
    float *oldest = e[0];
    for (int64_t k = 0; k < before; k++) e[k] = e[k + 1];
    e[before] = oldest;
  }
  if (circular) return;
  move_places(task, b, row, c0, n);
  taps_write(&a->state, 1, state_at, before, n, e);
}

/* Task for task, its filters and its states. */
static cpu_range update_reads(const void *arg, int64_t begin, int64_t end, int i) {
  const update_task *task = arg;
  const int64_t index = begin + i / 2, b = index / task->strips, c0 = index % task->strips * CHANNELS;
  if (index >= end || present(task->a.state_indices)) return (cpu_range){0};
  const clm_tensor *t = i % 2 ? &task->a.state : &task->a.weight;
  const int64_t at = i % 2 ? b * t->stride[0] : 0, stride = t->stride[i % 2], bytes = storage_bytes(t->dtype);
  return (cpu_range){element_data(t) + (at + c0 * stride) * bytes, CHANNELS * stride * bytes};
}

clm_status KERNEL(causal_conv1d_update)(clm_context *ctx, const conv_update_shape *s,
                                        const clm_causal_conv1d_update_args *a) {
  if (!ALL_STORAGE(a->state, a->x, a->weight, a->bias, a->out))
    return ctx->plan ? CLM_UNSUPPORTED : ref_causal_conv1d_update(ctx, s, a);
  update_task task = {*s, *a, div_up(s->channels, CHANNELS)};
  context_explain(ctx, "causal_conv1d_update: cpu %s, %d channels a task", cpu_context_level(ctx), CHANNELS);
  return cpu_submit(ctx, &(cpu_stage){.tasks = s->batch * task.strips,
                                      .run = update_channels,
                                      .arg = &task,
                                      .arg_bytes = sizeof task,
                                      .reads = update_reads});
}
