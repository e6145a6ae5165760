/* What SSD and its gradient share. A row is cut into pieces of at most PIECE steps, each of one sequence, so that no
 * product mixes sequences. A task owns a block of heads of one group and one row and walks the row's pieces: what the
 * heads share (B, C and their products) is computed once a piece. Blocks and pieces depend on the arguments alone, so
 * that results do not depend on the number of threads. */
#ifndef CLM_CPU_SSD_CHUNK_H
#define CLM_CPU_SSD_CHUNK_H

#include "gemm.h"
#include "ops/rows.h"
#include "storage.h"

enum { PIECE = 64, BUSY = 32 /* tasks that are enough for the threads */ };

#define STEP_LIMIT (-1000.0f) /* of d A: its exponential is 0 in f32, and sums stay exact */

typedef struct ssd_piece {
  int64_t batch, begin;
  int32_t steps;
  bool fresh; /* begins a sequence inside the row: from a state of zeros */
} ssd_piece;

typedef struct ssd_plan {
  const ssd_shape *s;
  const clm_ssd_args *a;
  int64_t chunk, steps;     /* of a chunk, of a piece at most  */
  int64_t heads, blocks;    /* in a block, blocks in a group   */
  int64_t pieces, most_row; /* at most: of all rows, of one    */
  int64_t *first;           /* of each row: (sequences + 1)    */
  ssd_piece *piece;
  gemm_choice gemm;
} ssd_plan;

/* At most, of `rows` rows with `length` steps together. */
static inline int64_t ssd_count_pieces(const ssd_plan *p, int64_t rows, int64_t length) {
  if (present(p->a->seq_idx)) return length;
  return min_of(length, (length / p->chunk + rows) * div_up(p->chunk, p->steps));
}

static inline ssd_plan ssd_plan_of(const ssd_shape *s, const clm_ssd_args *a, int64_t least_heads,
                                   int64_t most_heads) {
  const int64_t group = s->n_heads / s->n_groups;
  ssd_plan p = {.s = s, .a = a, .chunk = a->chunk > 0 ? a->chunk : PIECE};
  p.steps = div_up(p.chunk, div_up(p.chunk, PIECE));
  p.heads = min_of(group, max_of(least_heads, min_of(most_heads, s->n_heads * s->sequences / BUSY)));
  p.blocks = div_up(group, p.heads);
  p.most_row = ssd_count_pieces(&p, 1, s->length);
  p.pieces = s->packed ? ssd_count_pieces(&p, s->sequences, s->length) : s->batch * p.most_row;
  return p;
}

static inline int64_t ssd_tasks(const ssd_plan *p) { return p->s->sequences * p->s->n_groups * p->blocks; }

/* Floats that the tables take in the workspace. */
static inline int64_t ssd_plan_floats(const ssd_plan *p) {
  const size_t bytes = (size_t)(p->s->sequences + 1) * sizeof *p->first + (size_t)p->pieces * sizeof *p->piece;
  return round_up(div_up((int64_t)bytes, sizeof(float)), 16);
}

static inline seq_row ssd_row(const ssd_plan *p, int64_t row) {
  return seq_row_of(&p->a->cu_seqlens, p->s->reversed, p->s->length, row);
}

/* Fills the tables at `memory`. cu_seqlens that overlap could give more pieces than there is room for. */
static inline void ssd_plan_cut(ssd_plan *p, float *memory) {
  int64_t count = 0;
  p->first = (int64_t *)(void *)memory;
  p->piece = (ssd_piece *)(void *)(p->first + p->s->sequences + 1);
  for (int64_t row = 0; row < p->s->sequences; row++) {
    const seq_row r = ssd_row(p, row);
    int32_t last = -1;
    p->first[row] = count;
    for (int64_t t = r.begin, in_chunk = 0, in_piece = 0; t < r.end; t++, in_chunk++, in_piece++) {
      const seq_step kind = seq_step_of(&p->a->seq_idx, r.batch, t, &last);
      if (in_chunk == p->chunk) in_chunk = 0;
      if (in_chunk == 0 || in_piece == p->steps) in_piece = 0;
      if (in_piece == 0 || kind == SEQ_BEGINS) {
        if (count == p->pieces) break;
        p->piece[count++] = (ssd_piece){r.batch, t, 0, kind == SEQ_BEGINS};
      }
      p->piece[count - 1].steps++;
    }
  }
  p->first[p->s->sequences] = count;
}

