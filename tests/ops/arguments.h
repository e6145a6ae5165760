/* One valid call of every operation with every optional tensor present that may be: what the tests of wrong arguments
 * start from. */
#ifndef TEST_ARGUMENTS_H
#define TEST_ARGUMENTS_H

#include "catalog.h"

typedef struct valid_call {
  catalog_choice choice;
  test_problem problem;
  size_t rows[TEST_MAX_TENSORS]; /* of the problem's tensors: which of the table's */
} valid_call;

extern valid_call valid_calls[];
extern size_t valid_call_count;

/* Fills the table. */
void valid_calls_init(void);
valid_call *valid_call_of(const char *op);

static inline const op_tensor *valid_row(const valid_call *call, size_t tensor) {
  return catalog_row(&call->choice, call->rows[tensor]);
}

#endif
