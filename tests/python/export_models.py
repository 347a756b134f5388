"""Export image classifiers and encoders with the exporters of PyTorch.

    export_models.py OUTDIR [NAME|GROUP ...]

Groups: cnn (torchvision's classic networks, the default), torchvision (its modern ones), timm, transformers,
open_clip, clip. Each network is written as `NAME.dynamo.onnx` (dynamo exporter, defaults: batch norm folded away) and
`NAME.ts.onnx` (TorchScript exporter, opset 17), some also as `NAME.raw.onnx` (dynamo, unoptimised). The batch
is dynamic, weights are inline. A file stays only if ONNX Runtime agrees with PyTorch to 1e-4 on it. Finished
files are kept, so a run can be resumed, and a line for each goes to OUTDIR/INDEX.txt, also for those that an
exporter could not write: why.

Weights are random but seeded, and scaled on synthetic images so that activations neither vanish nor explode
and the logits of two images differ; otherwise comparisons would be meaningless or dominated by rounding. Norm
statistics, scales (a tenth of them negative) and biases are all non-trivial.
Needs requirements-torch.txt.
"""

import argparse
import contextlib
import copy
import io
import logging
import os
import time
import warnings

import torch

from common import relative, session
from zoo import MODELS, build, images, noise, photos

TOLERANCE = 1e-4
LEAST_SPREAD = 0.02
# What float32 may lose against float64: well below what conversions are held to. Not demanded of the group cnn:
# earlier figures were measured with those weights.
ROUNDING = 2e-5


def tensors(outputs):
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


def export(net, model, form, path):
    x = images(2, model.side, seed=2)
    names = {"input_names": ["input"], "output_names": list(model.outputs)}
    if form == "ts":
        axes = {name: {0: "batch"} for name in ("input", *model.outputs)}
        torch.onnx.export(net, (x,), path, dynamo=False, opset_version=17, dynamic_axes=axes, **names)
    else:
        torch.onnx.export(
            net, (x,), path, dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False, optimize=form == "dynamo", verbose=False, **names,
        )


@torch.no_grad()
def disagreement(net, model, path):
    """Between ONNX Runtime and PyTorch, at the batch size of the export and at another."""
    s, worst = session(path), 0.0
    for n in (2, 3):
        x = (images if model.group == "cnn" else photos)(n, model.side, seed=4)
        got, want = s.run(None, {"input": x.numpy()}), tensors(net(x))
        assert len(got) == len(want), f"{len(got)} outputs instead of {len(want)}"
        worst = max(worst, *(relative(g, w.numpy()) for g, w in zip(got, want)))
    return worst


@torch.no_grad()
def sensitivity(net, model):
    """The difference of the first output between images, and of all outputs after a rounding error in the input."""
    of = images if model.group == "cnn" else photos
    y = tensors(net(of(4, model.side, seed=3)))[0]
    spread = float(y.std(0).mean() / y.abs().max())
    precise, rounding = copy.deepcopy(net).double(), 0.0
    for x in (of(2, model.side, seed=3), noise(2, model.side, seed=3)):
        pairs = zip(tensors(net(x)), tensors(precise(x.double())))
        rounding = max(rounding, *(relative(a.numpy(), b.numpy()) for a, b in pairs))
    return spread, rounding


def write(net, model, form, path):
    """The entry of this file in INDEX.txt."""
    partial = path + ".part"
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the exporters chat
            export(net, model, form, partial)
        error = disagreement(net, model, partial)
        assert error <= TOLERANCE, f"ONNX Runtime differs from PyTorch by {error:.1e}"
        os.replace(partial, path)
        return f"{os.path.getsize(path) / 1e6:.1f} MB\tORT {error:.1e}"
    except Exception as e:  # exporters fail in every way there is; each is a result here
        while e.__cause__:  # the dynamo exporter wraps what went wrong in advice
            e = e.__cause__
        first = next((line for line in str(e).splitlines() if line.strip()), "")
        return f"FAILED\t{type(e).__name__}: {first.strip()[:200]}"
    finally:
        if os.path.exists(partial):
            os.remove(partial)


def note(outdir, file, line):
    """Add a line to INDEX.txt, in place of an earlier one about the same file."""
    path = os.path.join(outdir, "INDEX.txt")
    lines = open(path).read().splitlines() if os.path.exists(path) else []
    lines = [l for l in lines if l.split("\t")[0] != file] + [f"{file}\t{line}"]
    with open(path, "w") as index:
        index.write("".join(f"{l}\n" for l in lines))


def chosen(names):
    for name in names:
        if name in MODELS:
            yield name
            continue
        group = [n for n, m in MODELS.items() if m.group == name and not m.extra]
        if not group:
            raise SystemExit(f"no model and no group {name}; models: {' '.join(MODELS)}")
        yield from group


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("outdir")
    p.add_argument("names", nargs="*", default=["cnn"], metavar="NAME|GROUP", help=f"models: {' '.join(MODELS)}")
    args = p.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    os.makedirs(args.outdir, exist_ok=True)

    for name in chosen(args.names):
        model = MODELS[name]
        files = {form: f"{name}.{form}.onnx" for form in ("dynamo", "ts", *(["raw"] if model.raw else []))}
        todo = {form: f for form, f in files.items() if not os.path.exists(os.path.join(args.outdir, f))}
        if not todo:
            continue
        net = build(name)
        spread, rounding = sensitivity(net, model)
        assert spread > LEAST_SPREAD, f"{name}: outputs hardly differ between images ({spread:.4f})"
        assert model.group == "cnn" or rounding < ROUNDING, f"{name}: rounding changes the outputs by {rounding:.1e}"
        for form, file in todo.items():
            start = time.time()
            line = write(net, model, form, os.path.join(args.outdir, file))
            line += f"\tspread {spread:.3f}\trounding {rounding:.1e}"
            print(file, line, f"{time.time() - start:.0f} s", sep="\t", flush=True)
            note(args.outdir, file, line)


if __name__ == "__main__":
    main()
