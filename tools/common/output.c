#include "common/output.h"
#include "common/tool.h"
#include <errno.h>
#include <string.h>

static bool say(const output *o, int error) {
  if (error) tool_fail("cannot write %s: %s", o->path ? o->path : "to the standard output", strerror(error));
  return !error;
}

bool output_open(output *o, const char *path) {
  *o = (output){.path = path, .stream = stdout};
  if (!path) return true;
  if (!say(o, output_file_open(&o->file, path))) return false;
  o->stream = o->file.stream;
  return true;
}

static int flush_stdout(void) { return fflush(stdout) != 0 ? errno : ferror(stdout) ? EIO : 0; }

bool output_sync(output *o) {
  if (!o->path) return say(o, flush_stdout());
  return output_file_sync(&o->file) || say(o, o->file.error);
}

bool output_close(output *o, bool keep) {
  bool ok = say(o, o->path ? output_file_close(&o->file, keep) : flush_stdout());
  *o = (output){0};
  return ok;
}
