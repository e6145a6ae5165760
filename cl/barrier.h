/* PoCL up to 7.2 takes a branch that comes first after a barrier, or after a loop with barriers in it, for one that
 * the whole work-group takes together, and mixes up what lies behind it (its pull request 2281): results are not
 * stored, or stored anywhere. ANCHOR comes between, a fence for the compiler alone; empty but where quirks.c asks
 * for it. Kernels wait by local_barrier(), and have an ANCHOR where such a loop ends. */
#ifdef CLM_ANCHOR
#define ANCHOR __atomic_signal_fence(__ATOMIC_SEQ_CST);
#else
#define ANCHOR
#endif

static inline void local_barrier(void) {
  barrier(CLK_LOCAL_MEM_FENCE);
  ANCHOR
}
