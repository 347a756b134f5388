"""Accuracy of a trained network after conversion, calibrated but never fine-tuned.

    cifar_accuracy.py --bcosc target/release/bcosc --data DIR [--images DIR]

DIR holds cifar10-images.tar.gz (train/CLASS/*.jpg and val/CLASS/*.jpg), cifar10-resnet20.onnx (norms folded)
and cifar10-resnet20.norms-kept.onnx. Each is converted at B = 1, 1.25, 1.5 and 2, with biases kept and
removed, calibrated on training images, and run on all validation images. Prints a markdown table.
Exits with 1 only if a conversion fails.
Needs requirements.txt.
"""

import argparse
import glob
import os
import shutil
import sys
import tarfile
import tempfile

import numpy as np
from PIL import Image

from common import bcosc, last_line, session, table

MODELS = ("cifar10-resnet20.onnx", "cifar10-resnet20.norms-kept.onnx")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
POWERS = ("1", "1.25", "1.5", "2")


def validation(folder):
    """Normalised images and their labels."""
    classes = sorted(os.listdir(folder))
    paths = [(p, label) for label, c in enumerate(classes) for p in sorted(glob.glob(os.path.join(folder, c, "*.jpg")))]
    x = np.stack([np.asarray(Image.open(p).convert("RGB"), np.float32) for p, _ in paths]) / 255
    x = ((x - np.float32(MEAN)) / np.float32(STD)).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(x), np.array([label for _, label in paths])


def accuracy(path, x, labels):
    s = session(path)
    name = s.get_inputs()[0].name
    logits = np.concatenate([s.run(None, {name: x[i : i + 250]})[0] for i in range(0, len(x), 250)])
    return (logits.reshape(len(x), -1).argmax(1) == labels).mean()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bcosc", required=True)
    p.add_argument("--data", required=True, metavar="DIR")
    p.add_argument("--images", metavar="DIR", help="the images, already unpacked (holds train/ and val/)")
    p.add_argument("--per-class", type=int, default=50, help="calibration images of each class")
    p.add_argument("--extra", default="", help="more flags for the conversions, in one string")
    args = p.parse_args()

    failed = False
    with tempfile.TemporaryDirectory() as tmp:
        images = args.images
        if not images:
            with tarfile.open(os.path.join(args.data, "cifar10-images.tar.gz")) as t:
                t.extractall(tmp, filter="data")
            images = os.path.join(tmp, "cifar10")
        x, labels = validation(os.path.join(images, "val"))
        subset = os.path.join(tmp, "calibration")
        for c in sorted(os.listdir(os.path.join(images, "train"))):
            os.makedirs(os.path.join(subset, c))
            for path in sorted(glob.glob(os.path.join(images, "train", c, "*.jpg")))[: args.per_class]:
                shutil.copy(path, os.path.join(subset, c))
        flags = ["--calibrate", subset, "--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD))]
        flags += [*args.extra.split(), "-q"]

        rows = []
        for model in MODELS:
            source, out = os.path.join(args.data, model), os.path.join(tmp, "out.onnx")
            rows.append([model, "original", f"{accuracy(source, x, labels):.3f}", *[""] * len(POWERS)])
            for biases in ("kept", "removed"):
                row = [model, f"biases {biases}", ""]
                for b in POWERS:
                    more = ["--keep-biases"] if biases == "kept" else []
                    code, err = bcosc(args.bcosc, source, "-o", out, "--b", b, *more, *flags)
                    if code != 0:
                        failed = True
                        print(f"{model} B={b}, biases {biases}: exit code {code}: {last_line(err)}", file=sys.stderr)
                    row.append("failed" if code else f"{accuracy(out, x, labels):.3f}")
                rows.append(row)
    print(table(["model", "", "as given", *(f"B={b}" for b in POWERS)], rows))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
