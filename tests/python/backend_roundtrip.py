"""`--recipe none` must be lossless: converts and compares all models of the onnx package's backend tests.

    backend_roundtrip.py --bcosc target/release/bcosc [--jobs 2] [--keep DIR]

The models are the .onnx files in the package's test data and the node cases that its `collect_testcases`
generates: 2,033 in onnx 1.23. Each is converted and both files are decoded; the messages must be equal.
Prints counts and the failing models; exits with 1 if there are any.
Needs requirements.txt.
"""

import argparse
import collections
import concurrent.futures
import glob
import os
import shutil
import sys
import tempfile
import warnings

import onnx
import onnx.backend.test

from common import bcosc, last_line


def collect():
    """(name, path or ModelProto) of every model."""
    root = os.path.join(os.path.dirname(onnx.backend.test.__file__), "data")
    for path in sorted(glob.glob(os.path.join(root, "**", "*.onnx"), recursive=True)):
        yield os.path.relpath(path, root), path
    warnings.simplefilter("ignore")  # the cases overflow and divide by zero on purpose
    from onnx.backend.test.case.node import collect_testcases

    for case in collect_testcases(None):
        yield f"node-case/{case.name}", case.model


def difference(a, b, where="model"):
    """The first field in which two messages differ."""
    if a.DESCRIPTOR != b.DESCRIPTOR:
        return where
    for field in a.DESCRIPTOR.fields:
        x, y = getattr(a, field.name), getattr(b, field.name)
        here = f"{where}.{field.name}"
        repeated = isinstance(x, collections.abc.Sequence) and not isinstance(x, (str, bytes))
        if repeated:
            if len(x) != len(y):
                return f"{here}: {len(x)} entries became {len(y)}"
            for i, (p, q) in enumerate(zip(x, y)):
                if p != q:
                    return difference(p, q, f"{here}[{i}]") if hasattr(p, "DESCRIPTOR") else f"{here}[{i}]"
        elif hasattr(x, "DESCRIPTOR"):
            if x != y or a.HasField(field.name) != b.HasField(field.name):
                return difference(x, y, here) if x != y else f"{here}: presence"
        elif x != y:
            return here
        elif field.has_presence and a.HasField(field.name) != b.HasField(field.name):
            return f"{here}: presence"
    return f"{where}: unknown fields"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bcosc", required=True)
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--keep", metavar="DIR", help="copy the failing models there")
    args = p.parse_args()

    with tempfile.TemporaryDirectory() as tmp:

        def one(job):
            number, (name, model) = job
            before, after = os.path.join(tmp, f"{number}.onnx"), os.path.join(tmp, f"{number}.out.onnx")
            if isinstance(model, str):
                # in its own folder: a model may have external data beside it
                before, model = model, onnx.load(model, load_external_data=False)
            else:
                onnx.save(model, before)
            code, err = bcosc(args.bcosc, before, "-o", after, "--recipe", "none", "--verify", "off", "-q", timeout=120)
            problem = None
            if code != 0:
                problem = f"exit code {code}: {last_line(err)}"
            else:
                got = onnx.load(after, load_external_data=False)
                if got != model:
                    problem = difference(model, got)
                os.remove(after)
            if problem and args.keep:
                os.makedirs(args.keep, exist_ok=True)
                shutil.copy(before, os.path.join(args.keep, name.replace("/", "__").removesuffix(".onnx") + ".onnx"))
            if before.startswith(tmp):
                os.remove(before)
            return name, problem

        # One process a model; the threads only wait for them.
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            results = list(pool.map(one, enumerate(collect())))

    failing = [(n, p) for n, p in results if p]
    for name, problem in failing:
        print(f"{name}: {problem}")
    print(f"{len(results) - len(failing)} of {len(results)} models are equal, message for message")
    sys.exit(1 if failing or not results else 0)


if __name__ == "__main__":
    main()
