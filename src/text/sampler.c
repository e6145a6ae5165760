#include "core/context.h"
#include "core/rng.h"
#include "core/try.h"
#include <clmamba/generate.h>
#include <math.h>
#include <stdlib.h>

typedef struct candidate {
  float logit;
  int32_t id;
} candidate;

struct clm_sampler {
  clm_sampler_options options;
  int64_t size;
  rng random;
  bool *seen;
  candidate *candidates; /* a heap, and after it what was taken from it: the most likely last */
  int64_t count, taken;  /* candidates; of them taken                                         */
  float largest;
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
  if (sampler) *sampler = NULL;
  TRY(CONTEXT_NEED(ctx, "sampler_create", options, sampler));
  clm_status status = check(ctx, options, vocab_size);
  if (status) return status;
  clm_sampler *s = calloc(1, sizeof *s);
  if (s) {
    *s = (clm_sampler){.options = *options, .size = vocab_size, .random = rng_seed(options->seed, options->stream)};
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
  if (s && id >= 0 && id < s->size) s->seen[id] = true;
}

static void penalise(const clm_sampler *s, float *logits) {
  float penalty = s->options.repetition_penalty;
  if (penalty == 0 || penalty == 1) return;
  for (int64_t i = 0; i < s->size; i++)
    if (s->seen[i]) logits[i] = logits[i] > 0 ? logits[i] / penalty : logits[i] * penalty;
}

/* More likely; equal ones by number, so that the order does not depend on how it was found. */
static bool before(candidate a, candidate b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

static void sift(candidate *heap, int64_t count, int64_t at) {
  candidate moving = heap[at];
  for (int64_t child; (child = 2 * at + 1) < count; at = child) {
    if (child + 1 < count && before(heap[child + 1], heap[child])) child++;
    if (!before(heap[child], moving)) break;
    heap[at] = heap[child];
  }
  heap[at] = moving;
}

/* Candidate number i in order of likelihood. Only as many are sorted as are asked for, which are few: a whole
 * vocabulary takes as long to sort as a small model to run. */
static candidate nth(clm_sampler *s, int64_t i) {
  candidate *c = s->candidates;
  for (; s->taken <= i; s->taken++) {
    int64_t last = s->count - 1 - s->taken;
    candidate first = c[0];
    c[0] = c[last];
    c[last] = first;
    sift(c, last, 0);
  }
  return c[s->count - 1 - i];
}

/* exp((logit - largest) / temperature) */
static double weight(const clm_sampler *s, candidate c) {
  return (double)expf((c.logit - s->largest) / s->options.temperature);
}

static double total_of(clm_sampler *s, int64_t keep) {
  double total = 0;
  for (int64_t i = 0; i < keep; i++) total += weight(s, keep < s->count ? nth(s, i) : s->candidates[i]);
  return total;
}

/* How many of the most likely candidates stay, and the sum of their weights. */
static int64_t cut(clm_sampler *s, double *total) {
  const clm_sampler_options *o = &s->options;
  int64_t keep = o->top_k > 0 && o->top_k < s->count ? o->top_k : s->count;
  *total = total_of(s, keep);
  if (o->top_p > 0 && o->top_p < 1) {
    double wanted = (double)o->top_p * *total, reached = 0;
    int64_t few = 0;
    while (few < keep && reached < wanted) reached += weight(s, nth(s, few++));
    keep = few;
    *total = reached;
  }
  if (o->min_p > 0) { /* the largest weight is 1 */
    int64_t few = 0;
    double sum = 0, w;
    while (few < keep && ((w = weight(s, nth(s, few))) >= (double)o->min_p || few == 0)) sum += w, few++;
    keep = few;
    *total = sum;
  }
  return keep;
}

/* What is less likely than 2^-64 with the largest no random number of 53 bits reaches. */
static void collect(clm_sampler *s, const float *logits, float largest) {
  float lowest = largest - 64 * 0.6931472f * s->options.temperature;
  s->largest = largest;
  s->count = s->taken = 0;
  for (int64_t i = 0; i < s->size; i++)
    if (logits[i] >= lowest && logits[i] > -INFINITY) s->candidates[s->count++] = (candidate){logits[i], (int32_t)i};
  for (int64_t at = s->count / 2; at-- > 0;) sift(s->candidates, s->count, at);
}

static int32_t draw(clm_sampler *s) {
  double total, left;
  int64_t keep = cut(s, &total), i = 0;
  left = rng_uniform(&s->random) * total;
  while (i < keep - 1 && (left -= weight(s, nth(s, i))) >= 0) i++;
  return nth(s, i).id;
}

int32_t clm_sampler_sample(clm_sampler *s, float *logits) {
  if (!s || !logits) return -1;
  penalise(s, logits);
  float largest = -INFINITY;
  int32_t chosen = -1;
  for (int64_t i = 0; i < s->size; i++) {
    if (!(logits[i] < INFINITY)) return -1;
    if (logits[i] > largest) {
      largest = logits[i];
      chosen = (int32_t)i;
    }
  }
  if (chosen < 0) return -1;
  if (s->options.temperature > 0) {
    collect(s, logits, largest);
    chosen = draw(s);
  }
  clm_sampler_accept(s, chosen);
  return chosen;
}

/* ---- Log-probabilities ---- */

static double log_sum(const float *logits, int64_t count) {
  double largest = -INFINITY, sum = 0;
  for (int64_t i = 0; i < count; i++) largest = fmax(largest, (double)logits[i]);
  for (int64_t i = 0; i < count; i++) sum += exp((double)logits[i] - largest);
  return largest + log(sum);
}

void clm_token_logprobs(const float *logits, int64_t size, clm_token_logprob *chosen, clm_token_logprob *top,
                        int64_t count) {
  if (!logits) return;
  if (!top) count = 0;
  double sum = log_sum(logits, size);
  if (chosen) chosen->logprob = (float)((double)logits[chosen->id] - sum);
  int64_t found = 0; /* in order; each newcomer moves the less likely ones back */
  for (int64_t i = 0; i < size && count > 0; i++) {
    if (found == count && !(logits[i] > top[count - 1].logprob)) continue;
    int64_t at = found < count ? found++ : count - 1;
    for (; at > 0 && logits[i] > top[at - 1].logprob; at--) top[at] = top[at - 1];
    top[at] = (clm_token_logprob){(int32_t)i, logits[i]};
  }
  for (int64_t i = 0; i < found; i++) top[i].logprob = (float)((double)top[i].logprob - sum);
}
