/* What the grids share: a cell's problem against the reference on every device, the tolerances of the reference
 * package's own tests, and which cells run.
 *
 *   CLM_GRID_SHARE=1/4   every fourth test: no two shares compile the same program
 *   CLM_GRID_SPARSE=50   every 50th cell, the largest left out: the part that runs with all tests
 *   CLM_GRID_CELL=1408   this one
 *   CLM_GRID_STRICT=1    a cell that a backend does not support is a failure */
#ifndef TEST_GRID_H
#define TEST_GRID_H

#include "problem.h"

/* Whether the cell takes part; `numbers` is its size, by which a sparse grid leaves out the largest. */
bool grid_takes(int cell, int64_t numbers);

/* Whether the test takes part. */
bool grid_has_share(int test);

/* A tensor whose tolerance is the dtype's times these. */
typedef struct grid_exception {
  const char *name;
  double rtol, atol;
} grid_exception;

/* One call on every device against one on the reference. The problem's seed is the cell's; where it has seq_idx or
 * cu_seqlens, sequences are drawn. `text` names the cell; the list of exceptions ends with a NULL name. */
bool grid_check(const test_problem *p, const grid_exception *exceptions, const char *text);

/* Counts, the cell nearest to its tolerance, processor time; a test to be added last. */
void grid_report(const test_device *device, const void *data);

int grid_main(const char *name, void (*add)(void));

#endif
