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
  int width;                             /* minimum: the same in tables of several runs  */
  double (*value)(const bench_row *row); /* NAN: means nothing here */
  bool whole;                            /* a count, not a measurement */
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
    {"ms_median", "ms", 10, ms_median, false},
    {"ms_min", "min", 10, ms_min, false},
    {"ms_max", "max", 10, ms_max, false},
    {"gbytes_per_s", "GB/s", 8, gbytes, false},
    {"gflops_per_s", "GFLOP/s", 9, gflops, false},
    {"tokens_per_s", "tokens/s", 10, tokens, false},
    {"roofline_fraction", "of floor", 9, fraction, false},
    {"max_rel_err", "error", 9, error, false},
    {"peak_bytes", "peak bytes", 11, peak, true},
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

/* Four digits that count, and no exponent where a reader would have to look twice. */
static void cell_text(const column *c, double value, char *text, size_t size) {
  if (isnan(value)) snprintf(text, size, "-");
  else if (c->whole || value >= 1000) snprintf(text, size, "%.0f", value);
  else snprintf(text, size, "%.4g", value);
}

enum { CELL = 24, OP_WIDTH = 13, SHAPE_WIDTH = 46 };

static void print_row(FILE *f, const char *op, int shape_width, const char *shape, const int *width,
                      const char (*cells)[CELL]) {
  fprintf(f, "%-*s %-*s", OP_WIDTH, op, shape_width, shape);
  for (int c = 0; c < COLUMNS; c++)
    if (width[c]) fprintf(f, " %*s", width[c], cells[c]);
  fputc('\n', f);
}

/* Columns that no row has a value for are left out; each is as wide as its widest cell. */
static void print_table(const bench *b, FILE *f) {
  fprintf(f, "device: %s (%s %s), %s, %s caches\n", b->device.name, b->device.platform, b->device.version,
          bench_dtype_name(&b->settings.shape), b->settings.warm ? "warm" : "cold");
  print_limits(f, "limits:", &b->limits);
  if (b->row_count == 0) return;
  int width[COLUMNS] = {0}, shape_width = SHAPE_WIDTH;
  char cells[COLUMNS][CELL];
  for (size_t r = 0; r < b->row_count; r++) {
    const bench_row *row = &b->rows[r];
    if ((int)strlen(row->shape_text) > shape_width) shape_width = (int)strlen(row->shape_text);
    for (int c = 0; c < COLUMNS; c++) {
      double value = columns[c].value(row);
      if (isnan(value)) continue;
      cell_text(&columns[c], value, cells[c], CELL);
      if (width[c] < columns[c].width) width[c] = columns[c].width;
      if (width[c] < (int)strlen(cells[c])) width[c] = (int)strlen(cells[c]);
    }
  }
  for (int c = 0; c < COLUMNS; c++) snprintf(cells[c], CELL, "%s", columns[c].title);
  print_row(f, "op", shape_width, "shape", width, (const char(*)[CELL])cells);
  for (size_t r = 0; r < b->row_count; r++) {
    const bench_row *row = &b->rows[r];
    for (int c = 0; c < COLUMNS; c++) cell_text(&columns[c], columns[c].value(row), cells[c], CELL);
    print_row(f, row->op, shape_width, row->shape_text, width, (const char(*)[CELL])cells);
    if (!b->settings.explain) continue;
    print_limits(f, "    limits meanwhile:", &row->limits);
    print_explain(f, row->explain);
  }
}

static void put_number(FILE *f, double value, bool whole) {
  if (isnan(value)) fputc(',', f);
  else fprintf(f, whole ? ",%.0f" : ",%.9g", value);
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
    for (int c = 0; c < COLUMNS; c++) put_number(f, columns[c].value(row), columns[c].whole);
    for (int i = 0; i < LIMITS; i++) put_number(f, limit(&row->limits, i), false);
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
  for (int i = 0; i < LIMITS; i++) put_number(f, limit(&b->limits, i), false);
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

/* What, on which device, when and how: what makes a row readable by itself. */
static json_t *row_head(const bench *b, const char *op, const bench_shape *shape) {
  char date[11];
  tool_date(date);
  return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "op", op, "device", b->device.name, "dtype",
                   bench_dtype_name(shape), "date", date, "command", b->settings.command, "driver",
                   b->device.opencl ? b->device.driver : b->device.version, "version", clm_version(), "cache",
                   b->settings.warm ? "warm" : "cold");
}

