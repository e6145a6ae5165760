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
  COMPLEX = 512,   /* A, and with it B, C and the state */
  NOT_SLOW = 1024, /* not on slow devices: large, or another kernel to compile for little that is new */
  GATE = 2048,
  SEQ = 4096,     /* seq_idx: sequences of many lengths, and padding     */
  LEFT = 8192,    /* seq_idx: one sequence, padding before it            */
  PACKED = 16384, /* cu_seqlens: states have TEST_SEQUENCES rows         */
  REVERSE = 32768,
  F16 = 65536,
  BF16 = 131072,
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

/* Of these, one for each order of rows and sequences in memory. */
extern const size_t scan_contained_count;
const scan_case *scan_contained(size_t);

/* Cases of problem_check_extremes. */
extern const scan_case scan_extremes[];
extern const size_t scan_extreme_count;
void scan_check_extremes(const scan_case *, const test_problem *, const test_device *);

/* Of weights that are real: as u beside bf16. */
test_kind scan_weight(const scan_case *);

/* Rows of the states. */
int64_t scan_rows_of(const scan_case *);

clm_selective_scan_args scan_args_of(const scan_case *);

/* The inputs; also those of the backward, whose args begin with the forward's. */
test_problem scan_inputs_of(const scan_case *, const test_op *, const void *args);
test_problem scan_forward_of(const scan_case *, const test_op *, const clm_selective_scan_args *);

#endif
