#include "core/json_print.h"
#include "info/info.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *type_name(clm_device_type type) {
  static const char *const names[] = {"CPU", "GPU", "accelerator"};
  return (size_t)type < sizeof names / sizeof names[0] ? names[type] : "device";
}

void info_print_brief(const info_device *entries, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (!entries[i].device.unusable[0])
      printf("%s\t%s\n", entries[i].option, entries[i].device.opencl ? entries[i].device.name : "native CPU backend");
}

/* One or more lines, each indented. */
static void print_indented(const char *text) {
  while (text && *text) {
    int n = (int)strcspn(text, "\n");
    printf("        %.*s\n", n, text);
    text += n + (text[n] == '\n');
  }
}

static void print_capabilities(const clm_device_info *d) {
  printf("  %-18s %s\n", "type", type_name(d->type));
  if (d->platform[0]) printf("  %-18s %s\n", "platform", d->platform);
  if (d->version[0]) printf("  %-18s %s\n", d->opencl ? "version" : "level", d->version);
  if (d->driver[0]) printf("  %-18s %s\n", "driver", d->driver);
  if (d->compute_units) printf("  %-18s %" PRIu32 "\n", d->opencl ? "compute units" : "threads", d->compute_units);
  if (d->memory_bytes) printf("  %-18s %.1f GiB\n", "memory", (double)d->memory_bytes / (1 << 30));
  if (!d->opencl) return;
  printf("  %-18s %.1f GiB\n", "largest allocation", (double)d->max_allocation_bytes / (1 << 30));
  printf("  %-18s %" PRIu64 " KiB\n", "local memory", d->local_memory_bytes >> 10);
  printf("  %-18s %" PRIu32 "\n", "largest work-group", d->max_work_group);
  printf("  %-18s fp16 %s, fp64 %s, sub-groups %s\n", "features", d->fp16 ? "yes" : "no", d->fp64 ? "yes" : "no",
         d->subgroups ? "yes" : "no");
}

void info_print_text(const info_device *entries, size_t count, const char *automatic) {
  printf("clmamba %s; --device auto takes %s\n", clm_version(), automatic);
  for (size_t i = 0; i < count; i++) {
    const info_device *e = &entries[i];
    printf("\n%s: %s\n", e->option, e->device.name[0] ? e->device.name : "native CPU backend");
    print_capabilities(&e->device);
    if (e->device.unusable[0]) printf("  %-18s %s\n", "unusable", e->device.unusable);
    if (e->failure) printf("  %-18s %s\n", "fails", e->failure);
    for (const info_variant *v = e->variants; v && v->op; v++) {
      printf("  %s%s\n", v->op, v->failed ? " (not run)" : "");
      print_indented(v->explain);
    }
  }
}

static json_t *device_json(const info_device *e) {
  const clm_device_info *d = &e->device;
  json_t *variants = json_object();
  int failed = 0;
  for (const info_variant *v = e->variants; v && v->op; v++)
    failed |=
        json_object_set_new(variants, v->op, json_pack("{s:b, s:s}", "runs", !v->failed, "explain", v->explain));
  const char *why = d->unusable[0] ? d->unusable : e->failure;
  json_t *object = json_pack(
      "{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:I, s:I, s:I, s:i, s:i, s:b, s:b, s:b, s:o}", "device", e->option,
      "name", d->name, "platform", d->platform, "type", type_name(d->type), "version", d->version, "driver",
      d->driver, "opencl", d->opencl, "usable", !why, "memory_bytes", (json_int_t)d->memory_bytes,
      "max_allocation_bytes", (json_int_t)d->max_allocation_bytes, "local_memory_bytes",
      (json_int_t)d->local_memory_bytes, "compute_units", (int)d->compute_units, "max_work_group",
      (int)d->max_work_group, "fp16", d->fp16, "fp64", d->fp64, "subgroups", d->subgroups, "variants", variants);
  if (why) failed |= json_object_set_new(object, "why", json_string(why));
  if (!failed) return object;
  json_decref(object);
  return NULL;
}

bool info_print_json(const info_device *entries, size_t count, const char *automatic) {
  json_t *devices = json_array();
  int failed = 0;
  for (size_t i = 0; i < count; i++) failed |= json_array_append_new(devices, device_json(&entries[i]));
  json_t *all = json_pack("{s:s, s:s, s:o}", "clmamba", clm_version(), "automatic", automatic, "devices", devices);
  char *text = failed ? NULL : json_print(all, JSON_INDENT(2));
  json_decref(all);
  if (text) puts(text);
  free(text);
  return text != NULL;
}
