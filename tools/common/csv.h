/* Tables as text, in a simple form: a header line with the columns' names, then one line a row; fields are separated
 * by commas, blanks around them do not count, nothing is quoted. Lines end with \n or \r\n, empty ones are passed
 * over. */
#ifndef CLM_TOOLS_CSV_H
#define CLM_TOOLS_CSV_H

#include "common/text.h"

typedef struct csv_table {
  const char *path;
  text_file text;         /* the fields, zero-terminated in place */
  char **names, **fields; /* (columns); (rows, columns)    */
  size_t *lines;          /* (rows) numbers of the lines   */
  size_t columns, rows;
} csv_table;

/* False: the sentence is on stderr. */
bool csv_read(const char *path, csv_table *table);
void csv_free(csv_table *table);

/* The column of that name, or `columns`. */
size_t csv_column(const csv_table *table, const char *name);

const char *csv_field(const csv_table *table, size_t row, size_t column);

/* A decimal number such as -1.5e3, whatever the locale; false: the sentence names line and column. */
bool csv_number(const csv_table *table, size_t row, size_t column, float *value);

#endif
