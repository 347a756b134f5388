"""Check that two builds of bcosc write the same graphs.

    same_graphs.py --before BIN [--after BIN] [--models DIR ...] [--cache DIR] [--listed FILE] [--setting NAME ...]

Converts the repository's fixtures and every model in the folders given (searched to the bottom) with both builds, under
each setting that suits the model, and compares the graphs written: byte for byte, weights included, but for metadata
and the names of nodes and of values between inputs and outputs. canonical.py says exactly what does not count.
Nothing is proved unless --verify says so: proofs do not change what is written.

A line for each difference says what differs first. Where one build refuses a model, the other has to end with the same
exit code; messages may differ (--messages shows both). Graphs that are the same under other names are counted.

--cache   keeps what --before wrote, by the content of the binary and the model and by the flags; without --after,
          this is all that is done.
--listed  a file of expected differences: `MODEL SETTING REASON` a line, the first two as shell patterns; `#` begins
          a comment. An entry that fits no difference is printed.

Prints a summary; exits with 1 if there is a difference that is not listed, or nothing was compared.
"""

import argparse
import collections
import concurrent.futures
import fnmatch
import gzip
import hashlib
import itertools
import json
import os
import sys
import tempfile

import onnx
from google.protobuf.message import DecodeError

from canonical import canonical
from common import EXACT, bcosc, write_jpegs

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "fixtures")
IMAGENET = ["--normalization", "imagenet"]
IMAGES = "{images}"
# Flags by the name of the setting.
EVERY = {
    "default": [],
    "deploy": ["--deploy"],
    "explain": ["--emit", "explain"],
    "exact": EXACT,
    "raw": ["--input", "rgb", *IMAGENET, "--absorb-normalization", "--b", "1.5"],
    "calibrated": ["--calibrate", IMAGES, "--calibrate-images", "2", *IMAGENET],
    "explain-graph": ["explain-graph"],
}
# For models with attention.
ATTENTION = {
    "vit": ["--recipe", "vit", "--keep-head", "--deploy"],
    "clip": ["--recipe", "clip", "--bcos-projection"],
    "unpooled": ["--recipe", "clip", "--attention-unpool"],
}
SETTINGS = EVERY | ATTENTION
SAME, RENAMED, REFUSED, DIFFERENT = "same", "same but for names", "refused by both", "different"
SECONDS, SHOWN = 900, 240


def find(folders, only):
    """(name, path) of every model; names begin with the name of the folder given."""
    for folder in map(os.path.realpath, folders):
        for at, _, files in sorted(os.walk(folder)):
            for path in sorted(os.path.join(at, f) for f in files if f.endswith(".onnx")):
                name = os.path.relpath(path, os.path.dirname(folder))
                if any(part in name for part in only):
                    yield name, path


def suitable(path):
    operators = {n.op_type for n in onnx.load(path, load_external_data=False).graph.node}
    return SETTINGS if operators & {"Softmax", "Attention"} else EVERY


