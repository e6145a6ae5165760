"""Every public function with NULL for each of its pointers in turn, the other arguments valid: C from the headers.

    null_calls.py HEADER... > null_calls.c

A function that a header gains is in the test by itself; a type that this script does not know stops the build."""

import re
import sys

HANDLES = {"context", "buffer", "model", "model_state", "backbone", "backbone_state", "tokenizer", "text_stream",
           "sampler", "trainer"}
# Pointers that may be NULL, as the headers say.
OPTIONAL = {
    "clm_context_create": {"options"},
    "clm_context_memory": {"now", "peak"},
    "clm_tensor_of": {"buffer"},
    "clm_tensor_strided": {"buffer"},
    "clm_model_load_with": {"options"},
    "clm_model_score": {"options"},
    "clm_model_state_fork": {"rows"},
    "clm_model_prefill": {"lengths"},
    "clm_backbone_set_names": {"names"},
    "clm_tokenizer_encode": {"text", "ids"},
    "clm_tokenizer_encode_with": {"options", "text", "ids"},
    "clm_tokenizer_decode": {"options", "text"},
    "clm_tokenizer_ends": {"ids"},
    "clm_text_stream_create": {"options"},
    "clm_generate": {"tokenizer", "stats"},
    "clm_token_logprobs": {"chosen", "top"},
    "clm_backbone_presets": {"count"},
    "clm_train_presets": {"count"},
    "clm_context_create_opencl": {"options"},
}
# Without a context at hand, or not by the header's name of the argument: the status alone.
SILENT = {"clm_context_create", "clm_context_device", "clm_devices", "clm_convert", "clm_context_create_opencl", "clm_tensor_read",
          "clm_tensor_write"}
NUMBERS = {"bytes": "4", "capacity": "1", "count": "1", "rank": "1", "batch": "1", "vocab_size": "8"}


def value(type_, name, number, before, after):
    """A valid argument; declarations go to `before`, what frees it to `after`."""
    base = type_.replace("const", "").replace(" ", "")
    handle = re.fullmatch(r"clm_(\w+?)(\*+)", base)
    if handle and handle[1] in HANDLES:
        if handle[2] == "*":
            return f"f->{handle[1]}"
        before.append(f"clm_{handle[1]} *made{number} = NULL;")
        after.append(f"clm_{handle[1]}_destroy(&made{number});")
        return f"&made{number}"
    if base == "clm_tensor":
        return "f->tensor"
    if handle and handle[2] == "*":
        before.append(f"clm_{handle[1]} struct{number} = {{0}};")
        return f"&struct{number}"
    if base.startswith("cl_"):
        if base.endswith("*"):
            before.append(f"{base[:-1]} object{number} = NULL;")
            return f"&object{number}"
        return NUMBERS.get(name, "NULL")
    if base == "char**" and type_.count("const") == 2:
        return "f->names"
    if base.endswith("**"):  # a pointer that is written
        before.append(f"{type_[:-1]}pointer{number} = NULL;")
        return f"&pointer{number}"
    if base == "char*" and "const" in type_:
        return "f->folder" if name in ("directory", "path") else '"abc"'
    if re.fullmatch(r"(void|char|float|double|size_t|u?int(32|64)_t)\*", base):
        return "f->memory" if base == "void*" else f"({base})f->memory"
    if re.fullmatch(r"bool|size_t|int|u?int(32|64)_t", base):
        return NUMBERS.get(name, "0")
    if re.fullmatch(r"clm_\w+", base):
        return f"({base})0"
    sys.exit(f"null_calls.py: what is a {type_} {name}?")


def call(function, result, arguments, null):
    before, after, values = [], [], []
    for number, (type_, name) in enumerate(arguments):
        values.append("NULL" if number == null else value(type_, name, number, before, after))
    name = arguments[null][1]
    call_ = f"{function}({', '.join(values)})"
    optional = name in OPTIONAL.get(function, ())
    if result == "void" or optional:
        body = [f"(void){call_};" if result != "void" else f"{call_};"]
    elif result == "clm_status":
        silent = function in SILENT or (null == 0 and arguments[0][0].rstrip("* ").endswith(tuple(HANDLES)))
        body = [f'null_refused({call_}, f, {"NULL" if silent else chr(34) + name + " is NULL" + chr(34)});']
    elif result == "clm_tensor":
        body = [f"assert_int_equal({call_}.rank, 0);"]
    elif result.endswith("*"):
        body = [f"const void *got = {call_};", "assert_true(!got || !*(const char *)got);"]
    elif result == "int32_t":
        body = [f"assert_int_equal({call_}, -1);"]
    else:
        body = [f"assert_true({call_} == 0);"]
    return before + body + after


def main():
    functions = []
    for path in sys.argv[1:]:
        text = re.sub(r"/\*.*?\*/|^#.*?$", " ", open(path, encoding="utf-8").read(), flags=re.S | re.M)
        functions += re.findall(r"CLM_API\s+([^;{}()]+?)\b(clm_\w+)\s*\(([^;{}]*?)\);", text)
    print('/* Made by null_calls.py. */\n#include "null_calls.h"')
    print("#include <clmamba/opencl.h>\n" if any(path.endswith("opencl.h") for path in sys.argv[1:]) else "")
    table = []
    for result, function, list_ in functions:
        arguments = [re.fullmatch(r"(.*?[\s*])(\w+)", a.strip(), re.S) for a in list_.split(",") if a.strip() != "void"]
        arguments = [(re.sub(r"\s+", " ", a[1]).strip(), a[2]) for a in arguments]
        for null, (type_, name) in enumerate(arguments):
            if "*" not in type_:
                continue
            lines = call(function, re.sub(r"\s+", " ", result).strip(), arguments, null)
            print(f"static void call_{len(table)}(const null_fixture *f) {{\n  (void)f;")
            print("".join(f"  {line}\n" for line in lines) + "}\n")
            table.append(f'{{"{function}: {name}", call_{len(table)}}}')
    print("const null_call null_calls[] = {\n  " + ",\n  ".join(table) + "};")
    print("const size_t null_call_count = sizeof null_calls / sizeof null_calls[0];")


main()
