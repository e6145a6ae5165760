/* Whole files, read and written: a writer leaves either the old file or the new one, never a part. */
#ifndef CLM_CORE_FILE_H
#define CLM_CORE_FILE_H

#include <clmamba/context.h>

/* "directory/name", to be freed; NULL when out of memory. */
char *file_path(const char *directory, const char *name);

/* Reads a file of at most `limit` bytes; *data (to be freed) has a zero byte after its end. */
clm_status file_read(clm_context *context, const char *path, size_t limit, char **data, size_t *bytes);

typedef struct file_part {
  const void *data;
  size_t bytes;
} file_part;

/* Writes the parts to "path.partial", then renames that to `path`. */
clm_status file_replace(clm_context *context, const char *path, const file_part *parts, size_t count);

#endif