def content(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read(path):
    try:
        return canonical(path)
    except DecodeError as e:
        return [f"not a model: {e}"], []


def written(exe, path, flags):
    """The result of a build for a model: exit code, messages, and the graphs by file."""
    with tempfile.TemporaryDirectory() as folder:
        code, err = bcosc(exe, *flags, path, "-o", os.path.join(folder, "out.onnx"), "-q", timeout=SECONDS)
        files = sorted(f for f in os.listdir(folder) if f.endswith(".onnx"))
        graphs = {f: read(os.path.join(folder, f)) for f in files}
    says = " | ".join(line.strip() for line in err.replace(folder, "").splitlines() if line.strip())
    return {"code": code, "says": says, "graphs": graphs}


class Before:
    """The results of the build before, from the cache if present."""

    def __init__(self, exe, cache):
        self.exe, self.cache, self.identity = exe, cache, content(exe)
        if cache:
            os.makedirs(cache, exist_ok=True)

    def written(self, path, images, flags):
        if not self.cache:
            return written(self.exe, path, filled(flags, images))
        # Pictures are the same ones always, whatever the folder they are in.
        key = hashlib.sha256(repr((self.identity, content(path), flags)).encode()).hexdigest()
        kept = os.path.join(self.cache, f"{key[:32]}.json.gz")
        if not os.path.exists(kept):
            found = written(self.exe, path, filled(flags, images))
            with gzip.open(f"{kept}.part", "wt") as f:
                json.dump(found, f)
            os.replace(f"{kept}.part", kept)
        with gzip.open(kept, "rt") as f:
            return json.load(f)


def filled(flags, images):
    return [images if flag == IMAGES else flag for flag in flags]


def first_difference(before, after):
    pairs = enumerate(itertools.zip_longest(before, after, fillvalue="(end)"), 1)
    number, (a, b) = next((n, p) for n, p in pairs if p[0] != p[1])
    return f"line {number}: {a.strip()[:SHOWN]}  ->  {b.strip()[:SHOWN]}"


def compare(before, after):
    """(verdict, what differs first)"""
    codes = [before["code"], after["code"]]
    if codes[0] != codes[1]:
        says = [f"exit code {w['code']} {w['says'][:SHOWN]}".strip() for w in (before, after)]
        return DIFFERENT, "  ->  ".join(says)
    if codes[0] != 0:
        return REFUSED, None if codes[0] == 1 else f"both end with exit code {codes[0]} {before['says'][:SHOWN]}"
    files = [sorted(w["graphs"]) for w in (before, after)]
    if files[0] != files[1]:
        return DIFFERENT, f"files {files[0]}  ->  {files[1]}"
    verdict = SAME
    for file in files[0]:
        (lines, names), (other_lines, other_names) = before["graphs"][file], after["graphs"][file]
        if lines != other_lines:
            return DIFFERENT, f"{file}: {first_difference(lines, other_lines)}"
        if names != other_names:
            verdict = RENAMED
    return verdict, None


def listed(path):
    """(model, setting, reason) of every entry."""
    if not path:
        return []
    with open(path) as f:
        lines = [line.partition("#")[0].split(None, 2) for line in f]
    short = next((line for line in lines if line and len(line) < 3), None)
    if short:
        sys.exit(f"{path}: `{' '.join(short)}` lacks a setting or a reason")
    return [tuple(line) for line in lines if line]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--before", required=True, metavar="BIN", type=os.path.abspath)
    p.add_argument("--after", metavar="BIN", type=os.path.abspath)
    p.add_argument("--models", nargs="+", default=[], metavar="DIR", help="beside the fixtures")
    p.add_argument("--no-fixtures", action="store_true")
    p.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="only models whose names hold one of these")
    p.add_argument("--setting", nargs="+", default=list(SETTINGS), choices=SETTINGS, metavar="NAME",
                   help=f"default: all that suit a model of {' '.join(SETTINGS)}")
    p.add_argument("--verify", default="off", help="what the flag of that name is given")
    p.add_argument("--cache", metavar="DIR")
    p.add_argument("--listed", metavar="FILE")
    p.add_argument("--messages", action="store_true", help="print both messages where both refuse and they differ")
    p.add_argument("--jobs", type=int, default=2)
    args = p.parse_args()
    if not args.after and not args.cache:
        p.error("without --after there is nothing to do but to fill a --cache")

    expected, used, counts = listed(args.listed), set(), collections.Counter()
    before = Before(args.before, args.cache)
    with tempfile.TemporaryDirectory() as tmp:
        images = write_jpegs(os.path.join(tmp, "images"), n=2, size=64)

        def one(job):
            name, path, setting = job
            flags = SETTINGS[setting]
            if flags[:1] != ["explain-graph"]:
                flags = [*flags, "--verify", args.verify]
            old = before.written(path, images, flags)
            new = written(args.after, path, filled(flags, images)) if args.after else old
            return name, setting, old, new

        folders = ([] if args.no_fixtures else [FIXTURES]) + args.models
        jobs = [(n, p, s) for n, p in find(folders, args.only) for s in suitable(p) if s in args.setting]
        # Each thread waits for one process.
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for name, setting, old, new in pool.map(one, jobs):
                verdict, what = compare(old, new)
                fits = lambda e: fnmatch.fnmatch(name, e[0]) and fnmatch.fnmatch(setting, e[1])
                entry = next(filter(fits, expected), None)
                if verdict == DIFFERENT and entry:
                    used.add(entry)
                    verdict, what = "different as listed", f"{what}  (listed: {entry[2].strip()})"
                counts[verdict] += 1
                if what:
                    print(f"{name} [{setting}] {what}", flush=True)
                elif args.messages and old["says"] != new["says"]:
                    print(f"{name} [{setting}] {old['says'][:SHOWN]}  ->  {new['says'][:SHOWN]}", flush=True)
    for entry in expected:
        if entry not in used:
            print(f"listed, but not different: {' '.join(entry).strip()}")
    shown = (SAME, RENAMED, DIFFERENT, "different as listed", REFUSED)
    print(", ".join(f"{verdict} {counts[verdict]}" for verdict in shown))
    sys.exit(counts[DIFFERENT] > 0 or not counts.total())


if __name__ == "__main__":
    main()
