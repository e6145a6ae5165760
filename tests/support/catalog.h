/* Every public operation as data: its tensors with their dimensions by name, and its scalars. The fuzz test draws
 * calls from it, the portability suite asks the launchers for the programs of many of them. */
#ifndef TEST_CATALOG_H
#define TEST_CATALOG_H

#include "problem.h"

/* Dimensions by name; `rows` of the catalog hold these where a problem holds sizes. */
typedef enum catalog_dim {
  DIM_BATCH = 1,
  DIM_LENGTH,
  DIM_CHANNELS,
  DIM_STATES,
  DIM_GROUPS,
  DIM_WIDTH,
  DIM_HISTORY,   /* width - 1; a tensor with none of it is absent */
  DIM_SEQUENCES, /* rows of states: batch, or the packed sequences */
  DIM_ENDS,      /* sequences + 1 */
  DIM_ROWS,
  DIM_COLUMNS,
  DIM_INNER,
  DIM_COUNT,
  DIM_ONE,
  DIM_STEPS,    /* of an update; may be none                           */
  DIM_HEADS,    /* of a state update: heads, or the channels           */
  DIM_HEAD_DIM, /* none where these are channels                       */
  DIM_SSD_DIM,  /* head_dim of SSD: always there               */
  DIM_POOL,     /* states: batch, or a pool of them                    */
  DIM_PLACES,   /* of a convolution's state: width - 1, or a circle    */
  DIM_BOTH,     /* twice the channels                                  */
  DIM_RANK,     /* dt_rank                                             */
  DIM_FEATURES, /* dt_rank, and what x_proj makes of B and C           */
  DIM_MODEL,    /* d_model                                             */
  CATALOG_DIMS
} catalog_dim;

#define NO_DIM (-1) /* the size of a dimension that the tensors of a call do not have */

typedef enum catalog_kind {
  OF_STORAGE,   /* f32, f16, bf16 or f64: the same for the whole call    */
  OF_ANY,       /* f32, f16, bf16: each tensor its own (a gradient: as what it is of); f64 beside f64 */
  OF_NUMBERS,   /* as OF_ANY, c64 in a complex call                      */
  OF_FLOAT,     /* f32, f16, bf16, f64: each tensor its own              */
  OF_PARAMETER, /* f32; f64 beside f64, as in all that follow            */
  OF_NUMBER,    /* f32, c64 in a complex call                            */
  OF_INPUT,     /* as storage, c64 in a complex call                     */
  OF_WEIGHT,    /* as storage or, by ROW_EITHER, f32                     */
  OF_RATE,      /* the same, c64 in a complex call: A                    */
  OF_INDEX,     /* i32                                                   */
  OF_INTEGER,   /* i8                                                    */
} catalog_kind;

enum {
  ROW_OPTIONAL = 1,
  ROW_STATIC = 2,        /* may be (channels, states) as A instead: B and C of a scan           */
  ROW_EITHER = 4,        /* OF_INPUT that may be as OF_NUMBER instead, OF_WEIGHT as OF_PARAMETER */
  ROW_STATIC_EITHER = 8, /* the same, but only where it is (channels, states)                   */
  ROW_AS_BEFORE = 16,    /* in this as the row before it                                        */
  ROW_MATRIX = 32,       /* batch and length one behind the other: the rows of a matrix         */
};

typedef struct catalog_row {
  const char *name;
  size_t member;
  test_role role;
  catalog_kind kind;
  double (*draw)(test_random *); /* NULL: normal; indexes are drawn by what they index */
  unsigned flags;
  const char *with;  /* only where this tensor is present; a gradient of it    */
  const char *when;  /* only where this scalar is set                          */
  const char *alias; /* an output that may be the very same view as one of these inputs: "gate,up" */
  int rank;
  int64_t dims[CLM_MAX_RANK];
} catalog_row;

typedef enum catalog_scalar_kind { SCALAR_BOOL, SCALAR_CHOICE, SCALAR_FLOAT, SCALAR_INT64 } catalog_scalar_kind;

typedef struct catalog_scalar {
  const char *name;
  size_t member;
  catalog_scalar_kind kind;
  double low, high; /* valid: low <= value <= high; of a choice 0 to high                      */
  bool unchecked;   /* every value is valid                                                       */
} catalog_scalar;

#define CATALOG_ROWS    48
#define CATALOG_SCALARS 8

typedef struct catalog_op {
  const test_op *op;
  bool may_be_complex;
  catalog_row rows[CATALOG_ROWS + 1];          /* until one without a name */
  catalog_scalar scalars[CATALOG_SCALARS + 1]; /* likewise                 */
} catalog_op;

extern const catalog_op catalog[];
extern const size_t catalog_count;

/* One call: what is chosen of what an operation leaves open. */
typedef struct catalog_choice {
  const catalog_op *op;
  int64_t size[CATALOG_DIMS];
  clm_dtype storage;
  clm_dtype any[CATALOG_ROWS];       /* of rows OF_ANY, OF_NUMBERS and OF_FLOAT */
  uint64_t present, statics, others; /* a bit for each row; others: the second of ROW_EITHER */
  bool complex;
} catalog_choice;

clm_dtype catalog_dtype(const catalog_choice *, size_t row);

static inline uint64_t catalog_bit(size_t row) { return UINT64_C(1) << row; }
static inline bool catalog_has(const catalog_choice *c, size_t row) { return c->present >> row & 1; }

/* dt_rank and the numbers of the parts of B and C that are not given: DIM_FEATURES. */
int64_t catalog_features(const catalog_choice *);

/* Whether a scalar may be set beside what is there: norms are of what x_proj makes, of real numbers. */
bool catalog_allows(const catalog_choice *, const catalog_scalar *);

/* Forgets the rows whose scalar `name` is not set, and what is only there with them. */
void catalog_unset(catalog_choice *, const char *name);

/* Of a scalar: "forward.chunk" is chunk. */
const char *catalog_scalar_name(const catalog_scalar *);

/* Fills the dimensions that the row has in this call; the rank. */
int catalog_dims(const catalog_choice *, size_t row, catalog_dim dims[CLM_MAX_RANK]);

/* Fills the shape; the rank. */
int catalog_shape(const catalog_choice *, size_t row, int64_t shape[CLM_MAX_RANK]);

/* The row's number; -1: there is none of this name. */
int catalog_find(const catalog_op *, const char *name);

/* Whether the output `row` may be the very same view as the input `name`. */
bool catalog_may_be(const catalog_row *row, const char *name);

#endif
