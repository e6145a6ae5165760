/* One operation on the CPU, one thread, as often as asked: what hot_loops.py counts the instructions of.
 *   hot_loops NAME [calls]          prints how many elements a call has; without arguments the names */
#include <clmamba/clmamba.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH = 64, CHANNELS = 1024, STATES = 16, WIDTH = 4, MEMORY = 32 << 20 };

typedef struct loop {
  clm_context *context;
  clm_buffer *buffer;
  size_t used;
} loop;

static clm_tensor take(loop *l, clm_dtype dtype, int rank, const int64_t *shape) {
  clm_tensor t = clm_tensor_of(l->buffer, l->used, dtype, rank, shape);
  l->used += ((size_t)clm_tensor_count(t) * clm_dtype_size(dtype) + 63) / 64 * 64;
  return t;
}
#define TAKE(l, dtype, ...)                                                                                          \
  take(l, dtype, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (int64_t[]){__VA_ARGS__})

static clm_tensor sequence(loop *l) { return TAKE(l, CLM_F32, 1, LENGTH, CHANNELS); }
static clm_tensor matrix(loop *l) { return TAKE(l, CLM_F32, CHANNELS, STATES); }
static clm_tensor vector(loop *l) { return TAKE(l, CLM_F32, CHANNELS); }
static clm_tensor input(loop *l) { return TAKE(l, CLM_F32, 1, LENGTH, 1, STATES); }

static clm_selective_scan_args scan_args(loop *l) {
  return (clm_selective_scan_args){.u = sequence(l),
                                   .delta = sequence(l),
                                   .A = matrix(l),
                                   .B = input(l),
                                   .C = input(l),
                                   .D = vector(l),
                                   .z = sequence(l),
                                   .delta_bias = vector(l),
                                   .out = sequence(l),
                                   .delta_softplus = true};
}

static clm_status scan(loop *l) {
  const clm_selective_scan_args args = scan_args(l);
  return clm_selective_scan(l->context, &args);
}

static clm_status scan_backward(loop *l) {
  const clm_selective_scan_backward_args args = {.forward = scan_args(l),
                                                 .dout = sequence(l),
                                                 .du = sequence(l),
                                                 .ddelta = sequence(l),
                                                 .dz = sequence(l),
                                                 .dA = matrix(l),
                                                 .dB = input(l),
                                                 .dC = input(l),
                                                 .dD = vector(l),
                                                 .ddelta_bias = vector(l)};
  return clm_selective_scan_backward(l->context, &args);
}

static clm_causal_conv1d_args conv_args(loop *l) {
  return (clm_causal_conv1d_args){.x = sequence(l),
                                  .weight = TAKE(l, CLM_F32, CHANNELS, WIDTH),
                                  .bias = vector(l),
                                  .out = sequence(l),
                                  .silu = true};
}

static clm_status conv(loop *l) {
  const clm_causal_conv1d_args args = conv_args(l);
  return clm_causal_conv1d(l->context, &args);
}

static clm_status conv_backward(loop *l) {
  const clm_causal_conv1d_backward_args args = {.forward = conv_args(l),
                                                .dout = sequence(l),
                                                .dx = sequence(l),
                                                .dweight = TAKE(l, CLM_F32, CHANNELS, WIDTH),
                                                .dbias = vector(l)};
  return clm_causal_conv1d_backward(l->context, &args);
}

static clm_status update(loop *l) {
  const clm_selective_state_update_args args = {.state = TAKE(l, CLM_F32, 1, CHANNELS, STATES),
                                                .u = TAKE(l, CLM_F32, 1, CHANNELS),
                                                .delta = TAKE(l, CLM_F32, 1, CHANNELS),
                                                .A = matrix(l),
                                                .B = TAKE(l, CLM_F32, 1, 1, STATES),
                                                .C = TAKE(l, CLM_F32, 1, 1, STATES),
                                                .D = vector(l),
                                                .z = TAKE(l, CLM_F32, 1, CHANNELS),
                                                .delta_bias = vector(l),
                                                .out = TAKE(l, CLM_F32, 1, CHANNELS),
                                                .delta_softplus = true};
  return clm_selective_state_update(l->context, &args);
}

static clm_status norm(loop *l) {
  const clm_norm_args args = {
      .x = TAKE(l, CLM_F32, LENGTH, CHANNELS), .weight = vector(l), .out = TAKE(l, CLM_F32, LENGTH, CHANNELS)};
  return clm_norm(l->context, &args);
}

static clm_status product(loop *l, clm_dtype dtype) {
  const clm_matmul_args args = {.a = TAKE(l, CLM_F32, 1, CHANNELS),
                                .b = clm_tensor_transpose(TAKE(l, dtype, CHANNELS, CHANNELS), 0, 1),
                                .out = TAKE(l, CLM_F32, 1, CHANNELS),
                                .b_scale = dtype == CLM_I8 ? vector(l) : (clm_tensor){0}};
  return clm_matmul(l->context, &args);
}
static clm_status product_f32(loop *l) { return product(l, CLM_F32); }
static clm_status product_bf16(loop *l) { return product(l, CLM_BF16); }
static clm_status product_f16(loop *l) { return product(l, CLM_F16); }
static clm_status product_i8(loop *l) { return product(l, CLM_I8); }

static const struct {
  const char *name;
  clm_status (*run)(loop *);
  int64_t elements; /* of a call: exponentials of states, outputs of a sequence, or weights */
} loops[] = {{"scan", scan, LENGTH *CHANNELS *STATES},
             {"scan_backward", scan_backward, LENGTH *CHANNELS *STATES},
             {"conv", conv, LENGTH *CHANNELS},
             {"conv_backward", conv_backward, LENGTH *CHANNELS},
             {"update", update, CHANNELS *STATES},
             {"norm", norm, LENGTH *CHANNELS},
             {"product_f32", product_f32, CHANNELS *CHANNELS},
             {"product_bf16", product_bf16, CHANNELS *CHANNELS},
             {"product_f16", product_f16, CHANNELS *CHANNELS},
             {"product_i8", product_i8, CHANNELS *CHANNELS}};
enum { LOOPS = sizeof loops / sizeof *loops };

static clm_status prepare(loop *l) {
  clm_status status = clm_context_create(&(clm_context_options){.device = "cpu", .threads = 1}, &l->context);
  if (status == CLM_OK) status = clm_buffer_create(l->context, MEMORY, &l->buffer);
  void *memory;
  if (status == CLM_OK) status = clm_buffer_map(l->buffer, &memory);
  if (status != CLM_OK) return status;
  float *numbers = memory;
  for (size_t i = 0; i < MEMORY / sizeof *numbers; i++) numbers[i] = -0.01f * (float)(1 + i % 97);
  return clm_buffer_unmap(l->buffer);
}

int main(int count, char **words) {
  int at = 0;
  while (count > 1 && at < LOOPS && strcmp(words[1], loops[at].name) != 0) at++;
  if (count < 2 || at == LOOPS) {
    for (int i = 0; i < LOOPS; i++) printf("%s\n", loops[i].name);
    return count > 1;
  }
  loop l = {0};
  clm_status status = prepare(&l);
  for (int calls = count > 2 ? atoi(words[2]) : 1; status == CLM_OK && calls > 0; calls--) {
    l.used = 0;
    status = loops[at].run(&l);
  }
  if (status == CLM_OK) printf("%lld\n", (long long)loops[at].elements);
  else fprintf(stderr, "hot_loops: %s\n", l.context ? clm_context_error(l.context) : "no context");
  clm_buffer_destroy(&l.buffer);
  clm_context_destroy(&l.context);
  return status != CLM_OK;
}
