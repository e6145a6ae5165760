/* Few rows x of a times a matrix W of (n, k), b seen from the other side. W passes once through the caches, for all
 * rows of x, so the time is that of its bytes: some rows of W side by side are one stream of memory, asked for ahead;
 * W is unpacked in registers; x lies in the cache as f32, in the order in which W is unpacked. Sums of LANES rows of
 * W are added up together. Every result is one sum in an order that k alone decides.
 *
 * bf16 is not for AVX-512's vdpbf16ps: with x as two bf16 parts it took 0.93 to 1.08 of the time of a shift, a mask
 * and two products on a Zen 4, W in the second cache, and memory is slower than both. i8 is for vpdpbusd, which takes
 * a third of that time (integer_dots.h). */
#include "matvec.h"
#include "epilogue.h"
#include "transpose.h"
#if defined(__AVX512VNNI__)
#include "integer_dots.h"
#endif

#define MAX_ROWS 8 /* of x */
#define MAX_SIDE 4 /* rows of W side by side */

/* How many rows of W go side by side against one of x. 16 bits: two take 0.96 of a token's time of four on a Zen 3,
 * 0.95 on a Zen 5, while f32 takes 1.0 to 1.03, i8 1.13 to 1.16 (docs/kernels/history.md). */
INLINE int side_of(clm_dtype dtype) { return SIMD_LANES >= 8 && storage_bytes(dtype) == 2 ? 2 : MAX_SIDE; }

/* Bytes that memory is asked for ahead of the current rows. On a Zen 5, a token's time with 2 KB over that with 4:
 * f32 0.99, bf16 0.98, i8 1.03; on a Xeon all the same. */
INLINE int64_t ahead_of(clm_dtype dtype) { return dtype == CLM_I8 ? 4096 : 2048; }

/* A task is as much of W as leaves MAX_TASKS of them, but between these bytes. */
#define MIN_BYTES 16384
#define MAX_BYTES 131072
#define MAX_TASKS 128

typedef struct matvec_task matvec_task;
/* Columns [first, first + count) of x W^T into `out`. */
typedef struct strip {
  const float *x;
  int64_t first, count;
  bool begins; /* their first rows of W have not been asked for */
  bool ends;   /* the rows after their last are another's       */
  float *out;
} strip;
typedef void (*columns_fn)(const matvec_task *, const strip *);

/* Few lines of memory: a batch has hundreds of these, each read once a step. */
struct matvec_task {
  clm_dtype dtype; /* of W                       */
  bool integers;   /* rows of x are integer_rows */
  int threads;
  columns_fn columns_of;
  float scale;
  const char *w;
  int64_t w_row; /* bytes */
  line scales;   /* of i8 */
  line_rows a;
  epilogue end;
  int64_t m, n, k;                  /* rows of x, rows of W, their length */
  int64_t x_row;                    /* floats: whole units, zeros after the k-th, or an integer_row */
  int64_t tasks, columns, sums_row; /* columns of a task; floats of a row of their sums */
  float *scratch;                   /* of each worker: rows of x, one as f32, MAX_ROWS of sums, three lines */
  int64_t scratch_floats;
};

/* A unit is what one vector's bytes of W hold: so many vectors of f32. */
INLINE int64_t groups_of(clm_dtype dtype) { return 4 / storage_bytes(dtype); }
INLINE int64_t unit_of(clm_dtype dtype) { return groups_of(dtype) * LANES; }

/* The first `bytes` bytes at p, all of a vector if there are more, zeros beyond. Without masks in the instruction set
 * there always are: whole_tails. */
#if SIMD_LANES == 16
INLINE vec_u raw_load(const char *p, int64_t bytes) {
  if (bytes >= VEC_BYTES) return (vec_u)_mm512_loadu_si512(p);
  return (vec_u)_mm512_maskz_loadu_epi8((__mmask64)((1ull << (bytes > 0 ? bytes : 0)) - 1), p);
}
INLINE vec_h half_load(const char *p, int64_t bytes) {
  if (bytes >= VEC_BYTES / 2) return *(const vec_h_anywhere *)(const void *)p;
  return (vec_h)_mm256_maskz_loadu_epi8((__mmask32)((1u << (bytes > 0 ? bytes : 0)) - 1), p);
}
#else
INLINE vec_u raw_load(const char *p, int64_t bytes) {
  vec_u raw;
  (void)bytes;
  memcpy(&raw, p, sizeof raw);
  return raw;
}
INLINE vec_h half_load(const char *p, int64_t bytes) {
  (void)bytes;
  return *(const vec_h_anywhere *)(const void *)p;
}
#endif

