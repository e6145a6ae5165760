/* Gradients of the selective state update. */
#include "update_problem.h"

TEST_OP(selective_state_update_backward);

/* The forward call from a state of its own, so that it can be called again. */
typedef struct from_initial_args {
  clm_selective_state_update_args update;
  clm_tensor initial;
} from_initial_args;

static clm_status call_from_initial(clm_context *context, const void *args) {
  const from_initial_args *a = args;
  const size_t bytes = (size_t)clm_tensor_count(a->initial) * clm_dtype_size(a->initial.dtype);
  void *state = malloc(bytes);
  if (!state) abort();
  clm_status status = clm_tensor_read(a->initial, state, bytes);
  if (!status) status = clm_tensor_write(a->update.state, state, bytes);
  free(state);
  return status ? status : clm_selective_state_update(context, &a->update);
}
static const test_op op_from_initial = {"selective_state_update", sizeof(from_initial_args), call_from_initial};

enum {
  DU = 1,
  DDELTA = 2,
  DZ = 4,
  DA = 8,
  DB = 16,
  DC = 32,
  DD = 64,
  DBIAS = 128,
  DSTATE = 256,
  DNEW = 512,
  ALL = 1023
};

#define GRADIENT(field, role_, kind_, of_)                                                                           \
  (test_tensor) {                                                                                                    \
    .name = #field, .member = offsetof(clm_selective_state_update_backward_args, field), .role = role_,              \
    .kind = kind_, .of = of_                                                                                         \
  }

static test_problem backward_of(const update_case *c, const clm_selective_state_update_backward_args *args,
                                unsigned wanted) {
  const bool complex = c->flags & COMPLEX;
  const test_kind number = complex ? TEST_COMPLEX : TEST_PARAMETER, input = complex ? TEST_COMPLEX : TEST_STORAGE;
  const test_kind weight = c->flags & AS_U ? TEST_STORAGE : TEST_PARAMETER;
  test_problem p = update_inputs_of(c, &op_selective_state_update_backward, args);
  p.tolerance += 2e-5;
  test_tensor state = {.name = "initial",
                       .member = offsetof(clm_selective_state_update_args, state),
                       .kind = c->flags & AS_U && !complex ? TEST_STORAGE : number};
  problem_add(&p, update_state(c, state, c->flags & POOL ? UPDATE_STATES : c->batch));
  problem_add(&p, update_sequence(c, GRADIENT(dout, TEST_IN, TEST_STORAGE, "out")));
  /* Gradients of states have rows of the batch, which finite differences of a pool do not know. */
  const char *of_state = c->flags & POOL ? NULL : "initial", *of_new = c->flags & POOL ? NULL : "state";
  if (wanted & DNEW) problem_add(&p, update_state(c, GRADIENT(dnew_state, TEST_IN, number, of_new), c->batch));
  if (wanted & DU) problem_add(&p, update_sequence(c, GRADIENT(du, TEST_OUT, TEST_STORAGE, "u")));
  if (wanted & DDELTA) problem_add(&p, update_sequence(c, GRADIENT(ddelta, TEST_OUT, TEST_STORAGE, "delta")));
  if (wanted & DZ && c->flags & HAS_Z) problem_add(&p, update_sequence(c, GRADIENT(dz, TEST_OUT, TEST_STORAGE, "z")));
  if (wanted & DA) problem_add(&p, update_matrix(c, GRADIENT(dA, TEST_OUT, complex ? number : weight, "A")));
  if (wanted & DB) problem_add(&p, update_inputs(c, GRADIENT(dB, TEST_OUT, input, "B")));
  if (wanted & DC) problem_add(&p, update_inputs(c, GRADIENT(dC, TEST_OUT, number, "C")));
  if (wanted & DD && c->flags & HAS_D) problem_add(&p, update_channel(c, GRADIENT(dD, TEST_OUT, weight, "D")));
  if (wanted & DBIAS && c->flags & BIAS)
    problem_add(&p, update_channel(c, GRADIENT(ddelta_bias, TEST_OUT, weight, "delta_bias")));
  if (wanted & DSTATE) problem_add(&p, update_state(c, GRADIENT(dstate, TEST_OUT, number, of_state), c->batch));
  return p;
}

static void test_backward(const test_device *device, const void *data) {
  const clm_selective_state_update_backward_args args = {.forward = update_args_of(data)};
  const test_problem p = backward_of(data, &args, ALL);
  problem_check(&p, device);
}