/* What a task works on. */
typedef struct ssd_block {
  seq_row row;
  int64_t index, group, block, head, heads; /* of the row's states, first head */
  const ssd_piece *first, *end;
} ssd_block;

static inline ssd_block ssd_block_of(const ssd_plan *p, int64_t task) {
  const int64_t row = task / (p->s->n_groups * p->blocks), of_group = p->s->n_heads / p->s->n_groups;
  ssd_block b = {.row = ssd_row(p, row), .index = row, .group = task / p->blocks % p->s->n_groups};
  b.block = task % p->blocks;
  b.head = b.group * of_group + b.block * p->heads;
  b.heads = min_of(p->heads, of_group - b.block * p->heads);
  b.first = p->piece + p->first[row];
  b.end = p->piece + p->first[row + 1];
  return b;
}

static inline bool ssd_is_padding(const ssd_plan *p, int64_t batch, int64_t step) {
  int32_t last = -1;
  return seq_step_of(&p->a->seq_idx, batch, step, &last) == SEQ_PADDING;
}

/* ---- Steps of a piece as rows of f32 ---- */

/* Of (batch, length, i, j) the numbers along j at i of each step; zeros where a step is padding. */
static inline void ssd_read(const ssd_plan *p, const clm_tensor *t, const ssd_piece *piece, int64_t i, float *out) {
  const int64_t size = t->shape[3];
  for (int32_t k = 0; k < piece->steps; k++, out += size) {
    const int64_t step = piece->begin + k;
    if (ssd_is_padding(p, piece->batch, step)) memset(out, 0, (size_t)size * sizeof *out);
    else
      line_read(line_at(t, piece->batch * t->stride[0] + step * t->stride[1] + i * t->stride[2], t->stride[3]), size,
                out);
  }
}

static inline void ssd_write(const ssd_plan *p, const clm_tensor *t, const ssd_piece *piece, int64_t i, float *in) {
  const int64_t size = t->shape[3];
  if (!present(*t)) return;
  for (int32_t k = 0; k < piece->steps; k++, in += size) {
    const int64_t step = piece->begin + k;
    if (ssd_is_padding(p, piece->batch, step)) memset(in, 0, (size_t)size * sizeof *in);
    line_write(line_at(t, piece->batch * t->stride[0] + step * t->stride[1] + i * t->stride[2], t->stride[3]), size,
               in);
  }
}

/* The state of a row and head as the last two dimensions of the tensor lie; zeros if it is absent. */
static inline void ssd_read_state(const ssd_plan *p, const clm_tensor *t, int64_t row, int64_t head, float *out) {
  if (!present(*t)) memset(out, 0, (size_t)(p->s->head_dim * p->s->d_state) * sizeof *out);
  for (int64_t i = 0; present(*t) && i < t->shape[2]; i++, out += t->shape[3])
    line_read(line_at(t, row * t->stride[0] + head * t->stride[1] + i * t->stride[2], t->stride[3]), t->shape[3],
              out);
}

static inline void ssd_write_state(const clm_tensor *t, int64_t row, int64_t head, const float *in) {
  for (int64_t i = 0; present(*t) && i < t->shape[2]; i++, in += t->shape[3])
    line_write(line_at(t, row * t->stride[0] + head * t->stride[1] + i * t->stride[2], t->stride[3]), t->shape[3],
               in);
}

/* ---- Steps and decays of a head in a piece ---- */

/* The logarithm of the decay from the piece's begin to the end of a step is sum + rest: of two large sums the
 * difference is as exact as of two small ones. */
typedef struct ssd_decay {
  float d[PIECE], slope[PIECE], sum[PIECE], rest[PIECE];
  float from_begin[PIECE], to_end[PIECE]; /* decay up to a step, and after it */
  float whole;                            /* of all steps                     */
} ssd_decay;

static inline float ssd_rate(const clm_ssd_args *a, int64_t head) {
  const float A = kernel_data(a->A)[head * a->A.stride[0]];
  return a->A_is_log ? -expf(A) : A;
}

