/* Causal convolution: a task is a piece of the sequence by a strip of channels, lanes are channels. With e = the
 * width - 1 steps before the sequence, then the sequence (as in the reference),
 *   s[t] = bias + sum_k weight[k] e[t + k]      de[i] = sum_k weight[k] ds[i - k]
 * The weight's gradient is summed within a task, then over the tasks in order. */
#include "conv_tile.h"

static void load_filter(const conv_call *call, conv_tile *k) {
  const clm_causal_conv1d_args *f = call->f;
  memset(k->weight, 0, sizeof *k->weight * (size_t)k->width);
  memset(k->bias, 0, sizeof k->bias);
  for (int i = 0; i < k->width; i++)
    line_read(line_at(&f->weight, k->c0 * f->weight.stride[0] + i * f->weight.stride[1], f->weight.stride[0]),
              k->channels, (float *)k->weight[i]);
  if (present(f->bias))
    line_read(line_at(&f->bias, k->c0 * f->bias.stride[0], f->bias.stride[0]), k->channels, (float *)k->bias);
}

static void begin_tile(const conv_call *call, int64_t b, int64_t t0, int64_t strip, conv_tile *k) {
  const causal_conv1d_shape *s = call->s;
  k->b = b;
  k->t0 = t0;
  k->c0 = strip * CHANNELS;
  k->steps = (int)min_of(STEPS, s->length - k->t0);
  k->channels = min_of(CHANNELS, s->channels - k->c0);
  k->blocks = (int)div_up(k->channels, LANES);
  k->width = (int)s->width;
  k->before = k->width - 1;
  load_filter(call, k);
}

static void begin_task(const conv_call *call, int64_t index, conv_tile *k) {
  int64_t piece = index / call->strips % call->pieces;
  begin_tile(call, index / call->strips / call->pieces, piece * STEPS, index % call->strips, k);
}

/* e from step t0 - (width - 1) on. */
static void load_inputs(const conv_call *call, const conv_tile *k, int count, conv_rows *e) {
  load_steps(call, k, &call->f->x, k->t0 - k->before, count, e, 0);
  for (int i = 0; i < k->before && k->t0 - k->before + i < 0 && !call->s->packed; i++)
    read_state(&call->f->initial_state, k->b, k, k->t0 + i, e->copy[i]);
  for (int i = 0; call->marks && i < count; i++) {
    int64_t p = k->t0 - k->before + i;
    if (p < 0 || p >= call->s->length || mark_of(call, k->b, p).reach >= 0) continue;
    e->row[i] = e->copy[i];
    memset(e->copy[i], 0, sizeof e->copy[i]);
  }
}

/* Whether every step of the tile sees all that the filter reaches. */
static bool sees_all(const conv_call *call, const conv_tile *k, int64_t count) {
  for (int64_t t = k->t0; call->marks && t < min_of(k->t0 + count, call->s->length); t++)
    if (mark_of(call, k->b, t).reach < k->before) return false;
  return true;
}

/* The input of weight i as a step with mark m sees it: that of the packed sequence's initial state into `scratch`. */
static const float *seen(const conv_call *call, const conv_tile *k, const conv_rows *e, conv_mark m, int at, int i,
                         float *scratch) {
  if (sees(m, k->before, i)) return e->row[at + i];
  memset(scratch, 0, CHANNELS * sizeof *scratch);
  if (call->s->packed && m.reach >= 0) read_state(&call->f->initial_state, m.row, k, i + m.reach, scratch);
  return scratch;
}

/* s of the tile's step `at`, where not all inputs are of its sequence. */
static void weighted_partly(const conv_call *call, const conv_tile *k, const conv_rows *e, int at, vec *sum) {
  const conv_mark m = mark_of(call, k->b, k->t0 + at);
  _Alignas(64) float scratch[CHANNELS];
  for (int j = 0; j < k->blocks; j++) sum[j] = k->bias[j];
  for (int i = 0; i < k->width; i++) {
    const float *x = seen(call, k, e, m, at, i, scratch);
    for (int j = 0; j < k->blocks; j++) sum[j] = k->weight[i][j] * vec_load(x + j * LANES) + sum[j];
  }
}

INLINE vec weighted(const conv_tile *k, const conv_rows *e, int width, int at, int j) {
  vec sum = k->bias[j];
  for (int i = 0; i < width; i++) sum = k->weight[i][j] * vec_load(e->row[at + i] + j * LANES) + sum;
  return sum;
}

/* ---- Forward ---- */

