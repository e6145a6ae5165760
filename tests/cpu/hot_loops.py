#!/usr/bin/env python3
"""Instructions of the CPU's hot loops, as a Markdown table for docs/kernels/cpu.md.

    hot_loops.py BUILD [--cpu znver4]        needs valgrind, binutils and llvm-19

baseline and avx2: callgrind's count of whole calls, set-up and rests with them, for a vector of elements. AVX-512,
which callgrind cannot run: the innermost loop as it stands in the object, found by what only it does, and llvm-mca's
estimate of its cycles, for a vector of elements.
"""
import argparse
import pathlib
import re
import subprocess

# name, what an element is, object and function of the loop, mark: what only one instruction for a vector is, vectors
# of elements for each. Of several loops the one with the most marks counts, or (products) the one with the fewest
# instructions for each.
LOOPS = [
    ("scan", "a state of a step", "selective_scan", "", "vscalefps", 1, max),
    ("scan_backward", "a state of a step", "selective_scan_backward", "", "vscalefps", 1, max),
    ("conv", "an output", "causal_conv1d_stream", "", "vrcp14ps", 1, max),
    ("conv_backward", "an output", "causal_conv1d", "", "vrcp14ps", 1, max),
    ("update", "a state", "state_update", "update_1", "vscalefps", 1, max),
    ("norm", "an output", "norm", "norm_rows", r"vmovups %zmm\d+,", 1, max),
    ("product_f32", "a weight, f32", "matvec", "f32_row", "vfmadd", 1, min),
    ("product_bf16", "a weight, bf16", "matvec", "bf16_row", "vpslld", 2, min),
    ("product_f16", "a weight, f16", "matvec", "f16_row", "vcvtph2ps", 1, min),
    ("product_i8", "a weight, int8", "matvec", "integers_row", "vpdpbusd", 2, min),
]
LANES = {"baseline": 4, "avx2": 8}


def run(*command, **more):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, **more).stdout


def counted(program, name, level):
    """Instructions of a call, and its elements."""
    totals = []
    for calls in (2, 5):
        got = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(program), name,
                              str(calls)], capture_output=True, text=True, check=True,
                             env={"CLM_CPU_LEVEL": level, "PATH": "/usr/bin:/bin"})
        totals.append(int(re.search(r"Collected : (\d+)", got.stderr).group(1)))
        elements = int(got.stdout.split()[-1])
    return (totals[1] - totals[0]) / 3, elements


def loops_of(function):
    """The innermost loops of a disassembled function: jumps back over no other jump back. All of it if it has none."""
    lines = [m.groups() for m in re.finditer(r"^ +([0-9a-f]+):\t(.+)$", function, re.M)]
    at = {int(address, 16): i for i, (address, _) in enumerate(lines)}
    back = []
    for i, (_, text) in enumerate(lines):
        jump = re.match(r"j\w+ +([0-9a-f]+)", text)
        if jump and at.get(int(jump.group(1), 16), len(lines)) <= i:
            back.append((at[int(jump.group(1), 16)], i))
    for first, last in back:
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in back):
            yield [text.split("#")[0].strip() for _, text in lines[first:last + 1]]
    if not back:
        yield [text.split("#")[0].strip() for _, text in lines]


def marked_loop(objects, source, function, mark, pick):
    text = run("objdump", "-d", "--no-show-raw-insn", objects / f"kernels_{source}.c.o")
    found = []
    for part in re.split(r"\n(?=[0-9a-f]+ <)", text):
        if function and f"<{function}>" not in part.split("\n")[0]:
            continue
        for loop in loops_of(part):
            marks = sum(bool(re.search(mark, instruction)) for instruction in loop)
            if marks >= (2 if pick is min else 1):
                found.append((marks if pick is max else len(loop) / marks, marks, loop))
    return pick(found, key=lambda loop: loop[0])[1:]


def cycles(loop, cpu):
    body = "\n".join(re.sub(r"^(j\w+|call)\b.*", "nop", text).replace("<", "# <") for text in loop)
    report = run("llvm-mca-19", f"-mcpu={cpu}", "-iterations=200", input=body)
    return float(re.search(r"Total Cycles: +(\d+)", report).group(1)) / 200


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("build", type=pathlib.Path)
    options.add_argument("--cpu", default="znver4", help="whose cycles llvm-mca estimates")
    options = options.parse_args()
    program = options.build / "tests/cpu/hot_loops"
    objects = options.build / "src/backend/cpu/libclmamba_avx512vnni.a.p"
    print("| loop | element | baseline, 4 | avx2, 8 | AVX-512 loop, 16 | its cycles |\n|---|---|---|---|---|---|")
    for name, element, source, function, mark, vectors, pick in LOOPS:
        row = [name, element]
        for level, lanes in LANES.items():
            instructions, elements = counted(program, name, level)
            row.append(f"{instructions * lanes / elements:.1f}")
        marks, loop = marked_loop(objects, source, function, mark, pick)
        row += [f"{number / marks / vectors:.1f}" for number in (len(loop), cycles(loop, options.cpu))]
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
