/* Products of the rows with a weight whose rows are contiguous, what a token's time goes to. A work-group takes
 * neighbouring columns of the result, that is a piece of the weight without holes; a line of lanes takes a column, or
 * a slice of it where there are fewer columns than lines on a large device. */
#define PIECE 8 /* elements of a weight that a lane takes at once */
#define CHUNK (STEP_LANES * PIECE)

/* Pieces of a lane that are on their way at once, from before the work-groups meet. */
enum { FLIGHT = sizeof(b_t) == 4 ? 3 : 5 };

/* What the end of a column needs from memory: asked for before the sum is there. */
#define TAPS 4 /* of a convolution, at most */
typedef struct step_end {
  float scale, bias, residual;
  float conv_bias, tap[TAPS], input[TAPS];
} step_end;

INLINE float step_vector(__local const step_memory *m, __local const step_view *v, int i) {
  return ((__global const float *)step_at(m, v))[i * v->stride[0]];
}

INLINE int step_conv_channel(__local const step_stage *s, int column) {
  const int channel = column - s->conv.begin;
  return s->parts & STEP_CONV && channel >= 0 && channel < s->conv.channels ? channel : -1;
}

INLINE __global float *step_conv_state(__local const step_memory *m, __local const step_conv *c, int row, int channel) {
  return (__global float *)step_at(m, &c->state) + row * c->state.stride[0] + channel * c->state.stride[1];
}

INLINE void step_ask_end(__local const step_memory *m, __local const step_stage *s, step_end *e, int row, int column) {
  __local const step_product *p = &s->product;
  __local const step_conv *c = &s->conv;
  const int channel = step_conv_channel(s, column);
  e->residual = step_has(&p->residual)
                    ? step_load((__global const float *)step_at(m, &p->residual) + row * p->residual.stride[0] +
                                column * p->residual.stride[1])
                    : 0.0f;
  if (channel >= 0) {
    __global const float *state = step_conv_state(m, c, row, channel);
    __global const float *w = (__global const float *)step_at(m, &c->weight) + channel * c->weight.stride[0];
    UNROLL
    for (int i = 0; i < TAPS; i++) { /* input i comes before tap i */
      if (i >= c->width) continue;
      e->tap[i] = w[i * c->weight.stride[1]];
      e->input[i] = i + 1 < c->width ? step_load(state + (c->places - c->width + 1 + i) * c->state.stride[2]) : 0.0f;
    }
    e->conv_bias = step_has(&c->bias) ? step_vector(m, &c->bias, channel) : 0.0f;
  }
  e->scale = SCALED(B_TYPE) ? step_vector(m, &p->scale, column) : 1.0f;
  e->bias = step_has(&p->bias) ? step_vector(m, &p->bias, column) : 0.0f;
}

INLINE void step_finish(__local const step_memory *m, __local const step_stage *s, const step_end *e, float sum,
                        int row, int column) {
  __local const step_product *p = &s->product;
  __local const step_conv *c = &s->conv;
  const int channel = step_conv_channel(s, column);
  const float x = activate(SCALED(B_TYPE) ? sum * e->scale + e->bias : sum + e->bias, p->activation) + e->residual;
  step_store((__global float *)step_at(m, &p->out) + row * p->out.stride[0] + column * p->out.stride[1], x);
  if (channel < 0) return;
  __global float *state = step_conv_state(m, c, row, channel);
  const int before = c->width - 1, unseen = c->places - before; /* places before those that the filter sees */
  float y = e->conv_bias;
  UNROLL
  for (int i = 0; i < TAPS; i++) {
    if (i > before) continue;
    const float input = i == before ? x : e->input[i];
    y += e->tap[i] * input;
    if (unseen + i > 0) step_store(state + (unseen + i - 1) * c->state.stride[2], input);
  }
  step_store((__global float *)step_at(m, &c->out) + row * c->out.stride[0] + channel * c->out.stride[1],
             c->silu ? swish(y) : y);
}

/* ---- The weight's pieces, in the order in which a lane takes them ---- */

/* Columns [begin, ...) of a product, cut into `units` slices; a line takes every LINES-th. */
typedef struct step_walk {
  int begin, units, unit;
  int column, slice; /* the unit's                                */
  int at, end;       /* of the column: the lane's next piece, and where its unit ends */
} step_walk;

INLINE void step_walk_to(step_walk *w, __local const step_product *p, int unit) {
  const int known = min(unit, w->units - 1), slices = p->slices, of = slices == 1 ? known : known / slices;
  w->unit = unit;
  w->column = w->begin + of;
  w->slice = known - of * slices;
  w->at = w->slice * p->each + LANE * PIECE;
  w->end = min(p->k & ~(PIECE - 1), (w->slice + 1) * p->each);
}

INLINE b_piece step_piece(__local const step_memory *m, __local const step_product *p, const step_walk *w) {
  __global const b_t *weight = (__global const b_t *)step_at(m, &p->weight) + (long)w->column * p->weight.stride[0];
  return stored_b(weight, w->at < w->end ? w->at : 0); /* of none: any, which is not used */
}

