"""Convert all models of a folder and check the results with ONNX Runtime and onnx.checker.

    accept.py --bcosc target/release/bcosc --models DIR [--only NAME ...] [--log FILE] [--images DIR]

For each DIR/*.onnx (see export_models.py), with the recipe that `auto` chooses:
  exact   converted with B=1 and no altering pass: every output agrees with the original's to 1e-4, relative to
          its largest magnitude, at batch sizes 1 and 2;
  B=2     converted with --calibrate and ImageNet normalisation, default flags otherwise: the first output is
          finite, differs from that of exact, and differs between images. Image encoders (output `image_embeds`) have no logit bias;
  deploy  the same with --deploy: every output agrees with that of B=2 to 1e-3 of its largest magnitude (without its
          logit bias, and up to the spacing of floats), and so do the contributions of its explanation graph where B=2 has
          one; `unsteady` if the outputs of B=2 themselves change by more when its input changes by a rounding error;
  explain the explanation graph of the B=2 model: its logits are the model's, contributions of W(x)x add up to the
          logit without its bias (to 1e-4 of it, 1e-5 of all magnitudes and the spacing of floats at the logit) if bcosc reports no
          constant terms; otherwise the residual is printed.
  each    bcosc exits with 0 (so its own proof passed) and onnx.checker accepts the file (full_check).
A conversion that ends in an error of bcosc, other than a failed proof, is `refused`; any other deviation is a
FAIL. Prints a line for each model and a table; exits with 1 unless all passed.

--log stores the results: a run with the same file skips models that passed.
Needs requirements.txt.
"""

import argparse
import glob
import json
import math
import os
import sys
import tempfile
import time

import numpy as np
import onnx

from common import EXACT, MEAN, STD, bcosc, last_line, relative, session, smooth_images, table, write_jpegs

TOLERANCE = 1e-4
# Powers of sums in another order.
DEPLOY_TOLERANCE = 1e-3
# Relative to the logits without their bias; rounding alone is two orders of magnitude below.
LEAST_SPREAD = 1e-4
PASSED, REFUSED, FAILED = "passed", "refused", "FAIL"


class Refused(Exception):
    """bcosc reported an error instead of writing a model."""


class Unsteady(Exception):
    """The model is numerically unstable."""


class Model:
    """A model in ONNX Runtime."""

    def __init__(self, path):
        self.session = session(path)
        self.name = os.path.basename(path)
        self.input = self.session.get_inputs()[0]
        self.outputs = [o.name for o in self.session.get_outputs()]

    def side(self):
        """Side of the images: the declared one, or what the architecture is made for."""
        side = self.input.shape[-1]
        return side if isinstance(side, int) else 299 if "inception" in self.name else 224

    def run(self, x):
        """Outputs by name; in portions where the batch size is fixed."""
        batch = self.input.shape[0]
        batch = batch if isinstance(batch, int) else len(x)
        parts = [self.session.run(None, {self.input.name: x[i : i + batch]}) for i in range(0, len(x), batch)]
        return dict(zip(self.outputs, map(np.concatenate, zip(*parts))))


def normalized(n, side, seed):
    return ((smooth_images(n, side, seed) - MEAN) / STD).astype(np.float32)


def convert(exe, model, out, *flags):
    code, err = bcosc(exe, model, "-o", out, *flags, "-q")
    line = last_line(err)
    if code == 1 and line.startswith("error") and "proof failed" not in line:
        raise Refused(line.removeprefix("error").removeprefix(":").strip())
    if code == 1 and "numerically unstable" in line:
        raise Unsteady(line.partition("proof failed")[2])
    assert code == 0, f"exit code {code}: {line}"
    onnx.checker.check_model(out, full_check=True)
    return Model(out)


def expected(original, side):
    """Outputs of the original, at the batch sizes that it supports."""
    sizes, answers, problem = [1, 2], [], None
    if isinstance(original.input.shape[0], int):
        sizes = [original.input.shape[0]]
    for n in sizes:
        x = normalized(n, side, seed=5)
        try:
            answers.append((x, original.run(x)))
        except Exception as e:  # ONNX Runtime's errors have no common class
            problem = e
    assert answers, f"the original does not run: {problem}"
    return answers