INLINE void forward_steps(const conv_call *call, const conv_tile *k, const conv_rows *e, int width,
                          float (*out)[CHANNELS]) {
  const clm_tensor *to = &call->f->out;
  const bool silu = call->f->silu, together = steps_lie_together(to);
  for (int t = 0; t < k->steps; t++) {
    float *row = together ? out[t] : target_of(k, to, k->t0 + t, out[t]);
    for (int j = 0; j < k->blocks; j++) {
      vec sum = weighted(k, e, width, t, j);
      if (silu) sum *= vec_sigmoid(sum);
      vec_store(row + j * LANES, sum);
    }
  }
}

static void forward_partly(const conv_call *call, const conv_tile *k, const conv_rows *e, float (*out)[CHANNELS]) {
  const clm_tensor *to = &call->f->out;
  for (int t = 0; t < k->steps; t++) {
    float *row = steps_lie_together(to) ? out[t] : target_of(k, to, k->t0 + t, out[t]);
    vec sum[BLOCKS];
    weighted_partly(call, k, e, t, sum);
    const bool padding = mark_of(call, k->b, k->t0 + t).reach < 0;
    for (int j = 0; j < k->blocks; j++) {
      if (call->f->silu) sum[j] *= vec_sigmoid(sum[j]);
      vec_store(row + j * LANES, padding ? vec_set(0) : sum[j]);
    }
  }
}

static void forward_task(void *arg, int64_t index, int worker) {
  const conv_call *call = arg;
  conv_tile k;
  conv_rows e;
  _Alignas(64) float out[STEPS][CHANNELS];
  (void)worker;
  begin_task(call, index, &k);
  load_inputs(call, &k, k.before + k.steps, &e);
  if (!sees_all(call, &k, k.steps)) forward_partly(call, &k, &e, out);
  else if (k.width == 4) forward_steps(call, &k, &e, 4, out);
  else forward_steps(call, &k, &e, k.width, out);
  store_steps(&k, &call->f->out, k.steps, out);
}

/* ---- States ---- */

/* Row `row` of the states: its sequence, and what a step to come would see of it. */
static seq_row begin_states(const conv_call *call, int64_t index, conv_tile *k, conv_mark *to_come) {
  const causal_conv1d_shape *s = call->s;
  const seq_row row = seq_row_of(&call->f->cu_seqlens, s->reversed, s->length, index / call->strips);
  begin_tile(call, row.batch, row.begin, index % call->strips, k);
  if (s->packed) k->b = 0;
  *to_come = call->marks && !s->packed ? mark_of(call, k->b, s->length) : (conv_mark){.reach = k->before};
  return row;
}

/* After the steps are done: the state may be written in place of the one that they read. Element j comes from a later
 * one. */
static void final_task(void *arg, int64_t index, int worker) {
  const conv_call *call = arg;
  const clm_causal_conv1d_args *f = call->f;
  conv_tile k;
  conv_mark to_come;
  _Alignas(64) float value[CHANNELS];
  (void)worker;
  const seq_row row = begin_states(call, index, &k, &to_come);
  for (int j = 0; j < k.before; j++) {
    const int64_t p = row.end - k.before + j;
    if (!sees(to_come, k.before, j) || (p >= row.begin && mark_of(call, k.b, p).reach < 0))
      memset(value, 0, sizeof value);
    else if (p >= row.begin) line_read(line_of_step(&f->x, &k, p), k.channels, value);
    else read_state(&f->initial_state, row.state, &k, p - row.begin + k.before, value);
    write_state(&f->final_state, row.state, &k, j, value);
  }
}

/* dinitial[i] = sum_q weight[i - q] ds[q] over the first steps of a row, and what comes in through a final state that
 * reaches back as far. */
