/* Whether a head that the configuration ties to the embedding is the embedding in the file too. */
#include "core/context.h"
#include "core/try.h"
#include "files/convert.h"
#include "model/model.h"
#include <stdlib.h>
#include <xxhash.h>

#define BLOCK ((size_t)1 << 20) /* values at once: whole blocks of every dtype */

/* Of a tensor's values as f32; two that are equal have one hash. */
static clm_status hash_values(clm_context *ctx, const source_tensor *t, XXH128_hash_t *hash) {
  const size_t block = source_block_elements(t->dtype), block_bytes = source_block_bytes(t->dtype);
  const size_t bytes = BLOCK / block * block_bytes;
  XXH3_state_t *state = XXH3_createState();
  char *raw = malloc(bytes);
  float *values = malloc(BLOCK * sizeof *values);
  clm_status status = state && raw && values && XXH3_128bits_reset(state) == XXH_OK
                          ? CLM_OK
                          : context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", t->from->path);
  for (size_t at = 0, n; at < t->bytes && !status; at += n) {
    n = t->bytes - at < bytes ? t->bytes - at : bytes;
    status = source_read(ctx, t, at, n, raw);
    if (status) break;
    const size_t count = n / block_bytes * block;
    convert(&(conversion){.from = t->dtype}, raw, count, values);
    for (size_t i = 0; i < count; i++) values[i] += 0.0f; /* -0 is 0 */
    XXH3_128bits_update(state, values, count * sizeof *values);
  }
  if (status == CLM_OK) *hash = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  free(raw);
  free(values);
  return status;
}

clm_status model_check_tie(clm_context *ctx, const source *from, clm_model_config *c) {
  clm_model_config untied = *c;
  param table[PARAMS_MAX] = {0};
  untied.untied_head = true;
  ends_params(&untied, (model_ends){0}, table);
  const source_tensor *head = weights_find_own(from, &table[END_LM_HEAD]),
                      *embedding = weights_find_own(from, &table[END_EMBEDDING]);
  if (c->untied_head || !head || !embedding || source_same_bytes(head, embedding)) return CLM_OK;
  if (head->dtype == SOURCE_OTHER || embedding->dtype == SOURCE_OTHER) return CLM_OK; /* locate refuses one of them */
  XXH128_hash_t hashes[2];
  TRY(hash_values(ctx, embedding, &hashes[0]));
  TRY(hash_values(ctx, head, &hashes[1]));
  if (XXH128_isEqual(hashes[0], hashes[1])) return CLM_OK;
  c->untied_head = true;
  context_log(ctx, CLM_LOG_WARNING,
              "%s: the configuration ties the head to the embedding, but \"%s\" has other values than \"%s\": they "
              "are not tied",
              from->path, head->name, embedding->name);
  return CLM_OK;
}
