/* Matrices of a buffer of weights, kept as panels until the buffer is written again.
 *
 * A list in a ring, searched from the entry after the last one found: a model asks for its matrices in the same order
 * again and again, so that the first look is the right one. */
#include "backend/opencl/engine.h"
#include "backend/opencl/opencl.h"
#include <stdlib.h>
#include <string.h>

typedef struct kept_matrix kept_matrix;
struct kept_matrix {
  clm_tensor view;
  int row; /* the dimension of `view` that is the panels' rows */
  engine_format format;
  uint64_t version; /* of the buffer whose numbers the panels hold */
  clm_buffer *panels;
  kept_matrix *next;
};

/* Bytes tell planes apart. */
static bool is_same(const kept_matrix *e, const clm_tensor *t, int row, engine_format format, size_t bytes) {
  return clm_buffer_size(e->panels) == bytes && e->view.offset == t->offset && e->view.dtype == t->dtype &&
         e->row == row && e->format == format && memcmp(e->view.shape, t->shape, 2 * sizeof *t->shape) == 0 &&
         memcmp(e->view.stride, t->stride, 2 * sizeof *t->stride) == 0;
}

static kept_matrix *find(const clm_buffer *b, const clm_tensor *t, int row, engine_format format, size_t bytes) {
  kept_matrix *last = b->kept, *e = last;
  if (e) do {
      e = e->next;
      if (is_same(e, t, row, format, bytes)) return e;
    } while (e != last);
  return NULL;
}

static kept_matrix *add(clm_buffer *b, const clm_tensor *t, int row, engine_format format, size_t bytes) {
  kept_matrix *e = calloc(1, sizeof *e), *last = b->kept;
  if (!e) return NULL;
  if (clm_buffer_create(b->context, bytes, &e->panels) != CLM_OK) {
    free(e);
    b->context->error[0] = '\0'; /* the matrix is packed at each use instead */
    return NULL;
  }
  e->view = *t;
  e->row = row;
  e->format = format;
  e->version = b->version - 1;
  e->next = last ? last->next : e;
  if (last) last->next = e;
  return e;
}

clm_buffer *opencl_kept_panels(const clm_tensor *t, int row, engine_format format, size_t bytes, uint64_t **version) {
  clm_buffer *b = t->buffer;
  *version = NULL;
  if (!b->keeps_packed) return NULL;
  kept_matrix *e = find(b, t, row, format, bytes);
  if (!e) e = add(b, t, row, format, bytes);
  if (!e) return NULL;
  b->kept = e;
  *version = &e->version;
  return e->panels;
}

void opencl_forget_panels(clm_buffer *b) {
  kept_matrix *last = b->kept, *e = last ? last->next : NULL;
  while (e) {
    kept_matrix *next = e == last ? NULL : e->next;
    clm_buffer_destroy(&e->panels);
    free(e);
    e = next;
  }
  b->kept = NULL;
}