static void initial_task(void *arg, int64_t index, int worker) {
  const conv_call *call = arg;
  const clm_causal_conv1d_backward_args *b = call->b;
  conv_tile k;
  conv_mark to_come;
  _Alignas(64) float e[2 * WIDTHS][CHANNELS] = {{0}}, ds[WIDTHS][CHANNELS] = {{0}};
  (void)worker;
  const seq_row row = begin_states(call, index, &k, &to_come);
  const int steps = (int)min_of(k.before, row.end - row.begin);
  conv_mark marks[WIDTHS];
  for (int i = 0; i < k.before; i++) read_state(&call->f->initial_state, row.state, &k, i, e[i]);
  for (int q = 0; q < steps; q++) {
    marks[q] = mark_of(call, k.b, row.begin + q);
    if (call->s->packed) marks[q].reach = k.before; /* its initial state is in e */
    if (marks[q].reach < 0) continue;
    line_read(line_of_step(&call->f->x, &k, row.begin + q), k.channels, e[k.before + q]);
    line_read(line_of_step(&b->dout, &k, row.begin + q), k.channels, ds[q]);
    for (int j = 0; j < k.blocks && call->f->silu; j++) {
      vec sum = k.bias[j];
      for (int i = 0; i < k.width; i++)
        if (sees(marks[q], k.before, i)) sum = k.weight[i][j] * vec_load(e[q + i] + j * LANES) + sum;
      vec_store(ds[q] + j * LANES, vec_load(ds[q] + j * LANES) * silu_gradient(sum));
    }
  }
  for (int i = 0; i < k.before; i++) {
    _Alignas(64) float sum[CHANNELS] = {0};
    const int64_t j = i - (row.end - row.begin);
    if (j >= 0 && sees(to_come, k.before, (int)j)) read_state(&b->dfinal_state, row.state, &k, j, sum);
    for (int q = 0; q < steps && q <= i; q++)
      for (int n = 0; n < k.blocks && sees(marks[q], k.before, i - q); n++)
        vec_store(sum + n * LANES, k.weight[i - q][n] * vec_load(ds[q] + n * LANES) + vec_load(sum + n * LANES));
    write_state(&b->dinitial_state, row.state, &k, i, sum);
  }
}

/* ---- Backward ---- */

/* ds of the tile's steps and of the width - 1 after them, which the tile's dx needs too. */
static void sum_gradients(const conv_call *call, const conv_tile *k, const conv_rows *e, bool all, conv_rows *dout,
                          vec (*ds)[BLOCKS]) {
  const int count = k->steps + k->before;
  load_steps(call, k, &call->b->dout, k->t0, count, dout, 0);
  for (int t = 0; t < count; t++) {
    if (k->t0 + t >= call->s->length || mark_of(call, k->b, k->t0 + t).reach < 0) {
      memset(ds[t], 0, sizeof ds[t]);
      continue;
    }
    vec sum[BLOCKS];
    if (call->f->silu && !all) weighted_partly(call, k, e, t, sum);
    for (int j = 0; j < k->blocks; j++) {
      vec d = vec_load(dout->row[t] + j * LANES);
      if (call->f->silu) {
        if (all) sum[j] = k->width == 4 ? weighted(k, e, 4, t, j) : weighted(k, e, k->width, t, j);
        d *= silu_gradient(sum[j]);
      }
      ds[t][j] = d;
    }
  }
}

INLINE void input_gradient(const conv_call *call, const conv_tile *k, int width, bool all, vec (*ds)[BLOCKS],
                           float (*out)[CHANNELS]) {
  const clm_tensor *to = &call->b->dx;
  for (int t = 0; t < k->steps; t++) {
    float *row = steps_lie_together(to) ? out[t] : target_of(k, to, k->t0 + t, out[t]);
    const conv_mark m = mark_of(call, k->b, k->t0 + t);
    _Alignas(64) float from_final[CHANNELS] = {0};
    if (m.tail > 0) read_state(&call->b->dfinal_state, m.row, k, k->before - m.tail, from_final);
    bool used[WIDTHS];
    for (int i = 0; i < width && !all; i++) {
      const int64_t at = k->t0 + t + k->before - i;
      used[i] = m.reach >= 0 && at < call->s->length && sees(mark_of(call, k->b, at), k->before, i);
    }
    for (int j = 0; j < k->blocks; j++) {
      vec de = m.tail > 0 ? vec_load(from_final + j * LANES) : vec_set(0);
      for (int i = 0; i < width; i++)
        if (all || used[i]) de = k->weight[i][j] * ds[t + width - 1 - i][j] + de;
      vec_store(row + j * LANES, de);
    }
  }
}

INLINE void weight_gradient(const conv_call *call, const conv_tile *k, const conv_rows *e, int width,
                            vec (*ds)[BLOCKS], float *part) {
  const int64_t channels = call->s->channels;
  for (int j = 0; j < k->blocks; j++) {
    vec sum[WIDTHS + 1] = {{0}};
    for (int t = 0; t < k->steps; t++) {
      vec d = ds[t][j];
      for (int i = 0; i < width; i++) sum[i] = d * vec_load(e->row[t + i] + j * LANES) + sum[i];
      sum[width] += d;
    }
    for (int i = 0; i <= width; i++)
      vec_store_part(part + i * channels + k->c0 + j * LANES, sum[i], k->channels - j * LANES);
  }
}

