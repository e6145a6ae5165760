/* A trained backbone over sequences of frames: its outputs into a file, and against targets its score. */
#include "common/arrays.h"
#include "common/dataset.h"
#include "common/interrupt.h"
#include "common/progress.h"
#include "common/tool.h"
#include "core/arith.h"
#include "eval/eval.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAMES_AT_ONCE 4096 /* of sequences of one length that run together; one sequence runs whole */

typedef struct running {
  clm_context *context;
  clm_backbone *backbone;
  dataset data;
  int64_t width; /* numbers of an output */
  clm_buffer *buffer;
  float *host;
  array_file file;
  output table; /* of CSV */
  progress progress;
} running;

static int fail(const running *r) { return tool_fail("%s", clm_context_error(r->context)); }

static const clm_backbone_config *config_of(const running *r) { return clm_backbone_configuration(r->backbone); }
static bool is_every(const running *r) { return config_of(r)->output == CLM_OUTPUT_EVERY; }
static bool is_classification(const running *r) { return config_of(r)->task == CLM_TASK_CLASSIFICATION; }

static int64_t length_of(const running *r, int64_t i) {
  const clm_sequences *s = &r->data.sequences;
  return s->lengths ? s->lengths[i] : s->length;
}

/* ---- Files ---- */

/* Quoted, as a name may have anything in it. */
static void put_field(FILE *f, const char *text) {
  fputc('"', f);
  for (; *text; text++) {
    if (*text == '"') fputc('"', f);
    fputc(*text, f);
  }
  fputc('"', f);
}

static void put_name(const running *r, int64_t i) {
  const char *name = clm_backbone_name(r->backbone, i);
  char number[32];
  snprintf(number, sizeof number, "%s%lld", is_classification(r) ? "" : "output", (long long)i);
  put_field(r->table.stream, name ? name : number);
}

/* A line for each output: its numbers; of classes their logits, and the name of the largest. */
static void put_header(const running *r) {
  for (int64_t i = 0; i < r->width; i++) {
    if (i) fputc(',', r->table.stream);
    put_name(r, i);
  }
  fputs(is_classification(r) ? ",class\n" : "\n", r->table.stream);
}

static void put_rows(const running *r, const float *values, int64_t rows) {
  FILE *f = r->table.stream;
  for (int64_t row = 0; row < rows; row++, values += r->width) {
    int64_t best = 0;
    for (int64_t i = 0; i < r->width; i++) {
      fprintf(f, "%s%.9g", i ? "," : "", (double)values[i]);
      if (values[i] > values[best]) best = i;
    }
    if (is_classification(r)) {
      fputc(',', f);
      put_name(r, best);
    }
    fputc('\n', f);
  }
}

/* An array has a dimension for the frames where all sequences are equally long. */
static bool open_file(running *r) {
  const dataset *d = &r->data;
  if (array_is_csv(given.output)) {
    if (!output_open(&r->table, given.output)) return false;
    put_header(r);
    return true;
  }
  if (!is_every(r)) return array_open(&r->file, given.output, 2, (int64_t[]){d->sequences.count, r->width});
  if (d->sequences.lengths) return array_open(&r->file, given.output, 2, (int64_t[]){d->frames, r->width});
  return array_open(&r->file, given.output, 3, (int64_t[]){d->sequences.count, d->sequences.length, r->width});
}

static bool close_file(running *r, bool keep) {
  if (r->table.stream) return output_close(&r->table, keep);
  return !r->file.output.stream || array_close(&r->file, keep);
}

/* ---- Running ---- */

/* Sequences that follow each other and are equally long, as many as run at once. */
static int64_t batch_from(const running *r, int64_t first) {
  int64_t length = length_of(r, first), max = FRAMES_AT_ONCE / length, count = 1;
  while (count < max && first + count < r->data.sequences.count && length_of(r, first + count) == length) count++;
  return count;
}

