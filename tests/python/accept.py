"""Convert every model of a folder and let ONNX Runtime and onnx.checker judge the results.

    accept.py --bcosc target/release/bcosc --models DIR [--only NAME] [--images DIR]

For each DIR/*.onnx (see export_models.py):
  exact   converted with B=1 and no departing pass: agrees with the original to 1e-4, relative to the largest
          logit, at batch sizes 1 and 2;
  B=2     converted with --calibrate and ImageNet normalisation, default flags otherwise: logits are finite and
          differ between images;
  both    bcosc exits with 0 (so its own proof passed) and onnx.checker accepts the file (full_check).
Prints a table; exits with 1 if anything failed.
"""

import argparse
import glob
import math
import os
import sys
import tempfile
import time

import numpy as np
import onnx

from common import EXACT, MEAN, STD, bcosc, last_line, relative, run, session, smooth_images, table, write_jpegs

TOLERANCE = 1e-4
# Relative to the logits without their bias; rounding alone is two orders of magnitude below.
LEAST_SPREAD = 1e-4


def check(path):
    onnx.checker.check_model(path, full_check=True)


def size_of(path):
    """Side of the images: the declared one, or what the architecture is made for."""
    side = session(path).get_inputs()[0].shape[-1]
    if isinstance(side, int):
        return side
    return 299 if "inception" in os.path.basename(path) else 224


def exact(exe, model, out, size):
    code, err = bcosc(exe, model, "-o", out, *EXACT, "-q")
    if code != 0:
        raise AssertionError(f"exit code {code}: {last_line(err)}")
    check(out)
    x = (smooth_images(2, size, seed=5) - MEAN) / STD
    error = max(relative(run(out, x[:n]), run(model, x[:n])) for n in (1, 2))
    assert error <= TOLERANCE, f"differs from the original by {error:.1e}"
    return f"{error:.1e}"


def alive(exe, model, out, size, images, extra):
    flags = ["--b", "2", "--calibrate", images, "--normalization", "imagenet", *extra]
    code, err = bcosc(exe, model, "-o", out, *flags, "-q")
    if code != 0:
        raise AssertionError(f"exit code {code}: {last_line(err)}")
    check(out)
    logits = run(out, (smooth_images(4, size, seed=6) - MEAN) / STD).reshape(4, -1)
    assert np.isfinite(logits).all(), "logits are not finite"
    unbiased = logits + math.log(logits.shape[1] - 1)
    spread = unbiased.std(0).mean() / np.abs(unbiased).max()
    assert spread >= LEAST_SPREAD, f"logits do not differ between images ({spread:.1e})"
    return f"{spread:.1e}"


def attempt(test, *args):
    """(what to print, failed?)"""
    try:
        return test(*args), False
    except Exception as e:  # a broken model can fail anywhere in ONNX Runtime; all of it is a result here
        return f"FAIL {str(e).strip().splitlines()[0][:150]}", True


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bcosc", required=True)
    p.add_argument("--models", required=True, metavar="DIR")
    p.add_argument("--only", default="", metavar="NAME", help="only files whose name starts with this")
    p.add_argument("--images", metavar="DIR", help="for --calibrate; default: synthetic JPEGs")
    p.add_argument("--extra", default="", help="more flags for the B=2 conversion, in one string")
    args = p.parse_args()

    models = sorted(glob.glob(os.path.join(args.models, f"{args.only}*.onnx")))
    if not models:
        sys.exit("no models found")
    rows, failed = [], 0
    with tempfile.TemporaryDirectory() as tmp:
        images = args.images or write_jpegs(os.path.join(tmp, "images"))
        out = os.path.join(tmp, "out.onnx")
        for model in models:
            start, size = time.time(), size_of(model)
            a, a_failed = attempt(exact, args.bcosc, model, out, size)
            b, b_failed = attempt(alive, args.bcosc, model, out, size, images, args.extra.split())
            failed += a_failed or b_failed
            rows.append([os.path.basename(model), a, b, f"{time.time() - start:.0f} s"])
            print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    print(table(["model", "exact: error", "B=2: spread", "time"], rows))
    print(f"\n{len(models) - failed} of {len(models)} passed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
