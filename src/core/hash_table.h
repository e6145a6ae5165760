/* Hash tables: uthash, with keys hashed by xxHash. A failed allocation does not end the program: HASH_ADD leaves the
 * element out and its `hh.tbl` NULL. Include this instead of <uthash.h>; a file whose keys are not plain bytes
 * defines HASH_FUNCTION and HASH_KEYCMP first. */
#ifndef CLM_CORE_HASH_TABLE_H
#define CLM_CORE_HASH_TABLE_H

#include <xxhash.h>

#define HASH_NONFATAL_OOM 1
#ifndef HASH_FUNCTION
#define HASH_FUNCTION(key, bytes, hash) ((hash) = (unsigned)XXH3_64bits(key, bytes))
#endif

#include <uthash.h>

#endif
