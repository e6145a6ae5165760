#include "catalog.h"
#include "backend/backend.h"
#include <string.h>

#define X(name, shape) TEST_OP(name);
BACKEND_OPS(X)
#undef X

TEST_OP(mamba_inner);
TEST_OP(mamba_inner_backward);

/* ---- Rows: ROW(member, kind, draw, role, flags, with, alias, dimensions) ---- */

/* clang-format off */
#define ROW(field, kind_, draw_, role_, flags_, with_, alias_, ...)                                                   \
  {.name = #field, .member = offsetof(ARGS, field), .kind = kind_, .draw = draw_, .role = role_, .flags = flags_,     \
   .with = with_, .alias = alias_, .rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                 \
   .dims = {__VA_ARGS__}}
#define IN(field, kind, draw, ...)        ROW(field, kind, draw, TEST_IN, 0, NULL, NULL, __VA_ARGS__)
#define MAY(field, kind, draw, ...)       ROW(field, kind, draw, TEST_IN, ROW_OPTIONAL, NULL, NULL, __VA_ARGS__)
#define OUT(field, kind, ...)             ROW(field, kind, NULL, TEST_OUT, 0, NULL, NULL, __VA_ARGS__)
#define OUT_OR(field, kind, alias, ...)   ROW(field, kind, NULL, TEST_OUT, 0, NULL, alias, __VA_ARGS__)
#define MAY_OUT(field, kind, ...)         ROW(field, kind, NULL, TEST_OUT, ROW_OPTIONAL, NULL, NULL, __VA_ARGS__)
#define MAY_OUT_OR(field, kind, alias, ...)                                                                           \
  ROW(field, kind, NULL, TEST_OUT, ROW_OPTIONAL, NULL, alias, __VA_ARGS__)
#define WHEN(field, kind_, draw_, scalar, ...)                                                                         \
  {.name = #field, .member = offsetof(ARGS, field), .kind = kind_, .draw = draw_, .role = TEST_IN,                      \
   .flags = ROW_OPTIONAL | ROW_EITHER, .when = scalar, .rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),          \
   .dims = {__VA_ARGS__}}
#define OUT_WHEN(field, kind_, scalar, ...)                                                                           \
  {.name = #field, .member = offsetof(ARGS, field), .kind = kind_, .role = TEST_OUT,                                   \
   .flags = ROW_OPTIONAL | ROW_EITHER, .when = scalar,                                                                \
   .rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .dims = {__VA_ARGS__}}
#define BOTH(field, kind, draw, ...)      ROW(field, kind, draw, TEST_INOUT, 0, NULL, NULL, __VA_ARGS__)

