#!/usr/bin/env python3
"""Writes attention_torch.h: results of torch's scaled_dot_product_attention, in double, and their gradients.

    python3 attention_torch.py > attention_torch.h

Number i of an input is sin(0.7 i + phase), in row-major order of (batch, step, head, dim).
"""
import torch

torch.set_default_dtype(torch.float64)

CASES = [  # name, length, keys, heads, kv_heads, head_dim, scale, window
    ("chunk of a prompt", 3, 5, 4, 2, 4, None, None),
    ("window and scale", 6, 6, 2, 1, 3, 1.5, 3),
]
PHASES = {"q": 0.1, "k": 0.5, "v": 1.1, "dout": 1.7}


def tensor(name, *shape):
    numbers = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(0.7 * numbers + PHASES[name]).reshape(shape)


def run(length, keys, heads, kv_heads, head_dim, scale, window):
    q = tensor("q", 1, length, heads, head_dim).requires_grad_()
    k = tensor("k", 1, keys, kv_heads, head_dim).requires_grad_()
    v = tensor("v", 1, keys, kv_heads, head_dim).requires_grad_()
    position = torch.arange(length).unsqueeze(1) + keys - length
    key = torch.arange(keys).unsqueeze(0)
    mask = key <= position
    if window:
        mask &= key > position - window
    heads_first = [t.transpose(1, 2) for t in (q, k, v)]
    out = torch.nn.functional.scaled_dot_product_attention(*heads_first, attn_mask=mask, scale=scale, enable_gqa=True)
    out = out.transpose(1, 2)
    out.backward(tensor("dout", 1, length, heads, head_dim))
    return {"out": out.detach(), "dq": q.grad, "dk": k.grad, "dv": v.grad}


def main():
    print("/* Made by attention_torch.py (torch %s). */" % torch.__version__.split("+")[0])
    print("#include <stdint.h>\n")
    print("static const struct torch_case {")
    print("  int64_t length, keys, n_heads, kv_heads, head_dim;")
    print("  float scale;")
    print("  int64_t window;")
    print("  const char *why;")
    print("  double out[48], dq[48], dk[40], dv[40];")
    print("} torch_cases[] = {")
    for why, length, keys, heads, kv_heads, head_dim, scale, window in CASES:
        print("    {%d, %d, %d, %d, %d, %sf, %d, \"%s\"," % (length, keys, heads, kv_heads, head_dim,
                                                         scale or "0.0", window or 0, why))
        for name, values in run(length, keys, heads, kv_heads, head_dim, scale, window).items():
            print("     .%s = {%s}," % (name, ", ".join("%.17g" % x for x in values.flatten().tolist())))
        print("    },")
    print("};")


main()