static void weight_gradient_partly(const conv_call *call, const conv_tile *k, const conv_rows *e, vec (*ds)[BLOCKS],
                                   float *part) {
  const int64_t channels = call->s->channels;
  vec sum[WIDTHS + 1][BLOCKS];
  memset(sum, 0, sizeof sum[0] * (size_t)(k->width + 1));
  for (int t = 0; t < k->steps; t++) {
    const conv_mark m = mark_of(call, k->b, k->t0 + t);
    _Alignas(64) float scratch[CHANNELS];
    for (int i = 0; i < k->width && m.reach >= 0; i++) {
      const float *x = seen(call, k, e, m, t, i, scratch);
      for (int j = 0; j < k->blocks; j++) sum[i][j] = ds[t][j] * vec_load(x + j * LANES) + sum[i][j];
    }
    for (int j = 0; j < k->blocks; j++) sum[k->width][j] += ds[t][j];
  }
  for (int i = 0; i <= k->width; i++)
    for (int j = 0; j < k->blocks; j++)
      vec_store_part(part + i * channels + k->c0 + j * LANES, sum[i][j], k->channels - j * LANES);
}

static void backward_task(void *arg, int64_t index, int worker) {
  const conv_call *call = arg;
  conv_tile k;
  conv_rows e, rows; /* `rows`: dout, then dx */
  vec ds[STEPS + WIDTHS - 1][BLOCKS];
  (void)worker;
  begin_task(call, index, &k);
  const bool all = sees_all(call, &k, k.steps + k.before);
  load_inputs(call, &k, k.steps + 2 * k.before, &e);
  sum_gradients(call, &k, &e, all, &rows, ds);
  if (present(call->b->dx)) {
    if (!all) input_gradient(call, &k, k.width, false, ds, rows.copy);
    else if (k.width == 4) input_gradient(call, &k, 4, true, ds, rows.copy);
    else input_gradient(call, &k, k.width, true, ds, rows.copy);
    store_steps(&k, &call->b->dx, k.steps, rows.copy);
  }
  if (!call->parts) return;
  float *part = call->parts + index / call->strips * (k.width + 1) * call->s->channels;
  if (!all) weight_gradient_partly(call, &k, &e, ds, part);
  else if (k.width == 4) weight_gradient(call, &k, &e, 4, ds, part);
  else weight_gradient(call, &k, &e, k.width, ds, part);
}

/* ---- Calls ---- */

static void mark_packed(const conv_call *call) {
  const causal_conv1d_shape *s = call->s;
  for (int64_t t = 0; t <= s->length; t++) call->marks[t] = (conv_mark){.reach = -1};
  for (int64_t i = 0; i < s->sequences; i++) {
    const seq_row row = seq_row_of(&call->f->cu_seqlens, s->reversed, s->length, i);
    for (int64_t t = row.begin; t < row.end; t++)
      call->marks[t] = (conv_mark){(int32_t)min_of(s->width - 1, t - row.begin), (int32_t)i,
                                   row.end - t < s->width ? (int32_t)(row.end - t) : 0};
  }
}

static void mark_sequences(const conv_call *call, int64_t b) {
  const causal_conv1d_shape *s = call->s;
  conv_mark *marks = call->marks + b * (s->length + 1);
  int64_t first = -s->width; /* the last step that began a sequence */
  int32_t last = -1;
  for (int64_t t = 0; t <= s->length; t++) {
    seq_step kind = t < s->length ? seq_step_of(&call->f->seq_idx, b, t, &last) : SEQ_GOES_ON;
    if (kind == SEQ_BEGINS) first = t;
    marks[t] = (conv_mark){(int32_t)min_of(s->width - 1, t - first), (int32_t)b, 0};
    if (first < 0) marks[t].reach = (int32_t)s->width - 1;
    if (kind == SEQ_PADDING) marks[t].reach = -1;
  }
  for (int64_t t = max_of(max_of(0, first), s->length + 1 - s->width); t < s->length; t++)
    if (marks[t].reach >= 0) marks[t].tail = (int32_t)(s->length - t);
}

/* The call with its marks, and `floats` of workspace after them. */
static clm_status begin_call(clm_context *ctx, const causal_conv1d_shape *s, const clm_causal_conv1d_args *f,
                             int64_t floats, conv_call *call, float **memory) {
  *call = (conv_call){.s = s, .f = f, .pieces = div_up(s->length, STEPS), .strips = div_up(s->channels, CHANNELS)};
  const bool marked = s->packed || present(f->seq_idx);
  const size_t bytes = marked ? (size_t)(s->batch * (s->length + 1)) * sizeof(conv_mark) : 0;
  const size_t offset = round_up_line(bytes);
  clm_buffer *workspace;
  if (offset + (size_t)floats == 0) return CLM_OK;
  clm_status status = context_workspace(ctx, offset + (size_t)floats * sizeof(float), &workspace);
  if (status) return status;
  *memory = (float *)(void *)((char *)workspace->host + offset);
  if (!marked) return CLM_OK;
  call->marks = workspace->host;
  if (s->packed) mark_packed(call);
  for (int64_t b = 0; b < s->batch && !s->packed; b++) mark_sequences(call, b);
  return CLM_OK;
}

