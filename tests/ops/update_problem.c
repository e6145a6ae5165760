#include "update_problem.h"
#include <string.h>

const update_case update_cases[] = {
    /* batch steps heads head_dim d_state groups flags layout why it is here */
    {1, 0, 1, 0, 1, 1, 0, TEST_CONTIGUOUS, "smallest"},
    {2, 0, 5, 0, 3, 1, HAS_D | NOT_SLOW, TEST_CONTIGUOUS, "three states"},
    {1, 0, 64, 0, 16, 1, MAMBA, TEST_CONTIGUOUS, "Mamba's"},
    {3, 0, 35, 0, 16, 1, MAMBA, TEST_CONTIGUOUS, "ragged"},
    {2, 0, 33, 0, 17, 1, MAMBA, TEST_CONTIGUOUS, "17 states"},
    {2, 0, 12, 0, 64, 3, MAMBA | NOT_SLOW, TEST_CONTIGUOUS, "64 states, three groups"},
    {1, 0, 9, 0, 128, 9, HAS_D | SOFTPLUS, TEST_CONTIGUOUS, "128 states, a group for each channel"},
    {2, 0, 21, 0, 16, 1, MAMBA, TEST_PADDED, "padded rows"},
    {2, 0, 21, 0, 16, 1, MAMBA, TEST_TRANSPOSED, "state before channel"},
    {2, 0, 21, 0, 8, 1, MAMBA | NOT_SLOW, TEST_WIDE, "slices of wider tensors"},
    {2, 0, 10, 0, 16, 1, MAMBA, TEST_SPREAD, "every other element"},
    {1, 0, 1536, 0, 16, 1, MAMBA, TEST_CONTIGUOUS, "a model's width"},
    {21, 0, 40, 0, 16, 2, MAMBA, TEST_CONTIGUOUS, "many rows"},
    {2, 3, 21, 0, 16, 1, MAMBA, TEST_CONTIGUOUS, "three steps"},
    {2, 5, 12, 0, 16, 2, HAS_D | SOFTPLUS, TEST_PADDED, "five steps, two groups, padded"},
    {2, 0, 6, 7, 16, 3, MAMBA, TEST_CONTIGUOUS, "heads"},
    {2, 0, 6, 7, 16, 2, MAMBA, TEST_PADDED, "heads apart"},
    {2, 0, 6, 7, 32, 2, MAMBA | NOT_SLOW, TEST_PADDED, "heads apart, 32 states"},
    {2, 0, 6, 64, 16, 2, MAMBA | SHARED, TEST_CONTIGUOUS, "heads of Mamba-2, shared by strides of 0"},
    {2, 4, 4, 5, 16, 1, MAMBA | SHARED, TEST_CONTIGUOUS, "heads, shared, four steps"},
    {3, 0, 35, 0, 16, 1, MAMBA | POOL, TEST_CONTIGUOUS, "states of a pool"},
    {3, 2, 4, 5, 16, 2, MAMBA | POOL, TEST_PADDED, "states of a pool, heads, two steps"},
    {2, 0, 21, 0, 16, 1, MAMBA | F16, TEST_CONTIGUOUS, "f16"},
    {2, 0, 21, 0, 16, 1, MAMBA | BF16 | AS_U, TEST_CONTIGUOUS, "bf16, the state too"},
    {3, 3, 3, 7, 16, 1, MAMBA | F16 | AS_U | POOL, TEST_CONTIGUOUS, "f16, the state too, all at once"},
    {2, 0, 9, 0, 5, 1, HAS_D | HAS_Z | BIAS | SOFTPLUS | COMPLEX, TEST_CONTIGUOUS, "complex A"},
    {3, 3, 4, 3, 6, 2, MAMBA | COMPLEX | POOL | NOT_SLOW, TEST_CONTIGUOUS, "complex A, all at once"},
    {2, 2, 7, 0, 21, 1, HAS_D | HAS_Z | COMPLEX | NOT_SLOW, TEST_SPREAD, "complex A, every other element"},
    {1, 6, 131, 0, 5, 1, MAMBA | BF16 | AS_U | NOT_SLOW, TEST_SPREAD, "bf16, the state too, six steps"},
    {2, 67, 4, 5, 3, 2, MAMBA | POOL, TEST_CONTIGUOUS, "many steps"},
    {1, 150, 3, 0, 2, 1, MAMBA | COMPLEX, TEST_CONTIGUOUS, "many steps, complex A"},
};
const size_t update_case_count = sizeof update_cases / sizeof update_cases[0];