static json_t *limits_json(const bench *b) {
  json_t *object = row_head(b, "limits", &b->settings.shape);
  return whole(object, add_limits(object, &b->limits));
}

static json_t *row_json(const bench *b, const bench_row *row) {
  json_t *object = row_head(b, row->op, &row->shape);
  bench_shape shape = row->shape;
  bool ok =
      json_object_set_new(object, "shape", json_string(row->shape_text)) == 0 && add_limits(object, &row->limits);
  for (int i = 0; bench_dim_name(i); i++) {
    int64_t size = *bench_dim(&shape, bench_dim_name(i));
    if (size > 0) ok = json_object_set_new(object, bench_dim_name(i), json_integer(size)) == 0 && ok;
  }
  for (int c = 0; c < COLUMNS; c++) {
    double value = columns[c].value(row);
    if (!columns[c].whole) ok = add_number(object, columns[c].name, value) && ok;
    else if (!isnan(value))
      ok = json_object_set_new(object, columns[c].name, json_integer((json_int_t)value)) == 0 && ok;
  }
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

/* The sizes of a row but the swept one, which the x axis shows. */
static void fixed_shape(const bench_row *row, const char *swept, char *text, size_t size) {
  size_t used = 0;
  text[0] = '\0';
  for (const char *word = row->shape_text; *word && used < size;) {
    size_t n = strcspn(word, " "), name = strcspn(word, "=");
    if (name != strlen(swept) || strncmp(word, swept, name) != 0) {
      int wrote = snprintf(text + used, size - used, "%s%.*s", used ? " " : "", (int)n, word);
      used += wrote > 0 ? (size_t)wrote : 0;
    }
    word += n + (word[n] == ' ');
  }
}

/* Two lines for each operation: measured, and the floor of this device. */
bool bench_plot(const bench *b) {
  const char *name = b->settings.sweep.name ? b->settings.sweep.name : "length";
  size_t n = b->row_count;
  double *x = calloc(3 * n + 1, sizeof *x), *y = x + n, *floor_ms = x + 2 * n;
  plot_series *series = calloc(2 * n + 1, sizeof *series);
  char(*names)[2][160] = calloc(n + 1, sizeof *names);
  size_t count = 0, last = 0;
  bool ok = x && series && names;
  if (!ok) tool_fail("out of memory");
  bool one_op = n > 0 && strcmp(b->rows[0].op, b->rows[n - 1].op) == 0;
  char title[256] = "nothing measured", shape[128] = "", where[256], date[11];
  for (size_t first = 0; ok && first < n; first = last) {
    for (; last < n && strcmp(b->rows[last].op, b->rows[first].op) == 0; last++) {
      bench_shape sizes = b->rows[last].shape;
      int64_t size = *bench_dim(&sizes, name);
      x[last] = size > 0 ? (double)size : 1;
      y[last] = b->rows[last].ms_median;
      floor_ms[last] = b->rows[last].floor_ms > 0 ? b->rows[last].floor_ms : NAN;
    }
    char(*name_of)[160] = names[count / 2];
    fixed_shape(&b->rows[first], name, shape, sizeof shape);
    snprintf(name_of[0], sizeof *name_of, "%s%s%s", b->rows[first].op, one_op ? "" : " ", one_op ? "" : shape);
    snprintf(name_of[1], sizeof *name_of, "%s, floor", b->rows[first].op);
    series[count] = (plot_series){name_of[0], x + first, y + first, last - first, .markers = true};
    series[count + 1] = (plot_series){name_of[1], x + first, floor_ms + first, last - first, .dashed = true};
    count += 2;
  }
  tool_date(date);
  if (n > 0)
    snprintf(title, sizeof title, "%s%s%s, %s, %s caches", b->settings.op, one_op ? " " : "", one_op ? shape : "",
             bench_dtype_name(&b->settings.shape), b->settings.warm ? "warm" : "cold");
  snprintf(where, sizeof where, "%s, %s", b->device.name, date);
  char label[64];
  snprintf(label, sizeof label, "%s%s", name, strcmp(name, "length") == 0 ? " (steps)" : "");
  plot p = {title, where, label, "time (ms)", PLOT_LOG2, PLOT_LOG, series, count};
  ok = ok && plot_write(&p, b->settings.plot);
  free(x);
  free(series);
  free(names);
  return ok;
}
