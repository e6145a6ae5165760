#define _GNU_SOURCE
#include "child.h"
#include "core/clock.h"
#include "endurance.h"
#include "folder.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define RUN "mamba-train", "--data", "../in/text.txt", "--out", "run", "--validations", "50"
static const command from_start = {faults_train_main,
                                   {RUN, "--preset", "tiny", "--d-model", "8", "--n-layer", "1", "--batch", "2",
                                    "--length", "16", "--steps", "500"}};
static const command from_checkpoint = {faults_train_main, {RUN, "--resume"}};

/* Every file that has its final name is whole. */
static int check_folder(const char *folder, int kills) {
  held_folder now;
  int wrong = 0;
  folder_read(folder, &now);
  for (size_t i = 0; i < now.count; i++) {
    const char *name = now.files[i].name, *damage = file_damage(&now.files[i]);
    if (strncmp(name, "std", 3) == 0 || strstr(name, ".partial") || !damage) continue;
    printf("WRONG: after kill %d, %s: %s\n", kills, name, damage);
    wrong++;
  }
  folder_free(&now);
  return wrong;
}

static bool exists(const char *folder, const char *name) {
  char path[500];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return access(path, F_OK) == 0;
}

static void restart(const char *folder) {
  folder_remove(folder);
  mkdir(folder, 0777);
}

static void model_of(const char *folder, held_folder *held) {
  char path[500];
  snprintf(path, sizeof path, "%s/run", folder);
  folder_read(path, held);
}

int kill_run(const char *device, int kills, unsigned seed) {
  char base[] = "/tmp/clmamba-kill-XXXXXX", path[300], work[300]; /* a disk, if there is one */
  if (!mkdtemp(base)) return 1;
  snprintf(path, sizeof path, "%s/in", base);
  mkdir(path, 0777);
  scenario_inputs(path);
  snprintf(work, sizeof work, "%s/work", base);
  held_folder whole, end;
  double length = 0;
  int wrong = 0, done = 0, runs = 0;
  for (int i = 0; i < 2 && !wrong; i++) { /* the second with the kernels that the first has compiled */
    restart(work);
    double begin = clock_seconds();
    wrong = child_run(work, &from_start, device, false, NULL, NULL) != 0;
    length = clock_seconds() - begin;
  }
  model_of(work, &whole);
  restart(work);
  while (done < kills && !wrong) {
    bool resumed = exists(work, "run/trainer.safetensors");
    if (!resumed) restart(work); /* killed before the first checkpoint */
    pid_t pid = child_start(work, resumed ? &from_checkpoint : &from_start, device, false, NULL, NULL);
    usleep((useconds_t)(length * 0.5e6 * rand_r(&seed) / RAND_MAX));
    kill(pid, SIGKILL);
    int status = child_wait(pid);
    if (status < 0) done++;
    wrong += check_folder(work, done);
    if (status > 0)
      wrong++, printf("WRONG: after kill %d it does not go on: status %d, see %s\n", done, status, work);
    if (status != 0) continue;
    model_of(work, &end);
    const held_file *a = folder_find(&whole, "model.safetensors"), *b = folder_find(&end, "model.safetensors");
    if (!a || !b || !file_equal(a, b)) wrong++, printf("WRONG: a run killed %d times ends elsewhere\n", done);
    runs++;
    folder_free(&end);
    restart(work);
  }
  folder_free(&whole);
  if (!wrong) folder_remove(base);
  printf("kill: %d kills on %s, %d runs to their end, %d wrong\n", done, device, runs, wrong);
  return wrong;
}
