/* mamba-eval: main.c has the options and what works on texts and tokens, backbone.c runs a backbone over frames. */
#ifndef CLM_TOOLS_EVAL_H
#define CLM_TOOLS_EVAL_H

#include <clmamba/clmamba.h>

/* The command line. */
typedef struct eval_given {
  const char *score, *choices, *tokens, *texts, *logits, *hidden, *embed, *output, *encode, *encode_file, *decode,
      *tokens_out;
  const char *data, *targets, *target, *features; /* of a backbone */
  long long window, stride;
  int carry;
} eval_given;

extern eval_given given;

/* Outputs of the backbone at `path` for --data, to --output and as a score; returns the exit status. */
int eval_backbone(clm_context *context, const char *path);

#endif
