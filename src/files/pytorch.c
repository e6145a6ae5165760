#include "files/pytorch.h"
#include "core/context.h"
#include "core/file.h"
#include "core/try.h"
#include "files/pickle.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>

#define MAX_PICKLE_BYTES (16u << 20) /* a model of 4096 layers has less than half of it */
#define SKIP_BYTES       65536

typedef struct pytorch {
  zip_t *archive;
  char *folder; /* in which everything lies: "archive/" */
  pickle pickle;
  zip_uint64_t count; /* entries of the archive. A tensor's place is its entry, or, if it is not contiguous, count
                         and its number in the pickle: then its entry is in `entries` */
  zip_uint64_t *entries;
  zip_file_t *open; /* the storage that is being read                                     */
  char *span;       /* what it has of a tensor that is not contiguous                     */
} pytorch;

static void pytorch_close(source *s) {
  pytorch *p = s->state;
  if (p->open) zip_fclose(p->open);
  if (p->archive) zip_discard(p->archive);
  pickle_free(&p->pickle);
  free(p->entries);
  free(p->span);
  free(p->folder);
  free(p);
}

static clm_status bad(clm_context *ctx, const source *s, const char *what) {
  return context_fail(ctx, CLM_BAD_FORMAT, "%s is not a valid file of tensors: %s", s->path, what);
}

/* What libzip could not do with an archive, or an entry of it. */
static clm_status fail_zip(clm_context *ctx, const char *path, zip_error_t *error) {
  if (zip_error_code_zip(error) == ZIP_ER_MEMORY)
    return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  return context_fail(ctx, CLM_BAD_FORMAT, "%s is damaged: %s", path, zip_error_strerror(error));
}

static clm_status read_bytes(clm_context *ctx, const source *s, zip_file_t *file, void *out, size_t bytes) {
  for (size_t at = 0; at < bytes;) {
    zip_int64_t got = zip_fread(file, (char *)out + at, bytes - at);
    if (got <= 0)
      return context_fail(ctx, CLM_BAD_FORMAT, "%s is damaged: %s", s->path,
                          got < 0 ? zip_file_strerror(file) : "an entry is shorter than it says");
    at += (size_t)got;
  }
  return CLM_OK;
}

/* The archive's entry, up to where the tensor begins. */
static clm_status open_entry(clm_context *ctx, const source_tensor *t, pytorch *p) {
  char skipped[SKIP_BYTES];
  if (p->open) zip_fclose(p->open);
  p->open = zip_fopen_index(p->archive, t->place < p->count ? t->place : p->entries[t->place - p->count], 0);
  if (!p->open) return fail_zip(ctx, t->from->path, zip_get_error(p->archive));
  const size_t before = t->skip + (t->place < p->count ? t->first : 0);
  for (size_t at = 0, n; at < before; at += n) {
    n = before - at < sizeof skipped ? before - at : sizeof skipped;
    TRY(read_bytes(ctx, t->from, p->open, skipped, n));
  }
  return CLM_OK;
}

/* At the end of an entry the archive's checksum is looked at: by the read after the last byte. */
static clm_status check_end(clm_context *ctx, const source *s, zip_file_t *file) {
  unsigned char end;
  if (zip_fread(file, &end, 1) >= 0) return CLM_OK;
  return context_fail(ctx, CLM_BAD_FORMAT, "%s is damaged: %s", s->path, zip_file_strerror(file));
}

/* All that a tensor with gaps reaches over. */
static clm_status read_span(clm_context *ctx, const source_tensor *t, const pickle_tensor *from, pytorch *p) {
  const size_t bytes = (size_t)from->span * (size_t)pickle_dtypes[from->dtype].bytes;
  free(p->span);
  p->span = malloc(bytes + 1);
  if (!p->span) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", t->from->path);
  TRY(read_bytes(ctx, t->from, p->open, p->span, bytes));
  return check_end(ctx, t->from, p->open);
}

