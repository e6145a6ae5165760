/* Gradients of SSD. A task (ssd_chunk.h) runs forward once and keeps the states at the beginning of each span of
 * pieces; then it takes the spans from the last to the first, computes the states of their pieces again, and walks
 * the pieces backwards with the gradient of the state.
 *
 * With L[l][s] the decay from s to l, w[s] that from s to the piece's end, T the gradient of the state at the end:
 *   dx / d  = sum_l (CB L)[l][s] dy[l] + w[s] T B[s]            the gradient of d x
 *   dB      = sum_l dCB[l][s] C[l] + d[s] w[s] T^T x[s]         dCB[l][s] = L[l][s] d[s] dy[l] x[s]
 *   dC      = sum_s dCB[l][s] B[s] + L[l][before] S^T dy[l]     S: the state before the piece
 * The gradient of step t's d A is that of every decay that has it: sums of CB dCB over s < t <= l, of what B's part
 * gives over s < t, of what C's part gives over l >= t, and the whole decay times <T, S>. Nothing is subtracted.
 *
 * Heads of a group add to one dB and dC: each block leaves its part in the workspace, and the parts are added in
 * order. Likewise dA, dD and ddt_bias over the rows. */
#include "ssd_chunk.h"

typedef struct backward_scratch {
  float *B, *C;                              /* (steps, d_state)           */
  float *CB, *dCB, *mixed, *products;        /* (steps, PIECE)             */
  float *x, *scaled, *dout, *dy, *y, *inner; /* (steps, head_dim)          */
  float *wide;                               /* (steps, d_state)           */
  float *z, *D;                              /* (steps, head_dim), a line  */
  float *states, *starts;                    /* (span or spans, heads, head_dim, d_state): before each */
  float *dstates;                            /* (heads, head_dim, d_state) */
  float *product;
} backward_scratch;

typedef struct backward_task {
  ssd_plan plan;
  const clm_ssd_backward_args *a;
  int64_t span;       /* pieces                                    */
  float *dB, *dC;     /* parts (blocks, batch, length, groups, d_state) */
  double *dA, *dbias; /* parts (sequences, heads)                  */
  float *dD;          /* parts (sequences, heads, head_dim)        */
  float *scratch;
  int64_t scratch_floats;
} backward_task;

static int64_t scratch_layout(const backward_task *task, float *memory, backward_scratch *k) {
  const ssd_plan *p = &task->plan;
  const int64_t N = p->s->d_state, P = p->s->head_dim, states = p->heads * P * N;
  int64_t used = 0;
  float **steps[] = {&k->CB, &k->dCB, &k->mixed, &k->products}, **wide[] = {&k->B, &k->C, &k->wide};
  float **narrow[] = {&k->x, &k->scaled, &k->dout, &k->dy, &k->y, &k->inner, &k->z};
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) *steps[i] = scratch_take(memory, &used, PIECE * PIECE);
  for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) *wide[i] = scratch_take(memory, &used, PIECE * N);
  for (size_t i = 0; i < sizeof narrow / sizeof *narrow; i++) *narrow[i] = scratch_take(memory, &used, PIECE * P);
  k->D = scratch_take(memory, &used, P);
  k->states = scratch_take(memory, &used, task->span * states);
  k->starts = scratch_take(memory, &used, div_up(p->most_row, task->span) * states);
  k->dstates = scratch_take(memory, &used, states);
  k->product = scratch_take(memory, &used, GEMM_SCRATCH);
  return used;
}

/* The state after a piece from the one before it. */
static void advance(const ssd_plan *p, const ssd_piece *piece, int64_t head, const float *before, float *after,
                    backward_scratch *k) {
  const int64_t N = p->s->d_state, P = p->s->head_dim, q = piece->steps;
  ssd_decay decay = {.whole = 0};
  ssd_decays(p, piece, head, &decay);
  ssd_read(p, &p->a->x, piece, head, k->x);
  ssd_scale_rows(k->x, q, P, decay.d, k->scaled);
  ssd_scale_rows(k->scaled, q, P, decay.to_end, k->scaled);
  if (piece->fresh) memset(after, 0, (size_t)(P * N) * sizeof *after);
  else if (after != before) memcpy(after, before, (size_t)(P * N) * sizeof *after);
  ssd_product(p, (gemm_size){P, N, q}, gemm_turned(k->scaled, P), gemm_rows(k->B, N), decay.whole,
              gemm_rows(after, N), k->product);
}