#define SCALAR(field, kind_, low_, high_)                                                                             \
  {.name = #field, .member = offsetof(ARGS, field), .kind = kind_, .low = low_, .high = high_}
#define BOOL(field)                {.name = #field, .member = offsetof(ARGS, field), .kind = SCALAR_BOOL, .unchecked = true}
#define ANY_FLOAT(field, low_, high_)                                                                                 \
  {.name = #field, .member = offsetof(ARGS, field), .kind = SCALAR_FLOAT, .low = low_, .high = high_, .unchecked = true}

#define STEP_DIMS  DIM_BATCH, DIM_LENGTH, DIM_CHANNELS
#define PAIR_DIMS  DIM_BATCH, DIM_LENGTH, DIM_CHANNELS, DIM_STATES
#define STATE_DIMS DIM_SEQUENCES, DIM_CHANNELS, DIM_STATES
#define BC_DIMS    DIM_BATCH, DIM_LENGTH, DIM_GROUPS, DIM_STATES
#define PAST_DIMS  DIM_SEQUENCES, DIM_CHANNELS, DIM_HISTORY

#define MAY_EITHER(field, draw, ...) ROW(field, OF_INPUT, draw, TEST_IN, ROW_OPTIONAL | ROW_EITHER, NULL, NULL, __VA_ARGS__)
#define WEIGHT(field, draw, ...)     ROW(field, OF_WEIGHT, draw, TEST_IN, ROW_EITHER, NULL, NULL, __VA_ARGS__)
#define MAY_WEIGHT(field, draw, ...) ROW(field, OF_WEIGHT, draw, TEST_IN, ROW_OPTIONAL | ROW_EITHER, NULL, NULL, __VA_ARGS__)
#define MAY_OUT_WEIGHT(field, ...)   ROW(field, OF_WEIGHT, NULL, TEST_OUT, ROW_OPTIONAL | ROW_EITHER, NULL, NULL, __VA_ARGS__)
#define RATE(field, role, flags, ...)                                                                                 \
  ROW(field, OF_RATE, draw_decay, role, (flags) | ROW_EITHER, NULL, NULL, __VA_ARGS__)
#define MAY_OUT_EITHER(field, with, ...)                                                                              \
  ROW(field, OF_INPUT, NULL, TEST_OUT, ROW_OPTIONAL | ROW_EITHER, with, NULL, __VA_ARGS__)

#define DISCRETIZE_INPUTS                                                                                             \
  IN(delta, OF_STORAGE, draw_step, STEP_DIMS), RATE(A, TEST_IN, 0, DIM_CHANNELS, DIM_STATES),                       \
  ROW(B, OF_INPUT, NULL, TEST_IN, ROW_STATIC | ROW_EITHER, NULL, NULL, DIM_BATCH, DIM_LENGTH, DIM_STATES)
#define ASSOC_INPUTS                                                                                                  \
  IN(a, OF_INPUT, draw_factor, STEP_DIMS), IN(b, OF_INPUT, NULL, STEP_DIMS),                                          \
  MAY(initial, OF_NUMBER, NULL, DIM_BATCH, DIM_CHANNELS)
#define CONV_INPUTS                                                                                                   \
  IN(x, OF_STORAGE, NULL, STEP_DIMS), WEIGHT(weight, NULL, DIM_CHANNELS, DIM_WIDTH),                                  \
  MAY_WEIGHT(bias, NULL, DIM_CHANNELS), MAY(seq_idx, OF_INDEX, NULL, DIM_BATCH, DIM_LENGTH),                          \
  MAY(cu_seqlens, OF_INDEX, NULL, DIM_ENDS), MAY(initial_state, OF_STORAGE, NULL, PAST_DIMS)
#define SCAN_INPUTS                                                                                                   \
  IN(u, OF_STORAGE, NULL, STEP_DIMS), IN(delta, OF_STORAGE, draw_step, STEP_DIMS),                                    \
  RATE(A, TEST_IN, 0, DIM_CHANNELS, DIM_STATES),                                                                      \
  ROW(B, OF_INPUT, NULL, TEST_IN, ROW_STATIC | ROW_STATIC_EITHER, NULL, NULL, BC_DIMS),                                                   \
  ROW(C, OF_INPUT, NULL, TEST_IN, ROW_STATIC | ROW_STATIC_EITHER, NULL, NULL, BC_DIMS), MAY_WEIGHT(D, NULL, DIM_CHANNELS),         \
  MAY(z, OF_STORAGE, NULL, STEP_DIMS), MAY_WEIGHT(delta_bias, draw_step, DIM_CHANNELS),                        \
  MAY(gate, OF_STORAGE, random_uniform, STEP_DIMS), MAY(seq_idx, OF_INDEX, NULL, DIM_BATCH, DIM_LENGTH),              \
  MAY(cu_seqlens, OF_INDEX, NULL, DIM_ENDS), MAY(initial_state, OF_NUMBER, NULL, STATE_DIMS)
#define SCAN_SCALARS                                                                                                  \
  BOOL(delta_softplus), BOOL(A_is_log), BOOL(reverse), SCALAR(chunk, SCALAR_INT64, 0, 20)
#define UPDATE_STEP  DIM_BATCH, DIM_STEPS, DIM_HEADS, DIM_HEAD_DIM
#define UPDATE_B     DIM_BATCH, DIM_STEPS, DIM_GROUPS, DIM_STATES
#define UPDATE_A     DIM_HEADS, DIM_HEAD_DIM, DIM_STATES
#define UPDATE_D     DIM_HEADS, DIM_HEAD_DIM
#define UPDATE_STATE DIM_HEADS, DIM_HEAD_DIM, DIM_STATES
#define UPDATE_INPUTS                                                                                                 \
  IN(u, OF_STORAGE, NULL, UPDATE_STEP), IN(delta, OF_ANY, draw_step, UPDATE_STEP),                                    \
  IN(A, OF_NUMBERS, draw_decay, UPDATE_A), IN(B, OF_NUMBERS, NULL, UPDATE_B), IN(C, OF_NUMBERS, NULL, UPDATE_B),      \
  MAY(D, OF_ANY, NULL, UPDATE_D), MAY(z, OF_ANY, NULL, UPDATE_STEP),                                                  \
  MAY(delta_bias, OF_ANY, draw_step, UPDATE_D), MAY(state_indices, OF_INDEX, NULL, DIM_BATCH)
#define SSD_STEP     DIM_BATCH, DIM_LENGTH, DIM_HEADS, DIM_SSD_DIM
#define SSD_STATE    DIM_SEQUENCES, DIM_HEADS, DIM_SSD_DIM, DIM_STATES
#define SSD_INPUTS                                                                                                    \
  IN(x, OF_STORAGE, NULL, SSD_STEP), IN(dt, OF_STORAGE, draw_step, DIM_BATCH, DIM_LENGTH, DIM_HEADS),                 \
  WEIGHT(A, draw_decay, DIM_HEADS), IN(B, OF_STORAGE, NULL, BC_DIMS), IN(C, OF_STORAGE, NULL, BC_DIMS),               \
  MAY_WEIGHT(D, NULL, DIM_HEADS), MAY(z, OF_STORAGE, NULL, SSD_STEP), MAY_WEIGHT(dt_bias, draw_step, DIM_HEADS),      \
  MAY(seq_idx, OF_INDEX, NULL, DIM_BATCH, DIM_LENGTH), MAY(cu_seqlens, OF_INDEX, NULL, DIM_ENDS),                     \
  MAY(initial_state, OF_PARAMETER, NULL, SSD_STATE)
#define INNER(field, kind, draw, flags, role, last)                                                                   \
  ROW(field, kind, draw, role, (flags) | ROW_MATRIX, NULL, NULL, DIM_BATCH, DIM_LENGTH, last)
#define INNER_INPUTS(kept, matrix, draw)                                                                                    \
  IN(xz, OF_STORAGE, NULL, DIM_BATCH, DIM_LENGTH, DIM_BOTH), MAY(seq_idx, OF_INDEX, NULL, DIM_BATCH, DIM_LENGTH),     \
  MAY(cu_seqlens, OF_INDEX, NULL, DIM_ENDS), WEIGHT(conv_weight, draw_small, DIM_CHANNELS, DIM_WIDTH),      \
  MAY_WEIGHT(conv_bias, NULL, DIM_CHANNELS), IN(x_proj, matrix, draw, DIM_FEATURES, DIM_CHANNELS),           \
  IN(dt_proj, matrix, draw, DIM_CHANNELS, DIM_RANK), MAY_WEIGHT(delta_bias, draw_step, DIM_CHANNELS),        \
  RATE(A, TEST_IN, 0, DIM_CHANNELS, DIM_STATES), MAY_EITHER(B, NULL, DIM_CHANNELS, DIM_STATES),                       \
  MAY_EITHER(C, NULL, DIM_CHANNELS, DIM_STATES), MAY_WEIGHT(D, NULL, DIM_CHANNELS),                \
  MAY(out_proj, matrix, draw, DIM_MODEL, DIM_CHANNELS), WHEN(delta_norm, OF_WEIGHT, NULL, "norm_delta", DIM_RANK), \
  WHEN(B_norm, OF_WEIGHT, NULL, "norm_B", DIM_STATES), WHEN(C_norm, OF_WEIGHT, NULL, "norm_C", DIM_STATES),     \
  MAY(conv_initial, OF_STORAGE, NULL, PAST_DIMS), MAY(scan_initial, OF_NUMBER, NULL, STATE_DIMS),                  \
  INNER(u, OF_STORAGE, NULL, ROW_OPTIONAL, kept, DIM_CHANNELS),                                                       \
  INNER(delta, OF_STORAGE, draw_step, ROW_OPTIONAL, kept, DIM_CHANNELS),                                              \
  INNER(dbc, OF_STORAGE, NULL, ROW_OPTIONAL, kept, DIM_FEATURES)
#define INNER_OUTPUTS                                                                                                 \
  ROW(out_bias, OF_WEIGHT, NULL, TEST_IN, ROW_OPTIONAL | ROW_EITHER, "out_proj", NULL, DIM_MODEL),                    \
  ROW(residual, OF_STORAGE, NULL, TEST_IN, ROW_OPTIONAL | ROW_MATRIX, "out_proj", NULL, DIM_BATCH, DIM_LENGTH, DIM_MODEL), \
  ROW(out, OF_STORAGE, NULL, TEST_OUT, ROW_MATRIX, NULL, "residual", DIM_BATCH, DIM_LENGTH, DIM_MODEL),               \
  MAY_OUT_OR(conv_final, OF_STORAGE, "conv_initial", PAST_DIMS),                                                      \
  MAY_OUT_OR(scan_final, OF_NUMBER, "scan_initial", STATE_DIMS)
#define INNER_SCALARS                                                                                                 \
  SCALAR(norm_epsilon, SCALAR_FLOAT, 0.01, 0.1), BOOL(norm_delta), BOOL(norm_B), BOOL(norm_C), BOOL(delta_softplus),  \
  BOOL(A_is_log), BOOL(reverse)
#define NORM_INPUTS                                                                                                   \
  IN(x, OF_STORAGE, NULL, DIM_ROWS, DIM_COLUMNS), MAY_WEIGHT(weight, NULL, DIM_COLUMNS),                              \
  MAY_WEIGHT(bias, NULL, DIM_COLUMNS)
#define NORM_SCALARS SCALAR(kind, SCALAR_CHOICE, 0, CLM_LAYER_NORM), SCALAR(epsilon, SCALAR_FLOAT, 1e-6, 1e-2)
/* clang-format on */

const catalog_op catalog[] = {
#define ARGS clm_discretize_args
    {&op_discretize,
     true,
     {DISCRETIZE_INPUTS, ROW(A_bar, OF_INPUT, NULL, TEST_OUT, ROW_EITHER, NULL, NULL, PAIR_DIMS),
      ROW(B_bar, OF_INPUT, NULL, TEST_OUT, ROW_EITHER | ROW_AS_BEFORE, NULL, NULL, PAIR_DIMS)},
     {SCALAR(method, SCALAR_CHOICE, 0, CLM_BILINEAR)}},
    {&op_discretize_backward,
     true,
     {DISCRETIZE_INPUTS,
#undef ARGS
#define ARGS clm_discretize_backward_args
      MAY_EITHER(dA_bar, NULL, PAIR_DIMS), MAY_EITHER(dB_bar, NULL, PAIR_DIMS),
      MAY_OUT(ddelta, OF_STORAGE, STEP_DIMS), RATE(dA, TEST_OUT, ROW_OPTIONAL, DIM_CHANNELS, DIM_STATES),
      MAY_OUT_EITHER(dB, "B", DIM_BATCH, DIM_LENGTH, DIM_STATES)},
     {SCALAR(forward.method, SCALAR_CHOICE, 0, CLM_BILINEAR)}},
#undef ARGS
#define ARGS clm_assoc_scan_args
    {&op_assoc_scan,
     true,
     {ASSOC_INPUTS, OUT(h, OF_INPUT, STEP_DIMS), MAY_OUT(final, OF_NUMBER, DIM_BATCH, DIM_CHANNELS)},
     {BOOL(reverse), BOOL(exclusive)}},
    {&op_assoc_scan_backward,
     true,
     {ASSOC_INPUTS,
#undef ARGS
#define ARGS clm_assoc_scan_backward_args
      IN(dh, OF_INPUT, NULL, STEP_DIMS), MAY(dfinal, OF_NUMBER, NULL, DIM_BATCH, DIM_CHANNELS),
      MAY_OUT(da, OF_INPUT, STEP_DIMS), MAY_OUT(db, OF_INPUT, STEP_DIMS),
      MAY_OUT(dinitial, OF_NUMBER, DIM_BATCH, DIM_CHANNELS)},
     {BOOL(forward.reverse), BOOL(forward.exclusive)}},
#undef ARGS
#define ARGS clm_causal_conv1d_args
    {&op_causal_conv1d,
     false,
     {CONV_INPUTS, OUT(out, OF_STORAGE, STEP_DIMS), MAY_OUT_OR(final_state, OF_STORAGE, "initial_state", PAST_DIMS)},
     {BOOL(silu), BOOL(reverse)}},
    {&op_causal_conv1d_backward,
     false,
     {CONV_INPUTS,
#undef ARGS
#define ARGS clm_causal_conv1d_backward_args
      IN(dout, OF_STORAGE, NULL, STEP_DIMS), MAY(dfinal_state, OF_STORAGE, NULL, PAST_DIMS),
      MAY_OUT(dx, OF_STORAGE, STEP_DIMS), MAY_OUT_WEIGHT(dweight, DIM_CHANNELS, DIM_WIDTH),
      MAY_OUT_WEIGHT(dbias, DIM_CHANNELS), MAY_OUT(dinitial_state, OF_STORAGE, PAST_DIMS)},
     {BOOL(forward.silu), BOOL(forward.reverse)}},
#undef ARGS
#define ARGS clm_causal_conv1d_update_args
    {&op_causal_conv1d_update,
     false,
     {IN(x, OF_STORAGE, NULL, DIM_BATCH, DIM_STEPS, DIM_CHANNELS), WEIGHT(weight, NULL, DIM_CHANNELS, DIM_WIDTH),
      MAY_WEIGHT(bias, NULL, DIM_CHANNELS), BOTH(state, OF_STORAGE, NULL, DIM_POOL, DIM_CHANNELS, DIM_PLACES),
      MAY(cache_seqlens, OF_INDEX, NULL, DIM_BATCH), MAY(state_indices, OF_INDEX, NULL, DIM_BATCH),
      OUT(out, OF_STORAGE, DIM_BATCH, DIM_STEPS, DIM_CHANNELS)},
     {BOOL(silu)}},
#undef ARGS
#define ARGS clm_selective_scan_args
    {&op_selective_scan,
     true,
     {SCAN_INPUTS, OUT(out, OF_STORAGE, STEP_DIMS), MAY_OUT_OR(final_state, OF_NUMBER, "initial_state", STATE_DIMS)},
     {SCAN_SCALARS}},
    {&op_selective_scan_backward,
     true,
     {SCAN_INPUTS,
#undef ARGS
#define ARGS clm_selective_scan_backward_args
      IN(dout, OF_STORAGE, NULL, STEP_DIMS), MAY(dfinal_state, OF_NUMBER, NULL, STATE_DIMS),
      MAY_OUT(du, OF_STORAGE, STEP_DIMS), MAY_OUT(ddelta, OF_STORAGE, STEP_DIMS),
      ROW(dz, OF_STORAGE, NULL, TEST_OUT, ROW_OPTIONAL, "z", NULL, STEP_DIMS),
      RATE(dA, TEST_OUT, ROW_OPTIONAL, DIM_CHANNELS, DIM_STATES),
      ROW(dB, OF_INPUT, NULL, TEST_OUT, ROW_OPTIONAL | ROW_EITHER, "B", NULL, BC_DIMS),
      ROW(dC, OF_INPUT, NULL, TEST_OUT, ROW_OPTIONAL | ROW_EITHER, "C", NULL, BC_DIMS),
      MAY_OUT_WEIGHT(dD, DIM_CHANNELS), MAY_OUT_WEIGHT(ddelta_bias, DIM_CHANNELS),
      MAY_OUT(dinitial_state, OF_NUMBER, STATE_DIMS), MAY_OUT(out, OF_STORAGE, STEP_DIMS),
      ROW(dgate, OF_STORAGE, NULL, TEST_OUT, ROW_OPTIONAL, "gate", NULL, STEP_DIMS)},
     {BOOL(forward.delta_softplus), BOOL(forward.A_is_log), BOOL(forward.reverse),
      SCALAR(forward.chunk, SCALAR_INT64, 0, 20)}},
#undef ARGS
#define ARGS clm_selective_state_update_args
    {&op_selective_state_update,
     true,
     {UPDATE_INPUTS, BOTH(state, OF_NUMBERS, NULL, DIM_POOL, UPDATE_STATE), OUT(out, OF_STORAGE, UPDATE_STEP)},
     {BOOL(delta_softplus), BOOL(A_is_log)}},
    {&op_selective_state_update_backward,
     true,
     {UPDATE_INPUTS, IN(state, OF_NUMBERS, NULL, DIM_POOL, UPDATE_STATE),
#undef ARGS
#define ARGS clm_selective_state_update_backward_args
      IN(dout, OF_STORAGE, NULL, UPDATE_STEP), MAY(dnew_state, OF_NUMBER, NULL, DIM_BATCH, UPDATE_STATE),
      MAY_OUT(du, OF_STORAGE, UPDATE_STEP),
      ROW(ddelta, OF_ANY, NULL, TEST_OUT, ROW_OPTIONAL, "delta", NULL, UPDATE_STEP),
      ROW(dz, OF_ANY, NULL, TEST_OUT, ROW_OPTIONAL, "z", NULL, UPDATE_STEP), MAY_OUT(dA, OF_NUMBERS, UPDATE_A),
      MAY_OUT(dB, OF_NUMBERS, UPDATE_B), MAY_OUT(dC, OF_NUMBERS, UPDATE_B), MAY_OUT(dD, OF_ANY, UPDATE_D),
      MAY_OUT(ddelta_bias, OF_ANY, UPDATE_D), MAY_OUT(dstate, OF_NUMBER, DIM_BATCH, UPDATE_STATE)},
     {BOOL(forward.delta_softplus), BOOL(forward.A_is_log)}},
#undef ARGS
#define ARGS clm_mamba_inner_args
    {&op_mamba_inner, true, {INNER_INPUTS(TEST_OUT, OF_ANY, draw_small), INNER_OUTPUTS}, {INNER_SCALARS}},
    {&op_mamba_inner,
     true,
     {INNER_INPUTS(TEST_OUT, OF_INTEGER, draw_integer), IN(x_proj_scale, OF_PARAMETER, draw_scale, DIM_FEATURES),
      IN(dt_proj_scale, OF_PARAMETER, draw_scale, DIM_CHANNELS),
      ROW(out_proj_scale, OF_PARAMETER, draw_scale, TEST_IN, 0, "out_proj", NULL, DIM_MODEL), INNER_OUTPUTS},
     {INNER_SCALARS}},
    {&op_mamba_inner_backward,
     true,
     {INNER_INPUTS(TEST_IN, OF_ANY, draw_small),
#undef ARGS
#define ARGS clm_mamba_inner_backward_args
      INNER(dout, OF_STORAGE, NULL, 0, TEST_IN, DIM_MODEL),
      MAY(dconv_final, OF_STORAGE, NULL, PAST_DIMS),
      MAY(dscan_final, OF_NUMBER, NULL, STATE_DIMS),
      MAY_OUT(dxz, OF_STORAGE, DIM_BATCH, DIM_LENGTH, DIM_BOTH),
      MAY_OUT_WEIGHT(dconv_weight, DIM_CHANNELS, DIM_WIDTH),
      MAY_OUT_WEIGHT(dconv_bias, DIM_CHANNELS),
      MAY_OUT_WEIGHT(dx_proj, DIM_FEATURES, DIM_CHANNELS),
      MAY_OUT_WEIGHT(ddt_proj, DIM_CHANNELS, DIM_RANK),
      MAY_OUT_WEIGHT(ddelta_bias, DIM_CHANNELS),
      RATE(dA, TEST_OUT, ROW_OPTIONAL, DIM_CHANNELS, DIM_STATES),
      MAY_OUT_EITHER(dB, "B", DIM_CHANNELS, DIM_STATES),
      MAY_OUT_EITHER(dC, "C", DIM_CHANNELS, DIM_STATES),
      MAY_OUT_WEIGHT(dD, DIM_CHANNELS),
      ROW(dout_proj, OF_WEIGHT, NULL, TEST_OUT, ROW_OPTIONAL | ROW_EITHER, "out_proj", NULL, DIM_MODEL, DIM_CHANNELS),
      ROW(dout_bias, OF_WEIGHT, NULL, TEST_OUT, ROW_OPTIONAL | ROW_EITHER, "out_proj", NULL, DIM_MODEL),
      OUT_WHEN(ddelta_norm, OF_WEIGHT, "norm_delta", DIM_RANK),
      OUT_WHEN(dB_norm, OF_WEIGHT, "norm_B", DIM_STATES),
      OUT_WHEN(dC_norm, OF_WEIGHT, "norm_C", DIM_STATES),
      MAY_OUT(dconv_initial, OF_STORAGE, PAST_DIMS),
      MAY_OUT(dscan_initial, OF_NUMBER, STATE_DIMS)},
     {SCALAR(forward.norm_epsilon, SCALAR_FLOAT, 0.01, 0.1), BOOL(forward.norm_delta), BOOL(forward.norm_B),
      BOOL(forward.norm_C), BOOL(forward.delta_softplus), BOOL(forward.A_is_log), BOOL(forward.reverse)}},
#undef ARGS
#define ARGS clm_ssd_args
    {&op_ssd,
     false,
     {SSD_INPUTS, OUT(out, OF_STORAGE, SSD_STEP), MAY_OUT_OR(final_state, OF_PARAMETER, "initial_state", SSD_STATE)},
     {BOOL(dt_softplus), BOOL(A_is_log), BOOL(reverse), SCALAR(chunk, SCALAR_INT64, 0, 20),
      SCALAR(dt_min, SCALAR_FLOAT, 0, 0.1), SCALAR(dt_max, SCALAR_FLOAT, 0.1, 1)}},
    {&op_ssd_backward,
     false,
     {SSD_INPUTS,
#undef ARGS
#define ARGS clm_ssd_backward_args
      IN(dout, OF_STORAGE, NULL, SSD_STEP), MAY(dfinal_state, OF_PARAMETER, NULL, SSD_STATE),
      MAY_OUT(dx, OF_STORAGE, SSD_STEP), ROW(dz, OF_STORAGE, NULL, TEST_OUT, ROW_OPTIONAL, "z", NULL, SSD_STEP),
      MAY_OUT(ddt, OF_STORAGE, DIM_BATCH, DIM_LENGTH, DIM_HEADS), MAY_OUT_WEIGHT(dB, BC_DIMS),
      MAY_OUT_WEIGHT(dC, BC_DIMS), MAY_OUT_WEIGHT(dA, DIM_HEADS), MAY_OUT_WEIGHT(ddt_bias, DIM_HEADS),
      MAY_OUT_WEIGHT(dD, DIM_HEADS), MAY_OUT(dinitial_state, OF_PARAMETER, SSD_STATE),
      MAY_OUT(out, OF_STORAGE, SSD_STEP)},
     {BOOL(forward.dt_softplus), BOOL(forward.A_is_log), BOOL(forward.reverse),
      SCALAR(forward.chunk, SCALAR_INT64, 0, 20), SCALAR(forward.dt_min, SCALAR_FLOAT, 0, 0.1),
      SCALAR(forward.dt_max, SCALAR_FLOAT, 0.1, 1)}},
#undef ARGS
#define ARGS clm_matmul_args
    {&op_matmul,
     false,
     {IN(a, OF_ANY, NULL, DIM_ROWS, DIM_INNER), IN(b, OF_ANY, NULL, DIM_INNER, DIM_COLUMNS),
      MAY(bias, OF_PARAMETER, NULL, DIM_COLUMNS), MAY(residual, OF_STORAGE, NULL, DIM_ROWS, DIM_COLUMNS),
      OUT_OR(out, OF_STORAGE, "residual", DIM_ROWS, DIM_COLUMNS)},
     {SCALAR(activation, SCALAR_CHOICE, 0, CLM_ACTIVATION_SOFTPLUS), ANY_FLOAT(scale, 0.5, 2)}},
    {&op_matmul,
     false,
     {IN(a, OF_ANY, NULL, DIM_ROWS, DIM_INNER), IN(b, OF_ANY, NULL, DIM_INNER, DIM_COLUMNS),
      BOTH(out, OF_STORAGE, NULL, DIM_ROWS, DIM_COLUMNS)},
     {BOOL(accumulate), ANY_FLOAT(scale, 0.5, 2)}},
    {&op_matmul,
     false,
     {IN(a, OF_ANY, NULL, DIM_BATCH, DIM_ROWS, DIM_INNER), IN(b, OF_ANY, NULL, DIM_BATCH, DIM_INNER, DIM_COLUMNS),
      MAY(bias, OF_PARAMETER, NULL, DIM_COLUMNS), MAY(residual, OF_STORAGE, NULL, DIM_BATCH, DIM_ROWS, DIM_COLUMNS),
      OUT_OR(out, OF_STORAGE, "residual", DIM_BATCH, DIM_ROWS, DIM_COLUMNS)},
     {SCALAR(activation, SCALAR_CHOICE, 0, CLM_ACTIVATION_SOFTPLUS), ANY_FLOAT(scale, 0.5, 2)}},
    {&op_matmul,
     false,
     {IN(a, OF_ANY, NULL, DIM_ROWS, DIM_INNER), IN(b, OF_INTEGER, draw_integer, DIM_INNER, DIM_COLUMNS),
      IN(b_scale, OF_PARAMETER, draw_scale, DIM_COLUMNS), MAY(bias, OF_PARAMETER, NULL, DIM_COLUMNS),
      MAY(residual, OF_STORAGE, NULL, DIM_ROWS, DIM_COLUMNS),
      OUT_OR(out, OF_STORAGE, "residual", DIM_ROWS, DIM_COLUMNS)},
     {SCALAR(activation, SCALAR_CHOICE, 0, CLM_ACTIVATION_SOFTPLUS), ANY_FLOAT(scale, 0.5, 2)}},
#undef ARGS
#define ARGS clm_norm_args
    {&op_norm,
     false,
     {NORM_INPUTS, MAY(residual, OF_ANY, NULL, DIM_ROWS, DIM_COLUMNS),
      OUT_OR(out, OF_ANY, "x", DIM_ROWS, DIM_COLUMNS),
      MAY_OUT_OR(residual_out, OF_ANY, "residual,x", DIM_ROWS, DIM_COLUMNS)},
     {NORM_SCALARS}},
    {&op_norm_backward,
     false,
     {NORM_INPUTS,
#undef ARGS
#define ARGS clm_norm_backward_args
      MAY(forward.residual, OF_ANY, NULL, DIM_ROWS, DIM_COLUMNS), IN(dout, OF_ANY, NULL, DIM_ROWS, DIM_COLUMNS),
      ROW(residual, OF_ANY, NULL, TEST_IN, ROW_OPTIONAL, "dx", NULL, DIM_ROWS, DIM_COLUMNS),
      MAY_OUT_OR(dx, OF_STORAGE, "residual", DIM_ROWS, DIM_COLUMNS), MAY_OUT_WEIGHT(dweight, DIM_COLUMNS),
      MAY_OUT_WEIGHT(dbias, DIM_COLUMNS),
      ROW(dresidual, OF_ANY, NULL, TEST_OUT, ROW_OPTIONAL, "forward.residual", "residual", DIM_ROWS, DIM_COLUMNS)},
     {SCALAR(forward.kind, SCALAR_CHOICE, 0, CLM_LAYER_NORM), SCALAR(forward.epsilon, SCALAR_FLOAT, 1e-6, 1e-2)}},
#undef ARGS
#define ARGS clm_axpby_args
    {&op_axpby,
     false,
     {MAY(x, OF_FLOAT, NULL, STEP_DIMS), ROW(out, OF_FLOAT, NULL, TEST_INOUT, 0, NULL, "x", STEP_DIMS)},
     {ANY_FLOAT(alpha, -2, 2), ANY_FLOAT(beta, -2, 2)}},
#undef ARGS
#define ARGS clm_cast_args
    {&op_cast, false, {IN(x, OF_FLOAT, NULL, STEP_DIMS), OUT(out, OF_FLOAT, STEP_DIMS)}, {{0}}},
#undef ARGS
#define ARGS clm_dropout_args
    {&op_dropout,
     false,
     {IN(x, OF_STORAGE, NULL, DIM_ROWS, DIM_COLUMNS), MAY(residual, OF_STORAGE, NULL, DIM_ROWS, DIM_COLUMNS),
      OUT_OR(out, OF_STORAGE, "x,residual", DIM_ROWS, DIM_COLUMNS)},
     {SCALAR(rate, SCALAR_FLOAT, 0, 0.9)}},
#undef ARGS
#define ARGS clm_swiglu_args
    {&op_swiglu,
     false,
     {IN(gate, OF_STORAGE, NULL, DIM_ROWS, DIM_COLUMNS), IN(up, OF_STORAGE, NULL, DIM_ROWS, DIM_COLUMNS),
      OUT_OR(out, OF_STORAGE, "gate,up", DIM_ROWS, DIM_COLUMNS)},
     {{0}}},
    {&op_swiglu_backward,
     false,
     {IN(gate, OF_STORAGE, NULL, DIM_ROWS, DIM_COLUMNS), IN(up, OF_STORAGE, NULL, DIM_ROWS, DIM_COLUMNS),
#undef ARGS
#define ARGS clm_swiglu_backward_args
      IN(dout, OF_STORAGE, NULL, DIM_ROWS, DIM_COLUMNS), MAY_OUT(dgate, OF_STORAGE, DIM_ROWS, DIM_COLUMNS),
      MAY_OUT(dup, OF_STORAGE, DIM_ROWS, DIM_COLUMNS)},
     {{0}}},
#undef ARGS
#define ARGS clm_column_sum_args
    {&op_column_sum,
     false,
     {IN(x, OF_STORAGE, NULL, DIM_ROWS, DIM_COLUMNS), OUT(out, OF_PARAMETER, DIM_COLUMNS)},
     {{0}}},
#undef ARGS
#define ARGS clm_sum_squares_args
    {&op_sum_squares,
     false,
     {IN(x, OF_STORAGE, NULL, DIM_COUNT), BOTH(out, OF_PARAMETER, NULL, DIM_ONE)},
     {BOOL(accumulate)}},
#undef ARGS
#define ARGS clm_embedding_args
    {&op_embedding,
     false,
     {IN(ids, OF_INDEX, NULL, DIM_COUNT), IN(table, OF_ANY, NULL, DIM_ROWS, DIM_COLUMNS),
      OUT(out, OF_ANY, DIM_COUNT, DIM_COLUMNS)},
     {{0}}},
    {&op_embedding,
     false,
     {IN(ids, OF_INDEX, NULL, DIM_COUNT), IN(table, OF_INTEGER, draw_integer, DIM_ROWS, DIM_COLUMNS),
      IN(table_scale, OF_PARAMETER, draw_scale, DIM_ROWS), OUT(out, OF_ANY, DIM_COUNT, DIM_COLUMNS)},
     {{0}}},
#undef ARGS
#define ARGS clm_embedding_backward_args
    {&op_embedding_backward,
     false,
     {IN(ids, OF_INDEX, NULL, DIM_COUNT), IN(dout, OF_STORAGE, NULL, DIM_COUNT, DIM_COLUMNS),
      BOTH(dtable, OF_PARAMETER, NULL, DIM_ROWS, DIM_COLUMNS)},
     {BOOL(accumulate)}},
#undef ARGS
#define ARGS clm_cross_entropy_args
    {&op_cross_entropy,
     false,
     {IN(logits, OF_STORAGE, NULL, DIM_ROWS, DIM_COLUMNS), IN(targets, OF_INDEX, NULL, DIM_ROWS),
      MAY_OUT(losses, OF_PARAMETER, DIM_ROWS), MAY_OUT_OR(dlogits, OF_STORAGE, "logits", DIM_ROWS, DIM_COLUMNS)},
     {ANY_FLOAT(scale, 0.1, 1)}},
#undef ARGS
#define ARGS clm_adamw_args
    {&op_adamw,
     false,
     {BOTH(parameter, OF_PARAMETER, NULL, DIM_COUNT), IN(gradient, OF_ANY, NULL, DIM_COUNT),
      BOTH(m, OF_PARAMETER, NULL, DIM_COUNT), BOTH(v, OF_PARAMETER, draw_positive, DIM_COUNT),
      MAY(sum_squares, OF_PARAMETER, draw_positive, DIM_ONE), MAY_OUT(copy, OF_ANY, DIM_COUNT)},
     {SCALAR(lr, SCALAR_FLOAT, 0, 1), SCALAR(beta1, SCALAR_FLOAT, 0, 0.99), SCALAR(beta2, SCALAR_FLOAT, 0, 0.99),
      SCALAR(epsilon, SCALAR_FLOAT, 1e-6, 1e-2), SCALAR(weight_decay, SCALAR_FLOAT, 0, 0.5),
      SCALAR(max_norm, SCALAR_FLOAT, 0, 2), SCALAR(gradient_scale, SCALAR_FLOAT, 0, 2),
      SCALAR(step, SCALAR_INT64, 1, 100)}},
};
const size_t catalog_count = sizeof catalog / sizeof catalog[0];

/* ---- Of one call ---- */

static int gradient_of(const catalog_choice *c, const catalog_row *r) {
  return r->with && r->role == TEST_OUT ? catalog_find(c->op, r->with) : -1;
}

static bool is_other(const catalog_choice *c, size_t row, bool fixed) {
  const bool open = c->op->rows[row].flags & (fixed ? ROW_EITHER | ROW_STATIC_EITHER : ROW_EITHER);
  return open && (c->others >> row & 1) != 0;
}

clm_dtype catalog_dtype(const catalog_choice *c, size_t row) {
  const catalog_row *r = &c->op->rows[row];
  const bool doubled = c->storage == CLM_F64;
  const clm_dtype complex = doubled ? CLM_C128 : CLM_C64, real = doubled ? CLM_F64 : CLM_F32;
  const int of = gradient_of(c, r);
  const bool fixed = (c->statics >> (of >= 0 ? of : (int)row) & 1) != 0;
  const size_t decides = r->flags & ROW_AS_BEFORE ? row - 1 : row;
  const bool other = is_other(c, decides, fixed) || (of >= 0 && is_other(c, (size_t)of, fixed));
  switch (r->kind) {
  case OF_STORAGE: return c->storage;
  case OF_ANY:
  case OF_NUMBERS: {
    const clm_dtype own = c->any[of >= 0 ? (size_t)of : row];
    if (c->complex && r->kind == OF_NUMBERS) return complex;
    return doubled || own == CLM_F64 ? real : own;
  }
  case OF_FLOAT: return c->any[row];
  case OF_PARAMETER: return real;
  case OF_NUMBER: return c->complex ? complex : real;
  case OF_WEIGHT: return other ? real : c->storage;
  case OF_RATE:
  case OF_INPUT: return c->complex ? complex : other ? real : c->storage;
  case OF_INDEX: return CLM_I32;
  case OF_INTEGER: return CLM_I8;
  }
  return c->storage;
}

int catalog_dims(const catalog_choice *c, size_t row, catalog_dim dims[CLM_MAX_RANK]) {
  const catalog_row *r = &c->op->rows[row];
  const int of = gradient_of(c, r);
  if (c->statics >> (of >= 0 ? of : (int)row) & 1) {
    dims[0] = DIM_CHANNELS;
    dims[1] = DIM_STATES;
    return 2;
  }
  int rank = 0;
  for (int i = 0; i < r->rank; i++)
    if (c->size[r->dims[i]] != NO_DIM) dims[rank++] = (catalog_dim)r->dims[i];
  return rank;
}

int catalog_shape(const catalog_choice *c, size_t row, int64_t shape[CLM_MAX_RANK]) {
  catalog_dim dims[CLM_MAX_RANK];
  const int rank = catalog_dims(c, row, dims);
  for (int i = 0; i < rank; i++) shape[i] = c->size[dims[i]];
  return rank;
}

static bool given(const catalog_choice *c, const char *name) {
  const int row = catalog_find(c->op, name);
  return row >= 0 && catalog_has(c, (size_t)row);
}

int64_t catalog_features(const catalog_choice *c) {
  const int64_t varying = !given(c, "B") + !given(c, "C"), numbers = c->size[DIM_STATES] * (c->complex ? 2 : 1);
  return c->size[DIM_RANK] + varying * c->size[DIM_GROUPS] * numbers;
}

bool catalog_allows(const catalog_choice *c, const catalog_scalar *s) {
  const char *name = catalog_scalar_name(s);
  if (strncmp(name, "norm_", 5) != 0 || s->kind != SCALAR_BOOL) return true;
  const char *of = name + strlen("norm_");
  return !c->complex && !(of[1] == '\0' && given(c, of));
}

void catalog_unset(catalog_choice *c, const char *name) {
  for (size_t i = 0; c->op->rows[i].name; i++)
    if (c->op->rows[i].when && strcmp(c->op->rows[i].when, name) == 0) c->present &= ~catalog_bit(i);
}

const char *catalog_scalar_name(const catalog_scalar *s) {
  const char *dot = strrchr(s->name, '.');
  return dot ? dot + 1 : s->name;
}

int catalog_find(const catalog_op *op, const char *name) {
  for (int i = 0; op->rows[i].name; i++)
    if (strcmp(op->rows[i].name, name) == 0) return i;
  return -1;
}

bool catalog_may_be(const catalog_row *row, const char *name) {
  const size_t length = strlen(name);
  for (const char *at = row->alias; at && *at; at += strcspn(at, ","), at += *at == ',')
    if (strcspn(at, ",") == length && strncmp(at, name, length) == 0) return true;
  return false;
}
