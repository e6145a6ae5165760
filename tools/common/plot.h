/* Line plots as SVG: a title, axes with ticks and units, a legend above the frame. */
#ifndef CLM_TOOLS_PLOT_H
#define CLM_TOOLS_PLOT_H

#include <stdbool.h>
#include <stddef.h>

typedef enum plot_scale {
  PLOT_LINEAR,
  PLOT_LOG,  /* decades; values above 0 only                                              */
  PLOT_LOG2, /* the same with ticks at powers of two, for lengths and other sizes         */
  PLOT_AUTO, /* logarithmic where all values are above 0 and span a decade, else linear   */
} plot_scale;

typedef struct plot_series {
  const char *name;
  const double *x, *y; /* points that are not finite are left out */
  size_t count;
  bool markers; /* a dot on every point; a single point without one is drawn as a dash */
  bool dashed;
} plot_series;

typedef struct plot {
  const char *title, *subtitle;  /* the subtitle may be NULL */
  const char *x_label, *y_label; /* with their units         */
  plot_scale x_scale, y_scale;
  const plot_series *series;
  size_t count;
} plot;

/* Writes `path` under a temporary name and renames it. False: nothing is written, the message is on stderr. */
bool plot_write(const plot *p, const char *path);

#endif
