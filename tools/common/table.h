/* Tables as text (CSV, RFC 4180): a header line with the columns' names, then one line a row. Fields are separated by
 * commas and may be quoted; blanks around an unquoted field do not count, empty lines are skipped. */
#ifndef CLM_TOOLS_TABLE_H
#define CLM_TOOLS_TABLE_H

#include "common/text.h"

typedef struct table {
  const char *path;
  text_file text;         /* the fields, zero-terminated in place             */
  char **names, **fields; /* (columns); (rows, columns)                       */
  size_t *lines;          /* (rows) numbers of the lines on which they begin  */
  size_t columns, rows;
} table;

/* False: the message is on stderr. */
bool table_read(const char *path, table *t);
void table_free(table *t);

/* The column of that name, or `columns`. */
size_t table_column(const table *t, const char *name);

/* Whether a column has no name of its own: an index that pandas or R writes as the first one. */
bool table_is_nameless(const char *name);

const char *table_field(const table *t, size_t row, size_t column);

/* A decimal number such as -1.5e3, whatever the locale, or True and False as 1 and 0; false for anything else. */
bool table_is_number(const char *field, float *value);

/* The same of a field that must be one; false: the message names line and column. */
bool table_number(const table *t, size_t row, size_t column, float *value);

#endif
