#!/usr/bin/env python3
"""Seeds for the fuzzers of file readers: python3 seeds.py FIXTURES OUT makes a folder OUT/NAME for each."""
import json
import shutil
import struct
import sys
import zipfile
from pathlib import Path

LARGEST = 65536  # what run.sh lets the fuzzers make


def gguf():
    """A GGUF file with a value of every type and a tensor of every dtype that is read."""
    text = lambda s: struct.pack("<Q", len(s)) + s.encode()
    values = [("general.architecture", 8, text("mamba")), ("mamba.embedding_length", 4, struct.pack("<I", 32)),
              ("mamba.block_count", 4, struct.pack("<I", 1)), ("mamba.ssm.conv_kernel", 4, struct.pack("<I", 4)),
              ("mamba.ssm.inner_size", 10, struct.pack("<Q", 64)), ("mamba.ssm.state_size", 2, struct.pack("<H", 4)),
              ("mamba.ssm.time_step_rank", 0, b"\3"), ("mamba.ssm.dt_b_c_rms", 7, b"\1"),
              ("mamba.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5)),
              ("general.alignment", 4, struct.pack("<I", 32)), ("x.f64", 12, struct.pack("<d", 1.0)),
              ("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + text("a") + text("bc")),
              ("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, 2) + struct.pack("<ff", 1, 2))]
    tensors = [("token_embd.weight", (32, 9), 0, 9 * 32 * 4), ("blk.0.ssm_in.weight", (32, 4), 1, 4 * 32 * 2),
               ("blk.0.ssm_x.weight", (64, 2), 30, 2 * 64 * 2), ("blk.0.ssm_out.weight", (64, 2), 8, 4 * 34)]
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    for key, kind, data in values:
        out += text(key) + struct.pack("<I", kind) + data
    at = 0
    for name, shape, dtype, size in tensors:
        out += text(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in shape)
        out += struct.pack("<IQ", dtype, at)
        at += (size + 31) // 32 * 32
    return out + bytes(-len(out) % 32) + bytes(range(256)) * (at // 256 + 1)


def safetensors():
    """Small, with metadata, a scalar and an empty tensor: most of what counts is in the header."""
    header = json.dumps({"__metadata__": {"format": "pt"},
                         "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                         "b": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [8, 12]},
                         "c": {"dtype": "F16", "shape": [], "data_offsets": [12, 14]},
                         "d": {"dtype": "I64", "shape": [0], "data_offsets": [14, 14]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(range(14))


def tokenizers(folder):
    """Every form of the fixtures, with a vocabulary of a few tokens, and a text after a zero byte."""
    vocab = {c: i for i, c in enumerate(["a", "b", "ab", "\u0120", "\u0120a", "<unk>", "<0x0A>", "1", "e", "\u2581"])}
    added = [{"id": 10, "content": "<|x|>", "single_word": False, "lstrip": True, "rstrip": True, "normalized": False, "special": True},
             {"id": 11, "content": "one", "single_word": True, "lstrip": False, "rstrip": False, "normalized": True, "special": False}]
    for name in ("neox", "falcon", "pieces"):
        parts = json.loads((folder / name / "tokenizer.json").read_text())
        parts["model"].update(vocab=vocab, merges=["a b", ["\u0120", "a"]])
        parts["added_tokens"] = added
        if parts["post_processor"]["type"] == "TemplateProcessing":
            parts["post_processor"]["special_tokens"]["<s>"]["ids"] = [10]
        yield name, parts
        for variant in json.loads((folder / "variants.json").read_text()):
            if variant["base"] == name:
                changed = {k: v for k, v in variant["changes"].items() if "." not in k}
                yield variant["name"], {**parts, **changed}


def main():
    fixtures, out = Path(sys.argv[1]), Path(sys.argv[2])
    kinds = {"safetensors": "*.safetensors", "index": "*.index.json", "config": "config.json",
             "pytorch": "pytorch_model.bin"}
    for kind, pattern in kinds.items():
        (out / kind).mkdir(parents=True, exist_ok=True)
        for file in sorted(fixtures.rglob(pattern)):
            if file.stat().st_size <= LARGEST or kind == "pytorch":
                shutil.copy(file, out / kind / f"{file.parent.name}-{file.name}")
    (out / "safetensors" / "small").write_bytes(safetensors())
    (out / "pickle").mkdir(exist_ok=True)
    for file in sorted(fixtures.rglob("pytorch_model.bin")):
        with zipfile.ZipFile(file) as archive:
            name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
            (out / "pickle" / file.parent.name).write_bytes(archive.read(name))
    (out / "tokenizer").mkdir(exist_ok=True)
    for name, parts in tokenizers(fixtures / ".." / "tokenizers"):
        text = "It's  12345 a<|x|>b <|x|> one e\u0301 \u6f22\n\n ab".encode() + b"\xff\xe2\x82"
        (out / "tokenizer" / name).write_bytes(json.dumps(parts, ensure_ascii=False).encode() + b"\0" + text)
    (out / "gguf").mkdir(exist_ok=True)
    (out / "gguf" / "all").write_bytes(gguf())


main()
