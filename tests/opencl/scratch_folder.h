/* An empty folder of a test's own. */
#ifndef TEST_SCRATCH_FOLDER_H
#define TEST_SCRATCH_FOLDER_H

#include <stddef.h>

void scratch_create(char *path, size_t size);
void scratch_remove(const char *path); /* with the files in it */

/* How many files the folder holds; the path of the last one goes to `file`, which may be NULL. -1: no such folder. */
int scratch_files(const char *path, char *file, size_t size);

#endif
