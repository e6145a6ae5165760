"""Writes a C file that holds every kernel source as an array of characters: embed.py OUTPUT FILE...

Arrays, not string literals: a literal longer than 4095 characters is not portable C.
"""
import os
import sys


def array(name, data):
    rows = [", ".join(str(byte) for byte in data[i:i + 32]) for i in range(0, len(data), 32)]
    return "static const char %s[] = {\n  %s\n};\n" % (name, ",\n  ".join(rows + ["0"]))


def main(output, files):
    files = sorted(files, key=os.path.basename)
    parts = ['#include "backend/opencl/embedded.h"\n#include <stddef.h>\n']
    for i, path in enumerate(files):
        with open(path, "rb") as source:
            data = source.read()
        if any(byte == 0 or byte > 126 for byte in data):
            sys.exit("%s: kernel sources are plain ASCII (some OpenCL compilers refuse anything else)" % path)
        parts.append(array("source_%d" % i, data))
    parts.append("const embedded_source embedded_sources[] = {\n")
    parts += ['  {"%s", source_%d},\n' % (os.path.basename(path), i) for i, path in enumerate(files)]
    parts.append("  {NULL, NULL},\n};\n")
    with open(output, "w") as out:
        out.write("\n".join(parts))


main(sys.argv[1], sys.argv[2:])