/* Group g of the unit at p, of which `left` elements are there. What is unpacked by shifts comes apart like cards:
 * of bf16 the even elements, then the odd ones; of i8 every fourth. */
INLINE vec unpack(clm_dtype dtype, const char *p, int g, int64_t left) {
  switch (dtype) {
  case CLM_F32: return (vec)raw_load(p, left * 4);
  case CLM_BF16: return (vec)(g == 0 ? raw_load(p, left * 2) << 16 : raw_load(p, left * 2) & 0xffff0000u);
  case CLM_I8: return __builtin_convertvector((vec_i)(raw_load(p, left) << (24 - 8 * g)) >> 24, vec);
  default: return vec_from_f16(half_load(p + g * (VEC_BYTES / 2), (left - g * LANES) * 2));
  }
}

/* A unit of x in that order. */
INLINE void deal(clm_dtype dtype, const float *in, float *out) {
  const int groups = (int)groups_of(dtype);
#ifdef SHUFFLE
  vec v[4], w[4];
  UNROLL for (int g = 0; g < groups; g++) v[g] = w[g] = vec_load(in + g * LANES);
  if (dtype == CLM_BF16) {
    w[0] = EVENS(v[0], v[1]);
    w[1] = ODDS(v[0], v[1]);
  } else if (dtype == CLM_I8) {
    vec even[2] = {EVENS(v[0], v[1]), EVENS(v[2], v[3])}, odd[2] = {ODDS(v[0], v[1]), ODDS(v[2], v[3])};
    w[0] = EVENS(even[0], even[1]);
    w[1] = EVENS(odd[0], odd[1]);
    w[2] = ODDS(even[0], even[1]);
    w[3] = ODDS(odd[0], odd[1]);
  }
  UNROLL for (int g = 0; g < groups; g++) vec_store(out + g * LANES, w[g]);
#else
  const int step = dtype == CLM_F16 ? 1 : groups;
  for (int i = 0; i < groups * LANES; i++) out[i % step * LANES + i / step] = in[i];
#endif
}

static float *x_of(const matvec_task *task, int worker) { return task->scratch + worker * task->scratch_floats; }
static float *row_of(const matvec_task *task, int worker) { return x_of(task, worker) + task->m * task->x_row; }

/* Rows of x, ready for products. */
typedef struct x_rows {
  const float *at;
  int64_t row; /* floats from one to the next */
} x_rows;

INLINE x_rows x_skip(x_rows x, int64_t rows, int64_t floats) { return (x_rows){x.at + rows * x.row + floats, x.row}; }

/* `side` rows of W. */
typedef struct band {
  const char *w[MAX_SIDE];
  int64_t k;
  bool followed;     /* in W, by as much as a vector */
  const char *fetch; /* by the time that so many bytes of each row are done, `side` times as many from here on */
} band;

/* A processor follows one stream, not four: memory is asked for in the order in which it lies. */
INLINE void fetch_ahead(int side, const band *q, int64_t at) {
  UNROLL for (int i = 0; i < side * VEC_BYTES; i += 64) __builtin_prefetch(q->fetch + side * at + i);
}

/* Units at `at` of rows of W against x, of which `left` elements are there. */
INLINE void step(clm_dtype dtype, int side, int rows, const char *const *unit, int64_t at, x_rows x, int64_t left,
                 vec sum[][MAX_SIDE]) {
  const int groups = (int)groups_of(dtype);
  UNROLL for (int g = 0; g < groups; g++) {
    vec w[MAX_SIDE];
    UNROLL for (int c = 0; c < side; c++) w[c] = unpack(dtype, unit[c] + at, g, left);
    UNROLL for (int r = 0; r < rows; r++) {
      vec xr = vec_load(x.at + r * x.row + g * LANES);
      UNROLL for (int c = 0; c < side; c++) sum[r][c] = xr * w[c] + sum[r][c];
    }
  }
}

/* What is left of the rows after their whole units, with zeros after it. */
#define whole_tails (SIMD_LANES < 16)
INLINE void tails_of(int side, const band *q, int64_t at, int64_t bytes, char tails[][VEC_BYTES]) {
  memset(tails, 0, (size_t)side * VEC_BYTES);
  for (int c = 0; c < side; c++) memcpy(tails[c], q->w[c] + at, (size_t)bytes);
}

