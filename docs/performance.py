#!/usr/bin/env python3
"""The tables and plots of docs/performance.md and README.md, from the measurements in docs/data.

To renew them, measure on a device and let the page be made again, in one command:

    python3 docs/performance.py --measure build/tools/mamba-bench --device opencl:0

runs every command of docs/data/commands.txt for that kind of device, writes docs/data/DEVICE-DATE.json and renews page
and plots. (A CPU's name says little; `--as NAME` gives it the one in docs/data/devices.json.) Rows that were measured elsewhere need no more than the file: put what

    mamba-bench OPERATION ... --format json --output FILE

wrote into docs/data and run

    python3 docs/performance.py

Of rows of the same device and command the newest counts; its date is next to it. `--check` writes nothing and fails
where the page or a plot is not what this script makes. The plots need docs/plot of the build (`--plot PROGRAM`, default
build/docs/plot).

docs/data:  *.json          rows as mamba-bench writes them. A row typed from notes may say in "shown" what a cell
                            shows instead of its number, such as a range.
            reference.json  what other implementations take for a command ("ms_median", "tokens_per_s" or, as text,
                            "shown"), and what the project aims at ("aim_ms", "aim_tokens_per_s", "aim_fraction")
            devices.json    the devices in the order of the page: heading, name of their files, and by hand what to know
                            of them (driver, limits, which reference)
            training.json   training runs, each with its train.csv
            readme.json     the rows of README.md
            commands.txt    what is measured on a GPU and on a CPU, in the order of the tables
"""
import argparse
import csv
import datetime
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

docs = pathlib.Path(__file__).resolve().parent
data = docs / "data"
page = docs / "performance.md"
not_rows = {"reference.json", "devices.json", "training.json", "readme.json"}

# Options that say where and how often something is measured, not what; True: a value follows.
ignored = {"--device": True, "--repeat": True, "--format": True, "--output": True, "--plot": True, "--threads": True,
          "--check": False, "--explain": False}
# Variables of which the same holds.
ignored_variables = re.compile(r"CLM_(PROGRAM_CACHE|CL_DIR|OPENCL_TRACE|REQUIRE_\w+|TEST_\w+)=")


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def words_of(command):
    """The words that say what is measured: without the program's name and the options in `ignored`."""
    words, kept = shlex.split(command), []
    skip = False
    for word in words:
        name = word.split("=")[0]
        if skip:
            skip = False
        elif name in ignored:
            skip = ignored[name] and "=" not in word
        elif os.path.basename(word) != "mamba-bench" and not ignored_variables.match(word):
            kept.append(word)
    return kept


def key_of(command):
    """The same for every spelling of a command: options sorted, variables first."""
    words = words_of(command)
    variables = sorted(w for w in words if re.match(r"CLM_\w+=", w))
    rest = [w for w in words if not re.match(r"CLM_\w+=", w)]
    options, i = [], 1
    while i < len(rest):
        if i + 1 < len(rest) and not rest[i + 1].startswith("--"):
            options.append(f"{rest[i]} {rest[i + 1]}")
            i += 2
        else:
            options.append(rest[i])
            i += 1
    return " ".join(variables + rest[:1] + sorted(options))


def rows_of_files():
    """The newest row of each device, command and shape."""
    newest = {}
    for path in sorted(data.glob("*.json")):
        if path.name in not_rows:
            continue
        for row in load(path):
            if row["op"] == "limits":
                continue
            swept = row.get("shape", "") if "--sweep" in row["command"] else ""
            place = (row["device"], key_of(row["command"]), swept)
            if place not in newest or newest[place]["date"] <= row["date"]:
                newest[place] = row
    return newest


def commands(kind):
    """The commands of a section of commands.txt."""
    found, section = [], None
    for line in (data / "commands.txt").read_text(encoding="utf-8").splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif line and not line.startswith("#") and section == kind:
            found.append(line)
    return found


def number(value):
    """Three digits that count, no exponent, thousands parted."""
    if value >= 1000:
        return f"{value:,.0f}"
    return min(f"{value:#.3g}".rstrip("."), f"{value}", key=len)


