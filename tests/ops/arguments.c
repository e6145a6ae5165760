#include "arguments.h"
#include "backend/backend.h"
#include <string.h>

#define X(name, shape) TEST_OP(name);
BACKEND_OPS(X)
#undef X
TEST_OP(mamba_inner);
TEST_OP(mamba_inner_backward);

#define MOST_CALLS 32
valid_call valid_calls[MOST_CALLS];
size_t valid_call_count;

static valid_call *begin(const test_op *op, const void *args) {
  valid_call *call = &valid_calls[valid_call_count++];
  call->problem = (test_problem){.op = op, .args = args, .seed = 121, .tolerance = 1e-5};
  return call;
}

static void add(valid_call *call, bool optional, test_tensor t) {
  call->optional |= (uint64_t)optional << call->problem.count;
  t.bound = 2;
  problem_add(&call->problem, t);
}

/* IN(x, ...): an input that is required; MAY_ an optional one. Dimensions follow the kind. */
#define TENSOR(field, role, kind, optional, ...)                                                                     \
  add(call, optional, (test_tensor)TEST_ROW(ARGS, field, role, kind, NULL, __VA_ARGS__))
#define IN(field, ...)      TENSOR(field, TEST_IN, TEST_STORAGE, false, __VA_ARGS__)
#define MAY(field, ...)     TENSOR(field, TEST_IN, TEST_STORAGE, true, __VA_ARGS__)
#define OUT(field, ...)     TENSOR(field, TEST_OUT, TEST_STORAGE, false, __VA_ARGS__)
#define MAY_OUT(field, ...) TENSOR(field, TEST_OUT, TEST_STORAGE, true, __VA_ARGS__)
#define IDS(field, ...)     TENSOR(field, TEST_IN, TEST_INDEX, false, __VA_ARGS__)

/* batch 2, length 3, d_inner or channels 6, d_state 5, n_groups 2, width 4 */
static void add_scans(void) {
  static const clm_discretize_args discretize = {.method = CLM_ZOH};
  static const clm_discretize_backward_args discretize_backward = {.forward.method = CLM_ZOH};
  static const clm_assoc_scan_args assoc_scan;
  static const clm_assoc_scan_backward_args assoc_scan_backward;
  valid_call *call;
#define ARGS   clm_discretize_args
#define INPUTS IN(delta, 2, 3, 6), IN(A, 6, 5), IN(B, 2, 3, 5)
  call = begin(&op_discretize, &discretize);
  INPUTS, OUT(A_bar, 2, 3, 6, 5), OUT(B_bar, 2, 3, 6, 5);
  call = begin(&op_discretize_backward, &discretize_backward);
  INPUTS;
#undef ARGS
#undef INPUTS
#define ARGS clm_discretize_backward_args
  MAY(dA_bar, 2, 3, 6, 5), MAY(dB_bar, 2, 3, 6, 5);
  MAY_OUT(ddelta, 2, 3, 6), MAY_OUT(dA, 6, 5), MAY_OUT(dB, 2, 3, 5);
#undef ARGS
#define ARGS   clm_assoc_scan_args
#define INPUTS IN(a, 2, 3, 6), IN(b, 2, 3, 6), MAY(initial, 2, 6)
  call = begin(&op_assoc_scan, &assoc_scan);
  INPUTS, OUT(h, 2, 3, 6), MAY_OUT(final, 2, 6);
  call = begin(&op_assoc_scan_backward, &assoc_scan_backward);
  INPUTS;
#undef ARGS
#undef INPUTS
#define ARGS clm_assoc_scan_backward_args
  IN(dh, 2, 3, 6), MAY(dfinal, 2, 6), MAY_OUT(da, 2, 3, 6), MAY_OUT(db, 2, 3, 6), MAY_OUT(dinitial, 2, 6);
#undef ARGS
}