/* sums[r LANES + c] = the lanes of x's row r times W's row c */
INLINE void dots(clm_dtype dtype, int side, int rows, const band *q, x_rows x, vec *sums) {
  const int64_t unit = unit_of(dtype), whole = q->k / unit * unit, size = storage_bytes(dtype);
  const int units = dtype == CLM_F32 ? 64 / VEC_BYTES : 1; /* a line in one go: 0.98 of the time, in 16 bits 1.02 */
  int64_t at = 0;
  vec sum[4][MAX_SIDE];
  UNROLL for (int r = 0; r < rows; r++) UNROLL for (int c = 0; c < side; c++) sum[r][c] = vec_set(0);
  for (; at + units * unit <= whole; at += units * unit) UNROLL for (int u = 0; u < units; u++) {
      fetch_ahead(side, q, (at + u * unit) * size);
      step(dtype, side, rows, q->w, (at + u * unit) * size, x_skip(x, 0, at + u * unit), unit, sum);
    }
  for (; units > 1 && at < whole; at += unit) {
    fetch_ahead(side, q, at * size);
    step(dtype, side, rows, q->w, at * size, x_skip(x, 0, at), unit, sum);
  }
  if (whole < q->k && dtype == CLM_I8 && q->followed) {
    step(dtype, side, rows, q->w, whole, x_skip(x, 0, whole), unit, sum); /* integers times x's zeros */
  } else if (whole < q->k) {
    const int64_t left = q->k - whole;
    _Alignas(VEC_BYTES) char tails[MAX_SIDE][VEC_BYTES];
    if (whole_tails) {
      tails_of(side, q, whole * size, left * size, tails);
      step(dtype, side, rows, (const char *const[]){tails[0], tails[1], tails[2], tails[3]}, 0, x_skip(x, 0, whole),
           unit, sum);
    } else step(dtype, side, rows, q->w, whole * size, x_skip(x, 0, whole), left, sum);
  }
  UNROLL for (int r = 0; r < rows; r++) UNROLL for (int c = 0; c < side; c++) sums[r * LANES + c] = sum[r][c];
}

#if defined(__AVX512VNNI__)
INLINE const integer_row *integers_at(const float *x) { return (const integer_row *)(const void *)x; }

INLINE void integer_band(int rows, const band *q, x_rows x, vec *sums) {
  enum { side = MAX_SIDE };
  integer_sums sum[2][side];
  UNROLL for (int r = 0; r < rows; r++) UNROLL for (int c = 0; c < side; c++) {
    const integer_row *row = integers_at(x.at + r * x.row);
    sum[r][c] = (integer_sums){row->hi, row->lo};
  }
  for (int64_t i = 0; i < q->k; i += VEC_BYTES) {
    fetch_ahead(side, q, i);
    UNROLL for (int c = 0; c < side; c++) {
      vec_u w = raw_load(q->w[c] + i, q->k - i) ^ 0x80808080u;
      UNROLL for (int r = 0; r < rows; r++) integer_step(&sum[r][c], w, integers_at(x.at + r * x.row)->bytes + 2 * i);
    }
  }
  UNROLL for (int r = 0; r < rows; r++) UNROLL for (int c = 0; c < side; c++) sums[r * LANES + c] =
      integer_total(integers_at(x.at + r * x.row), sum[r][c]);
}

INLINE void integer_rows(int64_t m, const band *q, x_rows x, vec *sums) {
  int64_t r = 0;
  for (; r + 2 <= m; r += 2) integer_band(2, q, x_skip(x, r, 0), sums + r * LANES);
  if (r < m) integer_band(1, q, x_skip(x, r, 0), sums + r * LANES);
}

/* `row` has k floats. */
static void prepare_integers(const matvec_task *task, float *row, float *x) {
  for (int64_t r = 0; r < task->m; r++, x += task->x_row) {
    const float *from = line_load(line_rows_at(&task->a, r), task->k, row);
    integer_row_make(from, task->k, (integer_row *)(void *)x);
  }
}
#else
#define INTEGER_MAX_K 0
#define INTEGER_HEAD  0
INLINE void integer_rows(int64_t m, const band *q, x_rows x, vec *sums) { (void)m, (void)q, (void)x, (void)sums; }
static void prepare_integers(const matvec_task *task, float *row, float *x) { (void)task, (void)row, (void)x; }
#endif

