#include "scratch_folder.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void scratch_create(char *path, size_t size) {
  const char *base = getenv("TMPDIR");
  snprintf(path, size, "%s/clmamba-test-XXXXXX", base ? base : "/tmp");
  if (!mkdtemp(path)) {
    perror(path);
    exit(EXIT_FAILURE);
  }
}

static int each_file(const char *path, char *file, size_t size, int remove_them) {
  DIR *folder = opendir(path);
  if (!folder) return -1;
  int count = 0;
  char full[4400];
  for (struct dirent *e; (e = readdir(folder)) != NULL;) {
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
    snprintf(full, sizeof full, "%s/%s", path, e->d_name);
    if (file) snprintf(file, size, "%s", full);
    if (remove_them && unlink(full) != 0) scratch_remove(full);
    count++;
  }
  closedir(folder);
  return count;
}

int scratch_files(const char *path, char *file, size_t size) { return each_file(path, file, size, 0); }

void scratch_remove(const char *path) {
  each_file(path, NULL, 0, 1);
  rmdir(path);
}