/* Elements [first, first + count) of a tensor, in the order of its dimensions. */
static void gather(const pickle_tensor *from, const char *span, size_t first, size_t count, char *out) {
  const size_t size = (size_t)pickle_dtypes[from->dtype].bytes;
  for (size_t element = first; element < first + count; element++) {
    size_t rest = element, at = 0;
    for (int i = from->rank - 1; i >= 0; i--) {
      at += rest % (size_t)from->shape[i] * (size_t)from->stride[i];
      rest /= (size_t)from->shape[i];
    }
    memcpy(out, span + at * size, size);
    out += size;
  }
}

static clm_status pytorch_read(clm_context *ctx, const source_tensor *t, size_t begin, size_t bytes, void *out) {
  pytorch *p = t->from->state;
  if (begin == 0) TRY(open_entry(ctx, t, p));
  if (t->place < p->count) {
    TRY(read_bytes(ctx, t->from, p->open, out, bytes));
    return begin + bytes == t->bytes ? check_end(ctx, t->from, p->open) : CLM_OK;
  }
  const pickle_tensor *from = &p->pickle.tensors[t->place - p->count];
  const size_t size = (size_t)pickle_dtypes[from->dtype].bytes;
  if (begin == 0) TRY(read_span(ctx, t, from, p));
  gather(from, p->span, (t->first + begin) / size, bytes / size, out);
  return CLM_OK;
}

static const source_format pytorch_format = {.close = pytorch_close, .read = pytorch_read};

/* An entry that lies in the archive as it is; its size is then not more than the archive's. */
static clm_status find_entry(clm_context *ctx, const source *s, const char *name, zip_stat_t *about) {
  pytorch *p = s->state;
  char path[512];
  if (snprintf(path, sizeof path, "%s%s", p->folder, name) >= (int)sizeof path)
    return bad(ctx, s, "an entry's name is too long");
  const zip_uint64_t needed = ZIP_STAT_INDEX | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD;
  if (zip_stat(p->archive, path, 0, about) != 0 || (about->valid & needed) != needed)
    return context_fail(ctx, CLM_BAD_FORMAT, "%s is not a valid file of tensors: it has no entry \"%.200s\"", s->path,
                        path);
  if (about->comp_method != ZIP_CM_STORE || about->size != about->comp_size)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: entry \"%.200s\" is compressed, which torch.save never does",
                        s->path, path);
  return CLM_OK;
}

static clm_status read_small(clm_context *ctx, const source *s, const zip_stat_t *about, unsigned char *out) {
  pytorch *p = s->state;
  zip_file_t *file = zip_fopen_index(p->archive, about->index, 0);
  if (!file) return fail_zip(ctx, s->path, zip_get_error(p->archive));
  clm_status status = read_bytes(ctx, s, file, out, (size_t)about->size);
  if (status == CLM_OK) status = check_end(ctx, s, file);
  zip_fclose(file);
  return status;
}

/* The folder is that of data.pkl, wherever it stands. */
static clm_status find_folder(clm_context *ctx, const source *s, pytorch *p) {
  p->count = (zip_uint64_t)zip_get_num_entries(p->archive, 0);
  for (zip_uint64_t i = 0; i < p->count; i++) {
    const char *name = zip_get_name(p->archive, i, ZIP_FL_ENC_RAW);
    const char *slash = name ? strchr(name, '/') : NULL;
    if (!slash || strcmp(slash, "/data.pkl") != 0) continue;
    p->folder = strndup(name, (size_t)(slash - name) + 1);
    return p->folder ? CLM_OK : context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", s->path);
  }
  return bad(ctx, s, "the archive has no data.pkl");
}

static clm_status check_byte_order(clm_context *ctx, const source *s, const pytorch *p) {
  char path[512];
  zip_stat_t about;
  unsigned char order[6];
  if (snprintf(path, sizeof path, "%sbyteorder", p->folder) >= (int)sizeof path ||
      zip_name_locate(p->archive, path, 0) < 0)
    return CLM_OK; /* older files have none */
  TRY(find_entry(ctx, s, "byteorder", &about));
  if (about.size != sizeof order) return bad(ctx, s, "its byte order is not \"little\"");
  TRY(read_small(ctx, s, &about, order));
  return memcmp(order, "little", sizeof order) == 0 ? CLM_OK : bad(ctx, s, "its byte order is not \"little\"");
}

