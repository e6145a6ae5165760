/* What every fuzzer of a file reader is made with. A new one: FUZZ(reader) below its own file's call, and its name in
 * meson.build and seeds.py. */
#ifndef FUZZ_LOADERS_H
#define FUZZ_LOADERS_H

#include "files/source.h"
#include <clmamba/clmamba.h>

/* The input as a file in memory; valid until the next call. */
const char *fuzz_path(const uint8_t *data, size_t size);

/* A CPU context of one thread that logs nothing. */
clm_context *fuzz_context(void);

/* Reads every tensor of an open source in full, in pieces, and closes it. Aborts if they claim more bytes than `size`
 * (0: tensors may share theirs). */
void fuzz_read_source(source *file, size_t size);

/* Aborts where a failure has no message. */
void fuzz_expect(clm_status status);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