/* The states before the pieces [from, to), each `heads` of them in turn from `states` on: given those before the
 * first. With `apart` 0 only what leaves the last stays, in their place. */
static void run_states(const ssd_plan *p, const ssd_block *b, int64_t from, int64_t to, float *states, int64_t apart,
                       backward_scratch *k) {
  const int64_t size = p->s->head_dim * p->s->d_state;
  for (int64_t i = from; i < to; i++, states += apart) {
    ssd_read(p, &p->a->B, &b->first[i], b->group, k->B);
    for (int64_t h = 0; h < b->heads; h++)
      advance(p, &b->first[i], b->head + h, states + h * size, states + apart + h * size, k);
  }
}

/* dy = dout silu(z), with y also dz and out. */
static void gate_backward(const backward_task *task, const ssd_piece *piece, int64_t head, const ssd_decay *decay,
                          const float *state, backward_scratch *k) {
  const ssd_plan *p = &task->plan;
  const clm_ssd_backward_args *a = task->a;
  const int64_t P = p->s->head_dim, N = p->s->d_state, q = piece->steps;
  ssd_read(p, &a->dout, piece, head, k->dout);
  const float *dout = k->dout;
  const bool gated = present(p->a->z), wanted = present(a->dz) || present(a->out);
  if (gated) ssd_read(p, &p->a->z, piece, head, k->z);
  if (wanted) { /* k->mixed has CB L */
    ssd_product(p, (gemm_size){q, P, N}, gemm_rows(k->C, N), gemm_turned(state, N), 0, gemm_rows(k->y, P),
                k->product);
    ssd_scale_rows(k->y, q, P, decay->from_begin, k->y);
    ssd_product(p, (gemm_size){q, P, q}, gemm_rows(k->mixed, PIECE), gemm_rows(k->scaled, P), 1, gemm_rows(k->y, P),
                k->product);
  }
  for (int64_t i = 0; i < q; i++)
    for (int64_t j = 0; j < P; j += LANES) {
      const int64_t at = i * P + j, left = P - j;
      vec dy = vec_load_part(dout + at, left), dz = vec_set(0), y = vec_set(0);
      if (wanted) y = vec_load_part(k->y + at, left);
      if (wanted && present(p->a->D)) y += vec_load_part(k->D + j, left) * vec_load_part(k->x + at, left);
      if (gated) {
        const vec z = vec_load_part(k->z + at, left), sigmoid = vec_sigmoid(z);
        dz = dy * y * sigmoid * (vec_set(1) + z * (vec_set(1) - sigmoid));
        dy *= z * sigmoid;
        y *= z * sigmoid;
      }
      vec_store_part(k->dy + at, dy, left);
      vec_store_part(k->y + at, y, left);
      vec_store_part(k->z + at, dz, left);
    }
  ssd_write(p, &a->out, piece, head, k->y);
  ssd_write(p, &a->dz, piece, head, k->z);
}

/* What goes between the steps of a piece: k->products holds dy x^T. Adds to dCB, leaves CB dCB in k->products and
 * for each step the sum of that over s < t <= l. */
static void between_steps(const ssd_decay *decay, int32_t q, backward_scratch *k, float *crossing) {
  float column[PIECE] = {0}; /* sums over l >= t */
  for (int32_t l = 0; l < q; l++)
    for (int64_t i = 0; i < q; i += LANES) {
      const int64_t left = l + 1 - i, at = l * PIECE + i;
      vec dCB = vec_set(0);
      if (left > 0) {
        dCB = ssd_decay_to(decay, l, i, left) * vec_load_part(k->products + at, left);
        dCB = vec_keep(dCB * vec_load_part(decay->d + i, left), left);
        vec_store(k->dCB + at, vec_load(k->dCB + at) + dCB);
        dCB = vec_keep(dCB * vec_load_part(k->CB + at, left), left);
      }
      vec_store(k->products + at, dCB);
    }
  for (int32_t t = q - 1; t >= 0; t--) {
    vec sum = vec_set(0);
    for (int64_t i = 0; i < q; i += LANES) {
      const vec more = vec_load(column + i) + vec_load(k->products + t * PIECE + i);
      vec_store(column + i, more);
      if (t > i) sum += vec_keep(more, t - i);
    }
    crossing[t] = vec_sum(sum);
  }
}

