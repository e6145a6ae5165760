/* exp, softplus and silu as operations have them, at arguments of every exponent and sign, against long double:
 * decays of the scan and its update, dt, gates, activations. (tests/cpu/test_functions.c has the CPU's own
 * functions.) */
#include "core/tensor_list.h"
#include "problem.h"
#include <float.h>
#include <string.h>

enum { CHANNELS = 255, EACH = 16, COUNT = CHANNELS * EACH }; /* a channel for each exponent, 8 numbers of each sign */

static float arguments[COUNT];

static void fill_arguments(void) {
  test_random r = random_seeded(7, "exponents");
  for (uint32_t i = 0; i < COUNT; i++) {
    const uint32_t k = i % EACH, fraction = k < 2 ? 0 : (uint32_t)random_below(&r, 1 << 23);
    const uint32_t bits = (k & 1) << 31 | i / EACH << 23 | fraction;
    memcpy(&arguments[i], &bits, sizeof bits);
  }
}

static long double want_exp(long double x) { return expl(x); }
static long double want_decay(long double x) { return expl(-expl(x)); } /* 0 where A is infinite in f32, too */
static long double want_silu(long double x) { return x / (1 + expl(-x)); }
static long double want_softplus(long double x) { return x > 0 ? x + log1pl(expl(-x)) : log1pl(expl(x)); }

/* Tensors one after another in a buffer of zeros. */
typedef struct exponents {
  clm_context *context;
  clm_buffer *buffer;
  size_t used;
} exponents;

#define TAKE(e, ...)                                                                                                 \
  tensor_place((e)->buffer, &(e)->used, CLM_F32, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t),                 \
               (int64_t[]){__VA_ARGS__})

static void ok(const exponents *e, clm_status status) {
  if (status) fail_msg("%s", clm_context_error(e->context));
}

static void fill(const exponents *e, clm_tensor t, float value) {
  const int64_t count = clm_tensor_count(t);
  float *values = malloc((size_t)count * sizeof *values);
  assert_non_null(values);
  for (int64_t i = 0; i < count; i++) values[i] = value;
  ok(e, clm_tensor_write(t, values, (size_t)count * sizeof *values));
  free(values);
}

/* Each gives f of the arguments, whose tensor has (channels, each). */
static clm_tensor scan_decay(exponents *e, bool is_log) {
  const clm_tensor u = TAKE(e, 1, 1, CHANNELS), delta = TAKE(e, 1, 1, CHANNELS), A = TAKE(e, CHANNELS, EACH),
                   B = TAKE(e, 1, 1, 1, EACH), out = TAKE(e, 1, 1, CHANNELS), first = TAKE(e, 1, CHANNELS, EACH),
                   last = TAKE(e, 1, CHANNELS, EACH);
  fill(e, delta, 1);
  fill(e, first, 1);
  ok(e, clm_tensor_write(A, arguments, sizeof arguments));
  const clm_selective_scan_args args = {.u = u,
                                        .delta = delta,
                                        .A = A,
                                        .B = B,
                                        .C = B,
                                        .out = out,
                                        .initial_state = first,
                                        .final_state = last,
                                        .A_is_log = is_log};
  ok(e, clm_selective_scan(e->context, &args));
  return last;
}
static clm_tensor by_scan(exponents *e) { return scan_decay(e, false); }
static clm_tensor by_scan_of_log(exponents *e) { return scan_decay(e, true); }

static clm_tensor update_decay(exponents *e, bool is_log) {
  const clm_tensor u = TAKE(e, 1, CHANNELS), delta = TAKE(e, 1, CHANNELS), A = TAKE(e, CHANNELS, EACH),
                   B = TAKE(e, 1, 1, EACH), out = TAKE(e, 1, CHANNELS), state = TAKE(e, 1, CHANNELS, EACH);
  fill(e, delta, 1);
  fill(e, state, 1);
  ok(e, clm_tensor_write(A, arguments, sizeof arguments));
  const clm_selective_state_update_args args = {
      .state = state, .u = u, .delta = delta, .A = A, .B = B, .C = B, .out = out, .A_is_log = is_log};
  ok(e, clm_selective_state_update(e->context, &args));
  return state;
}
static clm_tensor by_update(exponents *e) { return update_decay(e, false); }
static clm_tensor by_update_of_log(exponents *e) { return update_decay(e, true); }

static clm_tensor by_discretize(exponents *e) {
  const clm_tensor delta = TAKE(e, 1, 1, CHANNELS), A = TAKE(e, CHANNELS, EACH), B = TAKE(e, CHANNELS, EACH),
                   A_bar = TAKE(e, 1, 1, CHANNELS, EACH), B_bar = TAKE(e, 1, 1, CHANNELS, EACH);
  fill(e, delta, 1);
  ok(e, clm_tensor_write(A, arguments, sizeof arguments));
  const clm_discretize_args args = {
      .delta = delta, .A = A, .B = B, .A_bar = A_bar, .B_bar = B_bar, .method = CLM_EULER};
  ok(e, clm_discretize(e->context, &args));
  return A_bar;
}

static clm_tensor by_product(exponents *e, clm_activation activation) {
  const clm_tensor a = TAKE(e, COUNT, 1), one = TAKE(e, 1, 1), out = TAKE(e, COUNT, 1);
  fill(e, one, 1);
  ok(e, clm_tensor_write(a, arguments, sizeof arguments));
  ok(e, clm_matmul(e->context, &(clm_matmul_args){.a = a, .b = one, .out = out, .activation = activation}));
  return out;
}
static clm_tensor by_silu(exponents *e) { return by_product(e, CLM_ACTIVATION_SILU); }
static clm_tensor by_softplus(exponents *e) { return by_product(e, CLM_ACTIVATION_SOFTPLUS); }

