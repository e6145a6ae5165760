/* RMSNorm with a gate, of groups of columns: rows are independent; the sums over rows of the weight's gradient go
 * through parts of ROWS rows each, which are added in order. */
#include "storage.h"

#define ROWS 64

typedef struct gated_task {
  gated_norm_shape s;
  clm_gated_norm_args f;
  clm_gated_norm_backward_args b;
  float *dweight; /* (parts, dim), NULL if not wanted */
  float *scratch; /* of each worker: rows as f32      */
  int64_t scratch_row;
} gated_task;

/* Rows of a worker's scratch; the weight, the same for all rows of a task, has one too. */
enum { WEIGHT, X, Z, OUT, DOUT, DX, DZ, GRADIENT_ROWS, FORWARD_ROWS = OUT + 1 };
static float *scratch_of(const gated_task *task, int worker, int i) {
  return task->scratch + worker * task->scratch_row + i * round_up(task->s.dim, 16);
}

static const float *load_row(const gated_task *task, const clm_tensor *t, int64_t i, int worker, int place) {
  return line_load(line_row(t, i), task->s.dim, scratch_of(task, worker, place));
}

/* out = before * s^ * weight * after: one of the two is silu(z), the other 1; s = before * x is what is normed. */
typedef struct gates {
  vec before, after;
} gates;

INLINE gates gates_of(bool norm_before_gate, vec z) {
  const vec gate = z * vec_sigmoid(z), one = vec_set(1);
  return norm_before_gate ? (gates){one, gate} : (gates){gate, one};
}

INLINE vec weight_at(const float *weight, int64_t j, int64_t left) {
  return weight ? vec_load_part(weight + j, left) : vec_set(1);
}

/* Of the group of `width` columns at x and z. */
static float scale_of(const gated_task *task, const float *x, const float *z) {
  const int64_t width = task->s.width;
  vec squares = vec_set(0);
  for (int64_t j = 0; j < width; j += LANES) {
    const vec s =
        vec_load_part(x + j, width - j) * gates_of(task->f.norm_before_gate, vec_load_part(z + j, width - j)).before;
    squares = s * s + squares;
  }
  return 1 / sqrtf(vec_sum(squares) / (float)width + task->f.epsilon);
}

static void norm_row(const gated_task *task, const float *weight, const float *x, const float *z, float *out) {
  const int64_t width = task->s.width;
  for (int64_t first = 0; first < task->s.dim; first += width) {
    const float scale = scale_of(task, x + first, z + first);
    for (int64_t j = first; j < first + width; j += LANES) {
      const int64_t left = first + width - j;
      const gates g = gates_of(task->f.norm_before_gate, vec_load_part(z + j, left));
      vec_store_part(out + j,
                     vec_load_part(x + j, left) * g.before * vec_set(scale) * weight_at(weight, j, left) * g.after,
                     left);
    }
  }
}

static void norm_rows(void *arg, int64_t index, int worker) {
  const gated_task *task = arg;
  const int64_t dim = task->s.dim;
  const float *weight = line_load(line_vector(&task->f.weight), dim, scratch_of(task, worker, WEIGHT));
  for (int64_t i = index * ROWS; i < min_of((index + 1) * ROWS, task->s.rows); i++) {
    const float *x = load_row(task, &task->f.x, i, worker, X), *z = load_row(task, &task->f.z, i, worker, Z);
    const line result = line_row(&task->f.out, i);
    float *out = line_target(result, scratch_of(task, worker, OUT));
    norm_row(task, weight, x, z, out);
    line_store(result, dim, out);
  }
}

static clm_status make_scratch(clm_context *ctx, int rows, int64_t parts_floats, gated_task *task) {
  const int64_t threads = cpu_pool_threads(cpu_context_pool(ctx));
  task->scratch_row = rows * round_up(task->s.dim, 16);
  clm_buffer *workspace;
  clm_status status =
      context_workspace(ctx, (size_t)(threads * task->scratch_row + parts_floats) * sizeof(float), &workspace);
  if (status == CLM_OK) task->scratch = workspace->host;
  return status;
}

clm_status KERNEL(gated_norm)(clm_context *ctx, const gated_norm_shape *s, const clm_gated_norm_args *a) {
  if (!ALL_STORAGE(a->x, a->z, a->weight, a->out)) return ctx->plan ? CLM_UNSUPPORTED : ref_gated_norm(ctx, s, a);
  gated_task task = {.s = *s, .f = *a};
  clm_status status = make_scratch(ctx, FORWARD_ROWS, 0, &task);
  if (status) return status;
  context_explain(ctx, "gated_norm: cpu %s, %d rows a task", cpu_context_level(ctx), ROWS);
  return cpu_submit(
      ctx, &(cpu_stage){.tasks = div_up(s->rows, ROWS), .run = norm_rows, .arg = &task, .arg_bytes = sizeof task});
}

