#include "folder.h"
#include "scenario.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A model of a few thousand parameters, saved at the end alone, so that there are two states of the disk only. */
#define TINY                                                                                                         \
  "--preset", "tiny", "--d-model", "8", "--n-layer", "1", "--d-state", "4", "--batch", "2", "--length", "16",        \
      "--threads", "2"
#define TRAIN(...)                                                                                                   \
  {                                                                                                                  \
    faults_train_main, {                                                                                             \
      "mamba-train", "--data", "../in/text.txt", "--out", "run", "--validations", "1", __VA_ARGS__                   \
    }                                                                                                                \
  }
#define TRAIN_FRAMES(...)                                                                                            \
  {                                                                                                                  \
    faults_train_main, {                                                                                             \
      "mamba-train", "--task", "regression", "--data", "../in/table.csv", "--target", "sum", "--features",           \
          "x,noise", "--out", "run", "--validations", "1", __VA_ARGS__                                               \
    }                                                                                                                \
  }
#define GENERATE(...)                                                                                                \
  {                                                                                                                  \
    faults_generate_main, { "mamba-generate", "--threads", "2", "--temperature", "0", __VA_ARGS__ }                  \
  }
#define EVAL(...)                                                                                                    \
  {                                                                                                                  \
    faults_eval_main, { "mamba-eval", "--threads", "2", __VA_ARGS__ }                                                \
  }
#define NEW_MODEL TRAIN(TINY, "--steps", "2")

const scenario scenarios[] = {
    {.name = "train", .run = TRAIN(TINY, "--steps", "2"), .after = TRAIN("--resume")},
    {.name = "resume",
     .before = TRAIN(TINY, "--steps", "4", "--stop-at", "2"),
     .run = TRAIN("--resume"),
     .after = TRAIN("--resume"),
     .must_go_on = true},
    {.name = "train-frames", .run = TRAIN_FRAMES(TINY, "--steps", "2"), .after = TRAIN_FRAMES("--resume")},
    {.name = "resume-frames",
     .before = TRAIN_FRAMES(TINY, "--steps", "4", "--stop-at", "2"),
     .run = TRAIN_FRAMES("--resume"),
     .after = TRAIN_FRAMES("--resume"),
     .must_go_on = true},
    {.name = "generate",
     .before = NEW_MODEL,
     .run = GENERATE("--model", "run", "--prompt", "the king", "-n", "6", "--save-state", "state.safetensors")},
    {.name = "generate-logprobs",
     .before = NEW_MODEL,
     .run = GENERATE("--model", "run", "--prompt", "the king", "-n", "3", "--logprobs", "2", "--stop", "zz")},
    {.name = "generate-batch",
     .before = GENERATE("--model", "../in/model", "--tokens", "../in/ids.npy", "--tokens-out", "o.npy", "-n", "1",
                        "--save-state", "state.safetensors"),
     .run = GENERATE("--model", "../in/model", "--tokens", "../in/ids.npy", "--tokens-out", "o.npy", "-n", "3",
                     "--load-state", "state.safetensors", "--save-state", "state.safetensors")},
    {.name = "score",
     .before = NEW_MODEL,
     .run = EVAL("--model", "run", "--score", "../in/text.txt", "--window", "64")},
    {.name = "choices", .before = NEW_MODEL, .run = EVAL("--model", "run", "--choices", "../in/choices.jsonl")},
    {.name = "states",
     .run = EVAL("--model", "../in/model", "--tokens", "../in/ids.npy", "--logits", "l.npy", "--hidden", "h.npy")},
    {.name = "embed",
     .before = NEW_MODEL,
     .run = EVAL("--model", "run", "--texts", "../in/prompts.txt", "--embed", "mean", "--output", "e.csv")},
    {.name = "load-gguf",
     .run = EVAL("--model", "../in/model/model.gguf", "--weights", "int8", "--tokens", "../in/ids.npy", "--logits",
                 "l.npy")},
    {.name = "load-shards",
     .run = EVAL("--model", "../in/shards", "--weights", "bf16", "--tokens", "../in/ids.npy", "--logits", "l.npy")},
    {.name = "load-pytorch",
     .run = EVAL("--model", "../in/pytorch", "--tokens", "../in/ids.npy", "--logits", "l.npy")},
    {.name = "encode", .run = EVAL("--model", "../in/neox", "--encode", "the king's 12 crowns, cafe\xcc\x81\n")},
    {.name = "session", .run = {session_main, {"session"}}},
    {.name = "session-cold", .run = {session_main, {"session"}}, .cold = true},
};
const int scenario_count = sizeof scenarios / sizeof *scenarios;

static FILE *create(const char *folder, const char *name) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *f = fopen(path, "wb");
  if (!f) {
    perror(path);
    exit(EXIT_FAILURE);
  }
  return f;
}

static void copy(const char *folder, const char *fixture, const char *name) {
  char from[4096], to[4096];
  snprintf(from, sizeof from, "%s/%s", FIXTURES, fixture);
  snprintf(to, sizeof to, "%s/%s", folder, name);
  folder_copy(from, to);
}

void scenario_inputs(const char *folder) {
  static const char *const words[] = {"the", "king", "crown", "is", "not", "my", "lord"};
  FILE *f = create(folder, "text.txt");
  for (int i = 0; i < 160; i++) fprintf(f, "%s%c", words[(i * 5 + i / 9) % 7], i % 8 == 7 ? '\n' : ' ');
  fclose(f);
  f = create(folder, "table.csv");
  fputs("sequence,x,noise,sum\n", f);
  for (int i = 0, x = 0; i < 120; i++, x = (x * 5 + i) % 17) fprintf(f, "%d,%d,%d,%d\n", i / 6, x, i % 5, x + i % 6);
  fclose(f);
  f = create(folder, "prompts.txt");
  fputs("the king\nis not my crown\n", f);
  fclose(f);
  f = create(folder, "choices.jsonl");
  fputs("{\"context\": \"the king \", \"choices\": [\"is not\", \"crown\"], \"answer\": 1}\n", f);
  fclose(f);
  f = create(folder, "ids.npy");
  fwrite("\x93NUMPY\1\0v\0", 1, 10, f);
  fprintf(f, "%-117s\n", "{'descr': '<i4', 'fortran_order': False, 'shape': (1, 9), }");
  for (int32_t i = 0; i < 9; i++) fwrite(&(int32_t){i * 7 % 50}, sizeof i, 1, f);
  fclose(f);
  copy(folder, "models/mamba", "model");
  copy(folder, "models/mamba-sharded-f16", "shards");
  copy(folder, "models/original", "pytorch");
  copy(folder, "tokenizers/neox", "neox");
}
