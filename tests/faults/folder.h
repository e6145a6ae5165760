/* Folders of small files: copied, removed, held in memory to compare with. */
#ifndef FAULTS_FOLDER_H
#define FAULTS_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct held_file {
  char name[200]; /* below the folder */
  char *data;
  size_t bytes;
  bool unstable; /* differs from run to run (times) */
} held_file;

typedef struct held_folder {
  held_file *files;
  size_t count;
} held_folder;

void folder_copy(const char *from, const char *to); /* `to` is made */
void folder_remove(const char *path);
void folder_read(const char *path, held_folder *held);
void folder_free(held_folder *held);
held_file *folder_find(const held_folder *held, const char *name); /* NULL: there is none */

/* A file of its own kind and whole: JSON, safetensors, CSV, SVG; what it is by its name. NULL, or what is wrong. */
const char *file_damage(const held_file *file);

/* Whether it holds times, by its name: a trainer's log. */
bool file_has_times(const held_file *file);

/* The same content; of an unstable file what does not hold times. */
bool file_equal(const held_file *a, const held_file *b);

#endif