/* What each step of a piece gives to the gradient of d, and to that of d A. */
typedef struct step_sums {
  float direct[PIECE];   /* the gradient of d by itself           */
  float crossing[PIECE]; /* of the steps s < t to those from t on */
  float from[PIECE];     /* of the steps before t through B       */
  float to[PIECE];       /* of those from t on through C          */
  float whole;           /* of the decay over the piece           */
} step_sums;

/* ddt of the piece, and the head's sums. */
static void steps_backward(const backward_task *task, const ssd_block *b, const ssd_piece *piece, int64_t head,
                           const ssd_decay *decay, const step_sums *k) {
  const clm_tensor *ddt = &task->a->ddt;
  const int64_t part = b->index * task->plan.s->n_heads + head;
  const double A = (double)ssd_rate(task->plan.a, head);
  double before[PIECE], sum = 0;
  float out[PIECE];
  for (int32_t t = 0; t < piece->steps; t++) {
    before[t] = sum;
    sum += (double)k->from[t];
  }
  sum = (double)k->whole;
  for (int32_t t = piece->steps - 1; t >= 0; t--) {
    sum += (double)k->to[t];
    const double rate = (double)k->crossing[t] + before[t] + sum, d = (double)decay->d[t];
    const double gradient = ((double)k->direct[t] + A * rate) * (double)decay->slope[t];
    out[t] = (float)gradient;
    if (ssd_is_padding(&task->plan, piece->batch, piece->begin + t)) {
      out[t] = 0;
      continue;
    }
    task->dA[part] += d * rate;
    task->dbias[part] += gradient;
  }
  if (present(*ddt))
    line_write(line_at(ddt, piece->batch * ddt->stride[0] + piece->begin * ddt->stride[1] + head * ddt->stride[2],
                       ddt->stride[1]),
               piece->steps, out);
}

/* dx of the piece from k->inner, the gradient of d x; its part of dD. */
static void inputs_backward(const backward_task *task, const ssd_block *b, const ssd_piece *piece, int64_t head,
                            const ssd_decay *decay, backward_scratch *k) {
  const int64_t P = task->plan.s->head_dim;
  float *dD = task->dD + (b->index * task->plan.s->n_heads + head) * P;
  for (int64_t i = 0; i < piece->steps; i++)
    for (int64_t j = 0; j < P; j += LANES) {
      const int64_t at = i * P + j, left = P - j;
      const vec dy = vec_load_part(k->dy + at, left);
      vec_store_part(dD + j, vec_load_part(dD + j, left) + dy * vec_load_part(k->x + at, left), left);
      const vec dx = vec_set(decay->d[i]) * vec_load_part(k->inner + at, left) + vec_load_part(k->D + j, left) * dy;
      vec_store_part(k->y + at, dx, left);
    }
  ssd_write(&task->plan, &task->a->dx, piece, head, k->y);
}

/* Where the heads of a block leave their parts of dB and dC; `fold`: added to what is there. */
typedef struct input_sums {
  matrix dB, dC;
  bool fold;
} input_sums;

