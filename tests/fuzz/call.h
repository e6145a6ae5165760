/* A random call of a public operation: what the catalog leaves open drawn by chance, then perhaps made wrong. */
#ifndef FUZZ_CALL_H
#define FUZZ_CALL_H

#include "catalog.h"

typedef enum fuzz_layout {
  LAYOUT_CONTIGUOUS,
  LAYOUT_PADDED,     /* rows with a gap behind them                              */
  LAYOUT_TRANSPOSED, /* the last two dimensions exchanged in memory              */
  LAYOUT_WIDE,       /* a slice of a wider tensor                                */
  LAYOUT_SPREAD,     /* every other element                                      */
  LAYOUT_REPEATED,   /* inputs: stride 0 in the first dimension                  */
  LAYOUT_PERMUTED,   /* any order of dimensions, any gaps                        */
  FUZZ_LAYOUTS
} fuzz_layout;

typedef struct fuzz_tensor {
  clm_tensor view; /* its buffer is filled in for each context   */
  fuzz_layout layout;
  size_t buffer;        /* row whose buffer it lies in: its own, or that of its alias */
  size_t bytes;         /* of its own buffer                           */
  unsigned char *image; /* what its own buffer holds before the call   */
  bool foreign;         /* bound to a buffer of another context        */
} fuzz_tensor;

typedef struct fuzz_call {
  catalog_choice choice;
  fuzz_tensor tensors[OP_TENSORS];
  void *args;        /* the scalars; tensors are filled in when it is bound to a context */
  const char *wrong; /* NULL: must succeed. "": whatever it says. Else it must fail and name this argument   */
  char how[120];     /* what was made wrong */
  bool incomparable; /* indexes whose result the header leaves open */
  bool composed;     /* of operations that round what passes between them */
  bool grows;        /* to where f32 ends, on the way at least */
  bool poisoned;     /* reads what was never drawn: whether NaN times nothing is NaN is left open */
} fuzz_call;

/* The call number `number` of a seed; the caller frees it. */
void fuzz_draw(fuzz_call *, uint64_t seed, uint64_t number);
void fuzz_free(fuzz_call *);

static inline bool fuzz_present(const fuzz_call *c, size_t row) { return catalog_has(&c->choice, row); }

#endif
