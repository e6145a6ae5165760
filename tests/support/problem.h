/* One call of an operation as a table of its tensors: the harness makes the inputs, poisons the outputs, calls it on
 * a device and on the reference (same inputs, double precision throughout) and compares. */
#ifndef TEST_PROBLEM_H
#define TEST_PROBLEM_H

#include "cmocka_all.h"
#include "devices.h"
#include "random.h"
#include <math.h>
#include <stdlib.h>

typedef struct test_op {
  const char *name;
  size_t args_size;
  clm_status (*call)(clm_context *, const void *args);
} test_op;

/* Defines `op_<name>` for clm_<name>. */
#define TEST_OP(op)                                                                                                  \
  static clm_status call_##op(clm_context *context, const void *args) { return clm_##op(context, args); }            \
  static const test_op op_##op = {#op, sizeof(clm_##op##_args), call_##op}

typedef enum test_role { TEST_IN, TEST_OUT, TEST_INOUT } test_role;

/* How a dtype follows from the problem's: storage as it is, parameters f32 with f32, f16 and bf16; i8 always. */
typedef enum test_kind {
  TEST_STORAGE,
  TEST_PARAMETER,
  TEST_COMPLEX,
  TEST_INDEX,
  TEST_INTEGER,
  TEST_F16, /* these whatever the problem's */
  TEST_BF16
} test_kind;

typedef struct test_tensor {
  const char *name;
  size_t member; /* offsetof(args, name) */
  test_role role;
  test_kind kind;
  double (*draw)(test_random *); /* inputs; NULL: normal. TEST_INDEX: 0 to bound - 1, now and then -1   */
  const char *of;                /* a gradient, or one coming in: of which tensor                        */
  int rank;
  int64_t shape[CLM_MAX_RANK];
  int64_t bound;
  const int32_t *values;              /* TEST_INDEX: these instead of random ones */
  const struct test_problem *made_by; /* inputs: what this problem's call on the reference writes to the same name */
  bool transposed;                    /* rank 2: the other order in memory than the layout says */
} test_tensor;

/* Row of a table: TEST_ROW(clm_norm_args, x, TEST_IN, TEST_STORAGE, draw_normal, rows, dim) */
#define TEST_ROW(args, field, role_, kind_, draw_, ...)                                                              \
  {                                                                                                                  \
    .name = #field, .member = offsetof(args, field), .role = role_, .kind = kind_, .draw = draw_,                    \
    .rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .shape = {                                    \
      __VA_ARGS__                                                                                                    \
    }                                                                                                                \
  }
/* A gradient (TEST_OUT), or one that comes in (TEST_IN), of `of_`. */
#define TEST_GRADIENT(args, field, role_, kind_, of_, ...)                                                           \
  {                                                                                                                  \
    .name = #field, .member = offsetof(args, field), .role = role_, .kind = kind_, .of = #of_,                       \
    .rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .shape = {                                    \
      __VA_ARGS__                                                                                                    \
    }                                                                                                                \
  }

typedef enum test_layout {
  TEST_CONTIGUOUS,
  TEST_PADDED,     /* every dimension but the outermost padded, element 0 not at the start          */
  TEST_TRANSPOSED, /* the last two dimensions exchanged in memory: (batch, channel, length)         */
  TEST_WIDE,       /* a slice of a tensor three times as wide                                       */
  TEST_SPREAD,     /* every other element                                                           */
  TEST_REPEATED,   /* inputs of rank 3 and 4: stride 0 over the batch                               */
  TEST_LAYOUTS
} test_layout;

#define TEST_MAX_TENSORS 48

typedef struct test_problem {
  const test_op *op;
  const void *args; /* scalars set, tensors zeroed */
  size_t count;
  test_tensor tensors[TEST_MAX_TENSORS];
  uint64_t seed;
  test_layout layout;
  clm_dtype storage; /* CLM_F32, CLM_F16, CLM_BF16 */
  double
      tolerance; /* |got - want| <= tolerance (|want| + root mean square of want), and what 16 bits lose in storage */
} test_problem;

