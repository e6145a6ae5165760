/* The rows of a selective scan: batch rows, or with SCAN_PACKED the sequences that cu_seqlens cuts out of the one
 * row.
 *
 * What is kept for a chunk of a row lies in the chunk's slot. Batch rows have `chunks` each. Sequence i, in the order
 * of the scan, has those from (its first step) / chunk + i on: never fewer than it has chunks, one at least, and
 * length / chunk + sequences in all, which the host knows without reading cu_seqlens. Likewise for tiles. */
#define PACKED_PARAMETERS global const int *ends, long ends_offset, long ends_stride, int rows, int reversed

/* The same for functions. */
typedef struct scan_sequences {
  global const int *ends;
  long stride;
  int rows, reversed;
} scan_sequences;

typedef struct scan_row {
  long states;     /* row of the initial and the final state */
  long batch;      /* row of the sequences                   */
  long begin, end; /* steps                                  */
  long slot, tile; /* the first of each                      */
} scan_row;

#if SCAN_PACKED
/* The first step of sequence i, both counted in the order of the scan. */
static inline long packed_begin(long length, int i, scan_sequences s) {
  const long step = clamp((long)s.ends[(s.reversed ? s.rows - i : i) * s.stride], 0L, length);
  return s.reversed ? length - step : step;
}

static inline scan_row packed_row(long length, long chunk, int tile_steps, int i, scan_sequences s) {
  scan_row r;
  r.states = s.reversed ? s.rows - 1 - i : i;
  r.batch = 0;
  r.begin = packed_begin(length, i, s);
  r.end = max(r.begin, packed_begin(length, i + 1, s));
  r.slot = r.begin / chunk + i;
  r.tile = r.begin / tile_steps + i;
  return r;
}

/* The sequence that has this slot. */
static inline int packed_sequence(long slot, long length, long chunk, scan_sequences s) {
  int low = 0, high = s.rows - 1;
  while (low < high) {
    const int middle = low + (high - low + 1) / 2;
    if (packed_begin(length, middle, s) / chunk + middle <= slot) low = middle;
    else high = middle - 1;
  }
  return low;
}
#endif