static void add_convolutions(void) {
  static const clm_causal_conv1d_args forward = {.silu = true};
  static const clm_causal_conv1d_backward_args backward = {.forward.silu = true};
  static const clm_causal_conv1d_update_args update = {.silu = true};
  valid_call *call;
#define ARGS   clm_causal_conv1d_args
#define INPUTS IN(x, 2, 3, 6), IN(weight, 6, 4), MAY(bias, 6), MAY(initial_state, 2, 6, 3)
  call = begin(&op_causal_conv1d, &forward);
  INPUTS, OUT(out, 2, 3, 6), MAY_OUT(final_state, 2, 6, 3);
  call = begin(&op_causal_conv1d_backward, &backward);
  INPUTS;
#undef ARGS
#undef INPUTS
#define ARGS clm_causal_conv1d_backward_args
  IN(dout, 2, 3, 6), MAY(dfinal_state, 2, 6, 3), MAY_OUT(dx, 2, 3, 6), MAY_OUT(dweight, 6, 4), MAY_OUT(dbias, 6);
  MAY_OUT(dinitial_state, 2, 6, 3);
#undef ARGS
#define ARGS clm_causal_conv1d_update_args
  call = begin(&op_causal_conv1d_update, &update);
  IN(x, 2, 6), IN(weight, 6, 4), MAY(bias, 6), TENSOR(state, TEST_INOUT, TEST_STORAGE, false, 2, 6, 3),
      OUT(out, 2, 6);
#undef ARGS
}

static void add_selective_scans(void) {
  static const clm_selective_scan_args forward = {.delta_softplus = true, .A_is_log = true};
  static const clm_selective_scan_backward_args backward = {.forward = {.delta_softplus = true, .A_is_log = true}};
  static const clm_selective_state_update_args update = {.delta_softplus = true, .A_is_log = true};
  static const clm_selective_state_update_backward_args update_backward = {
      .forward = {.delta_softplus = true, .A_is_log = true}};
  valid_call *call;
#define ARGS clm_selective_scan_args
#define INPUTS                                                                                                       \
  IN(u, 2, 3, 6), IN(delta, 2, 3, 6), IN(A, 6, 5), IN(B, 2, 3, 2, 5), IN(C, 2, 3, 2, 5), MAY(D, 6), MAY(z, 2, 3, 6), \
      MAY(delta_bias, 6), MAY(initial_state, 2, 6, 5)
  call = begin(&op_selective_scan, &forward);
  INPUTS, OUT(out, 2, 3, 6), MAY_OUT(final_state, 2, 6, 5);
  call = begin(&op_selective_scan_backward, &backward);
  INPUTS;
#undef ARGS
#undef INPUTS
#define ARGS clm_selective_scan_backward_args
  IN(dout, 2, 3, 6), MAY(dfinal_state, 2, 6, 5), MAY_OUT(du, 2, 3, 6), MAY_OUT(ddelta, 2, 3, 6), MAY_OUT(dz, 2, 3, 6);
  MAY_OUT(dA, 6, 5), MAY_OUT(dB, 2, 3, 2, 5), MAY_OUT(dC, 2, 3, 2, 5), MAY_OUT(dD, 6), MAY_OUT(ddelta_bias, 6);
  MAY_OUT(dinitial_state, 2, 6, 5), MAY_OUT(out, 2, 3, 6);
#undef ARGS
#define ARGS clm_selective_state_update_args
#define INPUTS                                                                                                       \
  IN(u, 2, 6), IN(delta, 2, 6), IN(A, 6, 5), IN(B, 2, 2, 5), IN(C, 2, 2, 5), MAY(D, 6), MAY(z, 2, 6),                \
      MAY(delta_bias, 6)
  call = begin(&op_selective_state_update, &update);
  INPUTS, TENSOR(state, TEST_INOUT, TEST_STORAGE, false, 2, 6, 5), OUT(out, 2, 6);
  call = begin(&op_selective_state_update_backward, &update_backward);
  INPUTS, IN(state, 2, 6, 5);
#undef ARGS
#undef INPUTS
#define ARGS clm_selective_state_update_backward_args
  IN(dout, 2, 6), MAY(dnew_state, 2, 6, 5), MAY_OUT(du, 2, 6), MAY_OUT(ddelta, 2, 6), MAY_OUT(dz, 2, 6);
  MAY_OUT(dA, 6, 5), MAY_OUT(dB, 2, 2, 5), MAY_OUT(dC, 2, 2, 5), MAY_OUT(dD, 6), MAY_OUT(ddelta_bias, 6);
  MAY_OUT(dstate, 2, 6, 5);
#undef ARGS
}

