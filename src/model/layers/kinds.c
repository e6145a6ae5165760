/* The list of kinds. */
#include "model/layers/kinds.h"
#include <string.h>

#define X(name) &layer_##name,
static const layer_kind *const kinds[] = {LAYER_KINDS(X)};
#undef X

#define X(name) ", " #name
static const char names[] = LAYER_KINDS(X);
#undef X

const layer_kind *layer_kind_find(const char *name, size_t length) {
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (strlen(kinds[i]->name) == length && memcmp(kinds[i]->name, name, length) == 0) return kinds[i];
  return NULL;
}

const char *layer_kind_names(void) { return names + 2; }
