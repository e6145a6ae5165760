/* Training of a language model on one text (random windows of its first 90%) or of a backbone on sequences of frames
 * (the first 90% of them): AdamW, warm-up and cosine decay, loss on the other 10%, checkpoints that continue bit for
 * bit.
 *
 * Thread safety: as the model's context, one call at a time. */
#ifndef CLMAMBA_TRAIN_H
#define CLMAMBA_TRAIN_H

#include <clmamba/backbone.h>
#include <clmamba/model.h>
#include <clmamba/tokenizer.h>

CLM_BEGIN_DECLS

/* Zeroed members mean the default in brackets. */
typedef struct clm_train_options {
  int64_t batch;       /* [16] windows, or sequences, in a step                              */
  int64_t length;      /* [256] tokens in a window; of a backbone: see below                 */
  int64_t accumulate;  /* [1] batches whose gradients are averaged into one step             */
  double lr;           /* [3e-3] the peak                                                    */
  double lr_end;       /* [0] fraction of the peak at the end of the cosine                  */
  double warmup;       /* [0.03] fraction of the run                                         */
  double beta1, beta2; /* [0.9, 0.95]                                                        */
  double weight_decay; /* [0.1] not on A_log, D, norms and biases; negative: none            */
  double clip;         /* [1] global norm of the gradient; negative: no clipping             */
  double dropout;      /* [0; of a backbone: its own] negative: none                         */
  int64_t steps;       /* length of the run in steps, or                                     */
  double minutes;      /* in minutes of wall time, validations included; exactly one is set  */
  uint64_t seed;
  int64_t validation_tokens; /* [all] at most so many of the validation text's tokens, or frames in whole sequences
                              * (one at least): the first                                          */
  clm_dtype activations; /* [f32] f32, bf16 or f16: the trainer sets the model's (clm_model_set_activations); weights,
                          * gradients and moments are f32. In f16 the loss is scaled: where a gradient overflows, the
                          * step changes no parameter and the scale is halved; after 2,000 steps without it doubles */
} clm_train_options;

typedef struct clm_train_preset {
  const char *name, *description;
  clm_vocabulary vocabulary;
  clm_model_config model; /* vocab_size 0: the tokenizer's */
  clm_train_options train;
} clm_train_preset;

/* The table of presets; the first is the default. */
CLM_API const clm_train_preset *clm_train_presets(size_t *count);

typedef struct clm_trainer clm_trainer;

/* `ids` (copied) is the whole text: of n tokens the first n * 9 / 10 (rounded down) are trained on, the others are
 * the validation text. The model must outlive the trainer. */
CLM_API clm_status clm_trainer_create(clm_model *model, const int32_t *ids, size_t count,
                                      const clm_train_options *options, clm_trainer **trainer);

/* The sequences (not copied: they must stay as they are until the trainer is destroyed) are those of
 * clm_backbone_evaluate; of n the first n * 9 / 10 (rounded down) are trained on, in another order in every epoch.
 * With an output at every frame, sequences longer than options.length [the longest] or the window are cut into parts
 * that count as sequences; with one output at the end a window keeps their last frames. The backbone must outlive
 * the trainer. */
CLM_API clm_status clm_trainer_create_backbone(clm_backbone *backbone, const clm_sequences *sequences,
                                               const clm_train_options *options, clm_trainer **trainer);

CLM_API void clm_trainer_destroy(clm_trainer **trainer);

/* One step; the work is enqueued, and waited for now and then. Where it fails, the run is where it was before,
 * so that the step may be tried again; or, where parameters had begun to change, every further call with the trainer
 * says so, until clm_trainer_resume. */
CLM_API clm_status clm_trainer_step(clm_trainer *trainer);

typedef struct clm_train_status {
  int64_t step, tokens; /* done so far; tokens of a backbone are frames         */
  double seconds;       /* wall time so far, earlier parts of a resumed run included */
  double fraction;      /* of the run, by steps or time                         */
  double lr;            /* of the last step                                     */
  double loss;          /* mean of the steps since the last call of this; NaN if there were none */
  double norm;          /* of the last step's gradient, before clipping         */
  bool finished;
  double quality;    /* of a backbone's last validation: R2 or accuracy; NaN: none was taken */
  int64_t skipped;   /* steps of a run in f16 that changed nothing, as a gradient overflowed */
  double loss_scale; /* of the next step; 1 but in f16 */
} clm_train_status;

/* The progress of the run; waits for the work. */
CLM_API clm_status clm_trainer_status(clm_trainer *trainer, clm_train_status *status);

/* Nats per token on the validation text, by clm_model_score; the mean loss on the validation sequences, by
 * clm_backbone_evaluate. Of either, options.validation_tokens at most. */
CLM_API clm_status clm_trainer_validate(clm_trainer *trainer, double *loss);

/* Writes the model (clm_model_save) and trainer.safetensors, all that a resumed run needs, into `directory`. */
CLM_API clm_status clm_trainer_save(clm_trainer *trainer, const char *directory);

/* Writes trainer.safetensors alone. */
CLM_API clm_status clm_trainer_save_state(clm_trainer *trainer, const char *directory);

/* What trainer.safetensors of `directory` has about its run, to make the trainer that resumes it. */
CLM_API clm_status clm_trainer_saved_options(clm_context *context, const char *directory, clm_train_options *options);

/* Takes parameters, optimizer, position and random state from trainer.safetensors of `directory`. The text, or the
 * sequences, must be what it was trained on. Steps or minutes given in the trainer's options stand. */
CLM_API clm_status clm_trainer_resume(clm_trainer *trainer, const char *directory);

CLM_END_DECLS

#endif
