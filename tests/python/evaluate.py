"""Hold the figures of `bcosc eval` against ONNX Runtime, numpy and known results.

    evaluate.py --bcosc target/release/bcosc --data DIR [--images DIR] [--grids 40]

DIR holds cifar10-images.tar.gz, cifar10-resnet20.onnx, cifar10-resnet20.bcos-aligned.onnx (repaired as explain.py says)
and cifar10-vit.onnx; --images: the images, already unpacked (holds val/). Pictures are decoded here and given to bcosc
as PNG, since decoders of JPEG differ in the last bit. Demanded: top-1, top-5, calibration error and negative
log-likelihood within 1e-4 (they are the same numbers); the grid pointing game without smoothing (--grids grids, 3x3)
within 0.03 of 0.836 for the aligned network and of 0.145 for the original.
Exits with 1 if anything failed. Needs requirements.txt.
"""

import argparse
import glob
import json
import os
import sys
import tarfile
import tempfile

import numpy as np
from PIL import Image

from cifar_accuracy import MEAN, STD
from common import bcosc, last_line, session, table
from explain import with_sums

BINS = 15


def pictures(source, target):
    """All pictures as [N,3,H,W] in [0,1], and their classes; written to `target` as PNG."""
    x, y = [], []
    for label, name in enumerate(sorted(os.listdir(source))):
        os.makedirs(os.path.join(target, name))
        for path in sorted(glob.glob(os.path.join(source, name, "*.jpg"))):
            picture = Image.open(path).convert("RGB")
            stem = os.path.splitext(os.path.basename(path))[0]
            picture.save(os.path.join(target, name, f"{stem}.png"), compress_level=1)
            x.append(np.asarray(picture, np.float32))
            y.append(label)
    return np.ascontiguousarray(np.stack(x).transpose(0, 3, 1, 2) / 255), np.array(y)


def figures(path, x, y):
    """What bcosc must find."""
    s = session(path)
    name, sigmoid = s.get_inputs()[0].name, s.get_inputs()[0].shape[1] == 6
    z = []
    for part in np.array_split(x, max(1, len(x) // 250)):
        if sigmoid:
            part = np.concatenate([part, 1 - part], 1)
        else:
            part = (part - np.float32(MEAN)[:, None, None]) / np.float32(STD)[:, None, None]
        z.append(s.run(None, {name: part})[0].reshape(len(part), -1))
    z = np.concatenate(z).astype(np.float64)
    true = np.eye(z.shape[1])[y]
    if sigmoid:
        p = 1 / (1 + np.exp(-z))
        nll = -(true * np.log(p) + (1 - true) * np.log1p(-p)).sum(1).mean()
    else:
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        nll = -np.log((p * true).sum(1)).mean()
    right, confidence = z.argmax(1) == y, p.max(1)
    bins = np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1)
    gaps = [abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    top5 = (np.argsort(-z, 1)[:, :5] == y[:, None]).any(1)
    return {"top1": right.mean(), "top5": top5.mean(), "ece": sum(gaps), "nll": nll}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bcosc", required=True)
    p.add_argument("--data", required=True, metavar="DIR")
    p.add_argument("--images", metavar="DIR", help="the images, already unpacked (holds val/)")
    p.add_argument("--grids", type=int, default=40)
    args = p.parse_args()

    rows, failed = [], False
    with tempfile.TemporaryDirectory() as tmp:
        images = args.images
        if not images:
            with tarfile.open(os.path.join(args.data, "cifar10-images.tar.gz")) as t:
                t.extractall(tmp, filter="data")
            images = os.path.join(tmp, "cifar10")
        png = os.path.join(tmp, "png")
        x, y = pictures(os.path.join(images, "val"), png)
        aligned = with_sums(os.path.join(args.data, "cifar10-resnet20.bcos-aligned.onnx"), os.path.join(tmp, "aligned.onnx"))
        original, vit = (os.path.join(args.data, f"cifar10-{name}.onnx") for name in ("resnet20", "vit"))
        normalised = ["--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD))]
        game = ["--gridpg", "--grids", args.grids, "--cells", 3, "--smooth", 0]
        report = os.path.join(tmp, "report.json")

        def evaluate(model, *flags):
            code, err = bcosc(args.bcosc, "eval", model, "--data", png, *normalised, *flags, "--report", report, "-q")
            if code:
                sys.exit(f"FAIL exit code {code}: {last_line(err)}")
            with open(report) as f:
                return json.load(f)["models"]

        found = evaluate(aligned, "--compare", original, *game) + evaluate(vit)
        for path, model, score in zip((aligned, original, vit), found, (0.836, 0.145, None)):
            row = [model["name"]]
            for key, want in figures(path, x, y).items():
                got = model[key] if key in model else model["reliability"][key]
                wrong = abs(got - want) > 1e-4
                failed |= wrong
                row.append(f"{'FAIL ' if wrong else ''}{got:.4f} ({want:.4f})")
            if score:
                got = model["pointing"][0]["score"]
                wrong = abs(got - score) > 0.03
                failed |= wrong
                row.append(f"{'FAIL ' if wrong else ''}{got:.3f} ({score})")
            rows.append(row + [""] * (6 - len(row)))
    print(table(["bcosc (expected)", "top-1", "top-5", "ECE", "NLL", "GridPG"], rows))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
