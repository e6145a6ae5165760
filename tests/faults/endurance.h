/* What is not one fault but many moments: kills, and a long life. Both return how often something was wrong. */
#ifndef FAULTS_ENDURANCE_H
#define FAULTS_ENDURANCE_H

/* kill -9 at random moments of a training run, which is resumed each time; its end must be that of an unbroken one.
 */
int kill_run(const char *device, int kills, unsigned seed);

/* Steps of generation; memory must stay what it is after the first tenth. */
int soak_run(const char *device, long steps);

#endif
