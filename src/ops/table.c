#include "ops/table.h"

bool op_lists(const char *list, const char *name) {
  const size_t length = strlen(name);
  for (const char *at = list; at && *at; at += strcspn(at, " "), at += *at == ' ')
    if (strcspn(at, " ") == length && strncmp(at, name, length) == 0) return true;
  return false;
}

clm_dtype op_real_of(clm_dtype dtype) { return dtype == CLM_F64 || dtype == CLM_C128 ? CLM_F64 : CLM_F32; }
clm_dtype op_complex_of(clm_dtype dtype) { return dtype == CLM_F64 || dtype == CLM_C128 ? CLM_C128 : CLM_C64; }
bool op_is_complex(clm_dtype dtype) { return dtype == CLM_C64 || dtype == CLM_C128; }

unsigned op_dtype_set(const op_dtypes *d, clm_dtype main, bool complex, bool second) {
  const bool is_double = op_real_of(main) == CLM_F64;
  const unsigned set = complex && d->complex ? d->complex : second && d->second ? d->second : d->set;
  unsigned dtypes = set & (OP_MAIN - 1);
  if (set & OP_MAIN) dtypes |= OP_DTYPE(main);
  if (set & OP_STORAGE) dtypes |= is_double ? OP_DTYPE(CLM_F64) : OP_FLOAT & ~OP_DTYPE(CLM_F64);
  if (set & OP_REAL) dtypes |= OP_DTYPE(op_real_of(main));
  if (set & OP_COMPLEX) dtypes |= OP_DTYPE(op_complex_of(main));
  return dtypes;
}
