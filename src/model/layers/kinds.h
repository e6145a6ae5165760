/* Every kind of layer: a line here, and in meson.build the file that has the table `layer_NAME`. */
#ifndef CLM_MODEL_LAYERS_KINDS_H
#define CLM_MODEL_LAYERS_KINDS_H

#include "model/layers/layer.h"

#define LAYER_KINDS(X) X(mamba1) X(mamba2) X(mlp) X(moe) X(attention)

#define X(name)        extern const layer_kind layer_##name;
LAYER_KINDS(X)
#undef X

#endif
