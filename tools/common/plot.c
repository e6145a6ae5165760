#include "common/plot.h"
#include "common/output.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* In SVG units: the picture's width, the frame of the axes, the lines of text above it. */
enum { WIDTH = 760, FRAME = 340, LEFT = 76, RIGHT = 24, BOTTOM = 56, TITLE = 24, SUBTITLE = 18, LEGEND = 18 };
enum { DASH = 16, SWATCH = 26, MAX_TICKS = 24 };
static const double letter = 6.6; /* width of a letter of size 12, on the average and rounded up */

static const char *const colours[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b"};

typedef struct axis {
  plot_scale scale;             /* never PLOT_AUTO                                    */
  double low, high;             /* in units of the data, or their logarithm           */
  double pixel_low, pixel_high; /* where low and high lie                             */
  double ticks[MAX_TICKS];
  int tick_count;
} axis;

static double transform(const axis *a, double value) {
  return a->scale == PLOT_LOG ? log10(value) : a->scale == PLOT_LOG2 ? log2(value) : value;
}

static double pixel(const axis *a, double value) {
  return a->pixel_low + (transform(a, value) - a->low) / (a->high - a->low) * (a->pixel_high - a->pixel_low);
}

static bool fits(const axis *a, double value) { return isfinite(value) && (a->scale == PLOT_LINEAR || value > 0); }

static void add_tick(axis *a, double value) {
  double at = transform(a, value), slack = 1e-9 * fmax(1, fabs(a->high - a->low));
  if (a->tick_count < MAX_TICKS && at >= a->low - slack && at <= a->high + slack) a->ticks[a->tick_count++] = value;
}

/* 1, 2 or 5 times a power of ten, so that about `wanted` steps fit. */
static double round_step(double range, int wanted) {
  double raw = range / wanted, power = pow(10, floor(log10(raw))), digit = raw / power;
  return power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10);
}

/* The range ends at whole steps. */
static void linear_ticks(axis *a, int wanted) {
  if (a->high - a->low < 1e-12 * fmax(fabs(a->high), 1)) a->low -= 0.5, a->high += 0.5;
  double step = round_step(a->high - a->low, wanted);
  a->low = floor(a->low / step + 1e-9) * step;
  a->high = ceil(a->high / step - 1e-9) * step;
  int steps = (int)lround((a->high - a->low) / step);
  for (int i = 0; i <= steps; i++) {
    double value = a->low + i * step;
    add_tick(a, fabs(value) < step / 1e6 ? 0 : value);
  }
}

/* The range ends a little outside the data, not at a whole decade: no part of the picture is empty. Decades alone
 * where there are many, 1, 2 and 5 where there are few. */
static void decade_ticks(axis *a, int wanted) {
  static const double between[] = {1, 2, 5};
  double range = a->high - a->low, margin = fmax(0.04 * range, range > 0 ? 0 : 0.15);
  a->low -= margin, a->high += margin;
  int step = (int)fmax(1, ceil((a->high - a->low) / wanted)), parts = a->high - a->low < wanted / 2.0 ? 3 : 1;
  for (int power = (int)floor(a->low); power <= (int)ceil(a->high); power++)
    for (int i = 0; i < parts && power % step == 0; i++) add_tick(a, between[i] * pow(10, power));
  if (a->tick_count > 2) return;
  a->tick_count = 0; /* within a decade: even steps */
  const double low = pow(10, a->low), high = pow(10, a->high), even = round_step(high - low, wanted);
  for (int i = 0; i <= 2 * wanted; i++) add_tick(a, (ceil(low / even) + i) * even);
}

static void octave_ticks(axis *a, int wanted) {
  double range = a->high - a->low, margin = range > 0 ? 0.03 * range : 0.5;
  int first = (int)ceil(a->low - 1e-9), last = (int)floor(a->high + 1e-9);
  int step = (int)fmax(1, ceil((last - first + 1.0) / wanted));
  a->low -= margin, a->high += margin;
  for (int power = first; power <= last; power += step) add_tick(a, pow(2, power));
}

