/* Selective scan, backward: one work-group owns SCAN_CHANNELS channels of one batch row and walks its chunk of the
 * sequence backwards in tiles of SCAN_TILE steps. From the state at a tile's beginning (kept by the forward kernel,
 * SCAN_EVERY_TILE) it computes the tile's states again into registers, then runs the gradient g of the state back:
 *   g[t] = C[t] dy[t] + a[t+1] g[t+1],  a[t] = exp(dt[t] A)
 *   du = D dy + dt sum_n g B     ddt = sum_n g (A a h[t-1] + B u)     dA += dt g a h[t-1]
 * (complex: conjugates of all factors; with the gate, a = exp(dt gate A) and the decay's part of ddt is taken apart)
 *   dB = dt u g and dC = dy h, summed over channels: over the channels of a sub-group by shuffles (or of the
 *   work-group in local memory), then over work-groups by scan_reduce. dA, dD and ddelta_bias likewise over chunks and
 *   batch. Every sum has a fixed order.
 *   bytes per element: read u, delta, z, dout and d_state / SCAN_TILE states, write du, ddelta, dz; partial sums of dB, dC
 *   special functions per element: d_state + 6
 * With chunks, BACKWARD_LOCAL first walks each chunk forwards from zero: its final state, its sum of dt, and what its
 * gradient hands to the step before it; two carries (scan_carry) turn them into each chunk's initial state and incoming
 * gradient.
 * Variants: plain (local memory only), shuffle. Measured: docs/kernels.md, "scan backward". */
#include "scan.h"
#include "selective_scan_tile.h"

#define PARTS     (SCAN_SHUFFLE ? 1 : SCAN_LANES)
#define WARPS     (WORK_GROUP / 32) /* shuffle variant: sub-groups of 32 lanes */

#if SCAN_SHUFFLE
#define VALUES (SCAN_STATES * NUMBER_PARTS) /* of dB, and as many of dC */
/* Sums the 2 * VALUES values of each lane over the channels of a sub-group: each exchange halves the values a lane
 * still holds (or, with one left, adds it), and the rest goes to row[] for a sum over sub-groups. */
__attribute__((always_inline)) static inline void sum_channels(float *value, int lid, int lane, local float *row SHUFFLE_PARAMETER) {
  int base = 0;
  bool first = true;
#define CHANNEL_LEVEL(width)                                                                                          \
  if (SCAN_LANES <= (width)) {                                                                                        \
    const bool upper = (lid & (width)) != 0;                                                                          \
    enum { LEVELS_BEFORE = (width) / SCAN_LANES, LEFT = 2 * VALUES / (LEVELS_BEFORE > 0 ? LEVELS_BEFORE : 1) };       \
    if (LEFT > 1) {                                                                                                   \
      UNROLL for (int i = 0; i < LEFT / 2; i++) {                                                                     \
        const float low = value[i], high = value[i + LEFT / 2]; /* both read first: no index at run time */           \
        const float keep = upper ? high : low, send = upper ? low : high;                                             \
        value[i] = keep + lane_xor(send, width);                                                                      \
      }                                                                                                               \
      base += upper ? LEFT / 2 : 0;                                                                                   \
    } else {                                                                                                          \
      value[0] += lane_xor(value[0], width);                                                                          \
      first = first && !upper;                                                                                        \
    }                                                                                                                 \
  }
  CHANNEL_LEVEL(1)
  CHANNEL_LEVEL(2)
  CHANNEL_LEVEL(4)
  CHANNEL_LEVEL(8)
  CHANNEL_LEVEL(16)
  enum { SHARED = 32 / SCAN_LANES, COUNT = 2 * VALUES / SHARED > 1 ? 2 * VALUES / SHARED : 1 };
  UNROLL for (int i = 0; i < COUNT; i++) {
    const int v = base + i;
    const int state = (v < VALUES ? v : v - VALUES) / NUMBER_PARTS;
    const int to = (v < VALUES ? 0 : PADDED) + STATE(lane, state);
    if (first) row[to * NUMBER_PARTS + v % NUMBER_PARTS] = value[i];
  }
}

#if SCAN_COMPLEX
#define PUT(values, i, pair) (values)[2 * (i)] = (pair).x, (values)[2 * (i) + 1] = (pair).y
#else
#define PUT(values, i, x) (values)[i] = (x)
#endif
#endif

