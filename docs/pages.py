#!/usr/bin/env python3
"""Checks README.md and the pages of docs against the tree and the tools.

    pages.py ROOT                     links and their anchors; that docs/architecture.md names every folder
    pages.py ROOT --build BUILD       every command: of the ```sh blocks, and of docs/data/commands.txt

Commands run in a scratch folder with a small text, table and model, with the programs of BUILD, and shorter than they
are written (`shorter`). What cannot run here is in `by_hand` with the reason, and the files that it names must exist. A
command that neither runs nor is listed there is a failure, and so is a command outside of an ```sh block.
"""
import argparse
import os
import pathlib
import re
import shlex
import struct
import subprocess
import sys
import tempfile

by_hand = [
    (r"^sh tools/", "builds the tree"),
    (r"^(sudo )?(apt|apt-get|meson|ninja)\b", "builds or installs the tree"),
    (r"^sh packaging/", "builds packages"),
    (r"^CLM_TEST_DEVICES=NVIDIA ", "needs a GPU"),
    (r"--device opencl:", "needs a GPU"),
    (r"^python3 tests/fixtures/check_trained.py", "needs transformers"),
    (r"^python3 tests/text/compare.py", "needs tokenizers"),
    (r"^python3 tests/cpu/hot_loops.py", "needs valgrind and llvm-mca"),
    (r"^sh tests/fuzz/loaders/run.sh", "a build of its own"),
    (r"B/tests/fuzz/fuzz", "a build of its own"),
    (r"^build/tests/faults/faults", "takes minutes"),
    (r"^OCL_ICD_VENDORS=", "needs another driver"),
]
runs = r"^((CLM_\w+=\S+ )*mamba-[a-z]+|for|awk|cc|man)\b"

# What a command says, and what it is when it is tried.
shorter = [
    (r"--minutes \S+", "--steps 4"), (r"--steps \d+", "--steps 4"), (r" -n [1-9]\d*", " -n 4"),
    (r"--repeat \d+", "--repeat 2"), (r"--rate \d+", "--rate 1000"), (r"--model (130m|370m|1\.4b)", "--model char"),
    (r"--prompt \d+", "--prompt 4"), (r"--new \d+", "--new 4"), (r"--batch \d+", "--batch 2"), (r"--dim \d+", "--dim 8"),
    (r"--state \d+", "--state 4"), (r"--sweep length=\S+", "--sweep length=64:128"), (r"--length \d+", "--length 64"),
    (r"--(m|n|k) \d+", r"--\1 32"),
]
sizes = {"gemm": "--m 32 --n 32 --k 32", "lm-decode": "--model char --prompt 4 --new 4", "lm-load": "--model char",
         "backbone-step": "", "limits": "", "update": "--batch 2 --dim 8", "all": None}


def shorten(command):
    for pattern, instead in shorter:
        command = re.sub(pattern, instead, command)
    bench = re.search(r"mamba-bench ([a-z-]+)", command)
    if bench:
        command += " " + sizes.get(bench[1], "--batch 2 --length 64" + ("" if "lm-" in bench[1] else " --dim 8"))
        if "--sweep length" in command:
            command = command.replace(" --length 64", "")
        for option in ("--device cpu", "--repeat 2"):
            command += "" if option.split()[0] in command else " " + option
    return command


def pages(root):
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md")),
            *sorted((root / "docs" / "kernels").glob("*.md"))]


