/* Every public operation by the table of its arguments (ops/table.h), and what a table leaves open: one call as a
 * choice of sizes, dtypes, and what is there. The fuzz test draws calls, the tests of wrong arguments and the
 * portability suite make some. */
#ifndef TEST_CATALOG_H
#define TEST_CATALOG_H

#include "ops/table.h"
#include "problem.h"

typedef struct catalog_op {
  const op_table *table;
  const test_op *op;
} catalog_op;

extern const catalog_op catalog[];
extern const size_t catalog_count;

enum { CATALOG_SCALARS = 8, CATALOG_ANY_RANK = 3 };
#define NO_DIM (-1) /* the size of a dimension that the tensors of a call do not have */

typedef struct catalog_choice {
  const catalog_op *op;
  int64_t size[OP_DIMS];               /* in the order of the table's dimensions       */
  int64_t any_shape[CATALOG_ANY_RANK]; /* of tensors that may have any                 */
  int64_t groups;                      /* of B and C, where no tensor has these as a dimension */
  clm_dtype storage;                   /* of the main tensor, but for a complex call   */
  bool complex, integers;              /* integers: matrices that may be i8 are        */
  uint64_t present, seconds;           /* a bit for each tensor; seconds: the second of two shapes */
  uint64_t set;                        /* a bit for each scalar: true, or not 0        */
  clm_dtype dtype[OP_TENSORS];
} catalog_choice;

static inline uint64_t catalog_bit(size_t i) { return UINT64_C(1) << i; }
static inline bool catalog_has(const catalog_choice *c, size_t row) { return c->present >> row & 1; }
static inline const op_tensor *catalog_row(const catalog_choice *c, size_t row) {
  return op_tensor_at(c->op->table, row);
}

/* The number of a tensor; -1: there is none of this name. Whether it is there. Takes it away. */
int catalog_find(const op_table *, const char *name);
bool catalog_given(const catalog_choice *, const char *name);
void catalog_forget(catalog_choice *, const char *name);

/* Sets the size of a dimension by its name, where the table has it. And what that is, 0 where it does not. */
void catalog_resize(catalog_choice *, const char *name, int64_t size);
int64_t catalog_size(const catalog_choice *, const char *name);

/* Whether a call needs the tensor: also the state of a filter that has one. */
bool catalog_needs(const catalog_choice *, size_t row);

/* Sizes that follow from others and from what is there; takes away what then has no elements or may not stand with
 * what is there or what is set. */
void catalog_settle(catalog_choice *);

/* Whether a scalar may be set with the tensors that are there. */
bool catalog_allows(const catalog_choice *, const op_scalar *);
bool catalog_is_set(const catalog_choice *, const char *scalar);
const op_scalar *catalog_scalar(const op_table *, size_t i); /* NULL after the last */
void catalog_store(void *args, const op_scalar *, double value);

/* Chooses the dtype of every tensor: `pick` gives one of those that its row allows in this call. */
typedef clm_dtype (*catalog_pick)(void *user, const op_tensor *, unsigned dtypes);
void catalog_choose_dtypes(catalog_choice *, catalog_pick pick, void *user);

/* Whether the tensor is read, and written, in this call. */
op_role catalog_role(const catalog_choice *, size_t row);

/* How the values of a tensor are drawn; NULL: normal. */
typedef double (*catalog_draw)(test_random *);
catalog_draw catalog_draw_of(const catalog_choice *, size_t row);

/* Fills the dimensions that the row has in this call, as places in the table (-1 in any shape); the rank. */
int catalog_dims(const catalog_choice *, size_t row, int dims[CLM_MAX_RANK]);

/* Fills the shape; the rank. */
int catalog_shape(const catalog_choice *, size_t row, int64_t shape[CLM_MAX_RANK]);

#endif
