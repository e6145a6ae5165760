/* Causal convolution, forward, where memory is all that should count: f32 rows of channels, one sequence in each row
 * of the batch. A task walks whole rows of a strip of channels, two steps at a time, so that x is read once from
 * memory, the filter's weights once for two steps. The rows that come next are asked for: arithmetic would wait for
 * memory, and memory for arithmetic, otherwise. An out too large for the next operation to find in a cache is written
 * around the caches, so that it is not read first. */
#include "conv_tile.h"

#define STRIP  2048      /* channels */
#define PIECE  64        /* steps of a task */
#define WIDEST 4         /* the widths that models have */
#define AHEAD  2         /* steps between the current ones and those asked for */
#define LARGE  (8 << 20) /* bytes of out */

typedef struct stream_task {
  const causal_conv1d_shape *s;
  const clm_causal_conv1d_args *a;
  float *filter; /* (width + 1, row): weights by place, then the bias */
  float *past;   /* (batch, width - 1, row): what comes before the sequences */
  int64_t row, pieces, strips;
  bool around; /* the caches */
} stream_task;

/* Rows t - (width - 1) to t + 1 of a strip that begins at channel c0. */
typedef struct stream_rows {
  const float *x[WIDEST + 1];
  float *out[2];
  const float *filter;
} stream_rows;

/* What is the same for all steps of a call, known to the compiler. */
typedef struct stream_kind {
  int width;
  bool silu, around;
} stream_kind;

INLINE void stream_ahead(stream_kind kind, int steps, const stream_task *task, const stream_rows *r, int64_t c) {
  if (LANES < 16 && c % 16) return; /* of the same cache line */
  UNROLL for (int i = 0; i < steps; i++) {
    __builtin_prefetch(r->x[kind.width - 1 + i] + AHEAD * task->a->x.stride[1] + c);
    if (!kind.around) __builtin_prefetch(r->out[i] + AHEAD * task->a->out.stride[1] + c, 1);
  }
}

/* `steps` of one or two rows, `count` (up to LANES) channels from c on. */
INLINE void stream_lanes(stream_kind kind, int steps, const stream_task *task, const stream_rows *r, int64_t c,
                         int64_t count) {
  const int width = kind.width;
  vec x[WIDEST + 1], weight[WIDEST];
  UNROLL for (int k = 0; k < width; k++) weight[k] = vec_load(r->filter + k * task->row + c);
  UNROLL for (int k = 0; k < width - 1 + steps; k++) x[k] = vec_load_part(r->x[k] + c, count);
  UNROLL for (int i = 0; i < steps; i++) {
    vec sum = vec_load(r->filter + width * task->row + c);
    UNROLL for (int k = 0; k < width; k++) sum = weight[k] * x[i + k] + sum;
    if (kind.silu) sum *= vec_sigmoid(sum);
    if (kind.around && count >= LANES) vec_stream(r->out[i] + c, sum);
    else vec_store_part(r->out[i] + c, sum, count);
  }
}

INLINE void stream_steps(stream_kind kind, int steps, const stream_task *task, const stream_rows *r, int64_t n) {
  int64_t c = 0;
  for (; c + LANES <= n; c += LANES) {
    stream_ahead(kind, steps, task, r, c);
    stream_lanes(kind, steps, task, r, c, LANES);
  }
  if (c < n) stream_lanes(kind, steps, task, r, c, n - c);
}

INLINE void stream_piece(stream_kind kind, const stream_task *task, int64_t b, int64_t t0, int64_t steps, int64_t c0,
                         int64_t n) {
  const clm_tensor *x = &task->a->x, *out = &task->a->out;
  const int before = kind.width - 1;
  const float *from = kernel_data(*x) + b * x->stride[0] + c0;
  const float *past = task->past + b * before * task->row + c0;
  float *to = kernel_data(*out) + b * out->stride[0] + c0;
  for (int64_t t = t0; t < t0 + steps; t += 2) {
    stream_rows r = {.filter = task->filter + c0};
    for (int k = 0; k <= kind.width; k++) {
      const int64_t at = t - before + k;
      r.x[k] = at < 0 ? past + (at + before) * task->row : from + at * x->stride[1];
    }
    for (int i = 0; i < 2; i++) r.out[i] = to + (t + i) * out->stride[1];
    if (t + 1 < t0 + steps) stream_steps(kind, 2, task, &r, n);
    else stream_steps(kind, 1, task, &r, n);
  }
  if (kind.around) vec_stream_end();
}