/* In either direction. */
static bool steps_side_by_side(const clm_tensor *t) {
  return !t->buffer || (t->shape[2] > 1 && t->stride[2] != 1 && (t->stride[1] == 1 || t->stride[1] == -1));
}

/* Rows of one sequence each whose steps lie side by side in all of three tensors. */
static bool is_by_rows(const causal_conv1d_shape *s, const clm_causal_conv1d_args *a, const clm_tensor *x,
                       const clm_tensor *y, const clm_tensor *z) {
  return !s->packed && !present(a->seq_idx) && steps_side_by_side(x) && steps_side_by_side(y) &&
         steps_side_by_side(z);
}

clm_status KERNEL(causal_conv1d)(clm_context *ctx, const causal_conv1d_shape *s, const clm_causal_conv1d_args *a) {
  if (!ALL_STORAGE(a->x, a->weight, a->bias, a->initial_state, a->out, a->final_state))
    return ref_causal_conv1d(ctx, s, a);
  if (is_by_rows(s, a, &a->x, &a->out, &a->out)) return KERNEL(conv_rows)(ctx, s, a);
  conv_call call;
  float *none;
  clm_status status = begin_call(ctx, s, a, 0, &call, &none);
  if (status) return status;
  const bool streams = KERNEL(conv_streams)(s, a);
  if (streams) status = KERNEL(conv_stream)(ctx, s, a);
  else cpu_pool_run(cpu_context_pool(ctx), s->batch * call.pieces * call.strips, forward_task, &call);
  if (status) return status;
  if (present(a->final_state)) cpu_pool_run(cpu_context_pool(ctx), s->sequences * call.strips, final_task, &call);
  if (!streams)
    context_explain(ctx, "causal_conv1d: cpu %s, tiles of %d steps x %d channels", cpu_context_level(ctx), STEPS,
                    CHANNELS);
  return CLM_OK;
}

clm_status KERNEL(causal_conv1d_backward)(clm_context *ctx, const causal_conv1d_shape *s,
                                          const clm_causal_conv1d_backward_args *a) {
  const clm_causal_conv1d_args *f = &a->forward;
  if (!ALL_STORAGE(f->x, f->weight, f->bias, f->initial_state, a->dout, a->dfinal_state) ||
      !ALL_STORAGE(a->dx, a->dweight, a->dbias, a->dinitial_state))
    return ref_causal_conv1d_backward(ctx, s, a);
  const bool sums = present(a->dweight) || present(a->dbias), by_rows = is_by_rows(s, f, &f->x, &a->dout, &a->dx);
  const int64_t parts = s->batch * (by_rows ? 1 : div_up(s->length, STEPS)), numbers = (s->width + 1) * s->channels;
  conv_call call;
  float *memory = NULL;
  clm_status status = begin_call(ctx, s, f, sums ? (parts + 1) * numbers : 0, &call, &memory);
  if (status) return status;
  call.b = a;
  if (sums) call.parts = memory;
  if (by_rows) KERNEL(conv_rows_backward)(ctx, s, a, call.parts);
  else if (sums || present(a->dx)) cpu_pool_run(cpu_context_pool(ctx), parts * call.strips, backward_task, &call);
  if (present(a->dinitial_state) && !by_rows)
    cpu_pool_run(cpu_context_pool(ctx), s->sequences * call.strips, initial_task, &call);
  if (sums) {
    float *sum = memory + parts * numbers;
    kernel_sum_parts(memory, parts, numbers, sum, 1);
    for (int64_t k = 0; k < s->width && present(a->dweight); k++)
      line_write(line_at(&a->dweight, k * a->dweight.stride[1], a->dweight.stride[0]), s->channels,
                 sum + k * s->channels);
    if (present(a->dbias))
      line_write(line_at(&a->dbias, 0, a->dbias.stride[0]), s->channels, sum + s->width * s->channels);
  }
  if (by_rows)
    context_explain(ctx, "causal_conv1d_backward: cpu %s, one channel a task, %d steps in lanes",
                    cpu_context_level(ctx), LANES);
  else
    context_explain(ctx, "causal_conv1d_backward: cpu %s, tiles of %d steps x %d channels", cpu_context_level(ctx),
                    STEPS, CHANNELS);
  return CLM_OK;
}