def exact(exe, path, out, extra):
    original = Model(path)
    answers = expected(original, original.side())
    del original
    converted = convert(exe, path, out, *EXACT, "--keep-head", *extra)
    worst = 0.0
    for x, want in answers:
        got = converted.run(x)
        shared = [name for name in want if name in got]
        assert shared, f"no output is called as before: {', '.join(got)}"
        for name in shared:
            error = relative(got[name], want[name])
            assert error <= TOLERANCE, f"{name} differs from the original by {error:.1e} at batch {len(x)}"
            worst = max(worst, error)
    return f"{worst:.1e}"


def calibrated(exe, path, out, images, extra):
    return convert(exe, path, out, "--b", "2", "--calibrate", images, "--normalization", "imagenet", *extra)


def sensitive(exe, path, out, images, extra):
    original = Model(path)
    x = normalized(4, original.side(), seed=6)
    name = original.outputs[0]
    before = original.run(x)[name].reshape(4, -1)
    del original
    report = os.path.join(os.path.dirname(out), "report.json")
    converted = calibrated(exe, path, out, images, ["--report", report, *extra])
    got = converted.run(x)
    y = got.get(name, next(iter(got.values()))).reshape(4, -1)
    assert np.isfinite(y).all(), "outputs are not finite"
    unbiased = y + math.log(y.shape[1] - 1) if name == "logits" else y
    assert relative(unbiased, before) > TOLERANCE, "computes what the original does"
    spread = unbiased.std(0).mean() / np.abs(unbiased).max()
    assert spread >= LEAST_SPREAD, f"outputs do not differ between images ({spread:.1e})"
    return f"{spread:.1e}"


def verdict_of(folder):
    """The verdict of bcosc on the first output of the model that `sensitive` wrote."""
    with open(os.path.join(folder, "report.json")) as f:
        return json.load(f)["linearity"][0]


def logit_bias(path):
    props = onnx.load(path, load_external_data=False).metadata_props
    return float(next((p.value for p in props if p.key == "bcosc.logit_bias"), 0))


def explanation(exe, path, model, x, targets):
    """Outputs of the explanation graph of a model."""
    graph = os.path.join(os.path.dirname(path), "explain.onnx")
    code, err = bcosc(exe, "explain-graph", path, "-o", graph, "-q")
    if code == 1:
        raise Refused(last_line(err))
    assert code == 0, f"exit code {code}: {last_line(err)}"
    onnx.checker.check_model(graph, full_check=True)
    s, step = session(graph), model.input.shape[0] if isinstance(model.input.shape[0], int) else len(x)
    feed = lambda i: {model.input.name: x[i : i + step], "target": targets[i : i + step]}
    parts = [s.run(None, feed(i)) for i in range(0, len(x), step)]
    return [np.concatenate(part) for part in zip(*parts)]


def deployed(exe, path, out, images, extra):
    """The deploy form, compared with the model that `sensitive` wrote."""
    plain, folder = Model(out), os.path.dirname(out)
    x = normalized(2, plain.side(), seed=6)
    want = plain.run(x)
    fast = os.path.join(folder, "deploy.onnx")
    converted = calibrated(exe, path, fast, images, ["--deploy", *extra])
    got = converted.run(x)
    verdict = verdict_of(folder)
    worst = 0.0
    for name, y in want.items():
        # Beside a logit bias, untrained logits can be as small as the spacing of floats there.
        bias = logit_bias(out) if name == verdict["output"] else 0.0
        error = np.abs(got[name] - y).max() - np.spacing(np.abs(y).max())
        worst = max(worst, error / np.abs(y - bias).max())
    if worst > DEPLOY_TOLERANCE:
        near = plain.run(x * (1 + np.finfo(np.float32).eps * np.resize([1, -1], x.shape).astype(np.float32)))
        moved = max(relative(near[name], y) for name, y in want.items())
        assert moved > DEPLOY_TOLERANCE, f"with --deploy the outputs differ by {worst:.1e}"
        raise Unsteady(f"with --deploy the outputs differ by {worst:.1e}, without by {moved:.1e}")
    if not verdict["dynamic_linear"]:
        return f"{worst:.1e}"
    _, chosen, _, before = explanation(exe, out, plain, x, np.full(2, -1))
    _, _, _, after = explanation(exe, fast, converted, x, chosen)
    maps = relative(after, before)
    assert maps <= DEPLOY_TOLERANCE, f"with --deploy the contributions differ by {maps:.1e}"
    return f"{worst:.1e} {maps:.1e}"