/* A head's part of a piece; T, the gradient of the state after it, becomes that of the state before it. */
static void run_head(const backward_task *task, const ssd_block *b, const ssd_piece *piece, int64_t head,
                     const float *state, float *T, input_sums into, backward_scratch *k) {
  const ssd_plan *p = &task->plan;
  const int64_t N = p->s->d_state, P = p->s->head_dim, q = piece->steps;
  step_sums sums;
  ssd_decay decay = {.whole = 0};
  ssd_decays(p, piece, head, &decay);
  ssd_read(p, &p->a->x, piece, head, k->x);
  if (present(p->a->D)) line_read(ssd_skip(&p->a->D, head), P, k->D);
  else memset(k->D, 0, (size_t)P * sizeof *k->D);
  ssd_scale_rows(k->x, q, P, decay.d, k->scaled);
  ssd_decay_matrix(&decay, piece->steps, k->CB, k->mixed);
  gate_backward(task, piece, head, &decay, state, k);

  ssd_product(p, (gemm_size){q, q, P}, gemm_rows(k->dy, P), gemm_turned(k->x, P), 0, gemm_rows(k->products, PIECE),
              k->product);
  between_steps(&decay, piece->steps, k, sums.crossing);

  ssd_product(p, (gemm_size){q, P, N}, gemm_rows(k->B, N), gemm_turned(T, N), 0, gemm_rows(k->inner, P), k->product);
  ssd_scale_rows(k->inner, q, P, decay.to_end, k->inner);
  for (int64_t i = 0; i < q; i++) sums.from[i] = decay.d[i] * ssd_dot(k->x + i * P, k->inner + i * P, P);
  ssd_product(p, (gemm_size){q, P, q}, gemm_turned(k->mixed, PIECE), gemm_rows(k->dy, P), 1, gemm_rows(k->inner, P),
              k->product);
  for (int64_t i = 0; i < q; i++) sums.direct[i] = ssd_dot(k->x + i * P, k->inner + i * P, P);
  inputs_backward(task, b, piece, head, &decay, k);

  ssd_scale_rows(k->scaled, q, P, decay.to_end, k->scaled);
  ssd_product(p, (gemm_size){q, N, P}, gemm_rows(k->scaled, P), gemm_rows(T, N), into.fold ? 1 : 0, into.dB,
              k->product);
  ssd_scale_rows(k->dy, q, P, decay.from_begin, k->dy);
  ssd_product(p, (gemm_size){q, N, P}, gemm_rows(k->dy, P), gemm_rows(state, N), 0, gemm_rows(k->wide, N),
              k->product);
  for (int64_t i = 0; i < q; i++) {
    sums.to[i] = ssd_dot(k->wide + i * N, k->C + i * N, N);
    for (int64_t j = 0; j < N; j += LANES) {
      vec v = vec_load_part(k->wide + i * N + j, N - j);
      float *dC = into.dC.data + i * into.dC.row + j;
      if (into.fold) v += vec_load_part(dC, N - j);
      vec_store_part(dC, v, N - j);
    }
  }
  sums.whole = decay.whole * ssd_dot(T, state, P * N);
  steps_backward(task, b, piece, head, &decay, &sums);
  if (piece->fresh) memset(T, 0, (size_t)(P * N) * sizeof *T);
  else
    ssd_product(p, (gemm_size){P, N, q}, gemm_turned(k->dy, P), gemm_rows(k->C, N), decay.whole, gemm_rows(T, N),
                k->product);
}

/* All heads of the block; `states`: before the piece. */
static void run_piece(const backward_task *task, const ssd_block *b, const ssd_piece *piece, float *states,
                      backward_scratch *k) {
  const ssd_plan *p = &task->plan;
  const ssd_shape *s = p->s;
  const int64_t N = s->d_state, q = piece->steps, size = s->head_dim * N, row = s->n_groups * N;
  const int64_t at = ((b->block * s->batch + piece->batch) * s->length + piece->begin) * row + b->group * N;
  const matrix dB = {task->dB + at, row, 1}, dC = {task->dC + at, row, 1};
  ssd_read(p, &p->a->B, piece, b->group, k->B);
  ssd_read(p, &p->a->C, piece, b->group, k->C);
  ssd_product(p, (gemm_size){q, q, N}, gemm_rows(k->C, N), gemm_turned(k->B, N), 0, gemm_rows(k->CB, PIECE),
              k->product);
  memset(k->dCB, 0, PIECE * PIECE * sizeof *k->dCB);
  if (piece->fresh) memset(states, 0, (size_t)(b->heads * size) * sizeof *states);
  for (int64_t h = 0; h < b->heads; h++)
    run_head(task, b, piece, b->head + h, states + h * size, k->dstates + h * size, (input_sums){dB, dC, h > 0}, k);
  ssd_product(p, (gemm_size){q, N, q}, gemm_turned(k->dCB, PIECE), gemm_rows(k->C, N), 1, dB, k->product);
  ssd_product(p, (gemm_size){q, N, q}, gemm_rows(k->dCB, PIECE), gemm_rows(k->B, N), 1, dC, k->product);
}

