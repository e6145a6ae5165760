/* Checks of an operation's arguments by its table (table.h), and the call that comes of them. */
#ifndef CLM_OPS_CHECK_H
#define CLM_OPS_CHECK_H

#include "core/context.h"
#include "core/try.h"
#include "ops/table.h"

/* A dimension in one call. */
typedef struct op_size {
  int64_t size;      /* 0: not known yet                                                      */
  const char *from;  /* the tensor that set it                                                */
  const op_dim *dim; /* NULL: the call's tensors do not have it                              */
} op_size;

typedef struct op_call {
  clm_context *context;
  const op_table *table;
  const void *args;
  const char *lacks; /* letters of the dimensions that the call's tensors do not have */
  size_t count;      /* of the table's tensors */
  const op_tensor *rows[OP_TENSORS];
  op_size sizes[OP_DIMS + 1]; /* in the order of table->dims; the last stands for all that the call lacks */
  unsigned char at[128];      /* by letter: which of them                                                 */
  clm_dtype main;             /* dtype of the main tensor    */
  bool complex;
  int64_t elements; /* product of all sizes so far, but those apart              */
  int written;      /* how many tensors the call writes: 0, nothing is asked for */
} op_call;

/* Checks all that the table says: presence, dtype, rank, shape, bounds; that what is written overlaps nothing; what
 * goes with what; scalars. Clears the context's message. What it cannot say the operation checks next. */
clm_status op_check(op_call *, clm_context *, const op_table *, const void *args);

/* Fails with "op: " and the message. */
clm_status op_fail(const op_call *, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A tensor of the call by its name in the table. */
const clm_tensor *op_tensor_of(const op_call *, const char *name);
static inline bool op_present(const clm_tensor *tensor) { return tensor->buffer != NULL; }

/* Whether the tensor has the second of its row's shapes. */
bool op_has_second(const op_tensor *, const clm_tensor *);

/* What a letter is in the call: its size, 0 where no tensor shows it, and where that is from. */
static inline const op_size *op_size_of(const op_call *c, char letter) { return &c->sizes[c->at[(int)letter]]; }
static inline int64_t op_length(const op_call *c, char letter) { return op_size_of(c, letter)->size; }

/* Whether the call's tensors do not have the dimension. */
static inline bool op_lacks(const op_call *c, char letter) {
  for (const char *at = c->lacks; *at; at++)
    if (*at == letter) return true;
  return false;
}

/* Gives an unsupported call a message where the backend left none. */
clm_status op_finished(const op_call *, clm_status);

/* The backend's functions for what calls do now (core/context.h), and what one does without a slot in them. */
const backend_ops *op_slots(const clm_context *);
clm_status op_without_slot(const clm_context *);

/* Calls the backend's slot of the operation `name`, unless nothing is asked for. */
#define OP_RUN(c, name, shape, args)                                                                                 \
  ((c)->written == 0 ? CLM_OK                                                                                        \
                     : op_finished((c), !(c)->context->ops.name ? CLM_UNSUPPORTED                                    \
                                        : !op_slots((c)->context)->name                                              \
                                            ? op_without_slot((c)->context)                                          \
                                            : op_slots((c)->context)->name((c)->context, shape, args)))

#endif
