/* clmamba: Mamba selective state-space models through OpenCL and on the CPU. Everything but <clmamba/opencl.h>. */
#ifndef CLMAMBA_H
#define CLMAMBA_H

#include <clmamba/adamw.h>
#include <clmamba/attention.h>
#include <clmamba/backbone.h>
#include <clmamba/buffer.h>
#include <clmamba/causal_conv1d.h>
#include <clmamba/context.h>
#include <clmamba/elementwise.h>
#include <clmamba/generate.h>
#include <clmamba/language.h>
#include <clmamba/mamba_inner.h>
#include <clmamba/matmul.h>
#include <clmamba/model.h>
#include <clmamba/moe.h>
#include <clmamba/norm.h>
#include <clmamba/scan.h>
#include <clmamba/selective_scan.h>
#include <clmamba/ssd.h>
#include <clmamba/status.h>
#include <clmamba/tensor.h>
#include <clmamba/tokenizer.h>
#include <clmamba/train.h>
#include <clmamba/version.h>

#endif