static void run_block(void *arg, int64_t index, int worker) {
  const backward_task *task = arg;
  const ssd_plan *p = &task->plan;
  const ssd_block b = ssd_block_of(p, index);
  const int64_t size = p->s->head_dim * p->s->d_state, apart = p->heads * size, pieces = b.end - b.first;
  const int64_t spans = div_up(pieces, task->span), head = b.index * p->s->n_heads + b.head;
  backward_scratch k;
  scratch_layout(task, task->scratch + worker * task->scratch_floats, &k);
  memset(task->dA + head, 0, (size_t)b.heads * sizeof *task->dA);
  memset(task->dbias + head, 0, (size_t)b.heads * sizeof *task->dbias);
  memset(task->dD + head * p->s->head_dim, 0, (size_t)(b.heads * p->s->head_dim) * sizeof *task->dD);
  for (int64_t h = 0; h < b.heads; h++) {
    ssd_read_state(p, &p->a->initial_state, b.index, b.head + h, k.starts + h * size);
    ssd_read_state(p, &task->a->dfinal_state, b.index, b.head + h, k.dstates + h * size);
  }
  for (int64_t i = 1; i < spans; i++) {
    memcpy(k.starts + i * apart, k.starts + (i - 1) * apart, (size_t)apart * sizeof(float));
    run_states(p, &b, (i - 1) * task->span, i * task->span, k.starts + i * apart, 0, &k);
  }
  for (int64_t i = spans - 1; i >= 0; i--) {
    const int64_t first = i * task->span, end = min_of(pieces, first + task->span);
    memcpy(k.states, k.starts + i * apart, (size_t)apart * sizeof(float));
    run_states(p, &b, first, end - 1, k.states, apart, &k);
    for (int64_t piece = end - 1; piece >= first; piece--)
      run_piece(task, &b, &b.first[piece], k.states + (piece - first) * apart, &k);
  }
  for (int64_t h = 0; h < b.heads; h++)
    ssd_write_state(&task->a->dinitial_state, b.index, b.head + h, k.dstates + h * size);
}

/* ---- Parts to sums ---- */

/* Step `index` of (batch, length): dB and dC of all groups. */
static void add_blocks(void *arg, int64_t index, int worker) {
  const backward_task *task = arg;
  const ssd_shape *s = task->plan.s;
  const int64_t batch = index / s->length, step = index % s->length, N = s->d_state, row = s->n_groups * N;
  const struct {
    const clm_tensor *to;
    float *parts;
  } both[] = {{&task->a->dB, task->dB}, {&task->a->dC, task->dC}};
  const bool padding = ssd_is_padding(&task->plan, batch, step);
  (void)worker;
  for (int i = 0; i < 2; i++) {
    const clm_tensor *to = both[i].to;
    float *sum = both[i].parts + index * row;
    if (!present(*to)) continue;
    for (int64_t block = 1; block < task->plan.blocks; block++)
      for (int64_t j = 0; j < row; j += LANES)
        vec_store_part(sum + j,
                       vec_load_part(sum + j, row - j) +
                           vec_load_part(sum + block * s->batch * s->length * row + j, row - j),
                       row - j);
    if (padding) memset(sum, 0, (size_t)row * sizeof *sum);
    for (int64_t g = 0; g < s->n_groups; g++)
      line_write(line_at(to, batch * to->stride[0] + step * to->stride[1] + g * to->stride[2], to->stride[3]), N,
                 sum + g * N);
  }
}