static clm_tensor by_convolution(exponents *e) {
  const clm_tensor x = TAKE(e, 1, COUNT, 1), weight = TAKE(e, 1, 1), out = TAKE(e, 1, COUNT, 1);
  fill(e, weight, 1);
  ok(e, clm_tensor_write(x, arguments, sizeof arguments));
  ok(e, clm_causal_conv1d(e->context, &(clm_causal_conv1d_args){.x = x, .weight = weight, .out = out, .silu = true}));
  return out;
}

/* out = u D silu(z) with u = D = 1; and with softplus out = C dt B u = softplus(delta). */
static clm_tensor by_gate(exponents *e) {
  const clm_tensor u = TAKE(e, 1, COUNT, 1), delta = TAKE(e, 1, COUNT, 1), z = TAKE(e, 1, COUNT, 1),
                   A = TAKE(e, 1, 1), D = TAKE(e, 1), B = TAKE(e, 1, 1), out = TAKE(e, 1, COUNT, 1);
  fill(e, u, 1);
  fill(e, D, 1);
  ok(e, clm_tensor_write(z, arguments, sizeof arguments));
  const clm_selective_scan_args args = {.u = u, .delta = delta, .A = A, .B = B, .C = B, .D = D, .z = z, .out = out};
  ok(e, clm_selective_scan(e->context, &args));
  return out;
}

static clm_tensor by_step_size(exponents *e) {
  const clm_tensor u = TAKE(e, 1, CHANNELS * EACH), delta = TAKE(e, 1, CHANNELS * EACH), A = TAKE(e, COUNT, 1),
                   B = TAKE(e, 1, 1, 1), out = TAKE(e, 1, COUNT), state = TAKE(e, 1, COUNT, 1);
  fill(e, u, 1);
  fill(e, B, 1);
  ok(e, clm_tensor_write(delta, arguments, sizeof arguments));
  const clm_selective_state_update_args args = {
      .state = state, .u = u, .delta = delta, .A = A, .B = B, .C = B, .out = out, .delta_softplus = true};
  ok(e, clm_selective_state_update(e->context, &args));
  return out;
}

typedef struct exponents_case {
  const char *name;
  clm_tensor (*by)(exponents *);
  long double (*want)(long double);
} exponents_case;
static const exponents_case cases[] = {
    {"decay of the scan", by_scan, want_exp},
    {"decay of the update", by_update, want_exp},
    {"decay of the scan by log(-A)", by_scan_of_log, want_decay},
    {"decay of the update by log(-A)", by_update_of_log, want_decay},
    {"discretization", by_discretize, want_exp},
    {"silu of a product", by_silu, want_silu},
    {"softplus of a product", by_softplus, want_softplus},
    {"silu of a convolution", by_convolution, want_silu},
    {"gate of the scan", by_gate, want_silu},
    {"step of the update", by_step_size, want_softplus},
};

/* x log2(e) is rounded on the way where there is no fused product: |x| units of 2^-24, and 16 for the rest. Below
 * 2^-125, which devices flush, anything of that size; silu has a factor x of it. The last half octave before infinity
 * may overflow early or be off by 2^-16. */
static void test_exponents(const test_device *device, const void *data) {
  const exponents_case *c = data;
  exponents e = {.context = device ? device->context : test_reference};
  enum { BYTES = 8 * COUNT * (int)sizeof(float) };
  ok(&e, clm_buffer_create(e.context, BYTES, &e.buffer));
  void *zeros = calloc(1, BYTES);
  assert_non_null(zeros);
  ok(&e, clm_buffer_write(e.buffer, 0, BYTES, zeros));
  free(zeros);
  fill_arguments();
  static float got[COUNT];
  ok(&e, clm_tensor_read(c->by(&e), got, sizeof got));
  for (int i = 0; i < COUNT; i++) {
    const long double x = arguments[i], want = c->want(x), size = fabsl(want), large = fabsl(x) < 128 ? fabsl(x) : 0;
    const bool last = c->want == want_exp && size > 0x1p127L;
    const long double twice =
        c->want == want_decay ? 1 + fminl(expl(x), 128) : 1; /* of A itself, then of its power */
    const long double relative = last ? 0x1p-16L : (16 + large) * twice * 0x1p-24L;
    const long double most = size * relative + 0x1p-125L * (c->want == want_silu && large > 1 ? large : 1);
    const bool right = isinf(got[i]) ? (last || size > FLT_MAX * (1 - relative)) && want > 0
                                     : size <= FLT_MAX * (1 + relative) && fabsl((long double)got[i] - want) <= most;
    if (!right) fail_msg("%s of %.9Lg is %.9g, expected %.9Lg", c->name, x, (double)got[i], want);
  }
  clm_buffer_destroy(&e.buffer);
}

static void add(void) {
  for (size_t i = 0; i < TEST_COUNT(cases); i++) {
    test_add(NULL, test_exponents, &cases[i], "%s on the reference", cases[i].name);
    for (size_t d = 0; d < test_device_count; d++)
      test_add(&test_devices[d], test_exponents, &cases[i], "%s", cases[i].name);
  }
}

int main(void) { return test_main("exponents", add); }