static clm_status run_batch(running *r, int64_t count, int64_t length, const float *frames) {
  const int64_t embed_dim = r->data.embed_dim, rows = is_every(r) ? count * length : count;
  size_t in_bytes = (size_t)(count * length * embed_dim) * sizeof(float), begin = round_up_line(in_bytes),
         out_bytes = (size_t)(rows * r->width) * sizeof(float);
  clm_buffer_destroy(&r->buffer);
  clm_status status = clm_buffer_create(r->context, begin + out_bytes, &r->buffer);
  if (status) return status;
  clm_tensor in = clm_tensor_of(r->buffer, 0, CLM_F32, 3, (int64_t[]){count, length, embed_dim}),
             out = is_every(r) ? clm_tensor_of(r->buffer, begin, CLM_F32, 3, (int64_t[]){count, length, r->width})
                               : clm_tensor_of(r->buffer, begin, CLM_F32, 2, (int64_t[]){count, r->width});
  status = clm_tensor_write(in, frames, in_bytes);
  if (status == CLM_OK) status = clm_backbone_forward(r->backbone, in, out);
  return status ? status : clm_tensor_read(out, r->host, out_bytes);
}

static int run_all(running *r) {
  const clm_sequences *s = &r->data.sequences;
  int64_t longest = 1, frames = 0, rows_done = 0;
  for (int64_t i = 0; i < s->count; i++)
    if (length_of(r, i) > longest) longest = length_of(r, i);
  int64_t max = longest > FRAMES_AT_ONCE ? longest : FRAMES_AT_ONCE;
  r->host = malloc((size_t)(max * r->width) * sizeof *r->host);
  if (!r->host) return tool_fail("out of memory");
  interrupt_catch();
  progress_wait(&r->progress, "running the backbone");
  for (int64_t i = 0, count; i < s->count; i += count) {
    count = batch_from(r, i);
    int64_t length = length_of(r, i), rows = is_every(r) ? count * length : count;
    if (run_batch(r, count, length, s->frames + frames * r->data.embed_dim)) return fail(r);
    if (interrupt_came()) return tool_fail("interrupted: %s is not written", given.output);
    if (r->table.stream) put_rows(r, r->host, rows);
    else array_write(&r->file, rows_done * r->width, r->host, rows * r->width);
    frames += count * length;
    rows_done += rows;
    progress_bar(&r->progress, (double)frames / (double)r->data.frames, "running the backbone");
  }
  return TOOL_OK; /* what the disk did not take, close_file says */
}

static int write_outputs(running *r) {
  int status = open_file(r) ? run_all(r) : TOOL_FAILED;
  progress_end(&r->progress);
  return close_file(r, status == TOOL_OK) ? status : TOOL_FAILED;
}

static int print_score(running *r) {
  clm_backbone_score score;
  progress_wait(&r->progress, "scoring");
  clm_status status = clm_backbone_evaluate(r->backbone, &r->data.sequences, &score);
  progress_end(&r->progress);
  if (status) return fail(r);
  printf("%lld outputs, %s %.6f, %s %.4f\n", (long long)score.count,
         is_classification(r) ? "nats" : "mean squared error", score.loss, is_classification(r) ? "accuracy" : "R2",
         score.quality);
  return TOOL_OK;
}

static int run(running *r, const char *path) {
  if (clm_backbone_load(r->context, path, &r->backbone)) return fail(r);
  r->width = clm_backbone_output_size(r->backbone);
  bool scored = given.targets || given.target;
  const dataset_request request = {.data = given.data,
                                   .targets = given.targets,
                                   .target = given.target,
                                   .features = given.features,
                                   .task = config_of(r)->task,
                                   .output = (int)config_of(r)->output,
                                   .known = r->backbone,
                                   .frames_only = !scored};
  if (!dataset_read(&request, &r->data)) return TOOL_FAILED;
  if (r->data.note[0]) progress_line(&r->progress, r->data.note);
  int status = given.output ? write_outputs(r) : TOOL_OK;
  return status == TOOL_OK && scored ? print_score(r) : status;
}

int eval_backbone(clm_context *context, const char *path) {
  running r = {.context = context, .progress = progress_start()};
  int status = run(&r, path);
  dataset_free(&r.data);
  clm_buffer_destroy(&r.buffer);
  clm_backbone_destroy(&r.backbone);
  free(r.host);
  return status;
}
