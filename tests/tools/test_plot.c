/* Plots, read back from their SVG: where the legend, the ticks and the points are. */
#include "cmocka_all.h"
#include "common/plot.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char file[] = "test_plot.svg";

/* What a plot looks like: its frame, its ticks along x, the points of its lines. */
typedef struct picture {
  char text[20000];
  double top, bottom, left, right;
  double tick[32], tick_at[32];
  int ticks;
} picture;

static void draw(const plot *p, picture *got) {
  *got = (picture){.left = -1};
  assert_true(plot_write(p, file));
  FILE *f = fopen(file, "r");
  assert_non_null(f);
  got->text[fread(got->text, 1, sizeof got->text - 1, f)] = '\0';
  fclose(f);
  remove(file);
  const char *frame = strstr(got->text, "fill=\"none\" stroke=\"#000\"");
  assert_non_null(frame);
  while (*frame != 'M') frame--;
  assert_int_equal(sscanf(frame, "M%lf %lf V%lf H%lf", &got->left, &got->top, &got->bottom, &got->right), 4);
  for (const char *at = got->text; (at = strstr(at, "<text ")); at++) {
    double x, y, value;
    if (sscanf(at, "<text x=\"%lf\" y=\"%lf\" text-anchor=\"middle\">%lf</text>", &x, &y, &value) != 3) continue;
    if (fabs(y - got->bottom - 18) > 0.1) continue;
    got->tick_at[got->ticks] = x;
    got->tick[got->ticks++] = value;
  }
}

/* The points of the lines of that colour that lie within the frame. */
static int points(const picture *p, const char *colour, double (*at)[2], int most) {
  int count = 0;
  for (const char *path = p->text; (path = strstr(path, "<path fill=\"none\"")); path++) {
    const char *d = strstr(path, " d=\""), *stroke = strstr(path, "stroke=\"");
    if (!d || !stroke || strncmp(stroke + 8, colour, strlen(colour)) != 0) continue;
    for (d += 4; *d && *d != '"';) {
      double x, y;
      int used;
      if (count < most && sscanf(d, "%*[ML]%lf %lf%n", &x, &y, &used) == 2) {
        at[count][0] = x, at[count++][1] = y;
        d += used;
      } else d++;
    }
  }
  return count;
}

static const double lengths[] = {512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072};
static const double times[] = {0.05, 0.06, 0.08, 0.14, 0.25, 0.46, 0.89, 1.75, 3.45};
enum { LENGTHS = sizeof lengths / sizeof *lengths };

/* The same words in the legend as mamba-bench's, so many that they need several lines. */
static void test_legend(void **state) {
  (void)state;
  static picture p;
  plot_series series[6];
  for (int i = 0; i < 6; i++)
    series[i] = (plot_series){"scan-train, floor of this device", lengths, times, LENGTHS, .markers = true};
  draw(&(plot){"title", "below it", "length", "ms", PLOT_LOG2, PLOT_LOG, series, 6}, &p);
  int names = 0;
  for (const char *at = p.text; (at = strstr(at, ">scan-train, floor")); at++, names++) {
    const char *begin = at;
    double x, y;
    while (strncmp(begin, "<text", 5) != 0) begin--;
    assert_int_equal(sscanf(begin, "<text x=\"%lf\" y=\"%lf\"", &x, &y), 2);
    assert_true(y < p.top);
    assert_true(x + 6.6 * (double)strlen(series[0].name) <= 760);
  }
  assert_int_equal(names, 6);
  assert_non_null(strstr(p.text, ">title</text>"));
  assert_non_null(strstr(p.text, ">below it</text>"));
  double at[64][2];
  int count = points(&p, "#1f77b4", at, 64);
  assert_int_equal(count, LENGTHS);
  for (int i = 0; i < count; i++) assert_true(at[i][1] >= p.top && at[i][1] <= p.bottom);
}

