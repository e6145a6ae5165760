/* A program over the library: trains, saves, loads, generates. A call that fails is made once more: that gives what
 * it would have given at first, or fails again with a message. What comes out is printed. */
#include "scenario.h"
#include <clmamba/clmamba.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { VOCAB = 13, TEXT = 300, BATCH = 2, PROMPT = 5 };

typedef struct session {
  clm_context *context;
  clm_model *model;
  clm_trainer *trainer;
  clm_model_state *state, *other;
  clm_buffer *buffer;
  clm_tensor ids, next, logits;
  int32_t text[TEXT];
  float host[BATCH * VOCAB];
} session;

static void complain(const session *s, const char *call) {
  fprintf(stderr, "session: %s: %s\n", call, clm_context_error(s->context));
}

#define TWICE(call)                                                                                                  \
  do {                                                                                                               \
    if ((call) == CLM_OK) break;                                                                                     \
    complain(s, #call);                                                                                              \
    if ((call) == CLM_OK) break;                                                                                     \
    complain(s, #call);                                                                                              \
    return false;                                                                                                    \
  } while (0)

static bool make_tensors(session *s) {
  TWICE(clm_buffer_create(s->context, 4096, &s->buffer));
  s->ids = clm_tensor_of(s->buffer, 0, CLM_I32, 2, (int64_t[]){BATCH, PROMPT});
  s->next = clm_tensor_of(s->buffer, 512, CLM_I32, 1, (int64_t[]){BATCH});
  s->logits = clm_tensor_of(s->buffer, 1024, CLM_F32, 2, (int64_t[]){BATCH, VOCAB});
  TWICE(clm_tensor_write(s->ids, s->text, BATCH * PROMPT * sizeof(int32_t)));
  return true;
}

static bool train(session *s, double *loss) {
  const clm_model_config config = {.vocab_size = VOCAB, .d_model = 8, .n_layer = 2, .d_state = 4};
  const clm_train_options options = {.batch = 2, .length = 8, .accumulate = 2, .steps = 6, .dropout = 0.1, .seed = 5};
  clm_train_status status;
  TWICE(clm_model_create(s->context, &config, 3, &s->model));
  TWICE(clm_trainer_create(s->model, s->text, TEXT, &options, &s->trainer));
  for (int i = 0; i < 3; i++) TWICE(clm_trainer_step(s->trainer));
  TWICE(clm_trainer_status(s->trainer, &status));
  *loss = status.loss;
  TWICE(clm_trainer_save(s->trainer, "saved"));
  clm_trainer_destroy(&s->trainer);
  clm_model_destroy(&s->model);
  TWICE(clm_model_load(s->context, "saved", &s->model));
  TWICE(clm_trainer_create(s->model, s->text, TEXT, &options, &s->trainer));
  TWICE(clm_trainer_resume(s->trainer, "saved"));
  for (int i = 0; i < 2; i++) TWICE(clm_trainer_step(s->trainer));
  TWICE(clm_trainer_status(s->trainer, &status));
  if (status.step != 5) return fprintf(stderr, "session: wrong step\n"), false;
  TWICE(clm_trainer_validate(s->trainer, loss + 1));
  return true;
}

static bool decode(session *s, int32_t first) {
  int32_t next[BATCH] = {first, (first + 3) % VOCAB};
  TWICE(clm_tensor_write(s->next, next, sizeof next));
  TWICE(clm_model_decode(s->model, s->state, s->next, s->logits));
  return true;
}

static bool generate(session *s) {
  TWICE(clm_model_state_create(s->model, BATCH, &s->state));
  TWICE(clm_model_prefill(s->model, s->state, s->ids, NULL, s->logits));
  for (int32_t i = 0; i < 3; i++)
    if (!decode(s, i)) return false;
  TWICE(clm_model_state_save(s->state, "state.safetensors"));
  TWICE(clm_model_state_load(s->model, "state.safetensors", &s->other));
  clm_model_state_destroy(&s->state);
  TWICE(clm_model_state_fork(s->other, NULL, BATCH, &s->state));
  if (!decode(s, 7)) return false;
  TWICE(clm_tensor_read(s->logits, s->host, sizeof s->host));
  return true;
}

static bool work(session *s, double *losses) {
  return make_tensors(s) && train(s, losses) && generate(s) &&
         (clm_model_score(s->model, s->text, TEXT, NULL, losses + 2) == CLM_OK || (complain(s, "score"), false));
}

int session_main(int argc, char **argv) {
  session s = {.context = NULL};
  double losses[3] = {0};
  char error[512] = "";
  const clm_context_options options = {
      .device = argv[argc - 1], .threads = 2, .error = error, .error_size = sizeof error};
  for (int i = 0; i < TEXT; i++) s.text[i] = (i * i / 3 + i % 5) % VOCAB;
  mkdir("saved", 0777);
  if (clm_context_create(&options, &s.context) && clm_context_create(&options, &s.context)) {
    fprintf(stderr, "session: %s\n", error);
    return EXIT_FAILURE;
  }
  bool ok = work(&s, losses);
  for (int i = 0; ok && i < 3; i++) ok = printf("%.9g\n", losses[i]) > 0;
  for (int i = 0; ok && i < BATCH * VOCAB; i++) ok = printf("%.9g\n", (double)s.host[i]) > 0;
  if (ok && (fflush(stdout) != 0 || ferror(stdout))) ok = false;
  if (!ok) fprintf(stderr, "session: given up\n");
  clm_trainer_destroy(&s.trainer);
  clm_model_state_destroy(&s.state);
  clm_model_state_destroy(&s.other);
  clm_buffer_destroy(&s.buffer);
  clm_model_destroy(&s.model);
  clm_context_destroy(&s.context);
  return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
