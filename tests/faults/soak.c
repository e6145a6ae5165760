#define _GNU_SOURCE
#include "endurance.h"
#include <clmamba/clmamba.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { VOCAB = 32 };

typedef struct soak {
  clm_context *context;
  clm_model *model;
  clm_model_state *state;
  clm_buffer *buffer;
} soak;

static long resident_kib(void) {
  long pages = 0, resident = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (!f) return 0;
  if (fscanf(f, "%ld %ld", &pages, &resident) != 2) resident = 0;
  fclose(f);
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static clm_status prepare(soak *s, const char *device) {
  const clm_model_config config = {.vocab_size = VOCAB, .d_model = 16, .n_layer = 2, .d_state = 8};
  clm_status status = clm_context_create(&(clm_context_options){.device = device, .threads = 2}, &s->context);
  if (!status) status = clm_model_create(s->context, &config, 1, &s->model);
  if (!status) status = clm_model_state_create(s->model, 1, &s->state);
  if (!status) status = clm_buffer_create(s->context, 4096, &s->buffer);
  return status;
}

static clm_status step(const soak *s, long i, float *logits) {
  clm_tensor id = clm_tensor_of(s->buffer, 0, CLM_I32, 1, (int64_t[]){1});
  clm_tensor out = clm_tensor_of(s->buffer, 1024, CLM_F32, 2, (int64_t[]){1, VOCAB});
  int32_t token = (int32_t)(i * 7 % VOCAB);
  clm_status status = clm_tensor_write(id, &token, sizeof token);
  if (!status) status = clm_model_decode(s->model, s->state, id, out);
  return status ? status : clm_tensor_read(out, logits, VOCAB * sizeof *logits);
}

int soak_run(const char *device, long steps) {
  soak s = {0};
  clm_status status = prepare(&s, device);
  float logits[VOCAB];
  size_t heap = 0;
  long resident = 0, i = 0;
  for (; i < steps && !status; i++) {
    if (i == steps / 10) heap = mallinfo2().uordblks, resident = resident_kib();
    status = step(&s, i, logits);
    for (int k = 0; k < VOCAB && !status; k++)
      if (!(logits[k] > -1e6f && logits[k] < 1e6f)) status = CLM_INVALID_ARGUMENT;
  }
  long more = (long)mallinfo2().uordblks - (long)heap, resident_more = resident_kib() - resident;
  if (status) printf("WRONG: soak: step %ld: %s\n", i, s.context ? clm_context_error(s.context) : "no context");
  /* A leak of a byte a step would show. */
  bool flat = more < steps / 4 && resident_more < 1024;
  printf("soak: %ld steps on %s, %ld bytes more on the heap, %ld KiB more resident since the first tenth: %s\n", i,
         device, more, resident_more, flat ? "flat" : "WRONG: it grows");
  clm_model_state_destroy(&s.state);
  clm_model_destroy(&s.model);
  clm_buffer_destroy(&s.buffer);
  clm_context_destroy(&s.context);
  return status || !flat;
}