/* To the next piece; true where the one before was the last of its unit. */
INLINE bool step_walk_on(step_walk *w, __local const step_product *p) {
  w->at += CHUNK;
  if (w->at - LANE * PIECE < (w->slice + 1) * p->each) return false;
  step_walk_to(w, p, w->unit + LINES);
  return true;
}

/* Pieces that have been asked for; the oldest is the first. */
typedef struct step_stream {
  b_piece piece[FLIGHT];
  step_walk ahead;
} step_stream;

/* Rows of fewer numbers than a piece have none. */
INLINE void step_start(step_stream *f, __local const step_memory *m, __local const step_product *p, int begin,
                       int columns) {
  f->ahead.begin = begin;
  f->ahead.units = columns * p->slices;
  step_walk_to(&f->ahead, p, LINE);
  UNROLL
  for (int i = 0; i < FLIGHT; i++) {
    if (columns > 0 && p->k >= PIECE) f->piece[i] = step_piece(m, p, &f->ahead);
    step_walk_on(&f->ahead, p);
  }
}

/* As many columns as there is room for the sums of their slices. */
INLINE int step_block(__local const step_product *p, int columns) {
  return p->slices == 1 ? columns : min(columns, STEP_PARTS / p->slices);
}

/* `f` has been started with the first block. */
INLINE void step_product_stage(__local step_memory *m, __local const step_stage *s, step_stream *f SHUFFLE_PARAMETER) {
  __local const step_product *p = &s->product;
  const int k = p->k, whole = k & ~(PIECE - 1), slices = p->slices;
  const int2 mine = step_share(p->n);
  step_end end;
  if (slices > 1 && ITEM < step_block(p, mine.y - mine.x) * STEP_ROWS)
    step_ask_end(m, s, &end, ITEM % STEP_ROWS, mine.x + ITEM / STEP_ROWS);
  step_load_rows(m, &p->in, 0, STEP_ROWS, k);
  if (s->parts & STEP_NORM) step_norm_rows(m, &s->norm, 0, STEP_ROWS, k SHUFFLE_ARGUMENT);
  for (int begin = mine.x; begin < mine.y;) {
    const int columns = step_block(p, mine.y - begin), units = columns * slices;
    if (begin > mine.x) step_start(f, m, p, begin, columns);
    step_walk w = {.begin = begin, .units = units};
    step_walk_to(&w, p, LINE);
    float sum[STEP_ROWS];
    UNROLL
    for (int r = 0; r < STEP_ROWS; r++) sum[r] = 0.0f;
    for (int left = (units + LINES - 1) / LINES; left > 0;) { /* units of each line */
      const float8 piece = numbers_b(f->piece[0]);
      const step_walk now = w;
      UNROLL
      for (int i = 0; i + 1 < FLIGHT; i++) f->piece[i] = f->piece[i + 1];
      if (k >= PIECE) f->piece[FLIGHT - 1] = step_piece(m, p, &f->ahead);
      step_walk_on(&f->ahead, p);
      if (now.at < now.end) {
        UNROLL
        for (int r = 0; r < STEP_ROWS; r++) sum[r] = add_products(sum[r], vload8(0, m->x + r * k + now.at), piece);
      }
      if (!step_walk_on(&w, p)) continue;
      left--;
      if (now.slice == slices - 1)
        for (int at = whole + LANE; at < k; at += STEP_LANES) {
          const float number =
              LOAD(B_TYPE, (__global const b_t *)step_at(m, &p->weight) + (long)now.column * p->weight.stride[0], at);
          UNROLL
          for (int r = 0; r < STEP_ROWS; r++) sum[r] = fma(m->x[r * k + at], number, sum[r]);
        }
      UNROLL
      for (int r = 0; r < STEP_ROWS; r++) {
        const float total = STEP_SUM(sum[r], STEP_LANES);
        sum[r] = 0.0f;
        if (now.unit >= units || LANE != r % STEP_LANES) continue;
        if (slices > 1) {
          m->part[now.unit * STEP_ROWS + r] = total;
        } else {
          step_ask_end(m, s, &end, r, now.column);
          step_finish(m, s, &end, total, r, now.column);
        }
      }
    }
    ANCHOR
    if (slices > 1) {
      step_barrier();
      for (int i = ITEM; i < columns * STEP_ROWS; i += WORK_GROUP) {
        const int column = i / STEP_ROWS, r = i % STEP_ROWS;
        float total = 0.0f;
        if (begin > mine.x || i != ITEM) step_ask_end(m, s, &end, r, begin + column);
        for (int slice = 0; slice < slices; slice++) total += m->part[(column * slices + slice) * STEP_ROWS + r];
        step_finish(m, s, &end, total, r, begin + column);
      }
      step_barrier();
    }
    begin += columns;
  }
}
