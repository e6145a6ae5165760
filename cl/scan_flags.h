/* What a call of the selective scan has and asks for: `flags` of its kernels, the same in C and in OpenCL C. Run-time
 * values where compiling is slow; on a GPU the forward kernel has its own compiled in (SCAN_FIXED). */
#ifndef CLM_SCAN_FLAGS_H
#define CLM_SCAN_FLAGS_H

#define SCAN_HAS_D         1
#define SCAN_HAS_Z         2
#define SCAN_HAS_BIAS      4
#define SCAN_SOFTPLUS      8
#define SCAN_A_LOG         16
#define SCAN_FROM_INITIAL  32  /* starts from `initial`           */
#define SCAN_TO_FINAL      64  /* the last chunk writes `final`   */
#define SCAN_FROM_CARRY    128 /* starts from `states`            */
#define SCAN_FOLD          256 /* folds the chunks before its own */
#define SCAN_FORWARD_FLAGS 511 /* the backward kernel has more:   */
#define SCAN_WANT_DU       512
#define SCAN_WANT_DDELTA   1024
#define SCAN_WANT_DZ       2048
#define SCAN_WANT_OUT      4096
#define SCAN_WANT_DA       8192
#define SCAN_WANT_DB       16384
#define SCAN_WANT_DC       32768
#define SCAN_WANT_SUMS     65536  /* dD or ddelta_bias                       */
#define SCAN_DFINAL        131072 /* a gradient comes in through final_state */
#define SCAN_WANT_DINITIAL 262144
#define SCAN_WANT_DGATE    524288

/* What seq_idx makes of a step (scan_marks). */
#define SCAN_GOES_ON 0
#define SCAN_BEGINS  1 /* the state starts from zero */
#define SCAN_PADDING 2

#endif
