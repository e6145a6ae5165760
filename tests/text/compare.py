#!/usr/bin/env python3
"""Random difficult texts through build/tests/text/tokenize and through Hugging Face's `tokenizers`: ids and decoded
text must be the same.

    python3 tests/text/compare.py build/tests/text/tokenize CHARACTERS [SEED] [FILE]

over the tokenizers of tests/fixtures and all their variants; FILE is text to take pieces of. Needs what
make_tokenizers.py needs."""
import json
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

FIXTURES = Path(__file__).parent.parent / "fixtures"
sys.path.insert(0, str(FIXTURES))
import make_tokenizers as made  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402


class Ours:
    def __init__(self, program, parts):
        self.folder = tempfile.TemporaryDirectory()
        Path(self.folder.name, "tokenizer.json").write_text(json.dumps(parts))
        self.process = subprocess.Popen([program, self.folder.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def read(self, size):
        (count,) = struct.unpack("<I", self.process.stdout.read(4))
        return self.process.stdout.read(size * count)

    def tokenize(self, data):
        self.process.stdin.write(struct.pack("<I", len(data)) + data)
        self.process.stdin.flush()
        ids = self.read(4)
        return list(struct.unpack(f"<{len(ids) // 4}i", ids)), self.read(1).decode()


def random_text(r, source):
    kind = r.randrange(10)
    if kind == 0 and source:
        at = r.randrange(max(1, len(source) - 400))
        return source[at : at + 400].encode()
    text = "".join(made.random_piece(r) for _ in range(r.randrange(1, 120)))
    if kind == 1:  # a run
        text += r.choice(["a", " ", "\u0301", "é", "漢", "0", "\n", "<|", "e\u0323\u0301"]) * r.randrange(1, 800) + text[:9]
    data = text.encode()
    if kind == 2:  # damaged
        data = bytearray(data)
        for _ in range(r.randrange(1, 8)):
            data[r.randrange(len(data))] = r.randrange(256)
    return bytes(data)


def difference(got, want):
    at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
    return f"at {at} got {got[at : at + 8]!r}, want {want[at : at + 8]!r}" if got != want else "the same"


def main(program, characters, seed="1", source=None):
    source = Path(source).read_text() if source else ""
    bases = {n: json.loads((FIXTURES / "tokenizers" / n / "tokenizer.json").read_text()) for n in ("neox", "falcon", "pieces")}
    all_parts = list(bases.items()) + [(v["name"], made.changed(bases[v["base"]], v["changes"])) for v in made.variants()]
    wrong = 0
    for name, parts in all_parts:
        r = random.Random(f"{seed} {name}")
        theirs, ours = Tokenizer.from_str(json.dumps(parts)), Ours(program, parts)
        done = texts = 0
        while done < int(characters):
            data = random_text(r, source)
            text = data.decode("utf-8", "replace")
            ids = theirs.encode(text, add_special_tokens=False).ids
            want = (ids, theirs.decode(ids, skip_special_tokens=False))
            got = ours.tokenize(data)
            if got != want:
                wrong += 1
                if wrong < 20:
                    print(f"{name}: {data!r}\n  {difference(got[0], want[0])}\n  {difference(got[1], want[1])}")
            done += len(text)
            texts += 1
        print(f"{name}: {texts} texts, {done} characters", flush=True)
    print(f"{wrong} texts differ")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