/* Ticks are powers of two, and the data fill the frame: less than a tenth of it lies outside them on each side. */
static void test_lengths(void **state) {
  (void)state;
  static picture p;
  const plot_series series = {"scan", lengths, times, LENGTHS, .markers = true};
  draw(&(plot){"t", NULL, "length", "ms", PLOT_LOG2, PLOT_LOG, &series, 1}, &p);
  assert_int_equal(p.ticks, LENGTHS);
  for (int i = 0; i < LENGTHS; i++) assert_true(p.tick[i] == lengths[i]);
  double at[64][2], wide = p.right - p.left, high = p.bottom - p.top;
  int count = points(&p, "#1f77b4", at, 64);
  assert_int_equal(count, LENGTHS);
  assert_true(at[0][0] - p.left < wide / 10 && p.right - at[count - 1][0] < wide / 10);
  assert_true(p.bottom - at[0][1] < high / 10 && at[count - 1][1] - p.top < high / 10);
  for (int i = 0; i < count; i++) assert_true(fabs(at[i][0] - p.tick_at[i]) < 0.2);
}

/* A loss from 2 to 0.002 falls by the same factor in the same height; one from 4 to 1.4 by the same amount. */
static void test_loss(void **state) {
  (void)state;
  static picture p;
  const double x[] = {0, 1, 2, 3}, decades[] = {2, 0.2, 0.02, 0.002}, near[] = {4, 3, 2, 1};
  double at[8][2];
  plot_series series = {"loss", x, decades, 4, .markers = false};
  draw(&(plot){"t", NULL, "x", "loss", PLOT_LINEAR, PLOT_AUTO, &series, 1}, &p);
  assert_int_equal(points(&p, "#1f77b4", at, 8), 4);
  for (int i = 0; i < 2; i++) assert_true(fabs((at[i + 1][1] - at[i][1]) - (at[i + 2][1] - at[i + 1][1])) < 0.3);
  assert_non_null(strstr(p.text, ">0.01</text>"));
  series.y = near;
  draw(&(plot){"t", NULL, "x", "loss", PLOT_LINEAR, PLOT_AUTO, &series, 1}, &p);
  assert_int_equal(points(&p, "#1f77b4", at, 8), 4);
  for (int i = 0; i < 2; i++) assert_true(fabs((at[i + 1][1] - at[i][1]) - (at[i + 2][1] - at[i + 1][1])) < 0.3);
}

/* One row without a sweep: a dot, and a dash where its floor is; both inside of the frame. */
static void test_single(void **state) {
  (void)state;
  static picture p;
  const double x = 2048, ms = 0.24, floor_ms = 0.18;
  const plot_series series[] = {{"scan", &x, &ms, 1, .markers = true},
                                {"scan, floor", &x, &floor_ms, 1, .dashed = true}};
  draw(&(plot){"t", NULL, "length", "ms", PLOT_LOG2, PLOT_LOG, series, 2}, &p);
  double at[4][2];
  assert_int_equal(points(&p, "#d62728", at, 4), 1);
  assert_true(at[0][1] > p.top && at[0][1] < p.bottom && at[0][0] > p.left && at[0][0] < p.right);
  assert_non_null(strstr(p.text, " m-16 0 h32\""));
  assert_non_null(strstr(p.text, "<circle"));
  assert_true(p.ticks >= 1 && p.tick[0] == 2048);
}

/* Nothing to draw, names with < and &: still a whole picture. */
static void test_nothing(void **state) {
  (void)state;
  static picture p;
  const double none = NAN;
  const plot_series series = {"a < b & c", &none, &none, 1, .markers = true};
  draw(&(plot){"t", NULL, "x", "y", PLOT_LOG2, PLOT_AUTO, &series, 1}, &p);
  assert_non_null(strstr(p.text, "a &lt; b &amp; c"));
  assert_null(strstr(p.text, "nan"));
  assert_non_null(strstr(p.text, "</svg>"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_legend), cmocka_unit_test(test_lengths), cmocka_unit_test(test_loss),
      cmocka_unit_test(test_single), cmocka_unit_test(test_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
