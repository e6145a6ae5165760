/* One valid call of every operation with every optional tensor present: what the tests of wrong arguments start from.
 */
#ifndef TEST_ARGUMENTS_H
#define TEST_ARGUMENTS_H

#include "problem.h"

enum { OPTIONAL_TENSOR = 1 };

typedef struct valid_call {
  test_problem problem;
  uint64_t optional; /* a bit for each tensor that may be absent */
} valid_call;

extern valid_call valid_calls[];
extern size_t valid_call_count;

/* Fills the table. */
void valid_calls_init(void);
valid_call *valid_call_of(const char *op);

#endif