/* The gradients of delta and z are stored as these, those of A, B, C and D here as well. */
static void test_mix(const test_device *device, const void *data) {
  const update_case c = update_mix_case(data);
  const clm_selective_state_update_backward_args args = {.forward = update_args_of(&c)};
  test_problem p = backward_of(&c, &args, ALL);
  update_mix_apply(data, &p, "initial");
  static const char *const of[][2] = {{"ddelta", "delta"}, {"dz", "z"}, {"dA", "A"},
                                      {"dB", "B"},         {"dC", "C"}, {"dD", "D"}};
  for (size_t i = 0; i < TEST_COUNT(of); i++) problem_find(&p, of[i][0])->kind = problem_find(&p, of[i][1])->kind;
  problem_check(&p, device);
}

static void test_contained(const test_device *device, const void *data) {
  const clm_selective_state_update_backward_args args = {.forward = update_args_of(data)};
  const test_problem p = backward_of(data, &args, ALL);
  problem_check_contained(&p, device);
}

static void test_extremes(const test_device *device, const void *data) {
  const clm_selective_state_update_backward_args args = {.forward = update_args_of(data)};
  const test_problem p = backward_of(data, &args, ALL);
  problem_check_extremes(&p, device, args.forward.delta_softplus, args.forward.A_is_log);
}

static void test_some_gradients(const test_device *device, const void *data) {
  const clm_selective_state_update_backward_args args = {.forward = update_args_of(data)};
  for (unsigned bit = 1; bit < ALL; bit *= device->slow ? 4 : 2) {
    const test_problem alone = backward_of(data, &args, bit & ~(unsigned)DNEW),
                       others = backward_of(data, &args, ALL & ~bit);
    problem_check(&alone, device);
    problem_check(&others, device);
  }
}

static void test_gradients(const test_device *device, const void *data) {
  (void)device;
  const update_case *c = data;
  const test_kind number = c->flags & COMPLEX ? TEST_COMPLEX : c->flags & AS_U ? TEST_STORAGE : TEST_PARAMETER;
  const int64_t rows = c->flags & POOL ? UPDATE_STATES : c->batch;
  const clm_selective_state_update_backward_args args = {.forward = update_args_of(c)};
  const from_initial_args from = {.update = args.forward};
  test_problem forward = update_inputs_of(c, &op_from_initial, &from);
  test_tensor initial = {.name = "initial", .member = offsetof(from_initial_args, initial), .kind = number};
  test_tensor state = {
      .name = "state", .member = offsetof(from_initial_args, update.state), .role = TEST_OUT, .kind = number};
  test_tensor out = {.name = "out", .member = offsetof(from_initial_args, update.out), .role = TEST_OUT};
  problem_add(&forward, update_state(c, initial, rows));
  problem_add(&forward, update_state(c, state, rows));
  problem_add(&forward, update_sequence(c, out));
  const test_problem backward = backward_of(c, &args, c->flags & POOL ? ALL & ~(unsigned)DNEW : ALL);
  problem_check_gradients(&forward, &backward, 16);
}

/* Each program takes seconds to compile: one for each kind of call. */
static bool runs_on_slow(const update_case *c) {
  static const char *const chosen[] = {"Mamba's",   "heads",     "many rows", "f16, the state too, all at once",
                                       "complex A", "many steps"};
  for (size_t i = 0; i < TEST_COUNT(chosen); i++)
    if (c == update_case_named(chosen[i])) return true;
  return false;
}

static void add(void) {
  for (size_t i = 0; i < update_case_count; i++) {
    const update_case *c = &update_cases[i];
    if (c->flags & SHARED) continue;
    for (size_t d = 0; d < test_device_count; d++)
      if (!test_devices[d].slow || runs_on_slow(c))
        test_add(&test_devices[d], test_backward, c, "selective_state_update_backward: %s", c->why);
    if (c->heads * c->d_state < 2000 && c->layout == TEST_CONTIGUOUS)
      test_add(NULL, test_gradients, c, "selective_state_update gradients: %s", c->why);
  }
  for (size_t d = 0; d < test_device_count; d++) {
    for (size_t i = 0; i < update_mix_count; i++)
      test_add(&test_devices[d], test_mix, &update_mixes[i], "selective_state_update_backward: %s",
               update_mixes[i].why);
    test_add(&test_devices[d], test_some_gradients, update_case_named("three steps"),
             "selective_state_update_backward: some gradients");
    static const char *const rows[] = {"three steps", "complex A"};
    for (size_t i = 0; i < TEST_COUNT(rows); i++)
      test_add(&test_devices[d], test_contained, update_case_named(rows[i]),
               "selective_state_update_backward: NaN stays in its row: %s", rows[i]);
    for (size_t i = 0; i < TEST_COUNT(update_extremes); i++)
      test_add(&test_devices[d], test_extremes, &update_extremes[i],
               "selective_state_update_backward: extreme numbers: %s", update_extremes[i].why);
  }
}

int main(void) { return test_main("selective_state_update_backward", add); }