const update_case update_extremes[2] = {
    {2, 3, TEST_EXTREMES, 0, 16, 1, HAS_D | HAS_Z, TEST_CONTIGUOUS, "as they are"},
    {2, 0, TEST_EXTREMES, 0, 16, 1, HAS_D | SOFTPLUS | LOG_A, TEST_CONTIGUOUS, "through softplus"},
};

const update_mix update_mixes[] = {
    {"f16 state", 0, {{"state", TEST_F16}}},
    {"bf16 state, f16 inputs", F16, {{"state", TEST_BF16}}},
    {"16-bit inputs, f32 u",
     0,
     {{"delta", TEST_BF16}, {"B", TEST_F16}, {"C", TEST_BF16}, {"z", TEST_F16}, {"state", TEST_BF16}}},
    {"f32 inputs, f16 u",
     F16,
     {{"delta", TEST_PARAMETER}, {"B", TEST_PARAMETER}, {"C", TEST_PARAMETER}, {"z", TEST_PARAMETER}}},
    {"each another dtype, bf16 u",
     BF16,
     {{"delta", TEST_F16},
      {"B", TEST_PARAMETER},
      {"C", TEST_F16},
      {"z", TEST_PARAMETER},
      {"A", TEST_F16},
      {"D", TEST_BF16},
      {"delta_bias", TEST_F16},
      {"state", TEST_F16}}},
    {"16-bit weights, f32 u", 0, {{"A", TEST_BF16}, {"D", TEST_F16}, {"delta_bias", TEST_BF16}}},
};
const size_t update_mix_count = sizeof update_mixes / sizeof update_mixes[0];

update_case update_mix_case(const update_mix *mix) {
  return (update_case){2, 3, 21, 0, 16, 1, MAMBA | mix->u, TEST_CONTIGUOUS, mix->why};
}

void update_mix_apply(const update_mix *mix, test_problem *p, const char *state) {
  for (size_t i = 0; mix->tensors[i].name; i++) {
    const char *name = mix->tensors[i].name;
    test_tensor *t = problem_find(p, strcmp(name, "state") == 0 ? state : name);
    if (!t) abort();
    t->kind = mix->tensors[i].kind;
  }
}

const update_case *update_case_named(const char *why) {
  for (size_t i = 0; i < update_case_count; i++)
    if (strcmp(update_cases[i].why, why) == 0) return &update_cases[i];
  abort();
}

clm_selective_state_update_args update_args_of(const update_case *c) {
  return (clm_selective_state_update_args){.delta_softplus = c->flags & SOFTPLUS, .A_is_log = c->flags & LOG_A};
}

/* ---- Shapes ---- */

static void dim(test_tensor *t, int64_t size) {
  if (size) t->shape[t->rank++] = size;
}

static void channels(const update_case *c, test_tensor *t) {
  dim(t, c->heads);
  dim(t, c->head_dim);
}

test_tensor update_sequence(const update_case *c, test_tensor t) {
  t.rank = 0;
  dim(&t, c->batch);
  dim(&t, c->steps);
  channels(c, &t);
  return t;
}

test_tensor update_inputs(const update_case *c, test_tensor t) {
  t.rank = 0;
  dim(&t, c->batch);
  dim(&t, c->steps);
  dim(&t, c->n_groups);
  dim(&t, c->d_state);
  return t;
}

test_tensor update_matrix(const update_case *c, test_tensor t) {
  t.rank = 0;
  channels(c, &t);
  dim(&t, c->d_state);
  return t;
}

test_tensor update_channel(const update_case *c, test_tensor t) {
  t.rank = 0;
  channels(c, &t);
  return t;
}

