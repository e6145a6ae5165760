/* mamba-bench: one run measures one or more operations on one device and reports a row for each.
 *
 *   options.c  command line -> settings           limits.c   what the device can do
 *   table.c    tensors and call, from the operation's table
 *   problem.c  tensors on the device, inputs      measure.c  warm-up, repeats, device time
 *   check.c    against the double reference       report.c   table, CSV, JSON; the plot
 *   ops.c      the list of operations; ops_*.c one table entry for each operation */
#ifndef CLM_BENCH_H
#define CLM_BENCH_H

#include "common/about.h"
#include "common/progress.h"
#include "core/rng.h"
#include "ops/table.h"
#include <clmamba/clmamba.h>
#include <stdio.h>

typedef enum bench_layout { BENCH_BLD, BENCH_BDL } bench_layout;

/* The sizes of one row; 0 is "not given" until the defaults are filled in. */
typedef struct bench_shape {
  int64_t batch, length, dim, heads, kv_heads, head_dim, state, width, groups;
  int64_t m, n, k;
  clm_dtype dtype;
  bench_layout layout;
  bool complex;
  clm_math math;
  bool a_transposed, b_transposed; /* of a product: how a and b lie                                   */
  bool a_packed, b_packed;         /* whether they are kept in the layout of the engine, as weights are */
} bench_shape;

typedef struct bench_sweep {
  const char *name; /* as the option's: "length"; NULL: no sweep */
  int64_t first, last;
} bench_sweep;

typedef enum bench_format { BENCH_TABLE, BENCH_CSV, BENCH_JSON } bench_format;

typedef struct bench_settings {
  const char *op;   /* a name, or "all", or "limits" */
  const char *kind; /* of block's layer; NULL: mamba1  */
  bench_shape shape;
  bench_sweep sweep;
  int repeat; /* 0: as many as it takes */
  bool warm, check, explain;
  bench_format format;
  const char *output, *plot;
  const char *model;        /* preset of the lm operations */
  clm_weights_type weights; /* of that model */
  int64_t prompt, new_tokens;
  double rate;        /* steps a second, 0: one after another */
  char command[1024]; /* the command line, with the CLM_ variables that change what is measured */
} bench_settings;

/* What the device can do, measured in the same run. 0: not known. */
typedef struct bench_limits {
  double copy_bytes, read_bytes; /* per second; a copy counts what is read and what is written */
  double flops;                  /* per second, matrix product of the dtype and math asked for  */
  double exponentials;           /* per second, fp32                                            */
  double launch;                 /* seconds for one small operation                             */
} bench_limits;

/* Limits taken one by one in turn with the repeats of a row. */
enum { BENCH_MAX_SAMPLES = 64 };
typedef struct bench_samples {
  bench_limits each[BENCH_MAX_SAMPLES];
  int count;
  float *memory; /* of the products */
} bench_samples;

/* The minimum that an operation needs: each input read once, each output written once. */
typedef struct bench_cost {
  double bytes;      /* read and written, as a copy does           */
  double read_bytes; /* where nothing is written: weights          */
  double flops, exponentials;
  double tokens; /* 0: means nothing here */
} bench_cost;

typedef struct bench_row {
  const char *op;
  bench_shape shape;
  char shape_text[128];
  double ms_median, ms_min, ms_max;
  bench_cost cost;
  bench_limits limits; /* of the time in which the row was measured */
  double floor_ms;     /* 0: unknown; limits in turn: of the median, by the median part of its floor that a time is */
  double max_error;    /* relative; NAN: not checked   */
  const char *worst_tensor;
  double tolerance;
  uint64_t memory_before, peak_bytes; /* held when the row began; its own: tensors once, workspace, model */
  char *explain;
} bench_row;

typedef struct bench {
  bench_settings settings;
  clm_context *context;
  progress progress;
  clm_device_info device;
  bench_limits limits;
  bench_row *rows;
  size_t row_count, row_capacity;
  bool unsupported; /* why the last row failed: `all` goes on without it */
} bench;

typedef enum bench_fill {
  BENCH_ZERO,     /* also outputs: filled with NaN before a check              */
  BENCH_NORMAL,   /* standard normal times `scale`                             */
  BENCH_NEGATIVE, /* -exp(normal): A                                           */
  BENCH_STEP,     /* normal times `scale` - 4: delta before softplus           */
  BENCH_DECAY,    /* uniform in (0.5, 1): a of the associative scan            */
} bench_fill;

/* One tensor of an operation. */
typedef struct bench_tensor {
  const char *name;
  int rank;
  int64_t shape[CLM_MAX_RANK];
  int channel; /* the dimension that is independent of itself, -1: none                   */
  int length;  /* the dimension that --layout bdl puts innermost, -1: none                */
  bench_fill fill;
  float scale;
  bool output; /* written (a tensor that is read and written is an input with this set)   */
  bool input;
  bool fixed;    /* stays fp32 whatever --dtype says                                         */
  bool complex;  /* complex under --complex                                                  */
  int passes;    /* how often the operation must move it; 0: once to read, once to write     */
  bool gradient; /* of the output: for the check it is zero outside the sampled channels    */
  bool weights;  /* packed once, before anything is timed */
} bench_tensor;

enum { BENCH_MAX_TENSORS = 40 };

/* An operation of the library. */
typedef struct bench_operation {
  const op_table *table;
  clm_status (*call)(clm_context *, const void *args);
} bench_operation;

enum { BENCH_CALLS = 2, BENCH_MOST_ARGS = 8192 };

