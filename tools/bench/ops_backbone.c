/* The real-time backbone, a frame at a time, as a program meets it: a frame from the host, a step, its output back.
 * The time is the host's, from the frame to the output; its largest is what a deadline must allow for. */
#include "bench/ops.h"
#include "common/tool.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PRESET  "real-time"
#define OUTPUTS 8
enum { WARM_UP = 20, STEPS = 2000 };

typedef struct stepping {
  bench *bench;
  clm_backbone *backbone;
  clm_backbone_state *state;
  clm_buffer *buffer;
  clm_tensor frame, out;
  float *host; /* a frame, then its output */
  double *ms;
  int late;            /* outputs that came after the next frame was due */
  double worst_behind; /* seconds between when a frame was due and its output */
} stepping;

static clm_backbone_config configuration(const bench_shape *shape) {
  size_t count;
  const clm_backbone_preset *presets = clm_backbone_presets(&count);
  clm_backbone_config config = {0};
  for (size_t i = 0; i < count; i++)
    if (strcmp(presets[i].name, PRESET) == 0) config = presets[i].config;
  config.embed_dim = shape->dim;
  config.n_outputs = OUTPUTS;
  return config;
}

static clm_status prepare(stepping *s, const bench_shape *shape) {
  clm_context *context = s->bench->context;
  clm_backbone_config config = configuration(shape);
  size_t frame = (size_t)(shape->batch * shape->dim), out = (size_t)(shape->batch * OUTPUTS);
  s->host = malloc((frame + out) * sizeof *s->host);
  if (!s->host) return CLM_OUT_OF_MEMORY;
  clm_status status = clm_backbone_create(context, &config, 1, &s->backbone);
  if (status == CLM_OK) status = clm_backbone_state_create(s->backbone, shape->batch, &s->state);
  if (status == CLM_OK) status = clm_buffer_create(context, (frame + out) * sizeof(float), &s->buffer);
  s->frame = clm_tensor_of(s->buffer, 0, CLM_F32, 2, (int64_t[]){shape->batch, shape->dim});
  s->out = clm_tensor_of(s->buffer, frame * sizeof(float), CLM_F32, 2, (int64_t[]){shape->batch, OUTPUTS});
  return status;
}

static clm_status step(stepping *s) {
  size_t frame = (size_t)clm_tensor_count(s->frame), out = (size_t)clm_tensor_count(s->out);
  clm_status status = clm_tensor_write(s->frame, s->host, frame * sizeof *s->host);
  if (status == CLM_OK) status = clm_backbone_step(s->backbone, s->state, s->frame, s->out);
  return status == CLM_OK ? clm_tensor_read(s->out, s->host + frame, out * sizeof *s->host) : status;
}

static void sleep_until(double seconds) {
  struct timespec until = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - floor(seconds)) * 1e9)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0) {
  }
}

/* `count` steps, each when its frame is due if there is a rate. */
static clm_status run_steps(stepping *s, int count) {
  const double rate = s->bench->settings.rate;
  rng random = rng_seed(5, 0);
  clm_status status = CLM_OK;
  for (int i = 0; i < WARM_UP && status == CLM_OK; i++) {
    bench_fill_floats(&random, BENCH_NORMAL, 1, s->host, (size_t)clm_tensor_count(s->frame));
    status = step(s);
  }
  double begin = tool_seconds();
  for (int i = 0; i < count && status == CLM_OK; i++) {
    bench_fill_floats(&random, BENCH_NORMAL, 1, s->host, (size_t)clm_tensor_count(s->frame));
    double due = rate > 0 ? begin + i / rate : 0;
    if (rate > 0) sleep_until(due);
    double from = tool_seconds();
    status = step(s);
    double to = tool_seconds();
    s->ms[i] = 1e3 * (to - from);
    if (rate > 0) s->worst_behind = fmax(s->worst_behind, to - due);
    s->late += rate > 0 && to - due > 1 / rate;
  }
  return status;
}

static char *explain(const stepping *s, int count) {
  char text[300];
  double rate = s->bench->settings.rate;
  int n =
      snprintf(text, sizeof text, "backbone \"%s\", %lld parameters: %d steps, 999 of 1000 within %.3f ms", PRESET,
               (long long)clm_backbone_param_count(s->backbone), count, s->ms[(int)(0.999 * (count - 1))]);
  if (rate > 0)
    snprintf(text + n, sizeof text - (size_t)n,
             "; at %g Hz %d outputs after the next frame was due, the latest %.3f ms after its own frame", rate,
             s->late, 1e3 * s->worst_behind);
  return strdup(text);
}

static bool measure(bench *b, const bench_op *op, const bench_shape *shape, bench_row *row) {
  int count = b->settings.repeat ? b->settings.repeat : STEPS;
  size_t used = strlen(row->shape_text);
  if (b->settings.rate > 0)
    snprintf(row->shape_text + used, sizeof row->shape_text - used, " rate=%g steps=%d", b->settings.rate, count);
  stepping s = {.bench = b, .ms = malloc((size_t)count * sizeof *s.ms)};
  clm_status status = s.ms ? prepare(&s, shape) : CLM_OUT_OF_MEMORY;
  if (status == CLM_OK) status = run_steps(&s, count);
  if (status == CLM_OK) {
    bench_statistics(s.ms, count, row);
    row->explain = explain(&s, count);
    double parameters = (double)clm_backbone_param_count(s.backbone), batch = (double)shape->batch;
    row->cost = (bench_cost){.flops = 2 * batch * parameters, .tokens = batch}; /* the weights stay in the caches */
    bench_peak(b, row);
  } else bench_fail(b, op->name, status);
  clm_context_finish(b->context);
  clm_backbone_state_destroy(&s.state);
  clm_backbone_destroy(&s.backbone);
  clm_buffer_destroy(&s.buffer);
  free(s.host);
  free(s.ms);
  return status == CLM_OK;
}

const bench_op bench_backbone_step = {"backbone-step",
                                      "the real-time backbone: a frame in, an output out",
                                      .dims = "batch dim",
                                      .gpu = {.batch = 1, .dim = 32},
                                      .cpu = {.batch = 1, .dim = 32},
                                      .measure = measure};