test_tensor update_state(const update_case *c, test_tensor t, int64_t rows) {
  t.rank = 0;
  dim(&t, rows);
  channels(c, &t);
  dim(&t, c->d_state);
  return t;
}

/* ---- Problems ---- */

#define ROW(field, role_, kind_, draw_)                                                                              \
  (test_tensor) {                                                                                                    \
    .name = #field, .member = offsetof(clm_selective_state_update_args, field), .role = role_, .kind = kind_,        \
    .draw = draw_                                                                                                    \
  }

test_problem update_inputs_of(const update_case *c, const test_op *op, const void *args) {
  static const int32_t indices[] = {3, -1, 0};
  const bool complex = c->flags & COMPLEX;
  const double rounding = c->flags & F16 ? 0x1p-11 : c->flags & BF16 ? 0x1p-8 : 0;
  const test_kind input = complex ? TEST_COMPLEX : TEST_STORAGE;
  test_problem p = {.op = op, .args = args, .seed = 61, .layout = c->layout, .tolerance = 3e-6 + rounding};
  p.storage = c->flags & F16 ? CLM_F16 : c->flags & BF16 ? CLM_BF16 : CLM_F32;
  double (*draw_A)(test_random *) = c->flags & LOG_A ? (complex ? NULL : draw_log_decay) : draw_decay;
  problem_add(&p, update_sequence(c, ROW(u, TEST_IN, TEST_STORAGE, NULL)));
  problem_add(&p,
              update_sequence(c, ROW(delta, TEST_IN, TEST_STORAGE, c->flags & SOFTPLUS ? draw_raw_step : draw_step)));
  const test_kind weight = c->flags & AS_U ? TEST_STORAGE : TEST_PARAMETER;
  problem_add(&p, update_matrix(c, ROW(A, TEST_IN, complex ? TEST_COMPLEX : weight,
                                       complex && !(c->flags & LOG_A) ? draw_complex_decay : draw_A)));
  problem_add(&p, update_inputs(c, ROW(B, TEST_IN, input, NULL)));
  problem_add(&p, update_inputs(c, ROW(C, TEST_IN, input, NULL)));
  if (c->flags & HAS_D) problem_add(&p, update_channel(c, ROW(D, TEST_IN, weight, NULL)));
  if (c->flags & HAS_Z) problem_add(&p, update_sequence(c, ROW(z, TEST_IN, TEST_STORAGE, NULL)));
  if (c->flags & BIAS) problem_add(&p, update_channel(c, ROW(delta_bias, TEST_IN, weight, draw_step)));
  if (c->flags & POOL) {
    PROBLEM_ADD(&p, TEST_ROW(clm_selective_state_update_args, state_indices, TEST_IN, TEST_INDEX, NULL, c->batch));
    problem_find(&p, "state_indices")->values = indices;
  }
  return p;
}

test_problem update_forward_of(const update_case *c, const test_op *op, const clm_selective_state_update_args *args) {
  test_problem p = update_inputs_of(c, op, args);
  test_tensor state = {.name = "state",
                       .member = offsetof(clm_selective_state_update_args, state),
                       .role = TEST_INOUT,
                       .kind = c->flags & COMPLEX ? TEST_COMPLEX
                               : c->flags & AS_U  ? TEST_STORAGE
                                                  : TEST_PARAMETER};
  problem_add(&p, update_state(c, state, c->flags & POOL ? UPDATE_STATES : c->batch));
  problem_add(&p, update_sequence(c, ROW(out, TEST_OUT, TEST_STORAGE, NULL)));
  return p;
}

/* A head's A, D and bias are its first number, its delta that of its first dimension. */
void update_share(const update_case *c, test_run *run) {
  if (!(c->flags & SHARED)) return;
  clm_selective_state_update_args *a = run->args;
  a->A.stride[1] = a->A.stride[2] = 0;
  a->D.stride[1] = a->delta_bias.stride[1] = 0;
  a->delta.stride[a->delta.rank - 1] = 0;
}
