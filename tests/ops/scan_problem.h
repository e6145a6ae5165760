/* The selective scan's cases, shared by the tests of its forward and its backward. */
#ifndef TEST_SCAN_PROBLEM_H
#define TEST_SCAN_PROBLEM_H

#include "problem.h"

enum {
  HAS_D = 1,
  HAS_Z = 2,
  BIAS = 4,
  SOFTPLUS = 8,
  LOG_A = 16,
  INITIAL = 32,
  FINAL = 64,
  STATIC_B = 128,
  STATIC_C = 256,
  COMPLEX = 512,   /* A, and with it B, C and the state: today on the reference only */
  NOT_SLOW = 1024, /* not on slow devices: large, or another kernel to compile for little that is new */
  MAMBA = HAS_D | HAS_Z | BIAS | SOFTPLUS | LOG_A,
};

typedef struct scan_case {
  int64_t batch, length, d_inner, d_state, n_groups;
  unsigned flags;
  test_layout layout;
  int64_t chunk;
  const char *why;
} scan_case;

extern const scan_case scan_cases[];
extern const size_t scan_case_count;
const scan_case *scan_case_named(const char *why);

clm_selective_scan_args scan_args_of(const scan_case *);

/* The inputs; also those of the backward, whose args begin with the forward's. */
test_problem scan_inputs_of(const scan_case *, const test_op *, const void *args);
test_problem scan_forward_of(const scan_case *, const test_op *, const clm_selective_scan_args *);

#endif