/* Range and scale of one coordinate of all points; `which` 0: x, 1: y. */
static void axis_of(axis *a, const plot *p, int which, int wanted) {
  double low = DBL_MAX, high = -DBL_MAX;
  for (size_t s = 0; s < p->count; s++)
    for (size_t i = 0; i < p->series[s].count; i++) {
      double value = which ? p->series[s].y[i] : p->series[s].x[i];
      if (!fits(a, value)) continue;
      low = fmin(low, value), high = fmax(high, value);
    }
  if (low > high) low = 1, high = 2; /* no data */
  if (a->scale == PLOT_AUTO) a->scale = low > 0 && high >= 10 * low ? PLOT_LOG : PLOT_LINEAR;
  a->low = transform(a, low), a->high = transform(a, high);
  if (a->scale == PLOT_LOG) decade_ticks(a, wanted);
  else if (a->scale == PLOT_LOG2) octave_ticks(a, wanted);
  else linear_ticks(a, wanted);
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
  const double top = y->pixel_high, bottom = y->pixel_low;
  for (int i = 0; i < x->tick_count; i++) {
    double at = pixel(x, x->ticks[i]);
    fprintf(f, "<path d=\"M%.1f %.1f V%.1f\" stroke=\"#ddd\"/>\n", at, top, bottom);
    snprintf(number, sizeof number, x->scale == PLOT_LOG2 ? "%.10g" : "%g", x->ticks[i]);
    put_label(f, at, bottom + 18, "text-anchor=\"middle\"", number);
  }
  for (int i = 0; i < y->tick_count; i++) {
    double at = pixel(y, y->ticks[i]);
    fprintf(f, "<path d=\"M%d %.1f H%d\" stroke=\"#ddd\"/>\n", LEFT, at, WIDTH - RIGHT);
    snprintf(number, sizeof number, "%g", y->ticks[i]);
    put_label(f, LEFT - 8, at + 4, "text-anchor=\"end\"", number);
  }
  fprintf(f, "<path d=\"M%d %.1f V%.1f H%d\" fill=\"none\" stroke=\"#000\"/>\n", LEFT, top, bottom, WIDTH - RIGHT);
  put_label(f, (LEFT + WIDTH - RIGHT) / 2.0, bottom + 42, "text-anchor=\"middle\"", p->x_label);
  snprintf(turn, sizeof turn, "text-anchor=\"middle\" transform=\"rotate(-90 20 %.1f)\"", (top + bottom) / 2);
  put_label(f, 20, (top + bottom) / 2, turn, p->y_label);
}

static const char *colour_of(size_t series) { return colours[series % (sizeof colours / sizeof *colours)]; }

static void put_series(FILE *f, const plot *p, size_t index, const axis *x, const axis *y) {
  const plot_series *s = &p->series[index];
  const char *dashes = s->dashed ? " stroke-dasharray=\"6 4\"" : "";
  size_t drawn = 0, last = 0;
  for (size_t i = 0; i < s->count; i++) {
    if (!fits(x, s->x[i]) || !fits(y, s->y[i])) continue;
    if (!drawn)
      fprintf(f, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\"%s d=\"M", colour_of(index), dashes);
    fprintf(f, "%s%.1f %.1f", drawn ? " L" : "", pixel(x, s->x[i]), pixel(y, s->y[i]));
    last = i;
    drawn++;
  }
  if (drawn == 1 && !s->markers)
    fprintf(f, " m%d 0 h%d", -DASH, 2 * DASH); /* a line needs two points: a dash through the only one */
  if (drawn) fputs("\"/>\n", f);
  for (size_t i = 0; drawn && s->markers && i <= last; i++)
    if (fits(x, s->x[i]) && fits(y, s->y[i]))
      fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", pixel(x, s->x[i]), pixel(y, s->y[i]),
              colour_of(index));
}

static double name_width(const plot_series *s) { return SWATCH + 8 + letter * (double)strlen(s->name) + 18; }

/* Line and place of each name of the legend, which lies between the title and the frame. Returns its lines; f NULL:
 * only counts them. */
static int put_legend(FILE *f, const plot *p, double top) {
  double at = LEFT;
  int lines = p->count > 0;
  for (size_t i = 0; i < p->count; i++) {
    const plot_series *s = &p->series[i];
    if (at > LEFT && at + name_width(s) > WIDTH - RIGHT) at = LEFT, lines++;
    double y = top + LEGEND * (lines - 0.5);
    if (f) {
      fprintf(f, "<path d=\"M%.1f %.1f h%d\" stroke=\"%s\" stroke-width=\"2\"%s/>\n", at, y, SWATCH, colour_of(i),
              s->dashed ? " stroke-dasharray=\"6 4\"" : "");
      if (s->markers)
        fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", at + SWATCH / 2.0, y, colour_of(i));
      put_label(f, at + SWATCH + 8, y + 4, "", s->name);
    }
    at += name_width(s);
  }
  return lines;
}

/* A line of text across the picture, its letters smaller where it would be cut off. */
static void put_line(FILE *f, double y, double size, const char *text) {
  char attributes[80];
  double width = letter * size / 12 * (double)strlen(text);
  if (width > WIDTH - 16) size *= (WIDTH - 16) / width;
  snprintf(attributes, sizeof attributes, "text-anchor=\"middle\" font-size=\"%.1f\"", size);
  put_label(f, WIDTH / 2.0, y, attributes, text);
}

static void put_plot(FILE *f, const plot *p) {
  double legend = 8 + TITLE + (p->subtitle ? SUBTITLE : 0);
  double top = legend + LEGEND * put_legend(NULL, p, legend) + 12, bottom = top + FRAME;
  axis x = {.scale = p->x_scale, .pixel_low = LEFT, .pixel_high = WIDTH - RIGHT};
  axis y = {.scale = p->y_scale, .pixel_low = bottom, .pixel_high = top};
  axis_of(&x, p, 0, 10);
  axis_of(&y, p, 1, 6);
  fprintf(f,
          "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%.0f\" viewBox=\"0 0 %d %.0f\" "
          "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
          WIDTH, bottom + BOTTOM, WIDTH, bottom + BOTTOM);
  put_line(f, TITLE, 15, p->title);
  if (p->subtitle) put_line(f, TITLE + SUBTITLE, 12, p->subtitle);
  put_legend(f, p, legend);
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
