/* What an operation takes, as data: its tensors, their dimensions and its scalars, described once in the operation's
 * file. Argument checks (check.c), what backends are given (ready.c), the tests of wrong arguments, the fuzzer and
 * mamba-bench read these tables. */
#ifndef CLM_OPS_TABLE_H
#define CLM_OPS_TABLE_H

#include "backend/backend.h"
#include <math.h>
#include <stddef.h>
#include <string.h>

enum { OP_TENSORS = 48, OP_DIMS = 16, OP_PARTS = 4 }; /* maxima, of a table */

/* A dimension: a letter in shapes, a name in messages. The first tensor that shows it sets its size. */
typedef struct op_dim {
  char letter;
  const char *name;
  int64_t size;     /* fixed; 0: open                                                                       */
  char of;          /* the size is that of this dimension plus `plus`                                       */
  int64_t plus;     /* with `of`                                                                            */
  bool apart;       /* of weights: no tensor's size is the product of all these, so that each may be large  */
  const char *with; /* where this tensor is absent, the dimension is `otherwise`                            */
  char along;       /* the same where the call's tensors do not have this dimension                         */
  char otherwise;
} op_dim;

/* clang-format off */
/* A row: OP_DIM('h', "width - 1", .of = 'w', .plus = -1) */
#define OP_DIM(letter_, ...) {.letter = letter_, .name = __VA_ARGS__}
/* clang-format on */

/* ---- Dtypes ---- */

/* Members of a set of dtypes: a bit for each dtype, and bits for those that follow from the table's main tensor. */
enum {
  OP_MAIN = 1 << 8,     /* as the main tensor                                     */
  OP_STORAGE = 1 << 9,  /* f32, f16 or bf16 with these; f64 with f64              */
  OP_REAL = 1 << 10,    /* what headers call f32: f32, or f64 with f64 and c128   */
  OP_COMPLEX = 1 << 11, /* what headers call c64: c64, or c128 with f64 and c128  */
};
#define OP_DTYPE(dtype) (1u << ((unsigned)(dtype)&31)) /* of an unknown one too, which its own row refuses */
#define OP_FLOAT        (OP_DTYPE(CLM_F32) | OP_DTYPE(CLM_F16) | OP_DTYPE(CLM_BF16) | OP_DTYPE(CLM_F64))
#define OP_ANY_COMPLEX  (OP_DTYPE(CLM_C64) | OP_DTYPE(CLM_C128))

/* The dtypes that a tensor may have: a set, or the dtype of another tensor (where that is absent, any), or both. */
typedef struct op_dtypes {
  unsigned set;
  unsigned complex; /* in a complex call; 0: as `set`             */
  unsigned second;  /* in the second of two shapes; 0: as `set`   */
  const char *as;
} op_dtypes;

/* clang-format off */
/* Rules that many tensors have. */
#define OP_IS_FLOAT         {.set = OP_FLOAT}
#define OP_IS_ANY           {.set = OP_FLOAT | OP_ANY_COMPLEX}
#define OP_IS_LIKE_ANY      {.set = OP_FLOAT, .complex = OP_ANY_COMPLEX} /* complex only if that is */
#define OP_IS_INDEX         {.set = OP_DTYPE(CLM_I32)}
#define OP_IS_STORAGE       {.set = OP_STORAGE}
#define OP_IS_REAL          {.set = OP_REAL}
#define OP_IS_NUMBER        {.set = OP_REAL, .complex = OP_COMPLEX} /* states and sums */
#define OP_IS_WEIGHT        {.set = OP_REAL | OP_MAIN}
#define OP_IS_RATE          {.set = OP_REAL | OP_MAIN | OP_COMPLEX} /* A: it makes a call complex */
#define OP_IS_NUMBER_WEIGHT {.set = OP_REAL | OP_MAIN, .complex = OP_COMPLEX}
#define OP_AS(tensor)       {.as = tensor}
/* clang-format on */

/* ---- Tensors ---- */

typedef enum op_role { OP_IN, OP_OUT, OP_INOUT } op_role;

enum {
  OP_OPTIONAL = 1,
  OP_ROWS = 2,           /* (batch, length, ...) one after the other: the rows of a matrix            */
  OP_WIDENED = 4,        /* 16-bit ones reach backends as f32 copies (widened.h)                       */
  OP_WIDENED_SECOND = 8, /* the same, only in the second of two shapes                                */
};