/* All rows of x against a band, in blocks that fit the registers; after the first, W is in the first cache. */
#define WIDE (SIMD_LANES == 16)
INLINE void band_rows(clm_dtype dtype, int side, int64_t m, const band *q, x_rows x, vec *sums) {
  int64_t r = 0;
  if (WIDE)
    for (; r + 4 <= m; r += 4) dots(dtype, side, 4, q, x_skip(x, r, 0), sums + r * LANES);
  for (; r + 2 <= m; r += 2) dots(dtype, side, 2, q, x_skip(x, r, 0), sums + r * LANES);
  if (r < m) dots(dtype, side, 1, q, x_skip(x, r, 0), sums + r * LANES);
}

INLINE vec scales_from(line scale, int64_t count) {
  const float *p = (const float *)(const void *)scale.data;
  if (scale.stride == 1) return vec_load_part(p, count);
  vec scales = vec_set(0);
  for (int64_t i = 0; i < min_of(LANES, count); i++) scales[i] = p[i * scale.stride];
  return scales;
}

INLINE void bands(clm_dtype dtype, int side, bool integers, int64_t m, const matvec_task *task,
                  const strip *columns) {
  const int64_t last = task->n - 1, first = columns->first, count = columns->count;
  const bool begins = columns->begins, ends = columns->ends;
  const x_rows x = {columns->x, task->x_row};
  float *out = columns->out;
  const int64_t ahead = side * task->w_row + ahead_of(dtype);
  band q = {.k = task->k};
  vec sums[MAX_ROWS * LANES]; /* zeros where columns end within a vector */
  for (int64_t r = 0; r < m; r++) UNROLL for (int c = 0; c < LANES; c++) sums[r * LANES + c] = vec_set(0);
  for (int64_t at = 0; begins && at < ahead; at += 64) __builtin_prefetch(task->w + first * task->w_row + at);
  for (int64_t j = 0; j < count; j += LANES) {
    for (int c = 0; c < LANES && j + c < count; c += side) {
      for (int i = 0; i < side; i++) q.w[i] = task->w + min_of(first + j + c + i, last) * task->w_row;
      q.followed = (last - (first + j + c + side - 1)) * task->w_row >= VEC_BYTES;
      q.fetch = ends && j + c + side >= count ? q.w[0] : q.w[0] + ahead; /* the next rows are another's */
      if (integers) integer_rows(m, &q, x, sums + c);
      else band_rows(dtype, side, m, &q, x, sums + c);
    }
    vec scale = vec_set(task->scale);
    if (dtype == CLM_I8) scale *= scales_from(line_from(task->scales, first + j), count - j);
    for (int64_t r = 0; r < m; r++) {
      float totals[LANES];
      sum_lanes(sums + r * LANES, totals);
      vec_store(out + r * task->sums_row + j, scale * vec_load(totals));
    }
  }
}

/* Functions of their own: all in one, gcc 12 keeps what loops need on the stack. */
#define COLUMNS_FN(name, dtype, side, integers, m)                                                                   \
  static void name(const matvec_task *task, const strip *columns) { bands(dtype, side, integers, m, task, columns); }