/* With s^ = s scale and g = dout weight after:  ds = scale (g - s^ mean(g s^)). Rows as in the enum above. */
static void group_gradient(const gated_task *task, const float *const rows[], float *dx, float *dz, float *dweight,
                           int64_t first) {
  const int64_t width = task->s.width;
  const bool before = task->f.norm_before_gate;
  const vec scale = vec_set(scale_of(task, rows[X] + first, rows[Z] + first));
  vec along = vec_set(0);
  for (int64_t j = first; j < first + width; j += LANES) {
    const int64_t left = first + width - j;
    const gates g = gates_of(before, vec_load_part(rows[Z] + j, left));
    const vec normed = vec_load_part(rows[X] + j, left) * g.before * scale,
              into = vec_load_part(rows[DOUT] + j, left) * g.after * normed;
    if (dweight) vec_store_part(dweight + j, into + vec_load_part(dweight + j, left), left);
    along = into * weight_at(rows[WEIGHT], j, left) + along;
  }
  along = vec_set(vec_sum(along) / (float)width);
  for (int64_t j = first; j < first + width; j += LANES) {
    const int64_t left = first + width - j;
    const vec z = vec_load_part(rows[Z] + j, left), x = vec_load_part(rows[X] + j, left), open = vec_sigmoid(z);
    const gates g = gates_of(before, z);
    const vec normed = x * g.before * scale,
              weighted = vec_load_part(rows[DOUT] + j, left) * weight_at(rows[WEIGHT], j, left);
    const vec ds = scale * (weighted * g.after - normed * along), dgate = before ? weighted * normed : ds * x;
    vec_store_part(dx + j, ds * g.before, left);
    vec_store_part(dz + j, dgate * open * (vec_set(1) + z * (vec_set(1) - open)), left);
  }
}

static void gradient_rows(void *arg, int64_t index, int worker) {
  const gated_task *task = arg;
  const clm_gated_norm_backward_args *b = &task->b;
  const int64_t dim = task->s.dim;
  const float *rows[GRADIENT_ROWS];
  float *dweight = task->dweight ? task->dweight + index * dim : NULL, *dx = scratch_of(task, worker, DX),
        *dz = scratch_of(task, worker, DZ), *out = scratch_of(task, worker, OUT);
  if (dweight) memset(dweight, 0, (size_t)dim * sizeof *dweight);
  rows[WEIGHT] = line_load(line_vector(&task->f.weight), dim, scratch_of(task, worker, WEIGHT));
  for (int64_t i = index * ROWS; i < min_of((index + 1) * ROWS, task->s.rows); i++) {
    rows[X] = load_row(task, &task->f.x, i, worker, X);
    rows[Z] = load_row(task, &task->f.z, i, worker, Z);
    rows[DOUT] = load_row(task, &b->dout, i, worker, DOUT);
    for (int64_t first = 0; first < dim; first += task->s.width) group_gradient(task, rows, dx, dz, dweight, first);
    if (present(b->dx)) line_write(line_row(&b->dx, i), dim, dx);
    if (present(b->dz)) line_write(line_row(&b->dz, i), dim, dz);
    if (!present(b->out)) continue;
    norm_row(task, rows[WEIGHT], rows[X], rows[Z], out);
    line_write(line_row(&b->out, i), dim, out);
  }
}

clm_status KERNEL(gated_norm_backward)(clm_context *ctx, const gated_norm_shape *s,
                                       const clm_gated_norm_backward_args *b) {
  /* In very narrow groups dx is nearly all cancellation, which only the reference's double arithmetic bears. */
  const clm_gated_norm_args *f = &b->forward;
  if (s->width < 4 || !ALL_STORAGE(f->x, f->z, f->weight, b->dout, b->dx, b->dz, b->dweight, b->out))
    return ref_gated_norm_backward(ctx, s, b);
  const int64_t parts = div_up(s->rows, ROWS);
  gated_task task = {.s = *s, .f = *f, .b = *b};
  clm_status status = make_scratch(ctx, GRADIENT_ROWS, parts * s->dim, &task);
  if (status) return status;
  if (present(b->dweight)) task.dweight = task.scratch + task.scratch_row * cpu_pool_threads(cpu_context_pool(ctx));
  cpu_pool_run(cpu_context_pool(ctx), parts, gradient_rows, &task);
  if (task.dweight) kernel_sum_parts(task.dweight, parts, s->dim, kernel_data(b->dweight), b->dweight.stride[0]);
  context_explain(ctx, "gated_norm_backward: cpu %s, %d rows a task", cpu_context_level(ctx), ROWS);
  return CLM_OK;
}
