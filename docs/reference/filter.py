#!/usr/bin/env python3
"""Doxygen's view of a public header: its plain comments as documentation comments, on standard output.

A comment at the start of a line documents the declaration on the next line, and those after it up to an empty line;
the first of a file documents the file. A comment after code documents that code. Indented lines of a comment
(equations, tables, programs) stay as they are.
"""
import re
import sys

comment = re.compile(r"/\*.*?\*/", re.S)


def escape(text):
    return re.sub(r'([\\@<>&#%$"])', r"\\\1", text)


def paragraphs(body):
    """The lines of a comment without its frame: text escaped, indented blocks verbatim."""
    lines = [re.sub(r"^\s*\* ?", "", line) if i else line for i, line in enumerate(body[2:-2].split("\n"))]
    lines[0] = lines[0][1:] if lines[0].startswith(" ") else lines[0]
    out, verbatim = [], False
    for i, line in enumerate(lines):
        indented = line.startswith("  ")
        following = next((l for l in lines[i:] if l.strip()), "")
        if indented and not verbatim:
            line, verbatim = "\\verbatim\n" + line, True
        elif verbatim and not indented and (line.strip() or not following.startswith("  ")):
            out[-1] += " \\endverbatim"
            line, verbatim = escape(line), False
        elif not verbatim:
            line = escape(line)
        out.append(line.rstrip())
    if verbatim:
        out[-1] += " \\endverbatim"
    return out


def leading(body, command=""):
    return "/**" + command + " " + "\n".join(paragraphs(body)) + " */"


def trailing(body):
    text = re.sub(r"\s*\n[\s*]*", "\n", body[2:-2].strip())
    return "/**< " + escape(re.sub(r"[ \t]+", " ", text)) + " */"


def members(code, doc):
    """`clm_tensor B, C;` as two declarations, each with the comment."""
    match = re.fullmatch(r"(\s*)((?:const )?\w+ \**)(\w+(?:, \**\w+)+);(\s*)", code)
    if not match:
        return code + doc
    names = match[3].split(", ")
    flat = doc.replace("\n", " ")
    return match[1] + " ".join(f"{match[2]}{name}; {doc if i + 1 == len(names) else flat}" for i, name in enumerate(names))


def convert(text):
    out, at, first = [], 0, True
    for match in comment.finditer(text):
        before = text[at : match.start()]
        line = before[before.rfind("\n") + 1 :]
        body = match[0]
        if "\n" not in before and out and not line.strip() and at:
            out.append(before + body)  # a second comment on a line
        elif line.strip().startswith("#") or re.search(r"#\s*define[^\n]*(\\\n[^\n]*)*$", before):
            out.append(before + body)  # of a preprocessor line
        elif line.strip():
            start = len(before) - len(line)
            out.append(before[:start] + members(line, trailing(body)))
        elif first:
            out.append(before + leading(body, " \\file\n"))
        elif re.match(r"\n[ \t]*\n", text[match.end() :]) or body.startswith("/* --"):
            out.append(before + body)  # about what follows in general
        else:
            out.append(before + leading(body))
        first = False
        at = match.end()
    return "".join(out) + text[at:]


def repeat(text):
    """A comment over several functions in a row documents each of them; one over a struct of arguments, their function."""
    blocks = text.split("\n\n")
    for i, block in enumerate(blocks):
        match = re.match(r"(?s)\s*(/\*\* (?!\\file).*?\*/)\n(CLM_API .*)", block)
        if match and match[2].count("CLM_API") > 1:
            flat = match[1] if "verbatim" not in match[1] else None
            doc = (flat or "/** \\copydoc " + re.search(r"(clm_\w+)\(", match[2])[1] + " */").replace("\n", " ")
            head, *rest = re.split(r"\n(?=CLM_API )", match[2])
            blocks[i] = match[1] + "\n" + "\n".join([head] + [doc + " " + r for r in rest])
        elif match := re.match(r"\s*CLM_API clm_status (clm_\w+)\(clm_\w+ \*\w+,\s*const (clm_\w+_args) \*args\)", block):
            # Its comment stands over the struct of its arguments.
            blocks[i] = f"/** What {match[2]} describes. */ " + block
    return "\n\n".join(blocks)


with open(sys.argv[1], encoding="utf-8") as file:
    sys.stdout.write(repeat(convert(file.read())))
