#ifndef UNROLL /* scan.h has its own */
/* Arrays of registers need whole loops; a CPU has none, and compiles in a tenth of the time without. */
#if defined(ENGINE_EMULATED) || defined(NO_UNROLL)
#define UNROLL
#else
#define UNROLL _Pragma("unroll")
#endif
#endif
/* Functions that are given arrays of registers: not inlined, the arrays would go to memory. They return no structs:
 * Oclgrind does not know what inlining makes of those. */
#define INLINE static inline __attribute__((always_inline))