INLINE void stream_width(int width, const stream_task *task, int64_t b, int64_t t0, int64_t steps, int64_t c0,
                         int64_t n) {
  if (task->a->silu && task->around) stream_piece((stream_kind){width, true, true}, task, b, t0, steps, c0, n);
  else if (task->a->silu) stream_piece((stream_kind){width, true, false}, task, b, t0, steps, c0, n);
  else if (task->around) stream_piece((stream_kind){width, false, true}, task, b, t0, steps, c0, n);
  else stream_piece((stream_kind){width, false, false}, task, b, t0, steps, c0, n);
}

static void stream(void *arg, int64_t index, int worker) {
  const stream_task *task = arg;
  const int64_t strip = index % task->strips, piece = index / task->strips % task->pieces;
  const int64_t b = index / task->strips / task->pieces, t0 = piece * PIECE, c0 = strip * STRIP;
  const int64_t steps = min_of(PIECE, task->s->length - t0), n = min_of(STRIP, task->s->channels - c0);
  (void)worker;
  switch (task->s->width) {
  case 2: stream_width(2, task, b, t0, steps, c0, n); break;
  case 3: stream_width(3, task, b, t0, steps, c0, n); break;
  default: stream_width(4, task, b, t0, steps, c0, n);
  }
}

/* What vec_stream asks for: whole vectors of memory, from the first row's beginning on. */
static bool large_and_whole(const clm_tensor *out) {
  const uintptr_t places =
      (uintptr_t)kernel_data(*out) | (uintptr_t)(out->stride[0] | out->stride[1]) * sizeof(float);
  return clm_tensor_count(*out) * (int64_t)sizeof(float) >= LARGE && places % VEC_BYTES == 0;
}

bool KERNEL(conv_streams)(const causal_conv1d_shape *s, const clm_causal_conv1d_args *a) {
  return s->width >= 2 && s->width <= WIDEST && !s->packed && !present(a->seq_idx) && ALL_F32(a->x, a->out) &&
         a->x.stride[2] == 1 && a->out.stride[2] == 1;
}

clm_status KERNEL(conv_stream)(clm_context *ctx, const causal_conv1d_shape *s, const clm_causal_conv1d_args *a) {
  stream_task task = {.s = s,
                      .a = a,
                      .row = round_up(s->channels, 16),
                      .pieces = div_up(s->length, PIECE),
                      .strips = div_up(s->channels, STRIP),
                      .around = large_and_whole(&a->out)};
  const int64_t before = s->width - 1, rows = s->width + 1 + s->batch * before;
  clm_buffer *workspace;
  clm_status status = context_workspace(ctx, (size_t)(rows * task.row) * sizeof(float), &workspace);
  if (status) return status;
  task.filter = workspace->host;
  task.past = task.filter + (s->width + 1) * task.row;
  memset(task.filter + s->width * task.row, 0, (size_t)(task.row * (1 + s->batch * before)) * sizeof(float));
  for (int64_t k = 0; k < s->width; k++)
    line_read(line_at(&a->weight, k * a->weight.stride[1], a->weight.stride[0]), s->channels,
              task.filter + k * task.row);
  if (present(a->bias)) line_read(line_vector(&a->bias), s->channels, task.filter + s->width * task.row);
  for (int64_t b = 0; b < s->batch && present(a->initial_state); b++)
    for (int64_t k = 0; k < before; k++) {
      const clm_tensor *state = &a->initial_state;
      line_read(line_at(state, b * state->stride[0] + k * state->stride[2], state->stride[1]), s->channels,
                task.past + (b * before + k) * task.row);
    }
  cpu_pool_run(cpu_context_pool(ctx), s->batch * task.pieces * task.strips, stream, &task);
  context_explain(ctx, "causal_conv1d: cpu %s, %d steps of %lld channels a task, two at a time%s",
                  cpu_context_level(ctx), PIECE, (long long)min_of(STRIP, s->channels),
                  task.around ? ", out written around the caches" : "");
  return CLM_OK;
}
