/* Shared by the kernels of attention.
 *
 * The heads of a group see the same keys, so that a row of a product is a pair of query and head: pair i of a row (of
 * the batch, or a packed sequence) and a head of keys is query i / group and head i % group of the group. Pairs, and
 * keys, are cut into blocks of TILE.
 *
 *   ATTENTION_SIDE    16, or 8 for devices with small work-groups and for CPUs
 *   ATTENTION_TILES   tiles that head_dim has, which GPUs keep in registers
 *   ATTENTION_LOOP    on CPUs: it has these at most, and one program serves many sizes */
#include "attention_args.h"
#include "common.h"
#include "storage.h"

#ifndef ATTENTION_SIDE
#define ATTENTION_SIDE 16
#endif
#ifndef ATTENTION_TILES
#define ATTENTION_TILES 2
#endif
#ifndef X_TYPE
#define X_TYPE f32
#endif
typedef STORAGE(X_TYPE) x_t;

#define SIDE ATTENTION_SIDE
#include "tile.h"

#ifdef ATTENTION_LOOP
#define COUNT_TILES(a) (((a)->head_dim + TILE - 1) / TILE)
#else
#define COUNT_TILES(a) ATTENTION_TILES
#endif

/* ---- Where blocks lie ---- */

typedef struct row {
  long batch, key_batch;
  long query, queries, key, keys; /* first and number of its queries, of its keys       */
  long offset;                    /* position of the first query among the row's keys */
} row;

typedef struct block {
  row r;
  long first; /* pair, or key */
  int number;
} block;

static inline long row_begin(const attention_args *a, global const int *ends, int i) {
  return clamp((long)ends[a->ends.offset + i * a->ends.stride[0]], 0L, a->length);
}

static inline row row_of(const attention_args *a, global const int *offsets, global const int *ends, int i) {
  row r = {i, i, 0, a->length, 0, a->keys, a->keys - a->length};
  if (a->flags & ATTENTION_IS_PACKED) {
    r.batch = 0;
    r.query = row_begin(a, ends, i);
    r.queries = max(0L, row_begin(a, ends, i + 1) - r.query);
    r.offset = 0;
    if (!(a->flags & ATTENTION_HAS_OFFSETS)) {
      r.key_batch = 0;
      r.key = r.query;
      r.keys = r.queries;
    }
  }
  if (a->flags & ATTENTION_HAS_OFFSETS) r.offset = (long)offsets[a->offsets.offset + i * a->offsets.stride[0]];
  return r;
}

/* The block of a slot, of `items` to each step; empty where the slot is not used. A packed sequence has no fewer
 * slots than blocks, and their sum is known without reading cu_seqlens. */
static inline block block_of(const attention_args *a, global const int *offsets, global const int *ends, long slot,
                             int items) {
  block b;
  if (a->flags & ATTENTION_IS_PACKED) {
    int low = 0, high = a->rows - 1;
    while (low < high) {
      const int middle = low + (high - low + 1) / 2;
      if (row_begin(a, ends, middle) * items / TILE + middle <= slot) low = middle;
      else high = middle - 1;
    }
    b.r = row_of(a, offsets, ends, low);
    b.first = (slot - b.r.query * items / TILE - low) * TILE;
  } else {
    b.r = row_of(a, offsets, ends, (int)(slot / a->blocks_of_row));
    b.first = slot % a->blocks_of_row * TILE;
  }
  return b;
}

static inline int number_of(const block *b, long end) {
  return b->first < 0 ? 0 : (int)clamp(end - b->first, 0L, (long)TILE);
}

/* ---- What queries see ---- */

/* Keys of the row before which query i sees, and its first; the same of the queries that see a key. */
static inline long end_key(const row *r, long i) { return clamp(r->offset + i + 1, 0L, r->keys); }
static inline long first_key(const attention_args *a, const row *r, long i) {
  const long end = r->offset + i + 1;
  return end > a->window ? min(end - a->window, r->keys) : 0;
}
static inline long first_query(const row *r, long j) { return clamp(j - r->offset, 0L, r->queries); }
static inline long end_query(const attention_args *a, const row *r, long j) {
  const long first = j - r->offset;
  return first >= r->queries - a->window ? r->queries : max(0L, first + a->window);
}

/* A tensor of queries or keys, and where its elements lie. */
typedef struct tensor {
  global const x_t *data;
  const kernel_view *view;
} tensor;

/* ---- Pairs ---- */

/* Of each pair of a block its query, counted from the row's first, and its head. */
typedef struct pairs {
  local long *query;
  local int *head;
} pairs;

/* Between barriers. */
static inline void place_pairs(const attention_args *a, const block *b, int kv, int item, pairs p) {
  const int group = a->heads / a->kv_heads;
  if (item < TILE) {
    p.query[item] = (b->first + item) / group;
    p.head[item] = kv * group + (int)((b->first + item) % group);
  }
}

static inline long pair_at(const kernel_view *v, const block *b, pairs p, int i, int dim) {
  return view_at(v, b->r.batch, b->r.query + p.query[i], p.head[i], dim);
}

/* Whether pair i sees the key. */
static inline bool sees(const attention_args *a, const block *b, pairs p, int i, long key) {
  if (i >= b->number) return false;
  const long back = b->r.offset + p.query[i] - key;
  return back >= 0 && back < a->window;
}

static inline float pair_element(const attention_args *a, tensor x, const block *b, pairs p, int i, int dim) {
  if (i >= b->number || dim >= a->head_dim) return 0.0f;
  return LOAD(X_TYPE, x.data, pair_at(x.view, b, p, i, dim));
}

static inline float key_element(const attention_args *a, tensor x, const block *keys, int kv, int j, int dim) {
  if (j >= keys->number || dim >= a->head_dim) return 0.0f;
  return LOAD(X_TYPE, x.data, view_at(x.view, keys->r.key_batch, keys->r.key + keys->first + j, kv, dim));
}

/* ---- Products ---- */

typedef struct slices {
  local float (*a)[TILE + 1], (*b)[TILE + 1];
} slices;

/* Pairs (rows) with keys (columns): products of q_or_dout with k_or_v along head_dim. */
static inline tile pairs_by_keys(const attention_args *a, tensor q_or_dout, const block *b, pairs p, tensor k_or_v,
                                 const block *keys, int kv, slices s) {
  WORK_ITEM;
  tile sum = tile_zero();
  for (int k0 = 0; k0 < a->head_dim; k0 += DEPTH) {
    local_barrier();
    FOR_SLICE(e) {
      ALONG_K(e);
      s.a[kk][i] = pair_element(a, q_or_dout, b, p, i, k0 + kk);
      s.b[kk][i] = key_element(a, k_or_v, keys, kv, i, k0 + kk);
    }
    local_barrier();
    tile_multiply(&sum, s.a, s.b, x, y);
  }
  ANCHOR
  return sum;
}

/* Adds to the columns from p0 on of a block's pairs: weights, [key][pair], with the keys' k or v. */
static inline void add_keys(const attention_args *a, tile *sum, local const float (*weight)[TILE + 1],
                            tensor k_or_v, const block *keys, int kv, int p0, slices s) {
  WORK_ITEM;
  for (int k0 = 0; k0 < keys->number; k0 += DEPTH) {
    local_barrier();
    FOR_SLICE(e) {
      ALONG_ROWS(e);
      s.b[kk][i] = key_element(a, k_or_v, keys, kv, k0 + kk, p0 + i);
    }
    local_barrier();
    tile_multiply(sum, weight + k0, (local const float(*)[TILE + 1]) s.b, x, y);
  }
  ANCHOR
}