kernel __attribute__((reqd_work_group_size(WORK_GROUP, 1, 1))) void selective_scan_backward(
    TENSOR(u), STRIDES3(u, batch, step, channel), TENSOR(delta), STRIDES3(delta, batch, step, channel),
    TENSOR_OF(NUMBER_TYPE, A), STRIDES2(A, channel, state),       /* */
    TENSOR_OF(B_TYPE, B), STRIDES4(B, batch, step, group, state), /* static: B_step is the stride of a channel */
    TENSOR_OF(C_TYPE, C), STRIDES4(C, batch, step, group, state), /* likewise */
    TENSOR_F32(D), STRIDES1(D, channel), TENSOR(z), STRIDES3(z, batch, step, channel), /* */
    TENSOR_F32(bias), STRIDES1(bias, channel), TENSOR(gate), STRIDES3(gate, batch, step, channel), /* */
    TENSOR(dout), STRIDES3(dout, batch, step, channel),                                                     /* */
    TENSOR_OF(NUMBER_TYPE, dfinal), STRIDES3(dfinal, batch, channel, state), OUTPUT(du), STRIDES3(du, batch, step, channel),
    OUTPUT(ddelta), STRIDES3(ddelta, batch, step, channel), OUTPUT(dz), STRIDES3(dz, batch, step, channel),
    OUTPUT(dgate), STRIDES3(dgate, batch, step, channel), OUTPUT(out), STRIDES3(out, batch, step, channel), /* */
    OUTPUT_OF(NUMBER_TYPE, dinitial), STRIDES3(dinitial, batch, channel, state),                            /* */
    global float *work, /* offsets in floats: */
    long tiles_at,      /* (tiles, d_inner, d_state)   each tile's first state                     */
    long states_at,     /* (slots, d_inner, d_state)   BACKWARD_LOCAL: each chunk's final state    */
    long gradients_at,  /* (slots, d_inner, d_state)   its gradient handed back, or coming in      */
    long sums_at,       /* (slots, d_inner)            its sum of dt                               */
    long marks_at,      /* (batch, length) bytes       seq_idx as scan_marks leaves it             */
    long drops_at,      /* (slots) ints                a sequence begins in the chunk              */
    long dA_at,         /* (slots, d_inner, d_state); dB and dC too where they are static          */
    long dB_at,         /* (blocks of a group, batch, length, groups, d_state)                     */
    long dC_at, long dD_at, /* (slots, d_inner), then the same of ddelta_bias */
    PACKED_PARAMETERS, long batches, long slots, long length, long chunk, int chunks, int d_inner, int group_channels,
    int group_blocks, int flags) {
  const int lid = (int)get_local_id(0), lane = lid % SCAN_LANES, slot = lid / SCAN_LANES;
  const int groups = d_inner / group_channels;
  const scan_place place = place_of(groups * group_blocks, length, chunk, chunks, chunks, ends, ends_offset,
                                    ends_stride, rows, reversed);
  const int group = place.column / group_blocks, block = place.column % group_blocks;
  const int first = group * group_channels + block * SCAN_CHANNELS;
  const int count = min(SCAN_CHANNELS, (group + 1) * group_channels - first); /* channels of this work-group */
  const long batch = place.row.batch, begin = place.begin, end = place.end;
  const long own = first + slot, own_row = place.slot * d_inner + own; /* this lane's channel */
  const bool own_channel = slot < count;
#define NUMBERS(at) ((global number *)(work + (at)))
#if SCAN_RESETS
  global const uchar *const marks = (global const uchar *)(work + marks_at) + batch * length;
#endif

  SHUFFLE_SCRATCH
  local float dt_tile[SCAN_TILE][PITCH], dtu_tile[SCAN_TILE][PITCH], dy_tile[SCAN_TILE][PITCH];
#if SCAN_B_VARIES
  local number B_tile[BC_TILE] __attribute__((aligned(16)));
#endif
#if SCAN_C_VARIES
  local number C_tile[BC_TILE] __attribute__((aligned(16)));
#endif
#if SCAN_RESETS
  local int mark_tile[SCAN_TILE];
  bool dropped = false;
#endif
#if !BACKWARD_LOCAL
  local float gB_tile[PARTS][SCAN_TILE][PITCH], ddt_tile[PARTS][SCAN_TILE][PITCH], y_tile[PARTS][SCAN_TILE][PITCH];
#if SCAN_SHUFFLE && (SCAN_B_VARIES || SCAN_C_VARIES) /* PoCL 6.0 aborts where local memory is declared and not used */
  local number bc_sums[WARPS][SCAN_TILE][2 * PADDED];
#elif SCAN_B_VARIES || SCAN_C_VARIES
  local number bc_sums[SCAN_CHANNELS][2 * PADDED];
#endif
#endif

  number rate[SCAN_STATES], g[SCAN_STATES], h[SCAN_STATES], dA[SCAN_STATES];
  number B_now[SCAN_STATES], C_now[SCAN_STATES];
  number dB_fixed[SCAN_STATES], dC_fixed[SCAN_STATES], decay_all[SCAN_STATES];
  UNROLL for (int s = 0; s < SCAN_STATES; s++) {
    const int n = STATE(lane, s);
    const bool real = n < SCAN_D_STATE && own_channel;
    number a = real ? A[A_offset + own * A_channel + n * A_state] : ZERO;
    if (flags & SCAN_A_LOG) a = real ? negated_exp(a) : ZERO;
    rate[s] = rate_of(a);
    dA[s] = dB_fixed[s] = dC_fixed[s] = g[s] = h[s] = ZERO;
    decay_all[s] = ONE;
#if !SCAN_B_VARIES
    B_now[s] = real ? LOAD(B_TYPE, B, B_offset + own * B_step + n * B_state) : ZERO;
#endif
#if !SCAN_C_VARIES
    C_now[s] = real ? twice(LOAD(C_TYPE, C, C_offset + own * C_step + n * C_state)) : ZERO;
#endif
#if !BACKWARD_LOCAL
    if (real && (flags & SCAN_FROM_CARRY)) g[s] = NUMBERS(gradients_at)[own_row * SCAN_D_STATE + n];
    else if (real && (flags & SCAN_DFINAL))
      g[s] = dfinal[dfinal_offset + place.row.states * dfinal_batch + own * dfinal_channel + n * dfinal_state];
#endif
  }

  float D_held[CHANNELS_HELD], bias_held[CHANNELS_HELD], dD_held[CHANNELS_HELD], dbias_held[CHANNELS_HELD];
  UNROLL for (int k = 0; k < CHANNELS_HELD; k++) {
    const int c = ELEMENT_CHANNEL(k);
    D_held[k] = bias_held[k] = dD_held[k] = dbias_held[k] = 0.0f;
    if ((flags & SCAN_HAS_D) && c < count) D_held[k] = D[D_offset + (first + c) * D_channel];
    if ((flags & SCAN_HAS_BIAS) && c < count) bias_held[k] = bias[bias_offset + (first + c) * bias_channel];
  }
  u += u_offset + batch * u_batch + first * u_channel;
  delta += delta_offset + batch * delta_batch + first * delta_channel;
  z += z_offset + batch * z_batch + first * z_channel;
#if SCAN_GATE
  gate += gate_offset + batch * gate_batch + first * gate_channel;
  dgate += dgate_offset + batch * dgate_batch + first * dgate_channel;
#endif
  dout += dout_offset + batch * dout_batch + first * dout_channel;
  du += du_offset + batch * du_batch + first * du_channel;
  ddelta += ddelta_offset + batch * ddelta_batch + first * ddelta_channel;
  dz += dz_offset + batch * dz_batch + first * dz_channel;
  out += out_offset + batch * out_batch + first * out_channel;
  B += B_offset + batch * B_batch + group * B_group;
  C += C_offset + batch * C_batch + group * C_group;

  const long tiles = (end - begin + SCAN_TILE - 1) / SCAN_TILE;
  float dt_sum = 0.0f;
  for (long tile = 0; tile < tiles; tile++) {
    const long at = begin + (BACKWARD_LOCAL ? tile : tiles - 1 - tile) * SCAN_TILE;
    float u_raw[ELEMENTS], x_raw[ELEMENTS], z_raw[ELEMENTS], dout_raw[ELEMENTS]; /* x: delta + delta_bias */
    storage_t u_bits[ELEMENTS], x_bits[ELEMENTS], z_bits[ELEMENTS], dout_bits[ELEMENTS];
#if SCAN_GATE
    float gate_raw[ELEMENTS];
#endif
    UNROLL for (int k = 0; k < ELEMENTS; k++) {
      const int c = ELEMENT_CHANNEL(k);
      const long t = at + ELEMENT_STEP(k);
      u_bits[k] = x_bits[k] = z_bits[k] = dout_bits[k] = 0;
#if SCAN_GATE
      gate_raw[k] = IN_TILE(k) && COUNTS(t) && c < count ? load(gate, t * gate_step + c * gate_channel) : 0.0f;
#endif
      if (IN_TILE(k) && COUNTS(t) && c < count) {
        u_bits[k] = u[t * u_step + c * u_channel];
        x_bits[k] = delta[t * delta_step + c * delta_channel];
        dout_bits[k] = dout[t * dout_step + c * dout_channel];
        if (flags & SCAN_HAS_Z) z_bits[k] = z[t * z_step + c * z_channel];
      }
    }

#if SCAN_B_VARIES || SCAN_C_VARIES
    UNROLL for (int k = 0; k < BC_ITEMS; k++) {
      const int e = lid + k * WORK_GROUP, n = BC_STATE(e);
      const long t = at + BC_STEP(e);
      if (e >= BC_TILE) continue;
      const bool real = n < SCAN_D_STATE && COUNTS(t);
#if SCAN_B_VARIES
      B_tile[BC_STEP(e) * PADDED + n] = real ? LOAD(B_TYPE, B, t * B_step + n * B_state) : ZERO;
#endif
#if SCAN_C_VARIES
      C_tile[BC_STEP(e) * PADDED + n] = real ? twice(LOAD(C_TYPE, C, t * C_step + n * C_state)) : ZERO;
#endif
    }
#endif
#if SCAN_RESETS
    for (int t = lid; t < SCAN_TILE; t += WORK_GROUP) mark_tile[t] = at + t < end ? marks[at + t] : 0;
#endif
    UNROLL for (int k = 0; k < ELEMENTS; k++) {
      const int t = ELEMENT_STEP(k), c = ELEMENT_CHANNEL(k);
      u_raw[k] = value(u_bits[k]);
      z_raw[k] = value(z_bits[k]);
      dout_raw[k] = value(dout_bits[k]);
      x_raw[k] = value(x_bits[k]) + bias_held[HELD(k)];
      float dt = (flags & SCAN_SOFTPLUS) ? softplus(x_raw[k]) : x_raw[k];
      if (!COUNTS(at + t)) dt = 0.0f;
      if (IN_TILE(k)) {
#if SCAN_GATE
        dt_tile[t][c] = dt * gate_raw[k];
#else
        dt_tile[t][c] = dt;
#endif
        dtu_tile[t][c] = dt * u_raw[k];
        dy_tile[t][c] = dout_raw[k] * ((flags & SCAN_HAS_Z) ? z_raw[k] * sigmoid(z_raw[k]) : 1.0f);
      }
    }
    local_barrier();

#if BACKWARD_LOCAL
    UNROLL for (int t = 0; t < SCAN_TILE; t++) {
      const float dt = dt_tile[t][slot], dtu = dtu_tile[t][slot], dy = dy_tile[t][slot];
#if SCAN_B_VARIES
      read_states(B_now, &B_tile[t * PADDED], lane);
#endif
#if SCAN_C_VARIES
      read_states(C_now, &C_tile[t * PADDED], lane);
#endif
      dt_sum += dt;
#if SCAN_RESETS
      const bool begins = mark_tile[t] == SCAN_BEGINS;
      dropped |= begins;
#endif
      UNROLL for (int s = 0; s < SCAN_STATES; s++) {
        const number a = decay_after(dt, rate[s]);
#if SCAN_RESETS
        if (begins) h[s] = ZERO;
#endif
        h[s] = times(a, h[s]) + dtu * B_now[s];
        decay_all[s] = times(decay_all[s], a);
#if SCAN_RESETS
        if (!dropped)
#endif
        g[s] += conjugate_times(decay_all[s], conjugate(C_now[s]) * dy);
      }
    }
    local_barrier();
#else
    /* The tile's states again, forwards; states[t] is the one before step t. (With the tile's first state in an array of
     * its own, Intel's CPU compiler took a wrong one.) */
    number states[SCAN_TILE + 1][SCAN_STATES], decay[SCAN_TILE][SCAN_STATES];
    float gB[SCAN_TILE], ddt[SCAN_TILE], y[SCAN_TILE];
    UNROLL for (int s = 0; s < SCAN_STATES; s++) {
      const int n = STATE(lane, s);
      const long row = (place.tile + (at - begin) / SCAN_TILE) * d_inner + own;
      states[0][s] = h[s] = own_channel && n < SCAN_D_STATE ? NUMBERS(tiles_at)[row * SCAN_D_STATE + n] : ZERO;
    }
    UNROLL for (int t = 0; t < SCAN_TILE; t++) {
      const float dt = dt_tile[t][slot], dtu = dtu_tile[t][slot];
#if SCAN_B_VARIES
      read_states(B_now, &B_tile[t * PADDED], lane);
#endif
#if SCAN_C_VARIES
      read_states(C_now, &C_tile[t * PADDED], lane);
#endif
      y[t] = 0.0f;
      UNROLL for (int s = 0; s < SCAN_STATES; s++) {
        decay[t][s] = decay_after(dt, rate[s]);
#if SCAN_RESETS
        if (mark_tile[t] == SCAN_BEGINS) h[s] = ZERO;
#endif
        h[s] = times(decay[t][s], h[s]) + dtu * B_now[s];
        states[t + 1][s] = h[s];
        y[t] += real_of_product(h[s], C_now[s]);
      }
    }
    /* The gradient, backwards. */
    UNROLL for (int i = 0; i < SCAN_TILE; i++) {
      const int t = SCAN_TILE - 1 - i;
      const float dt = dt_tile[t][slot], dtu = dtu_tile[t][slot], dy = dy_tile[t][slot];
#if SCAN_B_VARIES
      read_states(B_now, &B_tile[t * PADDED], lane);
#endif
#if SCAN_C_VARIES
      read_states(C_now, &C_tile[t * PADDED], lane);
#endif
#if SCAN_SHUFFLE
      float bc[2 * VALUES]; /* this channel's part of dB, then of dC */
#endif
#if SCAN_RESETS
      const bool begins = mark_tile[t] == SCAN_BEGINS;
#endif
      gB[t] = ddt[t] = 0.0f;
      UNROLL for (int s = 0; s < SCAN_STATES; s++) {
        g[s] += conjugate(C_now[s]) * dy;
        number last = states[t][s];
#if SCAN_RESETS
        if (begins) last = ZERO;
#endif
        const number before = conjugate_times(times(decay[t][s], last), g[s]);
        const number part_B = dtu * g[s], part_C = twice(dy) * conjugate(states[t + 1][s]);
        gB[t] += real_of_conjugate_product(B_now[s], g[s]);
        ddt[t] += along_rate(rate[s], before);
        dA[s] += dt * before;
        g[s] = conjugate_times(decay[t][s], g[s]);
#if SCAN_RESETS
        if (begins) g[s] = ZERO;
#endif
#if !SCAN_B_VARIES
        dB_fixed[s] += part_B;
#endif
#if !SCAN_C_VARIES
        dC_fixed[s] += part_C;
#endif
#if SCAN_SHUFFLE
        PUT(bc, s, part_B);
        PUT(bc, SCAN_STATES + s, part_C);
#else
        decay[t][s] = part_B; /* kept for the sum over channels */
        states[t + 1][s] = part_C;
#endif
      }
#if SCAN_SHUFFLE && (SCAN_B_VARIES || SCAN_C_VARIES)
      if (flags & (SCAN_WANT_DB | SCAN_WANT_DC)) 
        sum_channels(bc, lid, lane, (local float *)bc_sums[lid / 32][t] SHUFFLE_ARGUMENT);
#endif
    }

#if SCAN_SHUFFLE && SCAN_LANES > 1 && OWNED > 0
    sum_lanes(gB, lane SHUFFLE_ARGUMENT);
    sum_lanes(ddt, lane SHUFFLE_ARGUMENT);
    sum_lanes(y, lane SHUFFLE_ARGUMENT);
    UNROLL for (int i = 0; i < OWNED; i++) {
      gB_tile[0][lane * OWNED + i][slot] = gB[i];
      ddt_tile[0][lane * OWNED + i][slot] = ddt[i];
      y_tile[0][lane * OWNED + i][slot] = y[i];
    }
#else
    UNROLL for (int t = 0; t < SCAN_TILE; t++) {
#if SCAN_SHUFFLE
      UNROLL for (int width = 1; width < SCAN_LANES; width *= 2) {
        gB[t] += lane_xor(gB[t], width);
        ddt[t] += lane_xor(ddt[t], width);
        y[t] += lane_xor(y[t], width);
      }
#endif
      if (PARTS > 1 || lane == 0) {
        gB_tile[PARTS > 1 ? lane : 0][t][slot] = gB[t];
        ddt_tile[PARTS > 1 ? lane : 0][t][slot] = ddt[t];
        y_tile[PARTS > 1 ? lane : 0][t][slot] = y[t];
      }
    }
#endif
    local_barrier();

    UNROLL for (int k = 0; k < ELEMENTS; k++) {
      const int t = ELEMENT_STEP(k), c = ELEMENT_CHANNEL(k);
      const long step = at + t;
      if (!IN_TILE(k) || step >= end || c >= count) continue;
      float sum_gB = gB_tile[0][t][c], sum_ddt = ddt_tile[0][t][c], sum_y = y_tile[0][t][c];
      UNROLL for (int part = 1; part < PARTS; part++) {
        sum_gB += gB_tile[part][t][c];
        sum_ddt += ddt_tile[part][t][c];
        sum_y += y_tile[part][t][c];
      }
#if SCAN_RESETS
      if (mark_tile[t] == SCAN_PADDING) sum_gB = sum_ddt = sum_y = 0.0f;
#endif
      const float dy = dy_tile[t][c], open = sigmoid(z_raw[k]), ddecay = sum_ddt * LN_2;
#if SCAN_GATE
      const float dt = (flags & SCAN_SOFTPLUS) ? softplus(x_raw[k]) : x_raw[k];
      float grad = gate_raw[k] * ddecay + u_raw[k] * sum_gB;
      if (flags & SCAN_WANT_DGATE) store(dgate, step * dgate_step + c * dgate_channel, dt * ddecay);
#else
      const float dt = dt_tile[t][c];
      float grad = ddecay + u_raw[k] * sum_gB;
#endif
      if ((flags & SCAN_SOFTPLUS) && x_raw[k] <= 20.0f) grad *= sigmoid(x_raw[k]);
      sum_y += D_held[HELD(k)] * u_raw[k];
      dD_held[HELD(k)] += dy * u_raw[k];
      dbias_held[HELD(k)] += grad;
      if (flags & SCAN_WANT_DU) store(du, step * du_step + c * du_channel, D_held[HELD(k)] * dy + dt * sum_gB);
      if (flags & SCAN_WANT_DDELTA) store(ddelta, step * ddelta_step + c * ddelta_channel, grad);
      if (flags & SCAN_WANT_DZ)
        store(dz, step * dz_step + c * dz_channel,
              dout_raw[k] * sum_y * (open * (1.0f + z_raw[k] * (1.0f - open))));
      if (flags & SCAN_WANT_OUT)
        store(out, step * out_step + c * out_channel, (flags & SCAN_HAS_Z) ? sum_y * (z_raw[k] * open) : sum_y);
    }

#if SCAN_B_VARIES || SCAN_C_VARIES
    const long parts_row = ((block * batches + batch) * length + at) * groups + group; /* step `at` */
#if SCAN_SHUFFLE
    for (int e = lid; e < SCAN_TILE * 2 * PADDED * NUMBER_PARTS; e += WORK_GROUP) {
      const int t = e / (2 * PADDED * NUMBER_PARTS), n = e % (2 * PADDED * NUMBER_PARTS);
      float sum = ((local const float *)bc_sums[0][t])[n];
      UNROLL for (int w = 1; w < WARPS; w++) sum += ((local const float *)bc_sums[w][t])[n];
#else
    UNROLL for (int t = 0; t < SCAN_TILE; t++) {
      UNROLL for (int s = 0; s < SCAN_STATES; s++) {
        bc_sums[slot][STATE(lane, s)] = decay[t][s];
        bc_sums[slot][PADDED + STATE(lane, s)] = states[t + 1][s];
      }
      local_barrier();
      for (int n = lid; n < 2 * PADDED * NUMBER_PARTS; n += WORK_GROUP) {
        float sum = 0.0f; /* real and imaginary parts by themselves (PoCL 3.1 loses stores of float2 here) */
        for (int c = 0; c < SCAN_CHANNELS; c++) sum += ((local const float *)bc_sums[c])[n];
#endif
        const bool is_B = n < PADDED * NUMBER_PARTS;
        const int part = is_B ? n : n - PADDED * NUMBER_PARTS;
#if SCAN_RESETS
        if (mark_tile[t] == SCAN_PADDING) sum = 0.0f;
#endif
        if (at + t < end && part < SCAN_D_STATE * NUMBER_PARTS) {
          const long to = (parts_row + (long)t * groups) * (SCAN_D_STATE * NUMBER_PARTS) + part;
          if (SCAN_B_VARIES && is_B && (flags & SCAN_WANT_DB)) work[dB_at + to] = sum;
          if (SCAN_C_VARIES && !is_B && (flags & SCAN_WANT_DC)) work[dC_at + to] = sum;
        }
#if !SCAN_SHUFFLE
      }
      local_barrier();
#endif
    }
#endif
    local_barrier();
#endif
  }
  ANCHOR

#if BACKWARD_LOCAL
#if SCAN_RESETS
  if (lid == 0 && place.column == 0) ((global int *)(work + drops_at))[place.slot] = dropped;
#endif
  if (!own_channel) return;
  if (lane == 0) work[sums_at + own_row] = dt_sum;
  UNROLL for (int s = 0; s < SCAN_STATES; s++) {
    const int n = STATE(lane, s);
    if (n >= SCAN_D_STATE) continue;
    NUMBERS(states_at)[own_row * SCAN_D_STATE + n] = h[s];
    NUMBERS(gradients_at)[own_row * SCAN_D_STATE + n] = g[s];
  }
#else
  UNROLL for (int s = 0; s < SCAN_STATES; s++) {
    const int n = STATE(lane, s);
    if (n >= SCAN_D_STATE || !own_channel) continue;
    const long to = own_row * SCAN_D_STATE + n;
    if (flags & SCAN_WANT_DA) NUMBERS(dA_at)[to] = (flags & SCAN_A_LOG) ? conjugate_times(of_rate(rate[s]), dA[s]) : dA[s];
    if (!SCAN_B_VARIES && (flags & SCAN_WANT_DB)) NUMBERS(dB_at)[to] = dB_fixed[s];
    if (!SCAN_C_VARIES && (flags & SCAN_WANT_DC)) NUMBERS(dC_at)[to] = dC_fixed[s];
    if ((flags & SCAN_WANT_DINITIAL) && place.chunk == 0)
      dinitial[dinitial_offset + place.row.states * dinitial_batch + own * dinitial_channel + n * dinitial_state] = g[s];
  }
  if (flags & SCAN_WANT_SUMS) { /* over the work-items that staged a channel, in order of their steps */
    for (int e = lid; e < SCAN_TILE * SCAN_CHANNELS; e += WORK_GROUP)
      dt_tile[e / SCAN_CHANNELS][e % SCAN_CHANNELS] = dtu_tile[e / SCAN_CHANNELS][e % SCAN_CHANNELS] = 0.0f;
    local_barrier();
    UNROLL for (int k = 0; k < CHANNELS_HELD; k++) {
      if (!IN_TILE(k)) continue;
      dt_tile[ELEMENT_STEP(k)][ELEMENT_CHANNEL(k)] = dD_held[k];
      dtu_tile[ELEMENT_STEP(k)][ELEMENT_CHANNEL(k)] = dbias_held[k];
    }
    local_barrier();
    for (int c = lid; c < count; c += WORK_GROUP) {
      float sum_D = 0.0f, sum_bias = 0.0f;
      for (int t = 0; t < SCAN_TILE; t++) {
        sum_D += dt_tile[t][c];
        sum_bias += dtu_tile[t][c];
      }
      const long row = place.slot * d_inner + first + c;
      work[dD_at + row] = sum_D;
      work[dD_at + slots * d_inner + row] = sum_bias;
    }
  }
#endif
}
