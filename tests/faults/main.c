/* faults: a fault at every place in turn, kills, a long life (docs/testing.md). Exit status 0: nothing was wrong.
 *
 *   faults [DEVICE...]                 the sweep; a device is cpu or opencl
 *     --name SCENARIO --kind KIND      only this one; kinds are memory, files, opencl, threads
 *     --each N --every N --first N     N faults for each way to come to a call; of all these every N-th
 *     --number N [--lasting]           this fault alone, told in detail (with --name and --kind)
 *   faults --kills N DEVICE            kill -9 at random moments of training
 *   faults --soak N DEVICE             steps of generation with flat memory */
#include "endurance.h"
#include "sweep.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct given {
  sweep_options sweep;
  fault_plan one;
  long kills, soak;
  const char *devices[8];
} given;

static fault_kind kind_of(const char *name) {
  for (int k = 0; k < FAULT_KINDS; k++)
    if (strcmp(name, fault_kind_names[k]) == 0) return (fault_kind)k;
  fprintf(stderr, "there is no kind \"%s\"\n", name);
  exit(EXIT_FAILURE);
}

static void take(given *g, const char *option, const char *value, int *at) {
  const struct {
    const char *name;
    uint32_t *number;
    long *amount;
  } numbers[] = {{"--each", &g->sweep.each, NULL},   {"--every", &g->sweep.every, NULL},
                 {"--first", &g->sweep.first, NULL}, {"--number", &g->one.number, NULL},
                 {"--kills", NULL, &g->kills},       {"--soak", NULL, &g->soak}};
  if (strcmp(option, "--lasting") == 0) {
    g->one.lasting = true;
    return;
  }
  (*at)++;
  if (!value) value = "";
  if (strcmp(option, "--name") == 0) g->sweep.name = value;
  else if (strcmp(option, "--kind") == 0) g->one.kind = kind_of(value), g->sweep.kinds = 1u << g->one.kind;
  else if (strcmp(option, "--jobs") == 0) g->sweep.jobs = atoi(value);
  else {
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
      if (strcmp(option, numbers[i].name) != 0) continue;
      if (numbers[i].number) *numbers[i].number = (uint32_t)strtoul(value, NULL, 10);
      else *numbers[i].amount = strtol(value, NULL, 10);
      return;
    }
    fprintf(stderr, "unknown option %s\n", option);
    exit(EXIT_FAILURE);
  }
}

int main(int argc, char **argv) {
  given g = {.sweep = {.kinds = ~0u, .each = 2, .every = 1, .jobs = 2, .verbose = true}};
  int devices = 0, wrong = 0;
  for (int i = 1; i < argc; i++)
    if (argv[i][0] == '-') take(&g, argv[i], argv[i + 1], &i);
    else if (devices < 7) g.devices[devices++] = argv[i];
  if (devices == 0) g.devices[0] = "cpu";
  g.sweep.devices = g.devices;
  if (g.one.number) return sweep_one(&g.sweep, &g.one);
  for (int d = 0; g.devices[d] && (g.kills || g.soak); d++) {
    if (g.kills) wrong += kill_run(g.devices[d], (int)g.kills, (unsigned)time(NULL));
    if (g.soak) wrong += soak_run(g.devices[d], g.soak);
  }
  if (g.kills || g.soak) return wrong ? EXIT_FAILURE : EXIT_SUCCESS;
  sweep_totals t = sweep_run(&g.sweep);
  printf("%u runs, in %u of them a call failed, %u ended well all the same; %u wrong\n", t.runs, t.injected,
         t.survived, t.wrong);
  return t.wrong || t.injected == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