/* batch 2, length 3, n_heads 4, head_dim 2, n_groups 2, d_state 5 */
static void add_ssd(void) {
  static const clm_ssd_args forward = {.dt_softplus = true, .A_is_log = true};
  static const clm_ssd_backward_args backward = {.forward = {.dt_softplus = true, .A_is_log = true}};
  valid_call *call;
#define ARGS clm_ssd_args
#define INPUTS                                                                                                       \
  IN(x, 2, 3, 4, 2), IN(dt, 2, 3, 4), IN(A, 4), IN(B, 2, 3, 2, 5), IN(C, 2, 3, 2, 5), MAY(D, 4, 2),                  \
      MAY(z, 2, 3, 4, 2), MAY(dt_bias, 4), MAY(initial_state, 2, 4, 2, 5)
  call = begin(&op_ssd, &forward);
  INPUTS, OUT(out, 2, 3, 4, 2), MAY_OUT(final_state, 2, 4, 2, 5);
  call = begin(&op_ssd_backward, &backward);
  INPUTS;
#undef ARGS
#undef INPUTS
#define ARGS clm_ssd_backward_args
  IN(dout, 2, 3, 4, 2), MAY(dfinal_state, 2, 4, 2, 5), MAY_OUT(dx, 2, 3, 4, 2), MAY_OUT(dz, 2, 3, 4, 2);
  MAY_OUT(ddt, 2, 3, 4), MAY_OUT(dB, 2, 3, 2, 5), MAY_OUT(dC, 2, 3, 2, 5), MAY_OUT(dA, 4), MAY_OUT(ddt_bias, 4);
  MAY_OUT(dD, 4, 2), MAY_OUT(dinitial_state, 2, 4, 2, 5), MAY_OUT(out, 2, 3, 4, 2);
#undef ARGS
}

/* width 4, dt_rank 2, n_groups 2, d_state 3, so features 14; d_inner 6, d_model 5 */
static void add_inner(void) {
  static const clm_mamba_inner_args forward = {.norm_epsilon = 1e-5f,
                                               .norm_delta = true,
                                               .norm_B = true,
                                               .norm_C = true,
                                               .delta_softplus = true,
                                               .A_is_log = true};
  static clm_mamba_inner_backward_args backward;
  valid_call *call;
  backward.forward = forward;
#define ARGS clm_mamba_inner_args
#define INPUTS                                                                                                       \
  IN(xz, 2, 3, 12), IN(conv_weight, 6, 4), MAY(conv_bias, 6), IN(x_proj, 14, 6), IN(dt_proj, 6, 2),                  \
      MAY(delta_bias, 6), IN(A, 6, 3), MAY(D, 6), IN(out_proj, 5, 6), MAY(delta_norm, 2), MAY(B_norm, 3),            \
      MAY(C_norm, 3), MAY(conv_initial, 2, 6, 3), MAY(scan_initial, 2, 6, 3)
  call = begin(&op_mamba_inner, &forward);
  INPUTS, MAY(out_bias, 5), MAY(residual, 2, 3, 5), OUT(out, 2, 3, 5), MAY_OUT(conv_final, 2, 6, 3);
  MAY_OUT(scan_final, 2, 6, 3), MAY_OUT(u, 2, 3, 6), MAY_OUT(delta, 2, 3, 6), MAY_OUT(dbc, 2, 3, 14);
  call = begin(&op_mamba_inner_backward, &backward);
  INPUTS, MAY(u, 2, 3, 6), MAY(delta, 2, 3, 6), MAY(dbc, 2, 3, 14);
#undef ARGS
#undef INPUTS
#define ARGS clm_mamba_inner_backward_args
  IN(dout, 2, 3, 5), MAY(dconv_final, 2, 6, 3), MAY(dscan_final, 2, 6, 3), MAY_OUT(dxz, 2, 3, 12);
  MAY_OUT(dconv_weight, 6, 4), MAY_OUT(dconv_bias, 6), MAY_OUT(dx_proj, 14, 6), MAY_OUT(ddt_proj, 6, 2);
  MAY_OUT(ddelta_bias, 6), MAY_OUT(dA, 6, 3), MAY_OUT(dD, 6), MAY_OUT(dout_proj, 5, 6), MAY_OUT(dout_bias, 5);
  MAY_OUT(ddelta_norm, 2), MAY_OUT(dB_norm, 3), MAY_OUT(dC_norm, 3), MAY_OUT(dconv_initial, 2, 6, 3);
  MAY_OUT(dscan_initial, 2, 6, 3);
#undef ARGS
}

