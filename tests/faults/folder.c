#define _GNU_SOURCE
#include "folder.h"
#include <dirent.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void die(const char *what) {
  perror(what);
  exit(EXIT_FAILURE);
}

static char *read_file(const char *path, size_t *bytes) {
  FILE *f = fopen(path, "rb");
  if (!f) die(path);
  fseek(f, 0, SEEK_END);
  *bytes = (size_t)ftell(f);
  rewind(f);
  char *data = malloc(*bytes + 1);
  if (!data || fread(data, 1, *bytes, f) != *bytes) die(path);
  data[*bytes] = '\0';
  fclose(f);
  return data;
}

/* Calls `visit` with every file below `path`, folders after what is in them. */
static void walk(const char *path, void (*visit)(const char *path, bool folder, void *user), void *user) {
  DIR *d = opendir(path);
  if (!d) return;
  for (struct dirent *e; (e = readdir(d)) != NULL;) {
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
    char below[4096];
    struct stat about;
    snprintf(below, sizeof below, "%s/%s", path, e->d_name);
    bool folder = lstat(below, &about) == 0 && S_ISDIR(about.st_mode);
    if (folder) walk(below, visit, user);
    visit(below, folder, user);
  }
  closedir(d);
}

static void remove_one(const char *path, bool folder, void *unused) {
  (void)unused;
  if (folder) rmdir(path);
  else unlink(path);
}

void folder_remove(const char *path) {
  walk(path, remove_one, NULL);
  rmdir(path);
}

void folder_copy(const char *from, const char *to) {
  DIR *d = opendir(from);
  if (!d || mkdir(to, 0777) != 0) die(to);
  for (struct dirent *e; (e = readdir(d)) != NULL;) {
    if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
    char source[4096], target[4096];
    struct stat about;
    snprintf(source, sizeof source, "%s/%s", from, e->d_name);
    snprintf(target, sizeof target, "%s/%s", to, e->d_name);
    if (stat(source, &about) != 0) die(source);
    if (S_ISDIR(about.st_mode)) {
      folder_copy(source, target);
      continue;
    }
    size_t bytes;
    char *data = read_file(source, &bytes);
    FILE *f = fopen(target, "wb");
    if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f) != 0) die(target);
    free(data);
  }
  closedir(d);
}

typedef struct reading {
  held_folder *held;
  size_t skip; /* of a path: the folder's own */
} reading;

static void read_one(const char *path, bool folder, void *user) {
  reading *r = user;
  if (folder) return;
  held_file *larger = realloc(r->held->files, (r->held->count + 1) * sizeof *larger);
  if (!larger) die("memory");
  r->held->files = larger;
  held_file *f = &larger[r->held->count++];
  *f = (held_file){0};
  snprintf(f->name, sizeof f->name, "%s", path + r->skip);
  f->data = read_file(path, &f->bytes);
}

void folder_read(const char *path, held_folder *held) {
  *held = (held_folder){0};
  walk(path, read_one, &(reading){held, strlen(path) + 1});
}

void folder_free(held_folder *held) {
  for (size_t i = 0; i < held->count; i++) free(held->files[i].data);
  free(held->files);
  *held = (held_folder){0};
}

held_file *folder_find(const held_folder *held, const char *name) {
  for (size_t i = 0; i < held->count; i++)
    if (strcmp(held->files[i].name, name) == 0) return &held->files[i];
  return NULL;
}

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

/* Bytes before the tensors; 0: there is no sound header. */
static size_t safetensors_header(const held_file *f) {
  uint64_t length = 0;
  if (f->bytes < 8) return 0;
  memcpy(&length, f->data, 8);
  if (length > f->bytes - 8) return 0;
  json_t *json = json_loadb(f->data + 8, (size_t)length, 0, NULL);
  bool sound = json_is_object(json);
  json_decref(json);
  return sound ? 8 + (size_t)length : 0;
}

const char *file_damage(const held_file *f) {
  if (f->bytes == 0) return "it is empty";
  if (ends_with(f->name, ".safetensors")) return safetensors_header(f) ? NULL : "its header is damaged";
  if (ends_with(f->name, ".json")) {
    json_t *json = json_loadb(f->data, f->bytes, 0, NULL);
    bool sound = json != NULL;
    json_decref(json);
    return sound ? NULL : "it is not JSON";
  }
  if (ends_with(f->name, ".csv") && f->data[f->bytes - 1] != '\n') return "its last line is cut";
  if (ends_with(f->name, ".svg") && !strstr(f->data, "</svg>")) return "it does not end";
  return NULL;
}

bool file_has_times(const held_file *f) { return ends_with(f->name, "train.csv"); }

static size_t lines_of(const held_file *f) {
  size_t lines = 0;
  for (size_t i = 0; i < f->bytes; i++) lines += f->data[i] == '\n';
  return lines;
}

bool file_equal(const held_file *a, const held_file *b) {
  if (ends_with(a->name, ".svg")) return !file_damage(a); /* drawn anew with every row: any whole plot will do */
  if (!a->unstable && !b->unstable) return a->bytes == b->bytes && memcmp(a->data, b->data, a->bytes) == 0;
  if (file_damage(a)) return false;
  if (ends_with(a->name, ".safetensors")) {
    size_t ha = safetensors_header(a), hb = safetensors_header(b);
    return a->bytes - ha == b->bytes - hb && memcmp(a->data + ha, b->data + hb, a->bytes - ha) == 0;
  }
  return lines_of(a) == lines_of(b);
}
