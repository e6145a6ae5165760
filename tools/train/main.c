/* mamba-train: trains a language model on a text, or a backbone on sequences of vectors, and writes a model
 * directory, train.csv and loss.svg. */
#include "common/tool.h"
#include "train/train.h"
#include <stddef.h>

static const tool_list presets[] = {
    {"Presets for a text", "preset", train_text_preset},
    {"Presets with --task", "preset", train_frames_preset},
    {NULL, NULL, NULL},
};

static const tool_entry examples[] = {
    {"mamba-train --data book.txt --out model --preset char-small --minutes 3", "train on a text for three minutes"},
    {"mamba-train --data book.txt --out model --resume", "continue a run that was interrupted"},
    {"mamba-train --task regression --data walks.csv --target sum --out backbone --steps 500",
     "learn a number from the rows of a table"},
    {NULL, NULL},
};

static const tool_about about = {
    .name = "mamba-train",
    .summary = "train a Mamba language model or backbone",
    .description =
        "Trains a language model on a text file, or with --task a backbone on sequences of vectors. The result is a "
        "model directory as Hugging Face writes it, with train.csv and loss.svg, the losses of the run. The last 10% "
        "of the data are kept for validation.\n\n"
        "An interrupt saves the run and exits; --resume continues it.",
    .options = train_options,
    .lists = presets,
    .examples = examples,
};

static int list_presets(void) {
  for (const tool_list *list = presets; list->title; list++) about_list(list, about_columns());
  return TOOL_OK;
}

int main(int argc, char **argv) {
  train_settings settings;
  int status;
  if (!tool_parse(argc, argv, &about, NULL, &status)) return status;
  if (train_presets_asked()) return list_presets();
  if (!train_settings_read(&settings)) return TOOL_USAGE;
  return train_run(&settings) ? TOOL_OK : TOOL_FAILED;
}
