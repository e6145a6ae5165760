/* mamba-info: the devices of this machine, what they can do, and what clmamba would run on each. */
#include "common/output.h"
#include "common/progress.h"
#include "common/tool.h"
#include "info/info.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool list_devices(clm_device_info **devices, size_t *count) {
  *devices = NULL;
  clm_status status = clm_devices(NULL, 0, count);
  size_t capacity = *count;
  if (status == CLM_OK && capacity > 0) {
    *devices = calloc(capacity, sizeof **devices);
    status = *devices ? clm_devices(*devices, capacity, count) : CLM_OUT_OF_MEMORY;
  }
  if (*count > capacity) *count = capacity;
  if (status == CLM_OK) return true;
  tool_fail("the devices cannot be listed: %s", clm_status_string(status));
  free(*devices);
  return false;
}

static int json, brief;

static const struct poptOption options[] = {
    {"json", '\0', POPT_ARG_NONE, &json, 0, "print JSON", NULL},
    {"brief", '\0', POPT_ARG_NONE, &brief, 0,
     "one line for each usable device: what --device takes, a tab, and its name", NULL},
    POPT_TABLEEND,
};

static const tool_about about = {
    .name = "mamba-info",
    .summary = "list the devices that clmamba can use",
    .description = "Lists the CPU and the OpenCL devices of this machine, what they can do, and how the main "
                   "operations would run on each of them. The number of a device is what --device opencl:N of the "
                   "other tools takes.",
    .options = options,
};

int main(int argc, char **argv) {
  int status;
  if (!tool_parse(argc, argv, &about, NULL, &status)) return status;

  clm_device_info *devices;
  size_t count;
  if (!list_devices(&devices, &count)) return TOOL_FAILED;
  info_device *entries = calloc(count + 1, sizeof *entries);
  if (!entries) return tool_fail("out of memory");
  snprintf(entries[0].option, sizeof entries[0].option, "cpu");
  for (size_t i = 0; i < count; i++) {
    snprintf(entries[i + 1].option, sizeof entries[i + 1].option, "opencl:%zu", i);
    entries[i + 1].device = devices[i];
  }
  char automatic[160];
  bool ok = true;
  info_automatic(automatic, sizeof automatic);
  if (brief) info_print_brief(entries, count + 1);
  else {
    progress bar = progress_start();
    for (size_t i = 0; ok && i <= count; i++) {
      progress_wait(&bar, entries[i].option);
      ok = info_probe(&entries[i]);
      progress_end(&bar);
    }
    if (ok && json) ok = info_print_json(entries, count + 1, automatic);
    else if (ok) info_print_text(entries, count + 1, automatic);
    if (!ok) tool_fail("out of memory");
  }
  for (size_t i = 0; i <= count; i++) info_free(&entries[i]);
  free(entries);
  free(devices);
  output out;
  return output_open(&out, NULL) && output_close(&out, true) && ok ? TOOL_OK : TOOL_FAILED;
}
