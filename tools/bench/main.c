#include "bench/bench.h"
#include "common/tool.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One row, or one for each doubling of the swept size. */
static bool run_sweep(bench *b, const bench_op *op) {
  const bench_sweep *sweep = &b->settings.sweep;
  if (sweep->name && !bench_op_has(op, sweep->name))
    return tool_fail("--sweep: %s has no size \"%s\"", op->name, sweep->name), false;
  int64_t first = sweep->name ? sweep->first : 0, last = sweep->name ? sweep->last : 0;
  for (int64_t size = first; size <= last; size *= 2) {
    bench_shape shape = b->settings.shape;
    if (sweep->name) *bench_dim(&shape, sweep->name) = size;
    bench_defaults(b, op, &shape);
    char text[200];
    bench_shape_text(op, &shape, text + snprintf(text, 40, "%s ", op->name), 160);
    progress_wait(&b->progress, text);
    bool ok = bench_run_op(b, op, &shape);
    progress_end(&b->progress);
    if (!ok) return false;
    if (size == 0) break;
  }
  return true;
}

static bool run(bench *b) {
  bool all = strcmp(b->settings.op, "all") == 0;
  progress_wait(&b->progress, "limits of the device");
  bool measured = bench_measure_limits(b);
  progress_end(&b->progress);
  if (!measured) return false;
  if (strcmp(b->settings.op, "limits") == 0) return true;
  if (!all) return run_sweep(b, bench_find_op(b->settings.op, b->settings.kind));
  for (int i = 0; bench_ops[i]; i++) {
    if (b->settings.sweep.name && !bench_op_has(bench_ops[i], b->settings.sweep.name)) continue;
    if (!run_sweep(b, bench_ops[i]) && !b->unsupported) return false;
  }
  return true;
}

/* Says which rows are past their tolerance. */
static bool check_passed(const bench *b) {
  bool passed = true;
  for (size_t i = 0; i < b->row_count; i++) {
    const bench_row *row = &b->rows[i];
    if (isnan(row->max_error) || row->max_error <= row->tolerance) continue;
    tool_fail("%s %s: %s differs from the reference by %.3g, at most %.3g is allowed", row->op, row->shape_text,
              row->worst_tensor ? row->worst_tensor : "a result", row->max_error, row->tolerance);
    passed = false;
  }
  return passed;
}

int main(int argc, char **argv) {
  bench b = {.progress = progress_start()};
  int status;
  if (!bench_options(argc, argv, &b.settings, &status)) return status;
  b.context = tool_context(&(clm_context_options){.profiling = true});
  if (!b.context) return TOOL_FAILED;
  bool ok = clm_context_device(b.context, &b.device) == CLM_OK;
  if (!ok) bench_fail(&b, "device", CLM_DEVICE_ERROR);
  ok = ok && run(&b) && bench_report(&b);
  ok = ok && (!b.settings.plot || bench_plot(&b)) && check_passed(&b);
  for (size_t i = 0; i < b.row_count; i++) free(b.rows[i].explain);
  free(b.rows);
  clm_context_destroy(&b.context);
  return ok ? TOOL_OK : TOOL_FAILED;
}
