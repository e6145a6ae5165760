/* The normalization forms of Unicode, by utf8proc. */
#ifndef CLM_TEXT_UNICODE_FORMS_H
#define CLM_TEXT_UNICODE_FORMS_H

#include "text/bytes.h"

/* Appends NFC, NFD, NFKC or NFKD of `text` (UTF-8); false when out of memory. Code points that Unicode got after
 * version 9 are left as they are and order nothing: so does the crate that `tokenizers` takes its forms from. */
bool unicode_form_append(byte_buffer *to, byte_string text, bool compose, bool compatible);

#endif
