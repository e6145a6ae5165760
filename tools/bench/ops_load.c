/* A model directory from the page cache to the logits of its first new token, and reading the file once. */
#include "bench/lm_model.h"
#include "bench/ops.h"
#include "common/tool.h"
#include <stdlib.h>
#include <string.h>

enum { PROMPT = 8, REPEATS = 7, BLOCK = 1 << 20 };

typedef struct loading {
  bench *bench;
  model_folder folder;
  char *file;
  float *logits;
  uint64_t file_bytes;
} loading;

/* Seconds to read the file through one block of memory; negative: it cannot be read. */
static double read_once(loading *l) {
  double begin = tool_seconds();
  FILE *f = fopen(l->file, "rb");
  char *block = malloc(BLOCK);
  size_t n = 1;
  l->file_bytes = 0;
  while (f && block && n > 0) l->file_bytes += n = fread(block, 1, BLOCK, f);
  bool ok = f && block && !ferror(f);
  free(block);
  if (f) fclose(f);
  return ok ? tool_seconds() - begin : -1;
}

static clm_status first_token(loading *l, clm_model *model) {
  clm_context *context = l->bench->context;
  const int64_t vocab = clm_model_configuration(model)->vocab_size;
  const int32_t prompt[PROMPT] = {1, 2, 3, 4, 5, 6, 7, 8};
  clm_buffer *buffer = NULL;
  clm_model_state *state = NULL;
  clm_status status = clm_buffer_create(context, sizeof prompt + (size_t)vocab * sizeof(float), &buffer);
  clm_tensor ids = clm_tensor_of(buffer, 0, CLM_I32, 2, (int64_t[]){1, PROMPT});
  clm_tensor logits = clm_tensor_of(buffer, sizeof prompt, CLM_F32, 2, (int64_t[]){1, vocab});
  if (!l->logits) l->logits = malloc((size_t)vocab * sizeof(float));
  if (status == CLM_OK && !l->logits) status = CLM_OUT_OF_MEMORY;
  if (status == CLM_OK) status = clm_tensor_write(ids, prompt, sizeof prompt);
  if (status == CLM_OK) status = clm_model_state_create(model, 1, &state);
  if (status == CLM_OK) status = clm_model_prefill(model, state, ids, NULL, logits);
  if (status == CLM_OK) status = clm_tensor_read(logits, l->logits, (size_t)vocab * sizeof(float));
  clm_model_state_destroy(&state);
  clm_buffer_destroy(&buffer);
  return status;
}

static clm_status load(loading *l, double *seconds) {
  clm_model_load_options options = {.weights = l->bench->settings.weights};
  clm_model *model = NULL;
  double begin = tool_seconds();
  clm_status status = clm_model_load_with(l->bench->context, l->folder.path, &options, &model);
  if (status == CLM_OK) status = first_token(l, model);
  *seconds = tool_seconds() - begin;
  clm_model_destroy(&model);
  return status;
}

static clm_weights_type stored_as(clm_dtype dtype) {
  return dtype == CLM_F16 ? CLM_WEIGHTS_F16 : dtype == CLM_BF16 ? CLM_WEIGHTS_BF16 : CLM_WEIGHTS_F32;
}

static bool measure(bench *b, const bench_op *op, const bench_shape *shape, bench_row *row) {
  const char *name = b->settings.model ? b->settings.model : "130m";
  const int count = b->settings.repeat ? b->settings.repeat : REPEATS;
  snprintf(row->shape_text, sizeof row->shape_text, "model=%s file=%s weights=%s", name, bench_dtype_name(shape),
           bench_weights_name(b->settings.weights));
  loading l = {.bench = b};
  double *ms = malloc((size_t)count * sizeof *ms), *read_ms = malloc((size_t)count * sizeof *read_ms);
  clm_status status =
      ms && read_ms ? model_folder_create(b->context, name, stored_as(shape->dtype), &l.folder) : CLM_OUT_OF_MEMORY;
  if (status == CLM_OK && !(l.file = model_folder_file(&l.folder, "model.safetensors"))) status = CLM_OUT_OF_MEMORY;
  for (int i = -1; i < count && status == CLM_OK; i++) { /* the first brings the file in, and compiles */
    double read = read_once(&l), seconds;
    status = read < 0 ? CLM_IO_ERROR : load(&l, &seconds);
    if (i < 0 || status != CLM_OK) continue;
    read_ms[i] = 1e3 * read;
    ms[i] = 1e3 * seconds;
  }
  if (status == CLM_OK) {
    char text[200];
    bench_row reading = {0};
    bench_statistics(ms, count, row);
    bench_statistics(read_ms, count, &reading);
    snprintf(text, sizeof text, "reading the %.0f MB once: %.0f ms; beyond that to the first token: %.0f ms",
             (double)l.file_bytes * 1e-6, reading.ms_median, row->ms_median - reading.ms_median);
    row->explain = strdup(text);
    row->cost = (bench_cost){.bytes = (double)l.file_bytes};
    bench_peak(b, row);
  } else bench_fail(b, op->name, status);
  model_folder_remove(&l.folder);
  free(l.file);
  free(l.logits);
  free(ms);
  free(read_ms);
  return status == CLM_OK;
}

const bench_op bench_lm_load = {"lm-load", "language model: from a file in the page cache to the first token",
                                .dims = "", .measure = measure};
