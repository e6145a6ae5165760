/* What MLPs and experts share: their activations and their width. */
#ifndef CLM_MODEL_LAYERS_GATE_H
#define CLM_MODEL_LAYERS_GATE_H

#include <clmamba/elementwise.h>
#include <clmamba/model.h>

#define WIDTH_MAX ((int64_t)1 << 22)

/* In the order of clm_gate_activation. */
static const char *const gate_words[] = {"silu", "gelu", "gelu_tanh", "relu2", NULL};

/* 8/3 of d_model, so that three matrices have the parameters of two of 4 d_model; a multiple of 128. */
static inline int64_t gate_width(const clm_model_config *c) { return (8 * c->d_model / 3 + 127) / 128 * 128; }

#endif
