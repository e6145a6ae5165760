#include "model/params.h"
#include <math.h>

size_t param_count(const param *p) {
  size_t count = 1;
  for (int i = 0; i < p->rank; i++) count *= (size_t)p->shape[i];
  return count;
}

size_t param_fan_in(const param *p) { return p->rank > 1 ? (size_t)p->shape[p->rank - 1] : 1; }

void param_fill_uniform(const param *p, double bound, rng *r, float *out) {
  for (size_t i = 0; i < param_count(p); i++) out[i] = (float)((2 * rng_uniform(r) - 1) * bound);
}

void param_ones(const param *p, const clm_model_config *c, rng *r, float *out) {
  (void)c, (void)r;
  for (size_t i = 0; i < param_count(p); i++) out[i] = 1;
}

void param_embedding(const param *p, const clm_model_config *c, rng *r, float *out) {
  for (size_t i = 0; i < param_count(p); i++) out[i] = (float)(rng_normal(r) * (double)c->embedding_range);
}

void param_uniform_fan_in(const param *p, const clm_model_config *c, rng *r, float *out) {
  (void)c;
  param_fill_uniform(p, 1 / sqrt((double)param_fan_in(p)), r, out);
}

void param_uniform_out(const param *p, const clm_model_config *c, rng *r, float *out) {
  param_fill_uniform(p, 1 / sqrt((double)param_fan_in(p) * (double)c->n_layer), r, out);
}

void param_dt_bias(const param *p, const clm_model_config *c, rng *r, float *out) {
  for (size_t i = 0; i < param_count(p); i++) {
    double low = log((double)c->dt_min), high = log((double)c->dt_max);
    double dt = fmax(exp(low + rng_uniform(r) * (high - low)), (double)c->dt_floor);
    out[i] = (float)(dt + log(-expm1(-dt)));
  }
}

void param_conv_bias(const param *p, const clm_model_config *c, rng *r, float *out) {
  param_fill_uniform(p, 1 / sqrt((double)c->d_conv), r, out);
}