static void add_rows(const backward_task *task) {
  const ssd_shape *s = task->plan.s;
  const clm_ssd_backward_args *a = task->a;
  for (int64_t head = 0; head < s->n_heads; head++) {
    double dA = 0, dbias = 0, shared = 0;
    for (int64_t row = 0; row < s->sequences; row++) {
      dA += task->dA[row * s->n_heads + head];
      dbias += task->dbias[row * s->n_heads + head];
    }
    if (a->forward.A_is_log) dA *= (double)ssd_rate(&a->forward, head);
    if (present(a->dA)) kernel_data(a->dA)[head * a->dA.stride[0]] = (float)dA;
    if (present(a->ddt_bias)) kernel_data(a->ddt_bias)[head * a->ddt_bias.stride[0]] = (float)dbias;
    for (int64_t j = 0; j < s->head_dim && present(a->dD); j++) {
      double dD = 0;
      for (int64_t row = 0; row < s->sequences; row++)
        dD += (double)task->dD[(row * s->n_heads + head) * s->head_dim + j];
      shared += dD;
      if (a->dD.rank == 2) kernel_data(a->dD)[head * a->dD.stride[0] + j * a->dD.stride[1]] = (float)dD;
    }
    if (present(a->dD) && a->dD.rank == 1) kernel_data(a->dD)[head * a->dD.stride[0]] = (float)shared;
  }
}

/* ---- The call ---- */

static backward_task task_of(const ssd_shape *s, const clm_ssd_backward_args *a) {
  backward_task task = {.plan = ssd_plan_of(s, &a->forward, 4, 8), .a = a, .span = 8};
  while (task.span * task.span < task.plan.most_row) task.span *= 2;
  return task;
}

/* Places everything but the workers' scratch; floats in all. */
static int64_t layout(backward_task *task, float *memory) {
  const ssd_shape *s = task->plan.s;
  const int64_t parts = task->plan.blocks * s->batch * s->length * s->n_groups * s->d_state;
  const int64_t heads = s->sequences * s->n_heads;
  int64_t used = ssd_plan_floats(&task->plan);
  task->dA = (double *)(void *)scratch_take(memory, &used, 2 * heads);
  task->dbias = (double *)(void *)scratch_take(memory, &used, 2 * heads);
  task->dD = scratch_take(memory, &used, heads * s->head_dim);
  task->dB = scratch_take(memory, &used, parts);
  task->dC = scratch_take(memory, &used, parts);
  backward_scratch k;
  task->scratch_floats = scratch_layout(task, NULL, &k);
  task->scratch = scratch_take(memory, &used, 0);
  return used;
}

static bool is_taken(const clm_ssd_backward_args *a) {
  const clm_ssd_args *f = &a->forward;
  return ALL_STORAGE(f->x, f->dt, f->B, f->C, f->z, a->dout);
}

size_t KERNEL(ssd_backward_workspace)(clm_context *ctx, const ssd_shape *s, const clm_ssd_backward_args *a) {
  if (!is_taken(a)) return 0;
  backward_task task = task_of(s, a);
  const int64_t shared = layout(&task, NULL);
  return (size_t)(shared + task.scratch_floats * cpu_pool_threads(cpu_context_pool(ctx))) * sizeof(float);
}

clm_status KERNEL(ssd_backward)(clm_context *ctx, const ssd_shape *s, const clm_ssd_backward_args *a) {
  if (!is_taken(a)) return ref_ssd_backward(ctx, s, a);
  backward_task task = task_of(s, a);
  cpu_pool *pool = cpu_context_pool(ctx);
  clm_buffer *workspace;
  clm_status status = context_workspace(ctx, KERNEL(ssd_backward_workspace)(ctx, s, a), &workspace);
  if (status) return status;
  task.plan.gemm = gemm_choose(cpu_pool_threads(pool));
  layout(&task, workspace->host);
  ssd_plan_cut(&task.plan, workspace->host);
  cpu_pool_run(pool, ssd_tasks(&task.plan), run_block, &task);
  if (present(a->dB) || present(a->dC)) cpu_pool_run(pool, s->batch * s->length, add_blocks, &task);
  add_rows(&task);
  context_explain(ctx, "ssd_backward: cpu %s, %s, pieces of %lld steps, %lld tasks, %lld of a group's heads in each",
                  cpu_context_level(ctx), task.plan.gemm.name, (long long)task.plan.steps,
                  (long long)ssd_tasks(&task.plan), (long long)task.plan.heads);
  return CLM_OK;
}
