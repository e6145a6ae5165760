#include "bench/bench.h"
#include "common/output.h"
#include "common/plot.h"
#include "common/tool.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct column {
  const char *name, *title;
  int width;
  double (*value)(const bench_row *row); /* NAN: means nothing here */
} column;

static double ms_median(const bench_row *r) { return r->ms_median; }
static double ms_min(const bench_row *r) { return r->ms_min; }
static double ms_max(const bench_row *r) { return r->ms_max; }
static double per_second(double amount, const bench_row *r, double unit) {
  return amount > 0 && r->ms_median > 0 ? amount / (r->ms_median * 1e-3) / unit : NAN;
}
static double gbytes(const bench_row *r) { return per_second(r->cost.bytes + r->cost.read_bytes, r, 1e9); }
static double gflops(const bench_row *r) { return per_second(r->cost.flops, r, 1e9); }
static double tokens(const bench_row *r) { return per_second(r->cost.tokens, r, 1); }
static double fraction(const bench_row *r) {
  return r->floor_ms > 0 && r->ms_median > 0 ? r->floor_ms / r->ms_median : NAN;
}
static double error(const bench_row *r) { return r->max_error; }
static double peak(const bench_row *r) { return r->peak_bytes ? (double)r->peak_bytes : NAN; }

static const column columns[] = {
    {"ms_median", "ms", 10, ms_median},
    {"ms_min", "min", 10, ms_min},
    {"ms_max", "max", 10, ms_max},
    {"gbytes_per_s", "GB/s", 8, gbytes},
    {"gflops_per_s", "GFLOP/s", 9, gflops},
    {"tokens_per_s", "tokens/s", 10, tokens},
    {"roofline_fraction", "of floor", 9, fraction},
    {"max_rel_err", "error", 9, error},
    {"peak_bytes", "peak bytes", 11, peak},
};
enum { COLUMNS = sizeof columns / sizeof columns[0] };

static const struct {
  const char *name, *title;
  size_t member;
  double unit;
} limits[] = {
    {"copy_gbytes_per_s", "copy GB/s", offsetof(bench_limits, copy_bytes), 1e9},
    {"read_gbytes_per_s", "read GB/s", offsetof(bench_limits, read_bytes), 1e9},
    {"product_gflops_per_s", "product GFLOP/s", offsetof(bench_limits, flops), 1e9},
    {"exponentials_per_s", "exponentials/s", offsetof(bench_limits, exponentials), 1},
    {"launch_us", "launch us", offsetof(bench_limits, launch), 1e-6},
};
enum { LIMITS = sizeof limits / sizeof limits[0] };

static double limit(const bench_limits *of, int i) {
  double value = *(const double *)(const void *)((const char *)of + limits[i].member);
  return value > 0 ? value / limits[i].unit : NAN;
}

static void print_explain(FILE *f, const char *text) {
  while (text && *text) {
    int n = (int)strcspn(text, "\n");
    fprintf(f, "    %.*s\n", n, text);
    text += n + (text[n] == '\n');
  }
}

static void print_limits(FILE *f, const char *title, const bench_limits *of) {
  fputs(title, f);
  for (int i = 0; i < LIMITS; i++)
    if (!isnan(limit(of, i))) fprintf(f, "%s %s %.4g", i ? "," : "", limits[i].title, limit(of, i));
  fputc('\n', f);
}

static void print_table(const bench *b, FILE *f) {
  fprintf(f, "device: %s (%s %s), %s, %s caches\n", b->device.name, b->device.platform, b->device.version,
          bench_dtype_name(&b->settings.shape), b->settings.warm ? "warm" : "cold");
  print_limits(f, "limits:", &b->limits);
  if (b->row_count == 0) return;
  bool used[COLUMNS] = {false};
  int shape_width = 5;
  for (size_t r = 0; r < b->row_count; r++) {
    int n = (int)strlen(b->rows[r].shape_text);
    if (n > shape_width) shape_width = n;
    for (int c = 0; c < COLUMNS; c++) used[c] = used[c] || !isnan(columns[c].value(&b->rows[r]));
  }
  fprintf(f, "%-13s %-*s", "op", shape_width, "shape");
  for (int c = 0; c < COLUMNS; c++)
    if (used[c]) fprintf(f, " %*s", columns[c].width, columns[c].title);
  fputc('\n', f);
  for (size_t r = 0; r < b->row_count; r++) {
    const bench_row *row = &b->rows[r];
    fprintf(f, "%-13s %-*s", row->op, shape_width, row->shape_text);
    for (int c = 0; c < COLUMNS; c++) {
      double value = columns[c].value(row);
      if (!used[c]) continue;
      if (isnan(value)) fprintf(f, " %*s", columns[c].width, "-");
      else fprintf(f, " %*.4g", columns[c].width, value);
    }
    fputc('\n', f);
    if (!b->settings.explain) continue;
    print_limits(f, "    limits meanwhile:", &row->limits);
    print_explain(f, row->explain);
  }
}

static void put_number(FILE *f, double value) {
  if (isnan(value)) fputc(',', f);
  else fprintf(f, ",%.9g", value);
}

/* A field that may hold commas or quotes. */
static void put_quoted(FILE *f, const char *text) {
  fputc('"', f);
  for (; *text; text++) {
    if (*text == '"') fputc('"', f);
    fputc(*text, f);
  }
  fputc('"', f);
}