static void add_matrices(void) {
  static const clm_matmul_args matmul;
  static const clm_norm_args norm = {.epsilon = 1e-5f};
  static const clm_norm_backward_args norm_backward = {.forward.epsilon = 1e-5f};
  static const clm_axpby_args axpby = {.alpha = 1};
  static const clm_cast_args cast;
  static const clm_dropout_args dropout = {.rate = 0.5f};
  static const clm_swiglu_args swiglu;
  static const clm_swiglu_backward_args swiglu_backward;
  static const clm_column_sum_args column_sum;
  static const clm_sum_squares_args sum_squares;
  valid_call *call;
#define ARGS clm_matmul_args
  call = begin(&op_matmul, &matmul);
  IN(a, 3, 4), IN(b, 4, 5), MAY(bias, 5), MAY(residual, 3, 5), OUT(out, 3, 5);
#undef ARGS
#define ARGS   clm_norm_args
#define INPUTS IN(x, 3, 4), MAY(weight, 4), MAY(bias, 4)
  call = begin(&op_norm, &norm);
  INPUTS, MAY(residual, 3, 4), OUT(out, 3, 4), MAY_OUT(residual_out, 3, 4);
  call = begin(&op_norm_backward, &norm_backward);
  INPUTS;
#undef ARGS
#undef INPUTS
#define ARGS clm_norm_backward_args
  MAY(forward.residual, 3, 4), IN(dout, 3, 4), MAY(residual, 3, 4), MAY_OUT(dx, 3, 4), MAY_OUT(dweight, 4);
  MAY_OUT(dbias, 4), MAY_OUT(dresidual, 3, 4);
#undef ARGS
#define ARGS clm_axpby_args
  call = begin(&op_axpby, &axpby);
  MAY(x, 3, 4, 2), OUT(out, 3, 4, 2);
#undef ARGS
#define ARGS clm_cast_args
  call = begin(&op_cast, &cast);
  IN(x, 3, 4, 2), OUT(out, 3, 4, 2);
#undef ARGS
#define ARGS clm_dropout_args
  call = begin(&op_dropout, &dropout);
  IN(x, 3, 4), MAY(residual, 3, 4), OUT(out, 3, 4);
#undef ARGS
#define ARGS   clm_swiglu_args
#define INPUTS IN(gate, 3, 4), IN(up, 3, 4)
  call = begin(&op_swiglu, &swiglu);
  INPUTS, OUT(out, 3, 4);
  call = begin(&op_swiglu_backward, &swiglu_backward);
  INPUTS;
#undef ARGS
#undef INPUTS
#define ARGS clm_swiglu_backward_args
  IN(dout, 3, 4), MAY_OUT(dgate, 3, 4), MAY_OUT(dup, 3, 4);
#undef ARGS
#define ARGS clm_column_sum_args
  call = begin(&op_column_sum, &column_sum);
  IN(x, 3, 4), OUT(out, 4);
#undef ARGS
#define ARGS clm_sum_squares_args
  call = begin(&op_sum_squares, &sum_squares);
  IN(x, 7), OUT(out, 1);
#undef ARGS
}

static void add_language(void) {
  static const clm_embedding_args embedding;
  static const clm_embedding_backward_args embedding_backward;
  static const clm_cross_entropy_args cross_entropy = {.scale = 1};
  static const clm_adamw_args adamw = {.lr = 1, .step = 1};
  valid_call *call;
#define ARGS clm_embedding_args
  call = begin(&op_embedding, &embedding);
  IDS(ids, 3), IN(table, 2, 4), OUT(out, 3, 4);
#undef ARGS
#define ARGS clm_embedding_backward_args
  call = begin(&op_embedding_backward, &embedding_backward);
  IDS(ids, 3), IN(dout, 3, 4), OUT(dtable, 2, 4);
#undef ARGS
#define ARGS clm_cross_entropy_args
  call = begin(&op_cross_entropy, &cross_entropy);
  IN(logits, 3, 4), IDS(targets, 3), MAY_OUT(losses, 3), MAY_OUT(dlogits, 3, 4);
#undef ARGS
#define ARGS clm_adamw_args
  call = begin(&op_adamw, &adamw);
  TENSOR(parameter, TEST_INOUT, TEST_STORAGE, false, 7), IN(gradient, 7),
      TENSOR(m, TEST_INOUT, TEST_STORAGE, false, 7);
  add(call, false, (test_tensor)TEST_ROW(ARGS, v, TEST_INOUT, TEST_STORAGE, draw_positive, 7)), MAY(sum_squares, 1);
  MAY_OUT(copy, 7);
#undef ARGS
}

void valid_calls_init(void) {
  add_scans();
  add_convolutions();
  add_selective_scans();
  add_ssd();
  add_inner();
  add_matrices();
  add_language();
}

valid_call *valid_call_of(const char *op) {
  for (size_t i = 0; i < valid_call_count; i++)
    if (strcmp(valid_calls[i].problem.op->name, op) == 0) return &valid_calls[i];
  abort();
}