def fences(text):
    """Every fenced block as (language, text), and what lies outside of them."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.S | re.M)
    return blocks, re.sub(r"^```.*?^```\n?", "", text, flags=re.S | re.M)


def commands_of(block):
    """The commands of a block; one may have several lines, where a quotation is open or a line ends with a backslash."""
    command = ""
    for line in block.splitlines():
        command += ("\n" if command else "") + line
        try:
            shlex.split(command, comments=True)
        except ValueError:
            continue
        if command.endswith("\\"):
            continue
        if command.strip() and not command.lstrip().startswith("#"):
            yield command
        command = ""
    if command:
        yield command


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def check_links(root, wrong):
    for page in pages(root):
        text = page.read_text(encoding="utf-8")
        blocks, outside = fences(text)
        for target in re.findall(r"\]\(([^)\s]+)\)", outside):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, part = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists():
                wrong.append(f"{page.relative_to(root)}: there is no {target}")
            elif part and part not in [anchor(h) for h in re.findall(r"^#+ (.*)", file.read_text(encoding="utf-8"), re.M)]:
                wrong.append(f"{page.relative_to(root)}: {path} has no heading #{part}")


def check_folders(root, wrong):
    text = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    for top in ("src", "tests", "tools"):
        for folder in sorted(p for p in (root / top).rglob("*") if p.is_dir()):
            name = folder.relative_to(root).as_posix()
            if name.count("/") > (3 if top == "src" else 1) or "__pycache__" in name or name.startswith("tests/fixtures/"):
                continue
            if f"`{name}`" not in text:
                wrong.append(f"docs/architecture.md does not name {name}")


def npy(path, kind, shape, values):
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        file.write(struct.pack(f"<{len(values)}{'f' if kind == '<f4' else 'q'}", *values))


def prepare(root, folder):
    """What the pages take for granted: texts, arrays, a source file."""
    text = (root / "LICENSE").read_text(encoding="utf-8")[:6000]
    for name in ("book.txt", "other.txt", "long.txt", "tinyshakespeare.txt", "TEXT"):
        (folder / name).write_text(text, encoding="utf-8")
    npy(folder / "X.npy", "<f4", (20, 6, 3), [i % 7 * 0.1 for i in range(360)])
    npy(folder / "Y.npy", "<i8", (20,), [i % 2 for i in range(20)])
    (folder / "scan.c").write_text((root / "docs/examples/scan.c").read_text(encoding="utf-8"), encoding="utf-8")


def run(command, folder, environment):
    done = subprocess.run(["sh", "-c", command], cwd=folder, env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False)
    return None if done.returncode == 0 else f"status {done.returncode}: {command}\n{done.stdout[-2000:]}"


def check_commands(root, build, wrong):
    environment = {**os.environ, "PATH": f"{build / 'tools'}:{os.environ['PATH']}", "LD_LIBRARY_PATH": str(build),
                   "PKG_CONFIG_PATH": str(build / "meson-uninstalled"), "MANPATH": str(build / "tools" / "man")}
    tried = 0
    with tempfile.TemporaryDirectory() as made:
        base = pathlib.Path(made) / "base"
        base.mkdir()
        prepare(root, base)
        failed = run("mamba-train --data book.txt --out made --preset char-quick --steps 2", base, environment)
        if failed:
            wrong.append(failed)
        for number, page in enumerate(pages(root)):
            name = page.relative_to(root)
            blocks, outside = fences(page.read_text(encoding="utf-8"))
            for line in re.findall(r"^ {4}.*", outside, re.M):
                if re.match(runs, line.strip()) or any(re.search(p, line.strip()) for p, _ in by_hand):
                    wrong.append(f"{name}: a command outside of an sh block: {line.strip()}")
            folder = pathlib.Path(made) / str(number)
            folder.mkdir()
            prepare(root, folder)
            block_texts = [text for language, text in blocks if language == "sh"]
            if "--out model" not in "".join(block_texts):
                (folder / "model").symlink_to(base / "made")
            (folder / "MODEL").symlink_to(base / "made")
            for command in [c for text in block_texts for c in commands_of(text)]:
                command = re.sub(r"\s+#.*", "", command)
                if any(re.search(pattern, command) for pattern, _ in by_hand):
                    for path in re.findall(r"(?:tools|tests|docs|packaging)/[\w./-]+\.(?:sh|py)", command):
                        if not (root / path).exists():
                            wrong.append(f"{name}: there is no {path}: {command}")
                elif re.match(runs, command):
                    tried += 1
                    failed = run(shorten(command), folder, environment)
                    if failed:
                        wrong.append(f"{name}: {failed}")
                else:
                    wrong.append(f"{name}: neither run nor known to be run by hand: {command}")
        listed = (root / "docs/data/commands.txt").read_text(encoding="utf-8").splitlines()
        benches = {shorten(re.sub(r"^((?:CLM_\w+=\S+ )*)", r"\1mamba-bench ", line)) for line in listed
                   if line.strip() and line[0] not in "#["}
        for command in sorted(benches):
            tried += 1
            failed = run(command, base, environment)
            if failed:
                wrong.append(f"docs/data/commands.txt: {failed}")
    print(f"{tried} commands")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("--build", type=pathlib.Path)
    given = parser.parse_args()
    root, wrong = given.root.resolve(), []
    if given.build:
        check_commands(root, given.build.resolve(), wrong)
    else:
        check_links(root, wrong)
        check_folders(root, wrong)
    for line in wrong:
        print(line)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
