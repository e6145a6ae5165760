/* A backbone learns the mean of the last four frames of a noisy signal, is saved and loaded, and then runs frame by
 * frame as a program with a sensor would run it. usage: backbone DIRECTORY (to make) */
#include <clmamba/clmamba.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { SEQUENCES = 200, LENGTH = 32, WIDTH = 2, STEPS = 150 };
static float frames[SEQUENCES][LENGTH][WIDTH], targets[SEQUENCES][LENGTH][1];

static void make_data(void) {
  srand(1);
  for (int s = 0; s < SEQUENCES; s++)
    for (int t = 0; t < LENGTH; t++) {
      for (int k = 0; k < WIDTH; k++) frames[s][t][k] = (float)rand() / (float)RAND_MAX * 2 - 1;
      for (int back = 0; back < 4 && back <= t; back++) targets[s][t][0] += frames[s][t - back][0] / 4;
    }
}

static clm_status train(clm_context *context, const char *directory, double *r2) {
  const clm_backbone_config config = {.embed_dim = WIDTH,
                                      .d_model = 16,
                                      .n_layers = 2,
                                      .d_state = 8,
                                      .n_outputs = 1,
                                      .output = CLM_OUTPUT_EVERY,
                                      .task = CLM_TASK_REGRESSION};
  const clm_sequences data = {
      .count = SEQUENCES, .length = LENGTH, .frames = &frames[0][0][0], .targets = &targets[0][0][0]};
  clm_backbone *backbone = NULL;
  clm_trainer *trainer = NULL;
  clm_train_status now = {0};
  double loss;
  clm_status status = clm_backbone_create(context, &config, 1, &backbone);
  if (!status)
    status = clm_trainer_create_backbone(backbone, &data,
                                         &(clm_train_options){.batch = 8, .lr = 1e-2, .steps = STEPS}, &trainer);
  for (int i = 0; i < STEPS && !status; i++) status = clm_trainer_step(trainer);
  if (!status) status = clm_trainer_validate(trainer, &loss); /* on the last tenth of the sequences */
  if (!status) status = clm_trainer_status(trainer, &now);
  if (!status) status = clm_backbone_save(backbone, directory);
  *r2 = now.quality;
  clm_trainer_destroy(&trainer);
  clm_backbone_destroy(&backbone);
  return status;
}

/* The last sequence a frame at a time; the largest error of an output once four frames have come. */
static clm_status run(clm_context *context, const char *directory, float *error) {
  clm_backbone *backbone = NULL;
  clm_backbone_state *state = NULL;
  clm_buffer *buffer = NULL;
  clm_status status = clm_backbone_load(context, directory, &backbone);
  if (!status) status = clm_backbone_state_create(backbone, 1, &state);
  if (!status) status = clm_buffer_create(context, (WIDTH + 1) * sizeof(float), &buffer);
  clm_tensor frame = clm_tensor_of(buffer, 0, CLM_F32, 2, (int64_t[]){1, WIDTH});
  clm_tensor out = clm_tensor_of(buffer, WIDTH * sizeof(float), CLM_F32, 2, (int64_t[]){1, 1});
  for (int t = 0; t < LENGTH && !status; t++) {
    float value = 0;
    status = clm_tensor_write(frame, frames[SEQUENCES - 1][t], WIDTH * sizeof(float));
    if (!status) status = clm_backbone_step(backbone, state, frame, out);
    if (!status) status = clm_tensor_read(out, &value, sizeof value);
    if (t >= 3) *error = fmaxf(*error, fabsf(value - targets[SEQUENCES - 1][t][0]));
  }
  clm_buffer_destroy(&buffer);
  clm_backbone_state_destroy(&state);
  clm_backbone_destroy(&backbone);
  return status;
}

int main(int argc, char **argv) {
  clm_context *context = NULL;
  double r2 = 0;
  float error = 0;
  if (argc != 2 || mkdir(argv[1], 0777) != 0 || clm_context_create(NULL, &context) != CLM_OK) return 1;
  make_data();
  clm_status status = train(context, argv[1], &r2);
  if (!status) status = run(context, argv[1], &error);
  if (status) fprintf(stderr, "%s\n", clm_context_error(context));
  else printf("R2 %.3f, a streamed output is off by %.3f at most\n", r2, (double)error);
  clm_context_destroy(&context);
  return status != CLM_OK || !(r2 > 0.9) || !(error < 0.5f);
}