#define COLUMNS_FNS(name, dtype, integers)                                                                           \
  COLUMNS_FN(name##_row, dtype, side_of(dtype), integers, 1)                                                         \
  COLUMNS_FN(name##_rows, dtype, MAX_SIDE, integers, task->m)
COLUMNS_FNS(f32, CLM_F32, false)
COLUMNS_FNS(bf16, CLM_BF16, false)
COLUMNS_FNS(f16, CLM_F16, false)
COLUMNS_FNS(i8, CLM_I8, false)
COLUMNS_FNS(integers, CLM_I8, true)

static columns_fn columns_fn_of(clm_dtype dtype, bool integers, bool one) {
  switch (dtype) {
  case CLM_F32: return one ? f32_row : f32_rows;
  case CLM_BF16: return one ? bf16_row : bf16_rows;
  case CLM_F16: return one ? f16_row : f16_rows;
  default: break;
  }
  if (integers) return one ? integers_row : integers_rows;
  return one ? i8_row : i8_rows;
}

static void run_task(void *arg, int64_t index, int worker) {
  const matvec_task *task = arg;
  float *sums = row_of(task, worker) + round_up(task->k, 16);
  const int64_t first = index * task->columns, count = min_of(task->columns, task->n - first);
  /* In between, the task before has asked for its first rows, and it asks for the next one's. */
  const strip columns = {.x = x_of(task, worker),
                         .first = first,
                         .count = count,
                         .begins = !cpu_pool_goes_on(task->tasks, task->threads, worker, index - 1),
                         .ends = !cpu_pool_goes_on(task->tasks, task->threads, worker, index),
                         .out = sums};
  task->columns_of(task, &columns);
  epilogue_run(&task->end, 0, first, task->m, count, sums, task->sums_row, sums + MAX_ROWS * task->sums_row);
}

static cpu_range matvec_reads(const void *arg, int64_t begin, int64_t end, int i) {
  const matvec_task *task = arg;
  if (i > 0) return (cpu_range){0};
  return (cpu_range){task->w + begin * task->columns * task->w_row, (end - begin) * task->columns * task->w_row};
}

bool matvec_fits(const matmul_shape *s, const clm_matmul_args *args) {
  return s->m <= MAX_ROWS && (args->b.stride[0] == 1 || s->k == 1);
}

/* Every row of a as f32, zeros after it up to a whole unit, units dealt. `row` has x_row floats. */
INLINE void deal_rows(clm_dtype dtype, const matvec_task *task, float *row, float *x) {
  const int64_t k = task->k, whole = k / unit_of(dtype) * unit_of(dtype);
  for (int64_t r = 0; r < task->m; r++, x += task->x_row) {
    const float *from = line_load(line_rows_at(&task->a, r), k, row);
    float last[4 * LANES] = {0};
    for (int64_t i = 0; i < whole; i += unit_of(dtype)) deal(dtype, from + i, x + i);
    if (whole == k) continue;
    memcpy(last, from + whole, (size_t)(k - whole) * sizeof *last);
    deal(dtype, last, x + whole);
  }
}

/* Every worker has its own: in its own cache, and nobody waits for another's. */
static void prepare_x(void *arg, int worker) {
  const matvec_task *task = arg;
  float *x = x_of(task, worker), *row = row_of(task, worker);
  switch (task->dtype) {
  case CLM_F32: deal_rows(CLM_F32, task, row, x); break;
  case CLM_BF16: deal_rows(CLM_BF16, task, row, x); break;
  case CLM_I8:
    if (task->integers) prepare_integers(task, row, x);
    else deal_rows(CLM_I8, task, row, x);
    break;
  default: deal_rows(CLM_F16, task, row, x); break;
  }
}

clm_status matvec(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *args) {
  const clm_dtype dtype = args->b.dtype;
  matvec_task task = {.dtype = dtype,
                      .scale = args->scale == 0 ? 1 : args->scale,
                      .w = element_data(&args->b),
                      .scales = line_vector(&args->b_scale),
                      .a = line_rows_of(&args->a),
                      .end = epilogue_of(args),
                      .m = s->m,
                      .n = s->n,
                      .k = s->k};
  task.w_row = args->b.stride[1] * storage_bytes(dtype);
  task.x_row = round_up(s->k, unit_of(dtype)) + round_up((int64_t)INTEGER_HEAD, 16);
  task.integers = dtype == CLM_I8 && s->k <= INTEGER_MAX_K;
  task.columns_of = columns_fn_of(dtype, task.integers, s->m == 1);
  task.threads = cpu_pool_threads(cpu_context_pool(ctx));
  const int64_t bytes = s->n * s->k * storage_bytes(dtype);
  const int64_t tasks = max_of(min_of(MAX_TASKS, max_of(bytes / MIN_BYTES, 1)), bytes / MAX_BYTES);
  task.columns = round_up(div_up(s->n, round_up(tasks, task.threads)), 2 * MAX_SIDE);
  task.tasks = div_up(s->n, task.columns);
  task.sums_row = round_up(task.columns, 16);
  const int64_t floats = s->m * task.x_row + round_up(s->k, 16) + (MAX_ROWS + 3) * task.sums_row;
  clm_status status = kernel_scratch(ctx, floats, &task.scratch_floats, &task.scratch);
  if (status) return status;
  context_explain(ctx, "matmul: cpu %s, rows of b against %d of a, %lld tasks of %lld", cpu_context_level(ctx),
                  (int)s->m, (long long)task.tasks, (long long)task.columns);
  return cpu_submit(ctx, &(cpu_stage){.tasks = task.tasks,
                                      .run = run_task,
                                      .arg = &task,
                                      .arg_bytes = sizeof task,
                                      .begin = prepare_x,
                                      .reads = matvec_reads});
}
