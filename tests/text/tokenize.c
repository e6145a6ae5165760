/* Encodes what another program sends, and decodes it again; compare.py holds it to Hugging Face's `tokenizers`.
 *
 *     tokenize DIRECTORY < texts > tokens       text: bytes (uint32), then these; answer: tokens (uint32), these
 * (int32), bytes of their text (uint32), then these tokenize DIRECTORY --time FILE SECONDS    MB/s of encoding the
 * file again and again */
#include <clmamba/clmamba.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static clm_context *context;

static void check(clm_status status) {
  if (!status) return;
  fprintf(stderr, "%s\n", clm_context_error(context));
  exit(EXIT_FAILURE);
}

static void *room(void *old, size_t bytes) {
  void *memory = realloc(old, bytes + 1);
  if (!memory) exit(EXIT_FAILURE);
  return memory;
}

static bool read_text(char **text, uint32_t *bytes) {
  if (fread(bytes, sizeof *bytes, 1, stdin) != 1) return false;
  *text = room(*text, *bytes);
  return fread(*text, 1, *bytes, stdin) == *bytes;
}

static void answer_all(const clm_tokenizer *t) {
  char *text = NULL, *decoded = NULL;
  int32_t *ids = NULL;
  for (uint32_t bytes; read_text(&text, &bytes);) {
    size_t count, written;
    check(clm_tokenizer_encode(t, text, bytes, NULL, 0, &count));
    ids = room(ids, count * sizeof *ids);
    check(clm_tokenizer_encode(t, text, bytes, ids, count, &count));
    check(clm_tokenizer_decode(t, NULL, ids, count, NULL, 0, &written));
    decoded = room(decoded, written);
    check(clm_tokenizer_decode(t, NULL, ids, count, decoded, written, &written));
    uint32_t counts[] = {(uint32_t)count, (uint32_t)written};
    fwrite(&counts[0], sizeof *counts, 1, stdout);
    fwrite(ids, sizeof *ids, count, stdout);
    fwrite(&counts[1], sizeof *counts, 1, stdout);
    fwrite(decoded, 1, written, stdout);
    fflush(stdout);
  }
  free(text), free(ids), free(decoded);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void measure(const clm_tokenizer *t, const char *path, double seconds) {
  FILE *f = fopen(path, "rb");
  if (!f) exit(EXIT_FAILURE);
  char *text = room(NULL, (size_t)64 << 20);
  size_t bytes = fread(text, 1, (size_t)64 << 20, f), count, runs = 0;
  fclose(f);
  int32_t *ids = room(NULL, (bytes + 16) * sizeof *ids);
  double begin = now(), best = 1e30;
  do {
    double one = now();
    check(clm_tokenizer_encode(t, text, bytes, ids, bytes, &count));
    runs++;
    if (now() - one < best) best = now() - one;
  } while (now() - begin < seconds);
  printf("%.2f MB/s at best of %zu, %zu tokens\n", 1e-6 * (double)bytes / best, runs, count);
  free(text), free(ids);
}

int main(int argc, char **argv) {
  clm_tokenizer *t;
  if (argc != 2 && argc != 5) return EXIT_FAILURE;
  if (clm_context_create(&(clm_context_options){.device = "cpu"}, &context)) return EXIT_FAILURE;
  check(clm_tokenizer_load(context, argv[1], &t));
  if (argc == 5) measure(t, argv[3], strtod(argv[4], NULL));
  else answer_all(t);
  clm_tokenizer_destroy(&t);
  clm_context_destroy(&context);
  return EXIT_SUCCESS;
}
