/* Compiled programs on disk, one file each: <folder>/<key in hexadecimal>.bin = header, then the driver's binary.
 *
 * An entry that is damaged, of another format or of another key is ignored, and written anew once the program has
 * been compiled. Writers make a file of their own next to it and rename it, so that readers and other writers, in
 * this process or another, see either the old entry or the whole new one.
 *
 * A driver runs what an entry holds: so a folder or an entry that someone else owns, or may write, is not used. */
#include "backend/opencl/opencl.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define CACHE_MAGIC   "CLMPROG" /* 8 bytes with the final 0 */
#define CACHE_FORMAT  1u
#define CACHE_LARGEST ((uint64_t)256 << 20)

typedef struct cache_header {
  char magic[8];
  uint32_t format; /* also tells the byte order */
  uint32_t unused;
  uint64_t size; /* of what follows the header */
  program_key key;
  XXH128_canonical_t checksum; /* of what follows the header */
} cache_header;

void program_cache_open(program_cache *cache, clm_context *ctx, const clm_context_options *options) {
  *cache = (program_cache){.context = ctx};
  const char *off = getenv("CLM_PROGRAM_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  if (options->no_program_cache || (off && strcmp(off, "0") == 0)) return;
  int n = -1;
  if (options->cache_dir && options->cache_dir[0])
    n = snprintf(cache->folder, sizeof cache->folder, "%s", options->cache_dir);
  else if (xdg && xdg[0] == '/') /* the XDG specification: relative paths are to be ignored */
    n = snprintf(cache->folder, sizeof cache->folder, "%s/clmamba", xdg);
  else if (home && home[0] == '/') n = snprintf(cache->folder, sizeof cache->folder, "%s/.cache/clmamba", home);
  if (n < 0 || (size_t)n + 64 > sizeof cache->folder) cache->folder[0] = '\0';
}

/* Text after text, the digest of each with that of all before it: of one size, so that texts cannot run into each
 * other, and without an allocation, so that there is always an answer. */
program_key program_cache_key(const char *const *texts, size_t count) {
  struct {
    XXH128_canonical_t before, text;
  } link;
  const uint32_t format = CACHE_FORMAT;
  program_key key;
  XXH128_canonicalFromHash(&link.before, XXH3_128bits(&format, sizeof format));
  for (size_t i = 0; i < count; i++) {
    XXH128_canonicalFromHash(&link.text, XXH3_128bits(texts[i], strlen(texts[i])));
    XXH128_canonicalFromHash(&link.before, XXH3_128bits(&link, sizeof link));
  }
  memcpy(key.bytes, link.before.digest, sizeof key.bytes);
  return key;
}

/* <folder>/<key><suffix> */
static void entry_path(const program_cache *cache, const program_key *key, const char *suffix, char *path,
                       size_t size) {
  int n = snprintf(path, size, "%s/", cache->folder);
  for (size_t i = 0; i < sizeof key->bytes; i++) n += snprintf(path + n, size - (size_t)n, "%02x", key->bytes[i]);
  snprintf(path + n, size - (size_t)n, "%s", suffix);
}

static cache_header header_for(const program_key *key, const unsigned char *data, size_t size) {
  cache_header h;
  memset(&h, 0, sizeof h);
  memcpy(h.magic, CACHE_MAGIC, sizeof h.magic);
  h.format = CACHE_FORMAT;
  h.size = size;
  h.key = *key;
  XXH128_canonicalFromHash(&h.checksum, XXH3_128bits(data, size));
  return h;
}

static unsigned char *read_entry(FILE *file, const program_key *key, size_t *size) {
  cache_header h;
  if (fread(&h, sizeof h, 1, file) != 1) return NULL;
  if (memcmp(h.magic, CACHE_MAGIC, sizeof h.magic) != 0 || h.size == 0 || h.size > CACHE_LARGEST) return NULL;
  unsigned char *data = malloc(h.size);
  if (!data) return NULL;
  if (fread(data, 1, h.size, file) == h.size && fgetc(file) == EOF) {
    cache_header expected = header_for(key, data, h.size);
    if (memcmp(&h, &expected, sizeof h) == 0) {
      *size = h.size;
      return data;
    }
  }
  free(data);
  return NULL;
}

/* Nobody but this user can have put there what lies there. Says otherwise once, not for every program. */
static bool is_own(program_cache *cache, const char *what, int fd, mode_t type) {
  struct stat about;
  if (fstat(fd, &about) != 0 || (about.st_mode & S_IFMT) != type) return false;
  const char *wrong = about.st_uid != geteuid()                    ? "it belongs to another user"
                      : (about.st_mode & (S_IWGRP | S_IWOTH)) != 0 ? "others may write it"
                                                                   : NULL;
  if (!wrong) return true;
  if (!cache->warned && cache->context)
    context_log(cache->context, CLM_LOG_WARNING, "compiled programs in %s are not used: %s", what, wrong);
  cache->warned = true;
  return false;
}

/* The folder, if it is there and this user's alone; else -1. */
static int open_folder(program_cache *cache) {
  if (!cache->folder[0]) return -1;
  int folder = open(cache->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0 || is_own(cache, cache->folder, folder, S_IFDIR)) return folder;
  close(folder);
  return -1;
}

/* An entry; NULL if there is none that may be used. O_NONBLOCK: a FIFO of that name must not hold us up. */
static FILE *open_entry(program_cache *cache, const program_key *key) {
  char path[sizeof cache->folder + 64];
  int folder = open_folder(cache);
  if (folder < 0) return NULL;
  entry_path(cache, key, ".bin", path, sizeof path);
  int fd = openat(folder, strrchr(path, '/') + 1, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  close(folder);
  if (fd < 0) return NULL;
  FILE *file = is_own(cache, path, fd, S_IFREG) ? fdopen(fd, "rb") : NULL;
  if (!file) close(fd);
  return file;
}

unsigned char *program_cache_load(program_cache *cache, const program_key *key, size_t *size) {
  FILE *file = open_entry(cache, key);
  if (!file) return NULL;
  unsigned char *data = read_entry(file, key, size);
  fclose(file);
  return data;
}

/* mkdir -p, for the user alone: what lies in the cache is run. */
static bool make_folder(const char *folder) {
  char path[4096];
  size_t length = strlen(folder);
  if (length >= sizeof path) return false;
  memcpy(path, folder, length + 1);
  for (char *p = path + 1; *p; p++) {
    if (*p != '/') continue;
    *p = '\0';
    if (mkdir(path, 0700) != 0 && errno != EEXIST) return false;
    *p = '/';
  }
  return mkdir(path, 0700) == 0 || errno == EEXIST;
}

void program_cache_store(program_cache *cache, const program_key *key, const unsigned char *data, size_t size) {
  char path[sizeof cache->folder + 64], own[sizeof cache->folder + 64];
  if (!cache->folder[0] || size == 0 || size > CACHE_LARGEST || !make_folder(cache->folder)) return;
  int folder = open_folder(cache);
  if (folder < 0) return;
  close(folder);
  entry_path(cache, key, ".bin", path, sizeof path);
  entry_path(cache, key, ".XXXXXX", own, sizeof own);
  int fd = mkstemp(own);
  if (fd < 0) return;
  FILE *file = fdopen(fd, "wb");
  if (!file) close(fd);
  bool good = file != NULL;
  if (good) {
    cache_header h = header_for(key, data, size);
    good = fwrite(&h, sizeof h, 1, file) == 1 && fwrite(data, 1, size, file) == size;
    good = fclose(file) == 0 && good;
  }
  if (!good || rename(own, path) != 0) unlink(own);
}