def explained(exe, out, folder):
    """The explanation graph of the model that `sensitive` wrote."""
    verdict = verdict_of(folder)
    if not verdict["dynamic_linear"]:
        return "not dynamic linear"
    model = Model(out)
    x = normalized(2, model.side(), seed=6)
    want = model.run(x)[verdict["output"]]
    logits, chosen, weights, contributions = explanation(exe, out, model, x, np.full(2, -1))
    assert relative(logits, want) <= 1e-5, f"logits differ from the model's by {relative(logits, want):.1e}"
    assert np.isfinite(weights).all() and np.abs(weights).max() > 0, "no weights"
    plain = logits[np.arange(2), chosen].astype(np.float64) - logit_bias(out)
    sums, sizes = (f(contributions.astype(np.float64)).sum((1, 2)) for f in (np.asarray, np.abs))
    rest = np.abs(sums - plain)
    if all(c["constant"].endswith("logit_bias") for c in verdict["constants"]):
        spacing = np.spacing(np.abs(logits[np.arange(2), chosen]))
        assert (rest <= 1e-4 * np.abs(plain) + 1e-5 * sizes + spacing).all(), f"residual {rest.max():.1e} of {plain}"
    return f"{(rest / np.abs(plain)).max():.1e}"


def attempt(test, *args):
    """(verdict, text)"""
    first = lambda e: next(iter(str(e).strip().splitlines()), type(e).__name__)
    try:
        return PASSED, test(*args)
    except Refused as e:
        return REFUSED, f"{REFUSED}: {first(e)[:300]}"
    except Unsteady as e:
        return PASSED, f"unsteady: {first(e)[:300]}"
    except Exception as e:  # a broken model can fail anywhere in ONNX Runtime; all of it is a result here
        return FAILED, f"{FAILED} {first(e)[:300]}"


def kept(log):
    """Rows of an earlier run, by model."""
    if not log or not os.path.exists(log):
        return {}
    with open(log) as lines:
        return {row["model"]: row for row in map(json.loads, lines)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bcosc", required=True)
    p.add_argument("--models", required=True, metavar="DIR")
    p.add_argument("--only", nargs="+", default=[""], metavar="NAME",
                   help="only files whose names start with one of these")
    p.add_argument("--log", metavar="FILE", help="keep results here, and skip what passed according to it")
    p.add_argument("--images", metavar="DIR", help="for --calibrate; default: synthetic JPEGs")
    p.add_argument("--extra", default="", help="more flags for both conversions, in one string")
    p.add_argument("--extra-b2", default="", help="more flags for the B=2 conversion, in one string")
    args = p.parse_args()

    models = sorted({m for name in args.only for m in glob.glob(os.path.join(args.models, f"{name}*.onnx"))})
    if not models:
        sys.exit("no models found")
    extra, rows, log = args.extra.split(), [], kept(args.log)
    with tempfile.TemporaryDirectory() as tmp:
        images = args.images or write_jpegs(os.path.join(tmp, "images"))
        out = os.path.join(tmp, "out.onnx")
        for model in models:
            name, start = os.path.basename(model), time.time()
            row = log.get(name)
            if row is None or row["verdict"] != PASSED:
                a, exact_says = attempt(exact, args.bcosc, model, out, extra)
                extra_b2 = extra + args.extra_b2.split()
                b, b2_says = attempt(sensitive, args.bcosc, model, out, images, extra_b2)
                c, deploy_says = attempt(deployed, args.bcosc, model, out, images, extra_b2) if b == PASSED else (b, "")
                d, explain_says = attempt(explained, args.bcosc, out, tmp) if b == PASSED else (b, "")
                verdict = next(v for v in (FAILED, REFUSED, PASSED) if v in (a, b, c, d))
                row = {"model": name, "verdict": verdict, "exact": exact_says, "b2": b2_says, "deploy": deploy_says,
                       "explain": explain_says, "seconds": round(time.time() - start)}
                print(*row.values(), sep="  ", file=sys.stderr, flush=True)
                if args.log:
                    with open(args.log, "a") as f:
                        f.write(json.dumps(row) + "\n")
            rows.append(row)
    columns = ["model", "verdict", "exact: error", "B=2: spread", "deploy: error", "explain: residual", "seconds"]
    print(table(columns, [r.values() for r in rows]))
    count = lambda verdict: sum(r["verdict"] == verdict for r in rows)
    print(f"\n{count(PASSED)} of {len(rows)} passed, {count(REFUSED)} refused, {count(FAILED)} failed")
    sys.exit(count(PASSED) != len(rows))


if __name__ == "__main__":
    main()
