#include "grid.h"
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

enum { LARGEST_SPARSE = 400000 };

static int share, shares = 1, sparse = 1, only = -1, cells;

bool grid_takes(int cell, int64_t numbers) {
  if (only >= 0 ? cell != only : cell % sparse != 0) return false;
  if (sparse > 1 && numbers > LARGEST_SPARSE) return false;
  cells++;
  return true;
}

bool grid_has_share(int test) { return only >= 0 || test % shares == share; }

/* ---- Sequences ---- */

/* Of any length, now and then padding; ends of packed ones, some of them empty. */
static void write_indexes(test_run *run) {
  const test_problem *p = run->problem;
  const int64_t batch = p->tensors[0].shape[0], length = p->tensors[0].shape[1];
  test_random r = random_seeded(p->seed - 1, "sequences");
  for (size_t i = 0; i < p->count; i++) {
    const test_tensor *t = &p->tensors[i];
    if (strcmp(t->name, "seq_idx") == 0) {
      double *numbers = calloc((size_t)(batch * length), sizeof *numbers);
      if (!numbers) abort();
      for (int64_t row = 0; row < batch; row++) {
        double number = 0;
        int64_t padding = random_below(&r, 1 + length / 4);
        for (int64_t s = 0; s < length; s++) {
          number += random_below(&r, 40) == 0;
          numbers[row * length + s] = s < padding || random_below(&r, 50) == 0 ? -1 : number;
        }
      }
      run_write(run, "seq_idx", numbers);
      free(numbers);
    } else if (strcmp(t->name, "cu_seqlens") == 0) {
      const int64_t sequences = t->shape[0] - 1;
      double ends[16] = {0};
      for (int64_t k = 1; k < sequences; k++)
        ends[k] = ends[k - 1] + (double)random_below(&r, 1 + (length - (int64_t)ends[k - 1]) * 2 / sequences);
      ends[sequences] = (double)length;
      run_write(run, "cu_seqlens", ends);
    }
  }
}

/* ---- Comparison ---- */

typedef struct tolerance {
  double rtol, atol;
} tolerance;

static tolerance tolerance_of(clm_dtype dtype, const grid_exception *exceptions, const char *name) {
  tolerance t = dtype == CLM_F32   ? (tolerance){6e-4, 2e-3}
                : dtype == CLM_F16 ? (tolerance){3e-3, 5e-3}
                                   : (tolerance){3e-2, 5e-2};
  for (const grid_exception *e = exceptions; e->name; e++)
    if (strcmp(name, e->name) == 0) return (tolerance){e->rtol * t.rtol, e->atol * t.atol};
  return t;
}

static char explain[1200];
static double worst_seen, reference_seconds, device_seconds[32];
static char worst_where[700];
static int checked, unsupported;

static bool compare(const test_run *got, const double *want, const char *name, tolerance t, const char *text,
                    const test_device *device) {
  const size_t count = run_values(got, name);
  double *values = run_read(got, name), worst = -1, square = 0;
  for (size_t k = 0; k < count; k++) square += want[k] * want[k];
  const double size = sqrt(square / (double)count);
  size_t at = 0;
  const size_t parts = run_is_complex(got, name) ? 2 : 1; /* a complex number is compared as one, by its magnitude */
  for (size_t k = 0; k < count; k += parts) {
    const double off =
        parts == 2 ? hypot(values[k] - want[k], values[k + 1] - want[k + 1]) : fabs(values[k] - want[k]);
    double excess = off / (t.atol + t.rtol * (parts == 2 ? hypot(want[k], want[k + 1]) : fabs(want[k])));
    if (isnan(excess)) excess = (double)INFINITY;
    if (excess > worst) {
      worst = excess;
      at = k;
    }
  }
  if (worst > worst_seen) {
    worst_seen = worst;
    snprintf(worst_where, sizeof worst_where, "%s, %s on %s", text, name, device->name);
  }
  if (worst > 1)
    print_error("%s\n  %s number %zu is %.9g, expected %.9g, scale %.3g (%.3g of the tolerance), on %s\n  %s\n", text,
                name, at, values[at], want[at], size, worst, device->name, explain);
  free(values);
  return worst <= 1;
}

/* Of all threads, and of the compilers that drivers start. */
static double processor_seconds(void) {
  double seconds = 0;
  for (int who = RUSAGE_CHILDREN; who <= RUSAGE_SELF; who++) {
    struct rusage used;
    getrusage(who, &used);
    seconds += (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec);
    seconds += 1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
  }
  return seconds;
}

bool grid_check(const test_problem *p, const grid_exception *exceptions, const char *text) {
  bool right = true;
  test_run *want = run_create(p, test_reference, true);
  write_indexes(want);
  double begun = processor_seconds();
  run_call(want);
  reference_seconds += processor_seconds() - begun;
  double *values[TEST_MAX_TENSORS] = {NULL};
  for (size_t i = 0; i < p->count; i++)
    if (p->tensors[i].role != TEST_IN) values[i] = run_read(want, p->tensors[i].name);
  run_destroy(want);
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    test_run *got = run_create(p, device->context, false);
    write_indexes(got);
    begun = processor_seconds();
    clm_status status = p->op->call(device->context, got->args);
    if (status == CLM_OK) status = clm_context_finish(device->context);
    device_seconds[d] += processor_seconds() - begun;
    if (status == CLM_OK) {
      snprintf(explain, sizeof explain, "%s", clm_context_explain(device->context));
      for (size_t i = 0; i < p->count; i++) {
        const char *name = p->tensors[i].name;
        if (values[i])
          right &= compare(got, values[i], name, tolerance_of(p->storage, exceptions, name), text, device);
      }
      checked++;
    } else if (status == CLM_UNSUPPORTED && !getenv("CLM_GRID_STRICT")) {
      unsupported++;
    } else {
      print_error("%s\n  %s: %s\n", text, device->name, clm_context_error(device->context));
      right = false;
    }
    run_destroy(got);
  }
  for (size_t i = 0; i < p->count; i++) free(values[i]);
  return right;
}

/* ---- The run ---- */

void grid_report(const test_device *device, const void *data) {
  (void)device, (void)data;
  printf(
      "# %d cells; %d calls right within tolerance, %d not supported\n# nearest to the tolerance, %.3g of it: %s\n",
      cells, checked, unsupported, worst_seen, worst_where);
  printf("# seconds of processor time: %.1f", reference_seconds);
  for (size_t d = 0; d < test_device_count; d++) printf(", %.1f on %s", device_seconds[d], test_devices[d].name);
  printf("; %.1f in all\n", processor_seconds());
}

int grid_main(const char *name, void (*add)(void)) {
  const char *text = getenv("CLM_GRID_SHARE");
  if (text && (sscanf(text, "%d/%d", &share, &shares) != 2 || share < 1 || share > shares)) {
    fprintf(stderr, "CLM_GRID_SHARE is \"%s\", expected 1/4 or the like\n", text);
    return EXIT_FAILURE;
  }
  if (text) share--;
  if (getenv("CLM_GRID_SPARSE")) sparse = atoi(getenv("CLM_GRID_SPARSE"));
  if (sparse < 1) sparse = 1;
  if (getenv("CLM_GRID_CELL")) only = atoi(getenv("CLM_GRID_CELL"));
  return test_main(name, add);
}
