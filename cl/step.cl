/* A step of generation in one kernel: its work-groups, all of them running at once, walk a table of stages and meet
 * between two of them. What a launch for each operation costs is not paid, and the weights of the next stage are
 * fetched while the groups wait for each other.
 *
 * STEP_ROWS: sequences, each a row. STEP_WIDTH: the widest row of a product's input. B_TYPE: of the weights.
 * WORK_GROUP work-items; STEP_LANES of them share a sum.
 *
 * Results depend on the shapes alone, not on the number of work-groups: how a sum is cut (step_product.slices), and
 * in which order its parts are added, is the same everywhere. */
#include "inline.h"
#include "matmul.h"
#include "matmul_pieces.h"
#include "exponentials.h"
#include "lanes.h"
#include "step_args.h"

#define ITEM  ((int)get_local_id(0))
#define LINES (WORK_GROUP / STEP_LANES)
#define LANE  (ITEM % STEP_LANES)
#define LINE  (ITEM / STEP_LANES)

#include "step_grid.h"
#include "step_norm.h"
#include "step_product.h"
#include "step_update.h"
#include "step_ahead.h"

/* A stage goes from the table to local memory while the one before it is at work. */
typedef uint step_word;
#define STAGE_WORDS ((int)(sizeof(step_stage) / sizeof(step_word)))
#define WORDS_EACH  ((STAGE_WORDS + WORK_GROUP - 1) / WORK_GROUP)
INLINE void fetch_stage(step_word *words, __global const step_stage *from) {
  __global const step_word *f = (__global const step_word *)from;
  UNROLL
  for (int i = 0; i < WORDS_EACH; i++) words[i] = f[min(i * WORK_GROUP + ITEM, STAGE_WORDS - 1)];
}
INLINE void keep_stage(__local step_stage *to, const step_word *words) {
  __local step_word *t = (__local step_word *)to;
  UNROLL
  for (int i = 0; i < WORDS_EACH; i++)
    if (i * WORK_GROUP + ITEM < STAGE_WORDS) t[i * WORK_GROUP + ITEM] = words[i];
}

__kernel __attribute__((reqd_work_group_size(WORK_GROUP, 1, 1))) void
step_program(__global uchar *memory, int count, uint met, __global uchar *b0, __global uchar *b1, __global uchar *b2,
             __global uchar *b3, __global uchar *b4, __global uchar *b5) {
  __global int *meeting = (__global int *)memory;
  __global const step_stage *stages = (__global const step_stage *)(memory + STEP_TABLE);
  __local step_memory m;
  SHUFFLE_SCRATCH
  if (ITEM == 0) {
    m.buffer[0] = 0;
    m.buffer[1] = b0;
    m.buffer[2] = b1;
    m.buffer[3] = b2;
    m.buffer[4] = b3;
    m.buffer[5] = b4;
    m.buffer[6] = b5;
    m.lost = 0;
  }
  step_word words[WORDS_EACH];
  fetch_stage(words, stages);
  keep_stage(&m.stage[0], words);
  step_barrier();
  step_stream f;
  step_prefetch(&m, &m.stage[0], &f);
  for (int i = 0; i < count && !m.lost; i++) {
    __local const step_stage *s = &m.stage[i & 1];
    fetch_stage(words, stages + min(i + 1, count - 1));
    step_ask((__global const uchar *)(stages + min(i + 2, count - 1)), sizeof(step_stage));
    if (s->parts & STEP_UPDATE) step_update_stage(&m, s SHUFFLE_ARGUMENT);
    else if (s->parts & STEP_PRODUCT) step_product_stage(&m, s, &f SHUFFLE_ARGUMENT);
    else if (s->parts & STEP_NORM) step_norm_stage(&m, s SHUFFLE_ARGUMENT);
    else step_try_stage(&m, (__global float *)(stages + count), meeting, i);
    keep_stage(&m.stage[(i + 1) & 1], words);
    step_barrier();
    step_prefetch(&m, &m.stage[(i + 1) & 1], &f);
    step_meet(&m, meeting, met + (uint)i + 1);
  }
}
