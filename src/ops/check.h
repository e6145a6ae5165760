/* Checking of an operation's arguments, driven by tables: each operation lists its tensors once, with the names of
 * their dimensions; sizes are taken from the first tensor that shows them and every later one must agree. */
#ifndef CLM_OPS_CHECK_H
#define CLM_OPS_CHECK_H

#include "core/context.h"

/* A dimension of an operation, shared by the rows of its table. The size is bound by the first tensor that has it. */
typedef struct check_dim {
  const char *name;
  int64_t size;         /* 0: not known yet                                     */
  const char *from;     /* the tensor that bound it                             */
  struct check_dim *of; /* if set: this dimension is `of` plus `plus`          */
  int64_t plus;
  bool beside; /* of weights: never multiplied with all the others */
} check_dim;

#define CHECK_DIM(dim)   .dim = {.name = #dim} /* in a struct of them */
#define CHECK_NAMED(dim) dim = {.name = #dim}  /* a variable */

enum {
  CHECK_OPTIONAL = 1,
  CHECK_WRITTEN = 2, /* may not overlap any other tensor of the table, nor itself */
};

#define CHECK_DTYPE(dtype) (1u << ((unsigned)(dtype)&31)) /* of an unknown one too, which its own row refuses */
#define CHECK_FLOAT        (CHECK_DTYPE(CLM_F32) | CHECK_DTYPE(CLM_F16) | CHECK_DTYPE(CLM_BF16) | CHECK_DTYPE(CLM_F64))
#define CHECK_REAL         (CHECK_DTYPE(CLM_F32) | CHECK_DTYPE(CLM_F64))
#define CHECK_COMPLEX      (CHECK_DTYPE(CLM_C64) | CHECK_DTYPE(CLM_C128))
#define CHECK_I32          CHECK_DTYPE(CLM_I32)
#define CHECK_I8           CHECK_DTYPE(CLM_I8)

typedef struct check_tensor {
  const char *name;
  const clm_tensor *tensor;
  unsigned flags;
  unsigned dtypes;                  /* set of CHECK_DTYPE                                                       */
  const clm_tensor *as;             /* or: the dtype is that of this tensor of the table                        */
  check_dim *dims[CLM_MAX_RANK];    /* none: any shape                                                          */
  check_dim *or_dims[CLM_MAX_RANK]; /* a second allowed shape, of another rank                                  */
  const clm_tensor *shape_as;       /* beside or instead of dims: the shape is that of this tensor of the table   */
  const clm_tensor *may_be[2];      /* a written tensor may be the very same view as one of these               */
} check_tensor;

/* clang-format off */
/* The row of one member: CHECK_ROW(args, x, CHECK_OPTIONAL, .dtypes = CHECK_FLOAT, .dims = {&rows, &dim}) */
#define CHECK_ROW(args, member, flags_, ...) {.name = #member, .tensor = &(args)->member, .flags = flags_, __VA_ARGS__}
/* clang-format on */

typedef struct checker {
  clm_context *context;
  const char *op;
  int64_t elements; /* product of all dimensions bound so far but those beside them */
  int written;      /* how many tensors the call writes: 0, nothing is asked */
} checker;

/* Starts the check of one call, clearing the context's message. */
clm_status check_begin(checker *, clm_context *, const char *op, const void *args);

/* Checks every row: presence, dtype, rank, shape, bounds; then that what is written overlaps nothing. */
clm_status check_tensors(checker *, const check_tensor *rows, size_t count);
#define CHECK_TENSORS(c, ...)                                                                                        \
  check_tensors(c, (const check_tensor[]){__VA_ARGS__},                                                              \
                sizeof((const check_tensor[]){__VA_ARGS__}) / sizeof(check_tensor))

/* `low` <= value < `high`; not a number is outside. `expected` completes the message: "0 <= rate < 1". */
clm_status check_number(checker *, const char *name, double value, double low, double high, const char *expected);

/* One of the `count` values of an enumeration. */
clm_status check_choice(checker *, const char *name, int value, int count);

/* Fails with "op: " and the message. */
clm_status check_fail(checker *, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What a tensor that the headers call f32 has beside `dtype`: f64 beside f64 or c128. And the complex form of it. */
clm_dtype check_real_of(clm_dtype dtype);
clm_dtype check_complex_of(clm_dtype dtype);
unsigned check_storage_of(clm_dtype dtype); /* f32, f16 and bf16 beside f32; f64 beside f64 */
bool check_is_complex(clm_dtype dtype);

/* Of weights and their gradients beside activations of this dtype: f32 or as they are. And where the weights may be
 * complex, by the dtype of one that is or is not: then c64 alone. */
unsigned check_weight_of(clm_dtype storage);
unsigned check_weight_beside(clm_dtype storage, clm_dtype A);

/* Of states and sums beside that weight: f32 or c64. */
unsigned check_number_beside(clm_dtype storage, clm_dtype A);
bool check_present(const clm_tensor *tensor);

/* A matrix in i8 has its scales beside it, any other none. */
clm_status check_scale(checker *, const char *name, const clm_tensor *scale, const char *matrix_name,
                       const clm_tensor *matrix);

/* Gives an unsupported call a message where the backend left none. */
clm_status ops_finished(clm_context *, const char *op, clm_status);

/* Whether a slot that is there has nothing to say to a rehearsal: its backend takes every checked call. */
bool ops_only_rehearsed(const clm_context *);

/* Calls the backend's slot of the operation `name`, unless nothing is asked for. */
#define OPS_CALL(c, name, shape, args)                                                                               \
  ((c)->written == 0                                                                                                 \
       ? CLM_OK                                                                                                      \
       : ops_finished((c)->context, #name,                                                                           \
                      !(c)->context->ops.name            ? CLM_UNSUPPORTED                                           \
                      : ops_only_rehearsed((c)->context) ? CLM_OK                                                    \
                                                         : (c)->context->ops.name((c)->context, shape, args)))

#endif
