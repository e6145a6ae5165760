#include "common/plot.h"
#include "common/output.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Outer size and the frame of the axes, in SVG units. */
enum { WIDTH = 760, HEIGHT = 440, LEFT = 72, RIGHT = 20, TOP = 44, BOTTOM = 56, MAX_TICKS = 12 };

static const char *const colours[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b"};

typedef struct axis {
  bool log;
  double low, high;             /* in units of the data, or their log10 */
  double pixel_low, pixel_high; /* where low and high lie                */
  double ticks[MAX_TICKS];
  int tick_count;
} axis;

static double transform(const axis *a, double value) { return a->log ? log10(value) : value; }

static double pixel(const axis *a, double value) {
  return a->pixel_low + (transform(a, value) - a->low) / (a->high - a->low) * (a->pixel_high - a->pixel_low);
}

static bool drawable(const plot *p, double x, double y) {
  return isfinite(x) && isfinite(y) && (!p->log_x || x > 0) && (!p->log_y || y > 0);
}

/* 1, 2 or 5 times a power of ten, so that about `wanted` steps fit. */
static double round_step(double range, int wanted) {
  double raw = range / wanted, power = pow(10, floor(log10(raw))), digit = raw / power;
  return power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10);
}

static void axis_finish(axis *a, int wanted) {
  if (!(a->high >= a->low)) a->low = 0, a->high = 1; /* no data */
  if (a->high - a->low < 1e-12 * fmax(fabs(a->high), 1)) a->low -= 0.5, a->high += 0.5;
  double step = a->log ? fmax(1, ceil((a->high - a->low) / wanted)) : round_step(a->high - a->low, wanted);
  a->low = floor(a->low / step + 1e-9) * step;
  a->high = ceil(a->high / step - 1e-9) * step;
  for (int i = 0; i < MAX_TICKS && a->low + i * step <= a->high + step / 2; i++) {
    double value = a->low + i * step;
    if (fabs(value) < step / 1e6) value = 0;
    a->ticks[a->tick_count++] = a->log ? pow(10, value) : value;
  }
}

static void put_text(FILE *f, const char *text) {
  for (; *text; text++) switch (*text) {
    case '<': fputs("&lt;", f); break;
    case '>': fputs("&gt;", f); break;
    case '&': fputs("&amp;", f); break;
    default: fputc(*text, f);
    }
}

static void put_label(FILE *f, double x, double y, const char *attributes, const char *text) {
  fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes);
  put_text(f, text);
  fputs("</text>\n", f);
}

static void put_axes(FILE *f, const plot *p, const axis *x, const axis *y) {
  char number[32], turn[80];
  for (int i = 0; i < x->tick_count; i++) {
    double at = pixel(x, x->ticks[i]);
    fprintf(f, "<path d=\"M%.1f %d V%d\" stroke=\"#ddd\"/>\n", at, TOP, HEIGHT - BOTTOM);
    snprintf(number, sizeof number, "%g", x->ticks[i]);
    put_label(f, at, HEIGHT - BOTTOM + 18, "text-anchor=\"middle\"", number);
  }
  for (int i = 0; i < y->tick_count; i++) {
    double at = pixel(y, y->ticks[i]);
    fprintf(f, "<path d=\"M%d %.1f H%d\" stroke=\"#ddd\"/>\n", LEFT, at, WIDTH - RIGHT);
    snprintf(number, sizeof number, "%g", y->ticks[i]);
    put_label(f, LEFT - 8, at + 4, "text-anchor=\"end\"", number);
  }
  fprintf(f, "<path d=\"M%d %d V%d H%d\" fill=\"none\" stroke=\"#000\"/>\n", LEFT, TOP, HEIGHT - BOTTOM,
          WIDTH - RIGHT);
  put_label(f, WIDTH / 2.0, 22, "text-anchor=\"middle\" font-size=\"15\"", p->title);
  put_label(f, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 14, "text-anchor=\"middle\"", p->x_label);
  double middle = (TOP + HEIGHT - BOTTOM) / 2.0;
  snprintf(turn, sizeof turn, "text-anchor=\"middle\" transform=\"rotate(-90 20 %.1f)\"", middle);
  put_label(f, 20, middle, turn, p->y_label);
}

static void put_series(FILE *f, const plot *p, size_t index, const axis *x, const axis *y) {
  const plot_series *s = &p->series[index];
  const char *colour = colours[index % (sizeof colours / sizeof *colours)];
  bool begun = false;
  for (size_t i = 0; i < s->count; i++) {
    if (!drawable(p, s->x[i], s->y[i])) continue;
    if (!begun) fprintf(f, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" d=\"M", colour);
    fprintf(f, "%s%.1f %.1f", begun ? " L" : "", pixel(x, s->x[i]), pixel(y, s->y[i]));
    begun = true;
  }
  if (begun) fputs("\"/>\n", f);
  for (size_t i = 0; s->markers && i < s->count; i++)
    if (drawable(p, s->x[i], s->y[i]))
      fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", pixel(x, s->x[i]), pixel(y, s->y[i]),
              colour);
  double line = TOP + 16 + 18 * (double)index;
  fprintf(f, "<path d=\"M%d %.1f h24\" stroke=\"%s\" stroke-width=\"2\"/>\n", WIDTH - RIGHT - 170, line - 4, colour);
  put_label(f, WIDTH - RIGHT - 138, line, "", s->name);
}

static void put_plot(FILE *f, const plot *p) {
  axis x = {p->log_x, DBL_MAX, -DBL_MAX, LEFT, WIDTH - RIGHT, {0}, 0};
  axis y = {p->log_y, DBL_MAX, -DBL_MAX, HEIGHT - BOTTOM, TOP, {0}, 0};
  for (size_t s = 0; s < p->count; s++)
    for (size_t i = 0; i < p->series[s].count; i++) {
      if (!drawable(p, p->series[s].x[i], p->series[s].y[i])) continue;
      double at[2] = {transform(&x, p->series[s].x[i]), transform(&y, p->series[s].y[i])};
      x.low = fmin(x.low, at[0]), x.high = fmax(x.high, at[0]);
      y.low = fmin(y.low, at[1]), y.high = fmax(y.high, at[1]);
    }
  axis_finish(&x, 8);
  axis_finish(&y, 6);
  fprintf(f,
          "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
          "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
          WIDTH, HEIGHT, WIDTH, HEIGHT);
  put_axes(f, p, &x, &y);
  for (size_t s = 0; s < p->count; s++) put_series(f, p, s, &x, &y);
  fputs("</svg>\n", f);
}

bool plot_write(const plot *p, const char *path) {
  output o;
  if (!output_open(&o, path)) return false;
  put_plot(o.stream, p);
  return output_close(&o, true);
}
