/* The log of a training run: train.csv and loss.svg of its directory. */
#ifndef CLM_TOOLS_TRAIN_LOG_H
#define CLM_TOOLS_TRAIN_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct train_row {
  int64_t step, tokens;
  double seconds, learning_rate;
  double train_loss, val_loss; /* NaN: none was taken */
  double val_quality;
} train_row;

/* What the numbers of a run are called. */
typedef struct train_words {
  const char *unit;    /* what `tokens` counts: "tokens"                      */
  const char *loss;    /* what the loss is measured in                        */
  const char *quality; /* a second number of every validation; NULL: there is none */
  int digits;          /* of a loss, after the point, on the terminal         */
} train_words;

typedef struct train_log {
  const train_words *words;
  train_row *rows;
  size_t count, capacity;
} train_log;

bool train_log_add(train_log *log, train_row row); /* false: out of memory */

/* Takes the rows of an earlier part of the run, up to `last_step`, or to the first line that is damaged, whose number
 * is then in *damaged (else 0). A file that is absent gives none. False: the message is on stderr. */
bool train_log_read(train_log *log, const char *path, int64_t last_step, size_t *damaged);

/* Each appears whole or not at all; false: the message is on stderr. */
bool train_log_write_csv(const train_log *log, const char *path);
bool train_log_write_svg(const train_log *log, const char *path, const char *title, const char *subtitle);

void train_log_free(train_log *log);

#endif