static inline void ssd_step_sizes(const ssd_plan *p, const ssd_piece *piece, int64_t head, ssd_decay *k) {
  const clm_ssd_args *a = p->a;
  const clm_tensor *dt = &a->dt;
  const float bias = present(a->dt_bias) ? kernel_data(a->dt_bias)[head * a->dt_bias.stride[0]] : 0;
  line_read(
      line_at(dt, piece->batch * dt->stride[0] + piece->begin * dt->stride[1] + head * dt->stride[2], dt->stride[1]),
      piece->steps, k->d);
  for (int64_t i = 0; i < piece->steps; i += LANES) {
    vec d = vec_load_part(k->d + i, piece->steps - i) + vec_set(bias), slope = vec_set(1);
    if (a->dt_softplus) {
      d = vec_softplus(d);
      slope = vec_softplus_slope(d);
    }
    if (p->s->limited) {
      const vec low = vec_set(a->dt_min), high = vec_set(a->dt_max);
      slope = vec_choose((vec_i)(d < low) | (vec_i)(d > high), vec_set(0), slope);
      d = vec_min(high, vec_max(low, d));
    }
    vec_store_part(k->d + i, d, piece->steps - i);
    vec_store_part(k->slope + i, slope, piece->steps - i);
  }
  for (int32_t i = 0; present(a->seq_idx) && i < piece->steps; i++)
    if (ssd_is_padding(p, piece->batch, piece->begin + i)) k->d[i] = k->slope[i] = 0;
}

/* decay[i] = exp(k->sum[at] - sum[i]) of `count` steps i up to `at`. */
INLINE vec ssd_decay_to(const ssd_decay *k, int32_t at, int64_t i, int64_t count) {
  return vec_exp((vec_set(k->sum[at]) - vec_load_part(k->sum + i, count)) +
                 (vec_set(k->rest[at]) - vec_load_part(k->rest + i, count)));
}

static inline void ssd_decays(const ssd_plan *p, const ssd_piece *piece, int64_t head, ssd_decay *k) {
  const float A = ssd_rate(p->a, head);
  double sum = 0;
  ssd_step_sizes(p, piece, head, k);
  for (int32_t i = 0; i < piece->steps; i++) {
    const float step = k->d[i] == 0 ? 0 : k->d[i] * A;
    sum += (double)(step < STEP_LIMIT ? STEP_LIMIT : step);
    k->sum[i] = (float)sum;
    k->rest[i] = (float)(sum - (double)k->sum[i]);
  }
  for (int64_t i = 0; i < piece->steps; i += LANES) {
    const int64_t left = piece->steps - i;
    vec_store_part(k->from_begin + i, vec_exp(vec_load_part(k->sum + i, left)), left);
    vec_store_part(k->to_end + i, ssd_decay_to(k, piece->steps - 1, i, left), left);
  }
  k->whole = k->from_begin[piece->steps - 1];
}

/* out[l][s] = between[l][s] times the decay from s to l, 0 where s > l; rows of PIECE floats. */
static inline void ssd_decay_matrix(const ssd_decay *k, int32_t steps, const float *between, float *out) {
  for (int32_t l = 0; l < steps; l++)
    for (int32_t i = 0; i < steps; i += LANES) {
      const int64_t left = l + 1 - i, at = l * PIECE + i;
      vec v = vec_set(0);
      if (left > 0) {
        v = ssd_decay_to(k, l, i, left);
        if (between) v *= vec_load_part(between + at, left);
        v = vec_keep(v, left);
      }
      vec_store(out + at, v);
    }
}

/* ---- Rows ---- */

/* out[i][j] = x[i][j] * scale[i] */
static inline void ssd_scale_rows(const float *x, int64_t rows, int64_t columns, const float *scale, float *out) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j += LANES)
      vec_store_part(out + i * columns + j, vec_load_part(x + i * columns + j, columns - j) * vec_set(scale[i]),
                     columns - j);
}

static inline float ssd_dot(const float *x, const float *y, int64_t count) {
  vec sum = vec_set(0);
  for (int64_t i = 0; i < count; i += LANES) sum += vec_load_part(x + i, count - i) * vec_load_part(y + i, count - i);
  return vec_sum(sum);
}

/* The product of any number of rows. */
static inline void ssd_product(const ssd_plan *p, gemm_size size, matrix a, matrix b, float beta, matrix out,
                               float *scratch) {
  for (int64_t i = 0; i < size.m; i += GEMM_ROWS)
    p->gemm.run((gemm_size){min_of(GEMM_ROWS, size.m - i), size.n, size.k}, 1,
                (matrix){a.data + i * a.row, a.row, a.column}, b, beta, (matrix){out.data + i * out.row, out.row, 1},
                scratch);
}

/* D along head_dim; a line with stride 0 where a head shares it. */
static inline line ssd_skip(const clm_tensor *D, int64_t head) {
  return line_at(D, head * D->stride[0], D->rank == 2 ? D->stride[1] : 0);
}

#endif