/* Defines `operation_<name>` for clm_<name>. */
#define BENCH_OPERATION(name)                                                                                        \
  static clm_status call_##name(clm_context *context, const void *args) { return clm_##name(context, args); }        \
  _Static_assert(sizeof(clm_##name##_args) <= BENCH_MOST_ARGS, "arguments of " #name);                               \
  static const bench_operation operation_##name = {&name##_table, call_##name}

/* One row: the tensors it works on, the call, what it costs. */
typedef struct bench_op {
  const char *name, *help;
  const char *kind;     /* the layer's where one name has several operations; NULL: the first of them */
  const char *dims;     /* the sizes it has, in the order they are shown: "batch dim length state" */
  const char *channels; /* the one of them along which results are independent                     */
  int samples;          /* how many of them the check looks at; 0: 64                              */
  bench_shape gpu, cpu; /* sizes that are not given                                                */
  /* Operations called one after the other: their tables give tensors and call. Their optional tensors that take part,
   * and the scalars that are true: "D z". */
  const bench_operation *calls[BENCH_CALLS];
  const char *given, *set;
  /* Instead of these: how many there are, and the call. */
  int (*tensors)(const bench_shape *shape, bench_tensor *tensors);
  clm_status (*call)(clm_context *context, const bench_shape *shape, const clm_tensor *tensors);
  bench_cost (*cost)(const bench_shape *shape); /* all but the bytes, which follow from the tensors */
  double tolerance; /* of max_rel_err in f32                                                   */
  /* Set: measures the row by itself, and all of these are absent. */
  bool (*measure)(bench *b, const struct bench_op *op, const bench_shape *shape, bench_row *row);
} bench_op;

extern const bench_op *const bench_ops[];                          /* ends with NULL */
const bench_op *bench_find_op(const char *name, const char *kind); /* NULL: there is none */
int64_t *bench_dim(bench_shape *shape, const char *name);          /* the member of that name, or NULL */
const char *bench_dim_name(int i);                                 /* of the sizes from 0 on; NULL after the last */
const char *bench_dtype_name(const bench_shape *shape);
bool bench_op_has(const bench_op *op, const char *dim);

/* options.c. bench_command: the command line as a shell takes it. */
void bench_command(int argc, char **argv, char *text, size_t size);
const char *bench_weights_name(clm_weights_type type);
bool bench_options(int argc, char **argv, bench_settings *settings, int *exit_status);

/* ops.c: fills in the sizes that were not given; the sizes of `op` as text. */
void bench_defaults(const bench *b, const bench_op *op, bench_shape *shape);
void bench_shape_text(const bench_op *op, const bench_shape *shape, char *text, size_t size);

/* table.c: the tensors of `op`, returns how many; the call. */
int bench_tensors(const bench_op *op, const bench_shape *shape, bench_tensor *tensors);
clm_status bench_call_op(const bench_op *op, clm_context *context, const bench_shape *shape,
                         const clm_tensor *tensors);

/* lm_model.c: what --model takes */
bool bench_model_entry(size_t i, tool_entry *entry); /* for tool_list */
bool bench_model_known(const char *name);

/* All below return false when they fail, having said why. */
bool bench_fail(const bench *b, const char *what, clm_status status); /* always false */

/* limits.c: what the device can do at its best; what it can do now, once more; the medians of those, which empties
 * `s` */
bool bench_measure_limits(bench *b);
bool bench_sample_limits(bench *b, bench_samples *s);
bench_limits bench_end_samples(const bench *b, bench_samples *s);
double bench_floor_ms(const bench_limits *limits, const bench_cost *cost);

/* measure.c */
typedef clm_status (*bench_call)(void *user, int repeat);
bool bench_time(bench *b, bench_call call, void *user, bench_row *row);
/* These sort what they are given. Median; median, minimum and maximum of `count` times. */
double bench_median(double *values, int count);
void bench_statistics(double *ms, int count, bench_row *row);
void bench_peak(const bench *b, bench_row *row); /* sets peak_bytes to the maximum that the row has taken so far */
bool bench_run_op(bench *b, const bench_op *op, const bench_shape *shape);

/* problem.c: the tensors of `op` in `sets` copies, so that repeats can rotate through more than the cache. */
typedef struct bench_problem {
  const bench_op *op;
  bench_shape shape;
  int count, sets;
  bench_tensor info[BENCH_MAX_TENSORS];
  clm_tensor tensor[BENCH_MAX_TENSORS]; /* of set 0 */
  size_t stride[BENCH_MAX_TENSORS];     /* bytes from one set to the next */
  clm_buffer *buffer[BENCH_MAX_TENSORS];
} bench_problem;

bool bench_problem_create(bench *b, const bench_op *op, const bench_shape *shape, bench_problem *problem);
void bench_problem_destroy(bench_problem *problem);
clm_status bench_problem_call(bench *b, const bench_problem *problem, int set);
double bench_problem_bytes(const bench_problem *problem); /* every tensor once, what is read and written twice */
clm_dtype bench_tensor_dtype(const bench_tensor *info, const bench_shape *shape);
clm_tensor bench_tensor_view(const bench_tensor *info, bench_layout layout, clm_dtype dtype, clm_buffer *buffer);

/* input.c */
void bench_fill_floats(rng *random, bench_fill fill, float scale, float *values, size_t count);
void bench_store(clm_dtype dtype, void *values, size_t index, float value); /* real dtypes */
double bench_load(clm_dtype dtype, const void *values, size_t index);

/* check.c */
bool bench_check(bench *b, bench_problem *problem, bench_row *row);

/* report.c */
bool bench_report(const bench *b);
bool bench_plot(const bench *b);

#endif
