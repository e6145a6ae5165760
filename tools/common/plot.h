/* Line plots as SVG: axes with ticks and units, a legend, nothing else. */
#ifndef CLM_TOOLS_PLOT_H
#define CLM_TOOLS_PLOT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct plot_series {
  const char *name;
  const double *x, *y; /* points that are not finite are left out */
  size_t count;
  bool markers; /* a dot on every point */
} plot_series;

typedef struct plot {
  const char *title, *x_label, *y_label; /* labels with their units */
  bool log_x, log_y;
  const plot_series *series;
  size_t count;
} plot;

/* Writes `path` (beside, then renamed). False: nothing is written, the sentence is on stderr. */
bool plot_write(const plot *p, const char *path);

#endif
