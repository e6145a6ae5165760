#include "ops/widened.h"

static const op_dim dims[] = {
    OP_DIM('b', "batch"), OP_DIM('l', "length"), OP_DIM('d', "d_inner"), OP_DIM('n', "d_state"), {0}};

/* clang-format off */
#define IS_GRADIENT_OF_B {.set = OP_REAL, .complex = OP_COMPLEX, .as = "B"}

OP_FORWARD_FIRST(discretize);
static const op_tensor inputs[] = {
    OP_TENSOR(clm_discretize_args, delta, OP_IN, OP_IS_FLOAT, "b l d"),
    OP_TENSOR(clm_discretize_args, A, OP_IN, OP_IS_RATE, "d n", .flags = OP_WIDENED),
    OP_TENSOR(clm_discretize_args, B, OP_IN, OP_IS_NUMBER_WEIGHT, "b l n | d n", .flags = OP_WIDENED_SECOND),
};

static const op_tensor outputs[] = {
    OP_TENSOR(clm_discretize_args, A_bar, OP_OUT, OP_IS_NUMBER_WEIGHT, "b l d n"),
    OP_TENSOR(clm_discretize_args, B_bar, OP_OUT, OP_AS("A_bar"), "b l d n"),
};

static const op_tensor gradients[] = {
    OP_TENSOR(clm_discretize_backward_args, dA_bar, OP_IN, OP_IS_NUMBER_WEIGHT, "b l d n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_discretize_backward_args, dB_bar, OP_IN, OP_IS_NUMBER_WEIGHT, "b l d n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_discretize_backward_args, ddelta, OP_OUT, OP_AS("delta"), "b l d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_discretize_backward_args, dA, OP_OUT, OP_IS_NUMBER_WEIGHT, "d n", .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_discretize_backward_args, dB, OP_OUT, IS_GRADIENT_OF_B, "b l n | d n",
              .flags = OP_OPTIONAL | OP_WIDENED_SECOND, .shape_as = "B"),
};

static const op_scalar scalars[] = {
    OP_SCALAR(clm_discretize_args, method, OP_CHOICE, .high = CLM_BILINEAR + 1), {0}};
/* clang-format on */

const op_table discretize_table = {.name = "discretize",
                                   .main = "delta",
                                   .rate = "A",
                                   .dims = dims,
                                   .parts = {OP_PART(inputs), OP_PART(outputs)},
                                   .scalars = scalars};
const op_table discretize_backward_table = {.name = "discretize_backward",
                                            .main = "delta",
                                            .rate = "A",
                                            .dims = dims,
                                            .parts = {OP_PART(inputs), OP_PART(gradients)},
                                            .scalars = scalars};

static discretize_shape shape_of(const op_call *c, const clm_discretize_args *a) {
  return (discretize_shape){
      .batch = op_length(c, 'b'),
      .length = op_length(c, 'l'),
      .d_inner = op_length(c, 'd'),
      .d_state = op_length(c, 'n'),
      .B_varies = a->B.rank == 3,
      .complex = c->complex,
  };
}

clm_status clm_discretize(clm_context *context, const clm_discretize_args *args) {
  op_call c;
  TRY(op_check(&c, context, &discretize_table, args));
  const discretize_shape s = shape_of(&c, args);
  clm_discretize_args ready = *args;
  ops_widened widened = widened_of(&c, &ready);
  TRY(widened_begin(context, &widened));
  return widened_end(context, &widened, OP_RUN(&c, discretize, &s, &ready));
}

clm_status clm_discretize_backward(clm_context *context, const clm_discretize_backward_args *args) {
  op_call c;
  TRY(op_check(&c, context, &discretize_backward_table, args));
  const discretize_shape s = shape_of(&c, &args->forward);
  clm_discretize_backward_args ready = *args;
  ops_widened widened = widened_of(&c, &ready);
  TRY(widened_begin(context, &widened));
  return widened_end(context, &widened, OP_RUN(&c, discretize_backward, &s, &ready));
}