static clm_status read_pickle(clm_context *ctx, const source *s, pytorch *p) {
  zip_stat_t about;
  TRY(find_entry(ctx, s, "data.pkl", &about));
  if (about.size > MAX_PICKLE_BYTES) return bad(ctx, s, "data.pkl has more than 16 MiB");
  unsigned char *code = malloc((size_t)about.size + 1);
  if (!code) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", s->path);
  clm_status status = read_small(ctx, s, &about, code);
  if (status == CLM_OK) status = pickle_read(ctx, s->path, code, (size_t)about.size, &p->pickle);
  free(code);
  return status;
}

static clm_status add_tensor(clm_context *ctx, source *s, const pickle_tensor *from) {
  pytorch *p = s->state;
  const pickle_dtype *dtype = &pickle_dtypes[from->dtype];
  source_tensor *t = &s->tensors[s->count];
  char name[300];
  zip_stat_t about;
  if (snprintf(name, sizeof name, "data/%s", from->storage) >= (int)sizeof name)
    return bad(ctx, s, "an entry's name is too long");
  TRY(find_entry(ctx, s, name, &about));
  if (about.size / (zip_uint64_t)dtype->bytes != (zip_uint64_t)from->numel || about.size % (zip_uint64_t)dtype->bytes)
    return context_fail(ctx, CLM_BAD_FORMAT,
                        "%s is not a valid file of tensors: entry \"%s\" has %llu bytes, expected %lld numbers of %d",
                        s->path, name, (unsigned long long)about.size, (long long)from->numel, dtype->bytes);
  *t = (source_tensor){.name = from->name,
                       .dtype_name = dtype->name,
                       .dtype = source_dtype_named(dtype->name),
                       .rank = from->rank,
                       .bytes = (size_t)dtype->bytes,
                       .from = s,
                       .place = from->contiguous ? about.index : p->count + s->count,
                       .skip = (size_t)from->offset * (size_t)dtype->bytes};
  for (int i = 0; i < t->rank; i++) t->bytes *= (size_t)(t->shape[i] = from->shape[i]);
  p->entries[s->count++] = about.index;
  return CLM_OK;
}

static clm_status open_archive(clm_context *ctx, source *s, pytorch *p) {
  int error;
  file_input file;
  TRY(file_open(ctx, s->path, &file)); /* libzip would wait for the writer of a FIFO */
  file_input_close(&file);
  p->archive = zip_open(s->path, ZIP_RDONLY, &error);
  if (p->archive) return CLM_OK;
  if (error == ZIP_ER_NOZIP || error == ZIP_ER_INCONS)
    return bad(ctx, s, "it is no zip archive; it may be truncated, or older than torch 1.6");
  zip_error_t why;
  zip_error_init_with_code(&why, error);
  clm_status status = context_fail(ctx, CLM_IO_ERROR, "cannot read %s: %s", s->path, zip_error_strerror(&why));
  zip_error_fini(&why);
  return status;
}

static clm_status open_all(clm_context *ctx, source *s, pytorch *p) {
  TRY(open_archive(ctx, s, p));
  TRY(find_folder(ctx, s, p));
  TRY(check_byte_order(ctx, s, p));
  TRY(read_pickle(ctx, s, p));
  TRY(source_reserve(ctx, s, p->pickle.count));
  p->entries = calloc(p->pickle.count + 1, sizeof *p->entries);
  if (!p->entries) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", s->path);
  for (size_t i = 0; i < p->pickle.count; i++) TRY(add_tensor(ctx, s, &p->pickle.tensors[i]));
  return CLM_OK;
}

clm_status pytorch_open(clm_context *ctx, const char *path, source *s) {
  pytorch *state = calloc(1, sizeof *state);
  if (!state) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  clm_status status = source_begin(ctx, path, &pytorch_format, state, s);
  if (status == CLM_OK) status = open_all(ctx, s, state);
  return source_opened(ctx, s, status);
}
