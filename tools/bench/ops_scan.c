/* Selective scan, its gradients, and the single step. */
#include "bench/ops.h"

enum { U, DELTA, A, B, C, D, Z, BIAS, OUT, FORWARD_COUNT };
enum { DOUT = FORWARD_COUNT, DU, DDELTA, DA, DB, DC, DD, DZ, DBIAS, BACKWARD_COUNT };

#define SEQUENCE .rank = 3, .shape = {s->batch, s->length, s->dim}, .channel = 2, .length = 1
#define VARYING  .rank = 4, .shape = {s->batch, s->length, s->groups, s->state}, .channel = -1, .length = 1
#define MATRIX   .rank = 2, .shape = {s->dim, s->state}, .channel = 0, .length = -1, .fixed = true
#define CHANNEL  .rank = 1, .shape = {s->dim}, .channel = 0, .length = -1, .fixed = true

static int forward_tensors(const bench_shape *s, bench_tensor *t) {
  t[U] = (bench_tensor){.name = "u", SEQUENCE, NORMAL(1)};
  t[DELTA] = (bench_tensor){.name = "delta", SEQUENCE, INPUT(BENCH_STEP, 1)};
  t[A] = (bench_tensor){.name = "A", MATRIX, INPUT(BENCH_NEGATIVE, 1), .complex = true};
  t[B] = (bench_tensor){.name = "B", VARYING, NORMAL(1), .complex = true};
  t[C] = (bench_tensor){.name = "C", VARYING, NORMAL(1), .complex = true};
  t[D] = (bench_tensor){.name = "D", CHANNEL, NORMAL(1)};
  t[Z] = (bench_tensor){.name = "z", SEQUENCE, NORMAL(1)};
  t[BIAS] = (bench_tensor){.name = "delta_bias", CHANNEL, NORMAL(0.5f)};
  t[OUT] = (bench_tensor){.name = "out", SEQUENCE, .output = true};
  return FORWARD_COUNT;
}

/* `out` of the backward call is an option; here it is what the forward call writes under scan-train. */
static int gradient_tensors(const bench_shape *s, bench_tensor *t) {
  t[DOUT] = (bench_tensor){.name = "dout", SEQUENCE, NORMAL(1), .gradient = true};
  t[DU] = (bench_tensor){.name = "du", SEQUENCE, .output = true};
  t[DDELTA] = (bench_tensor){.name = "ddelta", SEQUENCE, .output = true};
  t[DA] = (bench_tensor){.name = "dA", MATRIX, .output = true, .complex = true};
  t[DB] = (bench_tensor){.name = "dB", VARYING, .output = true, .complex = true};
  t[DC] = (bench_tensor){.name = "dC", VARYING, .output = true, .complex = true};
  t[DD] = (bench_tensor){.name = "dD", CHANNEL, .output = true};
  t[DZ] = (bench_tensor){.name = "dz", SEQUENCE, .output = true};
  t[DBIAS] = (bench_tensor){.name = "ddelta_bias", CHANNEL, .output = true};
  return BACKWARD_COUNT;
}

static int backward_tensors(const bench_shape *s, bench_tensor *t) {
  forward_tensors(s, t);
  t[OUT] = (bench_tensor){.name = "unused", .rank = 1, .shape = {1}, .channel = -1, .length = -1, .fixed = true};
  return gradient_tensors(s, t);
}

static int train_tensors(const bench_shape *s, bench_tensor *t) {
  forward_tensors(s, t);
  for (int i = U; i <= BIAS; i++) t[i].passes = 2; /* both calls read them */
  return gradient_tensors(s, t);
}

static clm_selective_scan_args forward_args(const clm_tensor *t) {
  return (clm_selective_scan_args){.u = t[U],
                                   .delta = t[DELTA],
                                   .A = t[A],
                                   .B = t[B],
                                   .C = t[C],
                                   .D = t[D],
                                   .z = t[Z],
                                   .delta_bias = t[BIAS],
                                   .out = t[OUT],
                                   .delta_softplus = true};
}

static clm_status call_forward(clm_context *context, const bench_shape *s, const clm_tensor *t) {
  (void)s;
  clm_selective_scan_args args = forward_args(t);
  return clm_selective_scan(context, &args);
}

static clm_status call_backward(clm_context *context, const bench_shape *s, const clm_tensor *t) {
  (void)s;
  clm_selective_scan_backward_args args = {.forward = forward_args(t),
                                           .dout = t[DOUT],
                                           .du = t[DU],
                                           .ddelta = t[DDELTA],
                                           .dz = t[DZ],
                                           .dA = t[DA],
                                           .dB = t[DB],
                                           .dC = t[DC],
                                           .dD = t[DD],
                                           .ddelta_bias = t[DBIAS]};
  args.forward.out = (clm_tensor){0};
  return clm_selective_scan_backward(context, &args);
}

