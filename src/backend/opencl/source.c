/* The text of a kernel family: embedded, or from the folder CLM_CL_DIR while kernels are being worked on. */
#include "backend/opencl/embedded.h"
#include "backend/opencl/opencl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_INCLUDES = 24, MAX_NAME = 64 };

typedef struct expansion {
  char *text;
  size_t length, capacity;
  char included[MAX_INCLUDES][MAX_NAME]; /* each shared file goes in once */
  int include_count;
} expansion;

static char *read_file(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  char *text = NULL;
  long size = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
  if (size >= 0 && fseek(file, 0, SEEK_SET) == 0 && (text = malloc((size_t)size + 1)) != NULL)
    text[fread(text, 1, (size_t)size, file)] = '\0';
  fclose(file);
  return text;
}

/* A copy of the file `name`, or NULL. */
static char *load(const char *name) {
  const char *folder = getenv("CLM_CL_DIR");
  char path[4096];
  if (folder && snprintf(path, sizeof path, "%s/%s", folder, name) < (int)sizeof path) {
    char *text = read_file(path);
    if (text) return text;
  }
  for (const embedded_source *s = embedded_sources; s->name; s++)
    if (strcmp(s->name, name) == 0) return strdup(s->text);
  return NULL;
}

static bool append(expansion *e, const char *text, size_t length) {
  if (e->length + length + 1 > e->capacity) {
    size_t capacity = 2 * (e->length + length + 1);
    char *grown = realloc(e->text, capacity);
    if (!grown) return false;
    e->text = grown;
    e->capacity = capacity;
  }
  memcpy(e->text + e->length, text, length);
  e->length += length;
  e->text[e->length] = '\0';
  return true;
}

/* `#include "name"` at the start of a line -> name */
static bool parse_include(const char *line, char *name) {
  static const char start[] = "#include \"";
  if (strncmp(line, start, sizeof start - 1) != 0) return false;
  const char *begin = line + sizeof start - 1;
  size_t length = strcspn(begin, "\"\n");
  if (begin[length] != '"' || length == 0 || length >= MAX_NAME) return false;
  memcpy(name, begin, length);
  name[length] = '\0';
  return true;
}

static bool seen(expansion *e, const char *name) {
  for (int i = 0; i < e->include_count; i++)
    if (strcmp(e->included[i], name) == 0) return true;
  return false;
}

static clm_status paste(clm_context *ctx, expansion *e, const char *name) {
  if (seen(e, name)) return CLM_OK;
  if (e->include_count == MAX_INCLUDES)
    return context_fail(ctx, CLM_BUILD_FAILED, "opencl: %s includes more than %d files", name, MAX_INCLUDES);
  snprintf(e->included[e->include_count++], MAX_NAME, "%s", name);
  char *text = load(name);
  if (!text) return context_fail(ctx, CLM_BUILD_FAILED, "opencl: there is no kernel source %s", name);
  char line_of[MAX_NAME + 32], include[MAX_NAME];
  int n = snprintf(line_of, sizeof line_of, "#line 1 \"%s\"\n", name); /* so that compiler messages name the file */
  clm_status status = append(e, line_of, (size_t)n) ? CLM_OK : CLM_OUT_OF_MEMORY;
  int number = 1;
  for (const char *line = text; *line && status == CLM_OK; number++) {
    size_t length = strcspn(line, "\n");
    length += line[length] == '\n';
    if (parse_include(line, include)) {
      status = paste(ctx, e, include);
      n = snprintf(line_of, sizeof line_of, "#line %d \"%s\"\n", number + 1, name);
      if (status == CLM_OK && !append(e, line_of, (size_t)n)) status = CLM_OUT_OF_MEMORY;
    } else if (!append(e, line, length)) {
      status = CLM_OUT_OF_MEMORY;
    }
    line += length;
  }
  free(text);
  return status == CLM_OUT_OF_MEMORY ? context_fail(ctx, status, "opencl: no host memory for a kernel source")
                                     : status;
}

clm_status opencl_source(clm_context *ctx, const char *family, char **text) {
  *text = NULL;
  char name[MAX_NAME];
  if (snprintf(name, sizeof name, "%s.cl", family) >= (int)sizeof name)
    return context_fail(ctx, CLM_BUILD_FAILED, "opencl: the name of kernel family %s is too long", family);
  expansion *e = calloc(1, sizeof *e);
  if (!e) return context_fail(ctx, CLM_OUT_OF_MEMORY, "opencl: no host memory for a kernel source");
  clm_status status = paste(ctx, e, name);
  if (status == CLM_OK) *text = e->text;
  else free(e->text);
  free(e);
  return status;
}
