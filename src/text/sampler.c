#include "core/context.h"
#include "core/rng.h"
#include <clmamba/generate.h>
#include <math.h>
#include <stdlib.h>

typedef struct candidate {
  float logit;
  int32_t id;
  double p;
} candidate;

struct clm_sampler {
  clm_sampler_options options;
  int64_t size;
  rng random;
  bool *seen;
  candidate *candidates;
};

static clm_status check(clm_context *ctx, const clm_sampler_options *o, int64_t vocab_size) {
  const struct {
    const char *name;
    double value, high;
  } ranges[] = {{"temperature", (double)o->temperature, 1e6},
                {"repetition_penalty", (double)o->repetition_penalty, 1e6},
                {"top_p", (double)o->top_p, 1},
                {"min_p", (double)o->min_p, 1},
                {"top_k", (double)o->top_k, 1e9}};
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
    if (!(ranges[i].value >= 0 && ranges[i].value <= ranges[i].high))
      return context_fail(ctx, CLM_INVALID_ARGUMENT, "sampler: %s is %g, expected 0 to %g", ranges[i].name,
                          ranges[i].value, ranges[i].high);
  if (vocab_size < 1) return context_fail(ctx, CLM_INVALID_ARGUMENT, "sampler: the vocabulary is empty");
  return CLM_OK;
}

clm_status clm_sampler_create(clm_context *ctx, const clm_sampler_options *options, int64_t vocab_size,
                              clm_sampler **sampler) {
  *sampler = NULL;
  clm_status status = check(ctx, options, vocab_size);
  if (status) return status;
  clm_sampler *s = calloc(1, sizeof *s);
  if (s) {
    *s = (clm_sampler){.options = *options, .size = vocab_size, .random = rng_seed(options->seed, 0)};
    s->seen = calloc((size_t)vocab_size, sizeof *s->seen);
    s->candidates = malloc((size_t)vocab_size * sizeof *s->candidates);
  }
  if (!s || !s->seen || !s->candidates) {
    clm_sampler_destroy(&s);
    return context_fail(ctx, CLM_OUT_OF_MEMORY, "sampler: out of host memory");
  }
  *sampler = s;
  return CLM_OK;
}

void clm_sampler_destroy(clm_sampler **sampler) {
  if (!sampler || !*sampler) return;
  free((*sampler)->seen);
  free((*sampler)->candidates);
  free(*sampler);
  *sampler = NULL;
}

void clm_sampler_accept(clm_sampler *s, int32_t id) {
  if (id >= 0 && id < s->size) s->seen[id] = true;
}

static void penalise(const clm_sampler *s, float *logits) {
  float penalty = s->options.repetition_penalty;
  if (penalty == 0 || penalty == 1) return;
  for (int64_t i = 0; i < s->size; i++)
    if (s->seen[i]) logits[i] = logits[i] > 0 ? logits[i] / penalty : logits[i] * penalty;
}

/* Most likely first; equal ones by number, so that the order does not depend on the sort. */
static int by_logit(const void *a, const void *b) {
  const candidate *x = a, *y = b;
  if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
  return x->id < y->id ? -1 : x->id > y->id;
}

/* How many of the sorted candidates stay, their weights exp((logit - largest) / temperature) filled in. */
static int64_t truncate_candidates(const clm_sampler *s, int64_t count, double *total) {
  const clm_sampler_options *o = &s->options;
  candidate *c = s->candidates;
  if (o->top_k > 0 && count > o->top_k) count = o->top_k;
  *total = 0;
  for (int64_t i = 0; i < count; i++) {
    c[i].p = exp(((double)c[i].logit - (double)c[0].logit) / (double)o->temperature);
    *total += c[i].p;
  }
  if (o->top_p > 0 && o->top_p < 1) {
    double wanted = (double)o->top_p * *total, reached = 0;
    int64_t keep = 0;
    while (keep < count && reached < wanted) reached += c[keep++].p;
    count = keep;
    *total = reached;
  }
  if (o->min_p > 0) /* the largest weight is 1 */
    while (count > 1 && c[count - 1].p < (double)o->min_p) *total -= c[--count].p;
  return count;
}

int32_t clm_sampler_sample(clm_sampler *s, float *logits) {
  penalise(s, logits);
  int64_t count = 0;
  for (int64_t i = 0; i < s->size; i++)
    if (!isnan(logits[i]) && logits[i] > -INFINITY) s->candidates[count++] = (candidate){logits[i], (int32_t)i, 0};
  int32_t chosen = 0;
  if (count > 0) {
    qsort(s->candidates, (size_t)count, sizeof *s->candidates, by_logit);
    int64_t last = 0;
    if (s->options.temperature > 0) {
      double total;
      count = truncate_candidates(s, count, &total);
      double left = rng_uniform(&s->random) * total;
      while (last < count - 1 && (left -= s->candidates[last].p) >= 0) last++;
    }
    chosen = s->candidates[last].id;
  }
  clm_sampler_accept(s, chosen);
  return chosen;
}
