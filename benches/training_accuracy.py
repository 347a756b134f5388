"""Accuracy and GridPG over the steps of training small converted networks: the table of docs/training.md.

    python benches/training_accuracy.py --bcosc target/release/bcosc --shared DIR --out results/ [--only NAME ...]

DIR holds the networks cifar10-*.onnx and the images cifar10/train/CLASS/*.jpg and cifar10/val/CLASS/*.jpg. Every run has 400 steps of
128 images and B = 2, without biases; accuracy is on 2,500 validation images. `random` is the ResNet-20 with its weights drawn anew, as
PyTorch initialises them. What is in --out already is not computed again. Needs onnx, and ONNX Runtime for speed.
"""

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

CIFAR = ["--mean", "0.4914,0.4822,0.4465", "--std", "0.2470,0.2435,0.2616"]
ABSORBED = ["--absorb-normalization"]
KEPT, FOLDED, VIT = "cifar10-resnet20.norms-kept.onnx", "cifar10-resnet20.onnx", "cifar10-vit.onnx"
RANDOM = "random"
NOT_RESTORED = "folded, not restored"
ROWS = {
    "kept, absorbed": (KEPT, ABSORBED),
    "kept, normalised in the graph": (KEPT, []),
    "folded, restored, absorbed": (FOLDED, ABSORBED),
    NOT_RESTORED: (FOLDED, []),
    "random, absorbed": (RANDOM, ABSORBED),
    "vit, absorbed": (VIT, ABSORBED),
}
SHOWN = [0, 100, 200, 400]


def randomised(model, rng):
    """The network with PyTorch's initial weights: uniform within 1 / sqrt(fan in); norms are the identity."""
    values = {i.name: i for i in model.graph.initializer}
    norms = {name: value for n in model.graph.node if n.op_type == "BatchNormalization"
             for name, value in zip(n.input[1:], (1, 0, 0, 1))}  # fmt: skip
    layers = [n.input[1:] for n in model.graph.node if n.op_type in ("Conv", "Gemm")]
    # A parameter that equals another one is an Identity of it.
    for name, value in ((name, value) for name, value in norms.items() if name in values):
        shape = tuple(values[name].dims)
        values[name].CopyFrom(numpy_helper.from_array(np.full(shape, value, np.float32), name))
    for weight, *bias in layers:
        bound = np.prod(values[weight].dims[1:]) ** -0.5
        for name in (weight, *bias):
            drawn = rng.uniform(-bound, bound, values[name].dims).astype(np.float32)
            values[name].CopyFrom(numpy_helper.from_array(drawn, name))
    return model


def bcosc(row, arguments, *options):
    done = subprocess.run([arguments.bcosc, *options], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{row}: {done.stderr}")


def run(name, arguments):
    kept = arguments.out / f"{name.replace(', ', '-').replace(' ', '-')}.json"
    if not kept.exists():
        network, flags = ROWS[name]
        path = arguments.shared / network
        if network == RANDOM:
            path = arguments.out / "random.onnx"
            onnx.save(randomised(onnx.load(arguments.shared / KEPT), np.random.default_rng(0)), path)
        out = kept.with_suffix(".onnx")
        images, conversion = arguments.shared / "cifar10", ["--input", "add-inverse", *CIFAR, *flags]
        if name == NOT_RESTORED:
            converted = arguments.out / "not-restored.onnx"
            bcosc(name, arguments, path, "-o", converted, "--skip-pass", "restore-norms",
                  "--skip-pass", "calibrate-norms", *conversion)  # fmt: skip
            path, conversion = converted, []
        # The transformer takes pictures of one size, and no grids.
        game = [] if network == VIT else ["--gridpg", "--smooth", "1"]
        bcosc(name, arguments, "train", path, "--data", images, "-o", out, "--epochs", "9", "--steps", "400", "--augment", "shift",
              "--eval-steps", "100", "--val-images", "2500", "--sheet", "0", *game, *conversion)  # fmt: skip
        lines = [json.loads(line) for line in (out.with_suffix(".training") / "metrics.jsonl").read_text().splitlines()]
        kept.write_text(json.dumps([line for line in lines if "val_top1" in line]))
    evaluations = json.loads(kept.read_text())
    accuracy = {line["step"]: f"{line['val_top1']:.3f}" for line in evaluations}
    gridpg = evaluations[-1].get("gridpg")
    figures = [accuracy.get(step, "") for step in SHOWN] + ["" if gridpg is None else f"{gridpg:.3f}"]
    print(f"| {name} | {' | '.join(figures)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bcosc", type=Path, required=True)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print("| network | converted and calibrated | 100 steps | 200 | 400 | GridPG |\n|---|---|---|---|---|---|")
    for name in arguments.only:
        run(name, arguments)


if __name__ == "__main__":
    main()
