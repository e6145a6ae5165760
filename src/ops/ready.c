#include "ops/ready.h"
#include "ops/view.h"

static clm_tensor *tensor_in(void *ready, const op_tensor *row) {
  return (clm_tensor *)(void *)((char *)ready + row->member);
}

void ready_reverse(const op_call *c, void *ready, char letter) {
  for (size_t i = 0; i < c->count; i++) {
    clm_tensor *t = tensor_in(ready, c->rows[i]);
    const char *shape = op_has_second(c->rows[i], t) ? op_second(c->rows[i]) : c->rows[i]->shape;
    char at;
    for (int dim = 0; (at = op_next(&shape)) != '\0'; dim++)
      if (at == letter) view_reverse(t, dim);
  }
}

void ready_spread(const op_call *c, void *ready) {
  for (size_t i = 0; i < c->count && *c->lacks; i++) {
    const char *shape = c->rows[i]->shape;
    char at;
    for (int dim = 0; (at = op_next(&shape)) != '\0'; dim++)
      if (op_lacks(c, at)) view_insert(tensor_in(ready, c->rows[i]), dim);
  }
}
