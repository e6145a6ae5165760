/* Which sequences a task of the selective scan walks, and how a tile is cut where sequences begin or steps are
 * padding (seq_idx, cu_seqlens: clmamba/selective_scan.h). */
#ifndef CLM_CPU_SCAN_ROWS_H
#define CLM_CPU_SCAN_ROWS_H

#include "kernels.h"
#include "ops/rows.h"

/* The rows of states are dealt out as pieces: one batch row each, or packed sequences that are about as many steps in
 * every piece. */
typedef struct scan_pieces {
  const selective_scan_shape *s;
  const clm_tensor *cu_seqlens;
  int64_t count;
} scan_pieces;

/* `strips` tasks a piece; together no fewer than `tasks` where there are sequences enough. */
static inline scan_pieces scan_pieces_of(const selective_scan_shape *s, const clm_tensor *cu_seqlens, int64_t strips,
                                         int64_t tasks) {
  int64_t wanted = min_of(div_up(tasks, strips), s->sequences);
  return (scan_pieces){s, cu_seqlens, s->packed ? max_of(1, wanted) : s->batch};
}

/* The piece's next row from number *next on, which is moved past it; false if there is none. */
static inline bool scan_next_row(const scan_pieces *p, int64_t piece, int64_t *next, seq_row *row) {
  if (!p->s->packed) {
    *row = seq_row_of(p->cu_seqlens, false, p->s->length, piece);
    return (*next)++ == 0;
  }
  while (*next < p->s->sequences) {
    *row = seq_row_of(p->cu_seqlens, p->s->reversed, p->s->length, (*next)++);
    int64_t middle = (row->begin + row->end) / 2;
    if (min_of(middle * p->count / p->s->length, p->count - 1) == piece) return true;
  }
  return false;
}

/* What each step of a row is, one byte each; only with seq_idx. */
static inline void scan_read_steps(const clm_tensor *seq_idx, seq_row row, uint8_t *kinds) {
  int32_t last = -1;
  for (int64_t t = row.begin; t < row.end && seq_idx->buffer; t++)
    kinds[t - row.begin] = (uint8_t)seq_step_of(seq_idx, row.batch, t, &last);
}

/* Steps [begin, end) of a tile, none of them padding; `resets`: the state before them is zero. */
typedef struct scan_segment {
  int begin, end;
  bool resets;
} scan_segment;

#define SCAN_MAX_STEPS 32 /* of a tile */
typedef struct scan_cut {
  const uint8_t *kinds; /* of the tile's steps, NULL: all alike */
  int count;
  bool padded;
  scan_segment at[SCAN_MAX_STEPS];
} scan_cut;

static inline void scan_cut_tile(scan_cut *cut, const uint8_t *kinds, int steps) {
  *cut = (scan_cut){.kinds = kinds, .count = 1};
  cut->at[0] = (scan_segment){0, steps, false};
  if (!kinds) return;
  cut->count = 0;
  bool open = false;
  for (int t = 0; t < steps; t++) {
    bool padding = kinds[t] == SEQ_PADDING, begins = kinds[t] == SEQ_BEGINS;
    if (!padding && (!open || begins)) cut->at[cut->count++] = (scan_segment){t, t, begins};
    open = !padding;
    if (open) cut->at[cut->count - 1].end = t + 1;
    cut->padded = cut->padded || padding;
  }
}

static inline bool scan_is_padding(const scan_cut *cut, int t) { return cut->padded && cut->kinds[t] == SEQ_PADDING; }

#endif