static clm_status call_train(clm_context *context, const bench_shape *s, const clm_tensor *t) {
  clm_status status = call_forward(context, s, t);
  return status == CLM_OK ? call_backward(context, s, t) : status;
}

/* An exponential per state, and four for softplus and the gate. */
static bench_cost forward_cost(const bench_shape *s) {
  double elements = (double)s->batch * (double)s->length * (double)s->dim;
  return (bench_cost){.exponentials = elements * ((double)s->state + 4)};
}

static bench_cost train_cost(const bench_shape *s) {
  bench_cost cost = forward_cost(s);
  cost.exponentials *= 2;
  return cost;
}

#define SCAN_SHAPES                                                                                                  \
  .dims = "batch dim length state groups", .channels = "dim",                                                        \
  .gpu = {.batch = 8, .length = 2048, .dim = 2048, .state = 16, .groups = 1},                                        \
  .cpu = {.batch = 1, .length = 2048, .dim = 1536, .state = 16, .groups = 1}

const bench_op bench_scan = {"scan",       "selective scan, forward", SCAN_SHAPES, forward_tensors, call_forward,
                             forward_cost, .tolerance = 2e-5};
const bench_op bench_scan_backward = {
    "scan-bwd",   "selective scan, backward", SCAN_SHAPES, backward_tensors, call_backward,
    forward_cost, .tolerance = 1e-4};
const bench_op bench_scan_train = {
    "scan-train",     "selective scan, forward and backward", SCAN_SHAPES, train_tensors, call_train, train_cost,
    .tolerance = 1e-4};

enum { US, UU, UDELTA, UA, UB, UC, UD, UZ, UBIAS, UOUT, UPDATE_COUNT };

static int update_tensors(const bench_shape *s, bench_tensor *t) {
#define STEP    .rank = 2, .shape = {s->batch, s->dim}, .channel = 1, .length = -1
#define GROUPED .rank = 3, .shape = {s->batch, s->groups, s->state}, .channel = -1, .length = -1
  t[US] = (bench_tensor){.name = "state",
                         .rank = 3,
                         .shape = {s->batch, s->dim, s->state},
                         .channel = 1,
                         .length = -1,
                         NORMAL(1),
                         .output = true,
                         .fixed = true};
  t[UU] = (bench_tensor){.name = "u", STEP, NORMAL(1)};
  t[UDELTA] = (bench_tensor){.name = "delta", STEP, INPUT(BENCH_STEP, 1)};
  t[UA] = (bench_tensor){.name = "A", MATRIX, INPUT(BENCH_NEGATIVE, 1)};
  t[UB] = (bench_tensor){.name = "B", GROUPED, NORMAL(1)};
  t[UC] = (bench_tensor){.name = "C", GROUPED, NORMAL(1)};
  t[UD] = (bench_tensor){.name = "D", CHANNEL, NORMAL(1)};
  t[UZ] = (bench_tensor){.name = "z", STEP, NORMAL(1)};
  t[UBIAS] = (bench_tensor){.name = "delta_bias", CHANNEL, NORMAL(0.5f)};
  t[UOUT] = (bench_tensor){.name = "out", STEP, .output = true};
  return UPDATE_COUNT;
}

static clm_status call_update(clm_context *context, const bench_shape *s, const clm_tensor *t) {
  (void)s;
  return clm_selective_state_update(context, &(clm_selective_state_update_args){.state = t[US],
                                                                                .u = t[UU],
                                                                                .delta = t[UDELTA],
                                                                                .A = t[UA],
                                                                                .B = t[UB],
                                                                                .C = t[UC],
                                                                                .D = t[UD],
                                                                                .z = t[UZ],
                                                                                .delta_bias = t[UBIAS],
                                                                                .out = t[UOUT],
                                                                                .delta_softplus = true});
}

static bench_cost update_cost(const bench_shape *s) {
  return (bench_cost){.exponentials = (double)s->batch * (double)s->dim * ((double)s->state + 4)};
}

const bench_op bench_update = {"update",
                               "selective scan, one step",
                               .dims = "batch dim state groups",
                               .channels = "dim",
                               .gpu = {.batch = 64, .dim = 5120, .state = 16, .groups = 1},
                               .cpu = {.batch = 1, .dim = 1536, .state = 16, .groups = 1},
                               update_tensors,
                               call_update,
                               update_cost,
                               .tolerance = 1e-5};