void problem_add(test_problem *, test_tensor);
#define PROBLEM_ADD(problem, ...) problem_add(problem, (test_tensor)__VA_ARGS__)
test_tensor *problem_find(test_problem *, const char *name); /* NULL if it is not there */

/* A problem bound to a context: buffers, filled inputs, poisoned outputs, args complete. */
typedef struct test_run {
  const test_problem *problem;
  clm_context *context;
  void *args;
  clm_tensor views[TEST_MAX_TENSORS];
  clm_buffer *buffers[TEST_MAX_TENSORS];
  unsigned char *images[TEST_MAX_TENSORS]; /* what the buffers held before the call */
} test_run;

test_run *run_create(const test_problem *, clm_context *, bool double_precision);
void run_destroy(test_run *);
void run_call(test_run *); /* fails the test unless the call gives CLM_OK */

size_t run_index(const test_run *, const char *name);
size_t run_values(const test_run *, const char *name); /* how many numbers: 2 for a complex element */
bool run_is_complex(const test_run *, const char *name);

/* All numbers of a tensor in logical order; the caller frees them. */
double *run_read(const test_run *, const char *name);
void run_write(const test_run *, const char *name, const double *values);

/* Every output against another run's, in values or bit by bit; and that nothing else was written. */
void run_compare(const test_run *got, const test_run *want);
void run_compare_bits(const test_run *, const test_run *);
void run_check_untouched(const test_run *);

/* That every buffer is as it was. */
void run_check_unwritten(const test_run *);

/* The whole test of one problem on one device: against the reference, nothing else written, and twice the same bits.
 */
void problem_check(const test_problem *, const test_device *);

/* The same with f16 and with bf16 for storage. */
void problem_check_16bit(const test_problem *, const test_device *);

/* What is not a number stays in its batch row or packed sequence: each input in turn gets one, and the outputs of all
 * other rows and sequences keep their bits. The first tensor has the batch first, and with seq_idx or cu_seqlens the
 * steps second; what belongs to no row or to many is not looked at. */
void problem_check_contained(const test_problem *, const test_device *);

/* Compares every output as run_compare does, but in slices of their own scale: the elements that have the same place
 * in the dimension of `size`, or where there is none all of them. What does not fit the dtype may come out as
 * anything. */
void run_compare_slices(const test_run *got, const test_run *want, int64_t size);

/* A scan or its update, forward or backward, of TEST_EXTREMES channels: steps from 1e-8 to 20, A from -1e-4 to -1e4
 * and u from 1e-4 to 1e4, each channel its own combination, compared by its own scale. */
enum { TEST_EXTREMES = 27 };
void problem_check_extremes(const test_problem *, const test_device *, bool softplus, bool log_A);

/* On a context of its own, a call takes as many bytes of workspace as `bytes` says beforehand, a second one none. */
void problem_check_workspace(const test_problem *, const test_device *, size_t (*bytes)(clm_context *, const void *));

/* seq_idx of (batch, length) steps: runs of up to `longest` steps of three numbers, about every fifth of them
 * padding, the first one too. The same for a part of as many steps; in memory of its own until the next call. */
const int32_t *test_sequences(int64_t batch, int64_t length, int64_t longest);

/* cu_seqlens of TEST_SEQUENCES in `length` steps, one of them empty, one of two steps; memory likewise. */
enum { TEST_SEQUENCES = 5 };
const int32_t *test_ends(int64_t length);

/* The reference's gradients (`backward`) against central differences of `forward`, `most` numbers a tensor or all. */
void problem_check_gradients(const test_problem *forward, const test_problem *backward, int most);

/* On a backend without this dtype: refused with a message, or right. */
void problem_check_or_unsupported(const test_problem *, const test_device *);

#endif
