#include "core/output_file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
  MAX_LINKS = 40,      /* as the kernel follows                                              */
  MAX_BASE = 200,      /* of the name in a temporary's, which with its ending must fit in 255 */
  MAX_ENDING = 40,     /* ".PID-NUMBER.partial"                                              */
  MAX_ATTEMPTS = 1000, /* names in use already                                               */
};

/* How long the folder's part of a path is, its last '/' included. */
static size_t folder_length(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? (size_t)(slash - path) + 1 : 0;
}

/* What the link `path` points to, to be freed; NULL: errno. */
static char *link_target(const char *path, size_t bytes) {
  size_t folder = folder_length(path), capacity = folder + bytes + 1;
  char *target = malloc(capacity);
  if (!target) return NULL;
  ssize_t length = readlink(path, target + folder, bytes + 1);
  if (length < 0 || (size_t)length > bytes) { /* it has changed in between */
    if (length >= 0) errno = EAGAIN;
    free(target);
    return NULL;
  }
  if (target[folder] == '/') memmove(target, target + folder, (size_t)length);
  else {
    memcpy(target, path, folder);
    length += (ssize_t)folder;
  }
  target[length] = '\0';
  return target;
}

/* Links of these folders stand for open files, such as /dev/stdout: they have no target to go by. */
static bool names_open_file(const char *path) {
  return strncmp(path, "/dev/", 5) == 0 || strncmp(path, "/proc/", 6) == 0;
}

/* Follows o->path to what is no link. 0 or errno; *in_place: it must be opened, not replaced. */
static int follow(output_file *o, mode_t *mode, bool *in_place) {
  struct stat about;
  *in_place = false;
  *mode = 0;
  if (stat(o->path, &about) == 0) {
    if (!S_ISREG(about.st_mode)) return *in_place = true, 0;
    *mode = about.st_mode & 07777;
  }
  for (int i = 0; i < MAX_LINKS; i++) {
    if (lstat(o->path, &about) != 0) return errno == ENOENT ? 0 : errno;
    if (!S_ISLNK(about.st_mode)) return 0;
    if (names_open_file(o->path)) return *in_place = true, 0;
    /* Links of some file systems have no length. */
    char *target = link_target(o->path, about.st_size > 0 ? (size_t)about.st_size : 4096);
    if (!target) return errno;
    free(o->path);
    o->path = target;
  }
  return ELOOP;
}

/* A new file next to o->path. As mkstemp, but with the permissions that the umask leaves, which mkstemp's file could
 * get only from a umask that is changed for all threads while it is read. */
static int make_temporary(output_file *o) {
  static unsigned counter;
  size_t folder = folder_length(o->path), base = strlen(o->path) - folder;
  if (base > MAX_BASE) base = MAX_BASE;
  size_t size = folder + base + MAX_ENDING;
  o->temporary = malloc(size);
  if (!o->temporary) return -1;
  for (int i = 0; i < MAX_ATTEMPTS; i++) {
    unsigned number = __atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED);
    snprintf(o->temporary, size, "%.*s.%ld-%u.partial", (int)(folder + base), o->path, (long)getpid(), number);
    int fd = open(o->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0 || errno != EEXIST) return fd;
  }
  return -1;
}

static void forget(output_file *o) {
  free(o->path);
  free(o->temporary);
  o->path = o->temporary = NULL;
}

int output_file_open(output_file *o, const char *path) {
  bool in_place = false;
  mode_t mode = 0;
  *o = (output_file){.path = strdup(path)};
  int fd = -1, error = o->path ? follow(o, &mode, &in_place) : errno;
  if (!error) {
    fd = in_place ? open(o->path, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOCTTY) : make_temporary(o);
    if (fd < 0) error = errno;
  }
  if (!error && mode && fchmod(fd, mode) != 0) error = errno;
  if (!error && !(o->stream = fdopen(fd, "wb"))) error = errno;
  if (error) {
    if (fd >= 0) {
      close(fd);
      if (o->temporary) unlink(o->temporary);
    }
    forget(o);
  }
  return error;
}

bool output_file_write(output_file *o, const void *data, size_t bytes) {
  if (!o->error && bytes && fwrite(data, 1, bytes, o->stream) != bytes) o->error = errno ? errno : EIO;
  return !o->error;
}

bool output_file_sync(output_file *o) {
  errno = 0;
  if (!o->error && (fflush(o->stream) != 0 || ferror(o->stream))) o->error = errno ? errno : EIO;
  if (!o->error && o->temporary && fsync(fileno(o->stream)) != 0) o->error = errno;
  return !o->error;
}

/* The name on the disk too: without this a crash of the system may bring back the old file, or none. */
static int sync_folder(const char *path) {
  size_t length = folder_length(path);
  char *folder = length ? strndup(path, length) : strdup(".");
  if (!folder) return errno;
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), error = fd < 0 ? errno : 0;
  free(folder);
  if (fd < 0) return error == EACCES ? 0 : error; /* a folder that may be written, but not read */
  if (fsync(fd) != 0 && errno != EINVAL && errno != EROFS && errno != ENOTSUP) error = errno;
  close(fd);
  return error;
}

int output_file_close(output_file *o, bool keep) {
  if (!o->stream) return 0;
  bool placed = false, whole = keep && output_file_sync(o);
  if (fclose(o->stream) != 0 && whole) o->error = errno;
  if (whole && !o->error && o->temporary) {
    placed = rename(o->temporary, o->path) == 0;
    o->error = placed ? sync_folder(o->path) : errno;
  }
  if (o->temporary && !placed) unlink(o->temporary);
  o->stream = NULL;
  forget(o);
  return keep ? o->error : 0;
}
