/* What null_calls.py's calls are made with. */
#ifndef TEST_NULL_CALLS_H
#define TEST_NULL_CALLS_H

#include "cmocka_all.h"
#include <clmamba/clmamba.h>

/* One valid object of every kind. */
typedef struct null_fixture {
  clm_context *context;
  clm_buffer *buffer;
  clm_tensor tensor;
  clm_model *model;
  clm_model_state *model_state;
  clm_backbone *backbone;
  clm_backbone_state *backbone_state;
  clm_tokenizer *tokenizer;
  clm_text_stream *text_stream;
  clm_sampler *sampler;
  clm_trainer *trainer;
  const char *folder;
  const char *const *names;
  void *memory; /* zeros */
} null_fixture;

typedef struct null_call {
  const char *name;
  void (*run)(const null_fixture *);
} null_call;

extern const null_call null_calls[];
extern const size_t null_call_count;

/* The call is refused; `words`: with a message of the context that has them. */
void null_refused(clm_status status, const null_fixture *, const char *words);

#endif