typedef struct op_tensor {
  const char *name; /* as messages call it */
  size_t member;    /* offset in the arguments */
  op_role role;     /* what is written may not overlap any other tensor, nor itself */
  op_dtypes dtypes;
  const char *shape; /* letters: "b l d", or with a second one of another rank "b l g n | d n"; NULL: any shape */
  unsigned flags;
  const char *shape_as; /* the shape is that of this tensor                                             */
  const char *may_be;   /* an output that may be the same view as one of these inputs: "gate up"        */
  const char *with;     /* given only with this tensor                                                 */
  const char *when;     /* given only where this scalar is set                                          */
  const char *scale_of; /* given where this matrix is i8, and only there                                */
  const char *added;    /* where this scalar is set, an output that is added to: read as well           */
} op_tensor;

/* A row: OP_TENSOR(clm_norm_args, weight, OP_IN, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL) */
/* clang-format off */
#define OP_TENSOR(args, field, role_, dtypes_, ...)                                                                  \
  {.name = #field, .member = offsetof(args, field), .role = role_, .dtypes = dtypes_, .shape = __VA_ARGS__}
/* clang-format on */

/* ---- Scalars ---- */

typedef enum op_scalar_kind { OP_BOOL, OP_CHOICE, OP_NUMBER, OP_COUNT, OP_SEED } op_scalar_kind;

typedef struct op_scalar {
  const char *name;
  size_t member;
  op_scalar_kind kind;
  double low, high;     /* low <= value < high; of a choice high values from 0 on        */
  const char *expected; /* completes the message: "0 <= rate < 1"; NULL: any value       */
  const char *with;     /* looked at only where this tensor is given                     */
} op_scalar;

/* clang-format off */
#define OP_SCALAR(args, field, ...) {.name = #field, .member = offsetof(args, field), .kind = __VA_ARGS__}
/* clang-format on */
#define OP_NOT_NEGATIVE .high = INFINITY, .expected = "a finite number of at least 0"

/* ---- Operations ---- */

typedef struct op_part {
  const op_tensor *tensors;
  size_t count;
} op_part;
/* clang-format off */
#define OP_PART(tensors) {tensors, sizeof(tensors) / sizeof *(tensors)}
/* clang-format on */

struct op_call;

typedef struct op_table {
  const char *name;
  const char *main;         /* the tensor that gives a call its dtype            */
  const char *rate;         /* complex in a complex call; NULL: there is none    */
  const op_dim *dims;       /* until one without a letter; NULL: none            */
  op_part parts[OP_PARTS];  /* tensors, in the order in which they are checked   */
  const op_scalar *scalars; /* until one without a name; NULL: none              */
  /* Where the forms of a call differ in dimensions: sets call->lacks. NULL: they do not. */
  clm_status (*form)(struct op_call *);
} op_table;

/* The arguments of a gradient begin with those of its operation: tables may share rows and scalars. */
#define OP_FORWARD_FIRST(op)                                                                                         \
  _Static_assert(offsetof(clm_##op##_backward_args, forward) == 0, "rows of " #op " are used for both directions")

#define X(name, shape) extern const op_table name##_table;
BACKEND_OPS(X)
#undef X
extern const op_table mamba_inner_table, mamba_inner_backward_table;

/* ---- Reading a table ---- */

/* The tensor's row; NULL after the last. */
static inline const op_tensor *op_tensor_at(const op_table *table, size_t i) {
  for (size_t part = 0; part < OP_PARTS; i -= table->parts[part++].count)
    if (i < table->parts[part].count) return &table->parts[part].tensors[i];
  return NULL;
}

/* The second of a row's two shapes; NULL where there is one shape or any. */
static inline const char *op_second(const op_tensor *t) {
  const char *bar = t->shape ? strchr(t->shape, '|') : NULL;
  return bar ? bar + 1 : NULL;
}

/* The next letter of a shape; 0 at its end. */
static inline char op_next(const char **shape) {
  while (**shape == ' ') ++*shape;
  return **shape == '\0' || **shape == '|' ? '\0' : *(*shape)++;
}

/* Whether the list "gate up" has the name. */
bool op_lists(const char *list, const char *name);

clm_dtype op_real_of(clm_dtype dtype);
clm_dtype op_complex_of(clm_dtype dtype);
bool op_is_complex(clm_dtype dtype);

/* The set as bits of dtypes alone, in a call whose main tensor is of dtype `main`. */
unsigned op_dtype_set(const op_dtypes *, clm_dtype main, bool complex, bool second);

#endif
