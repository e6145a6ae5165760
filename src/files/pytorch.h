/* pytorch_model.bin as torch.save writes it: a zip archive of a pickle (src/files/pickle.h) and of one file for each
 * storage, none of them compressed. Numbers are streamed, and the archive's checksums hold them to what was written.
 */
#ifndef CLM_FILES_PYTORCH_H
#define CLM_FILES_PYTORCH_H

#include "files/source.h"

clm_status pytorch_open(clm_context *context, const char *path, source *file);

#endif
