/* The plots of these pages, drawn as the tools draw theirs: JSON on the standard input, an SVG file out.
 *
 *   {"title": "...", "subtitle": "...", "x_label": "...", "y_label": "...", "x_scale": "log2", "y_scale": "log",
 *    "series": [{"name": "...", "x": [...], "y": [...], "markers": true, "dashed": false}, ...]}
 *
 * usage: plot FILE.svg. performance.py calls it. */
#include "common/plot.h"
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static plot_scale scale_of(const json_t *root, const char *key) {
  static const char *const names[] = {
      [PLOT_LINEAR] = "linear", [PLOT_LOG] = "log", [PLOT_LOG2] = "log2", [PLOT_AUTO] = "auto"};
  const char *name = json_string_value(json_object_get(root, key));
  for (int i = 0; name && i <= PLOT_AUTO; i++)
    if (strcmp(names[i], name) == 0) return (plot_scale)i;
  return PLOT_LINEAR;
}

static const double *numbers(const json_t *array, size_t *count) {
  *count = json_array_size(array);
  double *values = calloc(*count + 1, sizeof *values);
  if (!values) exit(1);
  for (size_t i = 0; i < *count; i++) values[i] = json_number_value(json_array_get(array, i));
  return values;
}

int main(int argc, char **argv) {
  json_error_t error;
  json_t *root = argc == 2 ? json_loadf(stdin, 0, &error) : NULL;
  if (!root) return fprintf(stderr, "usage: plot FILE.svg < PLOT.json\n"), 2;
  const json_t *list = json_object_get(root, "series");
  size_t count = json_array_size(list);
  plot_series *series = calloc(count + 1, sizeof *series);
  if (!series) return 1;
  for (size_t i = 0; i < count; i++) {
    const json_t *one = json_array_get(list, i);
    size_t ys;
    series[i].name = json_string_value(json_object_get(one, "name"));
    series[i].x = numbers(json_object_get(one, "x"), &series[i].count);
    series[i].y = numbers(json_object_get(one, "y"), &ys);
    series[i].markers = json_is_true(json_object_get(one, "markers"));
    series[i].dashed = json_is_true(json_object_get(one, "dashed"));
    if (!series[i].name || ys != series[i].count) return fprintf(stderr, "plot: a series without name or y\n"), 2;
  }
  const plot p = {json_string_value(json_object_get(root, "title")),
                  json_string_value(json_object_get(root, "subtitle")),
                  json_string_value(json_object_get(root, "x_label")),
                  json_string_value(json_object_get(root, "y_label")),
                  scale_of(root, "x_scale"),
                  scale_of(root, "y_scale"),
                  series,
                  count};
  if (!p.title || !p.x_label || !p.y_label) return fprintf(stderr, "plot: no title or label\n"), 2;
  bool ok = plot_write(&p, argv[1]);
  for (size_t i = 0; i < count; i++) free((void *)(uintptr_t)series[i].x), free((void *)(uintptr_t)series[i].y);
  free(series);
  json_decref(root);
  return ok ? 0 : 1;
}