static void print_csv(const bench *b, FILE *f) {
  fputs("op,device,dtype,shape", f);
  for (int c = 0; c < COLUMNS; c++) fprintf(f, ",%s", columns[c].name);
  for (int i = 0; i < LIMITS; i++) fprintf(f, ",%s", limits[i].name);
  if (b->settings.explain) fputs(",explain", f);
  fputc('\n', f);
  for (size_t r = 0; r < b->row_count; r++) {
    const bench_row *row = &b->rows[r];
    fprintf(f, "%s,", row->op);
    put_quoted(f, b->device.name);
    fprintf(f, ",%s,", bench_dtype_name(&row->shape));
    put_quoted(f, row->shape_text);
    for (int c = 0; c < COLUMNS; c++) put_number(f, columns[c].value(row));
    for (int i = 0; i < LIMITS; i++) put_number(f, limit(&row->limits, i));
    if (b->settings.explain) {
      fputc(',', f);
      put_quoted(f, row->explain ? row->explain : "");
    }
    fputc('\n', f);
  }
  if (b->row_count > 0) return;
  fputs("limits,", f);
  put_quoted(f, b->device.name);
  fprintf(f, ",%s,\"\"", bench_dtype_name(&b->settings.shape));
  for (int c = 0; c < COLUMNS; c++) fputc(',', f);
  for (int i = 0; i < LIMITS; i++) put_number(f, limit(&b->limits, i));
  fputc('\n', f);
}

/* Numbers that are not finite are left out. False: out of memory. */
static bool add_number(json_t *object, const char *name, double value) {
  return !isfinite(value) || json_object_set_new(object, name, json_real(value)) == 0;
}

static bool add_limits(json_t *object, const bench_limits *of) {
  bool ok = true;
  for (int i = 0; i < LIMITS; i++) ok = add_number(object, limits[i].name, limit(of, i)) && ok;
  return ok;
}

/* The object, or NULL where not all of it could be made. */
static json_t *whole(json_t *object, bool ok) {
  if (ok) return object;
  json_decref(object);
  return NULL;
}

static json_t *limits_json(const bench *b) {
  json_t *object = json_pack("{s:s, s:s, s:s}", "op", "limits", "device", b->device.name, "dtype",
                             bench_dtype_name(&b->settings.shape));
  return whole(object, add_limits(object, &b->limits));
}

static json_t *row_json(const bench *b, const bench_row *row) {
  json_t *object = json_pack("{s:s, s:s, s:s, s:s}", "op", row->op, "device", b->device.name, "dtype",
                             bench_dtype_name(&row->shape), "shape", row->shape_text);
  bool ok = add_limits(object, &row->limits);
  for (int c = 0; c < COLUMNS; c++) ok = add_number(object, columns[c].name, columns[c].value(row)) && ok;
  if (b->settings.explain && row->explain)
    ok = json_object_set_new(object, "explain", json_string(row->explain)) == 0 && ok;
  return whole(object, ok);
}

static bool print_json(const bench *b, FILE *f) {
  json_t *rows = json_array();
  int failed = b->row_count ? 0 : json_array_append_new(rows, limits_json(b));
  for (size_t r = 0; r < b->row_count; r++) failed |= json_array_append_new(rows, row_json(b, &b->rows[r]));
  failed = failed || json_dumpf(rows, f, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) != 0;
  json_decref(rows);
  if (failed) return tool_fail("out of memory"), false;
  fputc('\n', f); /* that it was written is found when the output is closed */
  return true;
}

bool bench_report(const bench *b) {
  output out;
  if (!output_open(&out, b->settings.output)) return false;
  bool ok = true;
  switch (b->settings.format) {
  case BENCH_TABLE: print_table(b, out.stream); break;
  case BENCH_CSV: print_csv(b, out.stream); break;
  case BENCH_JSON: ok = print_json(b, out.stream); break;
  }
  return output_close(&out, ok) && ok;
}

/* Two lines for each operation: measured, and the floor of this device. */
bool bench_plot(const bench *b) {
  const char *name = b->settings.sweep.name ? b->settings.sweep.name : "length";
  size_t n = b->row_count;
  double *x = calloc(3 * n + 1, sizeof *x), *y = x + n, *floor_ms = x + 2 * n;
  plot_series *series = calloc(2 * n + 1, sizeof *series);
  char(*names)[32] = calloc(n + 1, sizeof *names);
  size_t count = 0;
  bool ok = x && series && names;
  if (!ok) tool_fail("out of memory");
  for (size_t first = 0, last; ok && first < n; first = last) {
    for (last = first; last < n && strcmp(b->rows[last].op, b->rows[first].op) == 0; last++) {
      bench_shape shape = b->rows[last].shape;
      int64_t size = *bench_dim(&shape, name);
      x[last] = size > 0 ? (double)size : 1;
      y[last] = b->rows[last].ms_median;
      floor_ms[last] = b->rows[last].floor_ms > 0 ? b->rows[last].floor_ms : NAN;
    }
    snprintf(names[count / 2], sizeof *names, "%s, floor", b->rows[first].op);
    series[count] = (plot_series){b->rows[first].op, x + first, y + first, last - first, true};
    series[count + 1] = (plot_series){names[count / 2], x + first, floor_ms + first, last - first, false};
    count += 2;
  }
  char title[256], label[64];
  snprintf(title, sizeof title, "%s, %s", b->settings.op, b->device.name);
  snprintf(label, sizeof label, "%s%s", name, strcmp(name, "length") == 0 ? " (steps)" : "");
  plot p = {title, label, "time (ms)", true, true, series, count};
  ok = ok && plot_write(&p, b->settings.plot);
  free(x);
  free(series);
  free(names);
  return ok;
}
