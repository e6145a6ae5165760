/* Calls of the selective state update as problems, for its tests and those of its gradients. */
#ifndef TEST_UPDATE_PROBLEM_H
#define TEST_UPDATE_PROBLEM_H

#include "problem.h"

enum {
  HAS_D = 1,
  HAS_Z = 2,
  BIAS = 4,
  SOFTPLUS = 8,
  LOG_A = 16,
  MAMBA = 31,
  COMPLEX = 32,
  POOL = 64,    /* states of a pool of UPDATE_STATES           */
  AS_U = 128,   /* the state, A, D and delta_bias stored as u   */
  SHARED = 256, /* A, delta, D, delta_bias the same for a head */
  F16 = 512,
  BF16 = 1024,
  NOT_SLOW = 2048,
};
enum { UPDATE_STATES = 5 };

typedef struct update_case {
  int64_t batch, steps, heads, head_dim, d_state, n_groups; /* steps, head_dim 0: no such dimension */
  unsigned flags;
  test_layout layout;
  const char *why;
} update_case;

extern const update_case update_cases[];
extern const size_t update_case_count;

const update_case *update_case_named(const char *why);
clm_selective_state_update_args update_args_of(const update_case *);

/* The inputs without the state; then the whole call. */
test_problem update_inputs_of(const update_case *, const test_op *, const void *args);
test_problem update_forward_of(const update_case *, const test_op *, const clm_selective_state_update_args *);

/* Of a call whose tensors are not all stored as u: in what instead, by the tensor's name. */
typedef struct update_mix {
  const char *why;
  unsigned u; /* F16, BF16 or 0 */
  struct {
    const char *name;
    test_kind kind;
  } tensors[9];
} update_mix;

extern const update_mix update_mixes[];
extern const size_t update_mix_count;

/* The base case of a mix, and its tensors as the mix has them; `state`: what the problem calls the state. */
update_case update_mix_case(const update_mix *);
void update_mix_apply(const update_mix *, test_problem *, const char *state);

/* Cases of problem_check_extremes. */
extern const update_case update_extremes[2];

test_tensor update_sequence(const update_case *, test_tensor); /* with the shape of u     */
test_tensor update_inputs(const update_case *, test_tensor);   /* of B                    */
test_tensor update_matrix(const update_case *, test_tensor);   /* of A                    */
test_tensor update_channel(const update_case *, test_tensor);  /* of D                    */
test_tensor update_state(const update_case *, test_tensor, int64_t rows);

/* What the strides of a head's shared inputs must be: the views of a run, made so. */
void update_share(const update_case *, test_run *);

#endif
