/* What is done while calls fail: a command line of a tool, or calls of the library, in a folder of its own. */
#ifndef FAULTS_SCENARIO_H
#define FAULTS_SCENARIO_H

#include <stdbool.h>

typedef int scenario_main(int argc, char **argv);

scenario_main faults_train_main, faults_generate_main, faults_eval_main; /* the tools' own */
scenario_main session_main;                                              /* session.c       */

enum { SCENARIO_WORDS = 32 };

typedef struct command {
  scenario_main *main;
  const char *words[SCENARIO_WORDS]; /* the first is the program's name; --device is added */
} command;

typedef struct scenario {
  const char *name;
  command before; /* run once, undisturbed: what the folder holds then is where every fault starts. main NULL: none */
  command run;    /* with the fault                                                                                 */
  command after;  /* undisturbed, in what the fault has left. It may fail with a message; a success must give what
                     `run` and `after` give undisturbed                                                             */
  bool must_go_on; /* `after` must succeed: what was on the disk before the fault was enough for it */
  bool cold; /* its own cache of compiled programs, empty                                                      */
} scenario;

extern const scenario scenarios[];
extern const int scenario_count;

/* What the commands read: texts, tables, tokens, and models from tests/fixtures. They find it as ../in. */
void scenario_inputs(const char *folder);

#endif