def given(value):
    """As it was given: an aim, a reference."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def cell(row, name):
    if row is None:
        return ""
    if name in row.get("shown", {}):
        return row["shown"][name]
    if name not in row:
        return ""
    return f"{row[name]:.2f}" if name == "roofline_fraction" else number(row[name])


def measured(row):
    """What a row is about: tokens each second where it has them and no other is asked for, else its time."""
    if row is None:
        return ""
    if row["op"].startswith("lm-") and "tokens_per_s" in row:
        return cell(row, "tokens_per_s") + " tokens/s"
    return cell(row, "ms_median") + " ms"


def aim(reference):
    if reference is None:
        return ""
    if "aim_ms" in reference:
        return given(reference["aim_ms"]) + " ms"
    if "aim_tokens_per_s" in reference:
        return given(reference["aim_tokens_per_s"]) + " tokens/s"
    if "aim_fraction" in reference:
        return f"{reference['aim_fraction']:g} of floor"
    return ""


def reached(row, reference):
    """Whether a row reaches its aim; None: there is none."""
    if reference is None:
        return None
    if "aim_ms" in reference:
        return row["ms_median"] <= reference["aim_ms"]
    if "aim_tokens_per_s" in reference:
        return row["tokens_per_s"] >= reference["aim_tokens_per_s"]
    if "aim_fraction" in reference and "roofline_fraction" in row:
        return row["roofline_fraction"] >= reference["aim_fraction"]
    return None


def reference_text(reference):
    if reference is None:
        return ""
    if "shown" in reference:
        return reference["shown"]
    if "ms_median" in reference:
        return given(reference["ms_median"]) + " ms"
    return given(reference["tokens_per_s"]) + " tokens/s" if "tokens_per_s" in reference else ""


def table(device, newest, references):
    """The table of one device: commands in the order of commands.txt, others after them."""
    order = {}
    for line in commands("gpu") + commands("cpu"):
        order.setdefault(key_of(line), len(order))
    rows = {key: row for (name, key, swept), row in newest.items() if name == device and not swept}
    without = "CLM_OPENCL_PLAIN=1 "
    plain = {key[len(without):]: row for key, row in rows.items() if key.startswith(without)}
    keys = sorted((key for key in rows if not key.startswith(without)), key=lambda k: (order.get(k, len(order)), k))
    titles = ["`mamba-bench ...`", "date", "measured", "of floor"]
    columns = [lambda key, row: "`" + shlex.join(words_of(row["command"])) + "`", lambda key, row: row["date"],
               lambda key, row: measured(row), lambda key, row: cell(row, "roofline_fraction")]
    if plain:
        titles.append("plain")
        columns.append(lambda key, row: measured(plain.get(key)))
    mine = {key: value for (name, key), value in references.items() if name == device}
    titles += ["aim", "reference"]
    columns += [lambda key, row: aim(mine.get(key)), lambda key, row: reference_text(mine.get(key))]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for key in keys:
        cells = [column(key, rows[key]) for column in columns]
        if reached(rows[key], mine.get(key)) is False:
            cells[2] = f"**{cells[2]}**"
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def slug(device, devices):
    for entry in devices:
        if entry["device"] == device:
            return entry["file"]
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def sweeps(device, newest, devices):
    """The plots of a device: one for each swept command."""
    groups = {}
    for (name, key, swept), row in newest.items():
        if name == device and swept:
            groups.setdefault(key, []).append(row)
    for key, rows in sorted(groups.items()):
        size = re.search(r"--sweep (\w+)=", key).group(1)
        rows.sort(key=lambda row: row[size])
        x, y = [row[size] for row in rows], [row["ms_median"] for row in rows]
        floor = [round(row["ms_median"] * row.get("roofline_fraction", 0), 9) for row in rows]
        op = rows[0]["op"]
        fixed = " ".join(word for word in rows[0]["shape"].split() if not word.startswith(size + "="))
        title = f"{op} {fixed}, {rows[0]['dtype']}"
        yield f"{slug(device, devices)}-{op}-{size}.svg", title, {
            "title": title, "subtitle": f"{device}, {rows[-1]['date']}",
            "x_label": size + (" (steps)" if size == "length" else ""), "y_label": "time (ms)", "x_scale": "log2",
            "y_scale": "log",
            "series": [{"name": op, "x": x, "y": y, "markers": True},
                       {"name": op + ", floor", "x": x, "y": floor, "dashed": True}]}


def training():
    """The losses of training runs."""
    for run in load(data / "training.json"):
        with open(data / run["csv"], encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        series = []
        for name, column, markers in (("training", "train_loss", False), ("validation", "val_loss", True)):
            points = [row for row in rows if row[column]]
            series.append({"name": name, "x": [int(row["tokens"]) / 1e6 for row in points],
                           "y": [float(row[column]) for row in points], "markers": markers})
        yield pathlib.Path(run["csv"]).stem + ".svg", run, {
            "title": run["title"], "subtitle": f"f32, {run['device']}, {run['date']}",
            "x_label": "tokens seen (millions)", "y_label": "loss (nats per token)", "x_scale": "linear",
            "y_scale": "auto", "series": series}


def readme_table(newest, references):
    lines = ["| | on | clmamba | reference | date |", "|---|---|---|---|---|"]
    for row in load(data / "readme.json"):
        key = key_of(row["command"])
        found = newest.get((row["device"], key, ""))
        if found is None:
            sys.exit(f"readme.json: no measurement of {row['command']} on {row['device']}")
        cells = [row["text"], row["on"], measured(found), reference_text(references.get((row["device"], key))),
                 found["date"]]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def filled(path, lines):
    """The text of a page with `lines` between its marks."""
    begin, end = "<!-- made by docs/performance.py: begin -->\n", "<!-- made by docs/performance.py: end -->\n"
    text = path.read_text(encoding="utf-8")
    head, tail = text[:text.index(begin) + len(begin)], text[text.index(end):]
    return head + "\n" + "\n".join(lines).rstrip("\n") + "\n\n" + tail


def draw(program, plot):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "plot.svg"
        subprocess.run([program, str(path)], input=json.dumps(plot), text=True, check=True)
        return path.read_text(encoding="utf-8")


def everything(program):
    """Path -> text of the page and of every plot."""
    newest, devices = rows_of_files(), load(data / "devices.json")
    references = {(row["device"], key_of(row["command"])): row for row in load(data / "reference.json")}
    made, lines = {}, []
    names = [entry["device"] for entry in devices]
    names += sorted({device for device, _, _ in newest} - set(names))
    for device in names:
        entry = next((e for e in devices if e["device"] == device), {"heading": device, "about": []})
        if not any(name == device for name, _, _ in newest):
            continue
        lines += ["## " + entry["heading"], ""] + [text + "\n" for text in entry["about"]]
        lines += table(device, newest, references) + [""]
        for name, title, plot in sweeps(device, newest, devices):
            made[data / name] = draw(program, plot)
            lines += [f"![{title} on {device}](data/{name})", ""]
    lines += ["## Training", ""]
    for name, run, plot in training():
        made[data / name] = draw(program, plot)
        lines += [f"`{run['command']}`, {run['device']}, {run['date']}:", "", f"![{run['title']}](data/{name})", ""]
    made[page] = filled(page, lines)
    readme = docs.parent / "README.md"
    made[readme] = filled(readme, readme_table(newest, references))
    return made


def measure(bench, device, name):
    """Runs the commands for the device's kind; one that fails is reported and left out. The rows are `name`'s."""
    kind, rows = "cpu" if device == "cpu" else "gpu", []
    for line in commands(kind):
        words = shlex.split(line)
        variables = dict(word.split("=", 1) for word in words if re.match(r"CLM_\w+=", word))
        arguments = [word for word in words if not re.match(r"CLM_\w+=", word)]
        run = subprocess.run([bench, *arguments, "--device", device, "--format", "json"], text=True,
                             stdout=subprocess.PIPE, env={**os.environ, **variables})
        if run.returncode != 0:
            print(f"left out: {line}", file=sys.stderr)
            continue
        rows += json.loads(run.stdout)
    if not rows:
        sys.exit("nothing was measured")
    for row in rows:
        row["device"] = name or row["device"]
    file_name = slug(rows[0]["device"], load(data / "devices.json"))
    path = data / f"{file_name}-{datetime.date.today().isoformat()}.json"
    with open(path, "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(" " + json.dumps(row) for row in rows) + "\n]\n")
    print(f"wrote {path}")


def main():
    parser = argparse.ArgumentParser(description="makes docs/performance.md and its plots from docs/data")
    parser.add_argument("--check", action="store_true", help="write nothing, fail where something is not up to date")
    parser.add_argument("--plot", default="build/docs/plot", metavar="PROGRAM", help="docs/plot of the build")
    parser.add_argument("--measure", metavar="MAMBA_BENCH", help="measure first")
    parser.add_argument("--device", default="cpu", help="what to measure: cpu, opencl:0")
    parser.add_argument("--as", dest="name", metavar="NAME",
                        help="call the device so, as devices.json does: what a CPU says of itself is too short")
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.device, options.name)
    made, stale = everything(options.plot), []
    for path, text in made.items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path)
        if not options.check:
            path.write_text(text, encoding="utf-8")
    stale += [path for path in data.glob("*.svg") if path not in made]
    for path in stale:
        if not options.check and path not in made:
            path.unlink()
        print(f"{'not what performance.py makes' if options.check else 'renewed'}: {path.relative_to(docs.parent)}")
    sys.exit(1 if options.check and stale else 0)


if __name__ == "__main__":
    main()
