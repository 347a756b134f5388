"""Alignment by methods, steps, images and options: the tables of docs/alignment.md.

    python benches/alignment.py --bcosc target/release/bcosc --shared DIR --out results/ [--only PATTERN] [--threads N]

DIR holds CIFAR-10 as class folders (`cifar10/train`, `cifar10/val`) and the networks that the tables name. Every row is one run of
`bcosc align`; its figures are kept in results/NAME.json, so that an interrupted study goes on. Needs ONNX Runtime
(`pip install onnxruntime`). Times depend on what else the machine does; accuracies do not.
"""

import argparse
import fnmatch
import json
import os
import re
import subprocess
import sys
from pathlib import Path

CIFAR = ["--mean", "0.4914,0.4822,0.4465", "--std", "0.2470,0.2435,0.2616"]
LITE0 = ["--mean", "0.498,0.498,0.498", "--std", "0.502,0.502,0.502"]

BLOCKS = ["--method", "blocks"]
JOINT = ["--method", "joint"]
BOTH = ["--method", "blocks+joint"]
GROW = ["--method", "grow"]


def resnet(*options, model="cifar10-resnet20.norms-kept", images=1000):
    return (model, ["--images", str(images), *CIFAR, *options])


def small(name, *options, images=5000):
    return (f"cifar10-{name}", ["--images", str(images), *CIFAR, *options])


def lite0(*options):
    return ("imagenet/efficientnet-lite0", ["--batch-size", "16", *LITE0, *options])


def grown(b, steps, *options):
    size = ["--input-shapes", "input:N,3,height,width", "--size", "128"]
    return lite0(*GROW, "--b", b, "--steps", str(steps), *size, *options)


# The classifier stays as it is.
HEAD = ["--freeze", "/_fc/*"]

# Tables by title; rows by name. The defaults are blocks of 80 steps at 0.06, and 250 joint steps at 0.015, or 0.005 where B grows.
STUDY = {
    "Methods (ResNet-20, norms kept, 1,000 images)": {
        "kept-blocks": resnet(*BLOCKS),
        "kept-blocks-lr03": resnet(*BLOCKS, "--lr", "0.03"),
        "kept-blocks-lr12": resnet(*BLOCKS, "--lr", "0.12"),
        "kept-blocks-60": resnet(*BLOCKS, "--steps", "60"),
        "kept-blocks-150": resnet(*BLOCKS, "--steps", "150"),
        "kept-blocks-300": resnet(*BLOCKS, "--steps", "300"),
        "kept-blocks-385": resnet(*BLOCKS, "--steps", "385"),
        "kept-joint": resnet(*JOINT),
        "kept-joint-lr03": resnet(*JOINT, "--lr", "0.03"),
        "kept-grow": resnet(*GROW, "--steps", "150", "--lr", "0.01"),
        "kept-grow-decay": resnet(*GROW, "--steps", "150", "--lr", "0.01", "--bias-decay", "75"),
        "kept-both": resnet(*BOTH),
        "kept-blocks-then-train": resnet(*BLOCKS, "--then-train", "100"),
    },
    "Methods (ResNet-20, norms folded, 1,000 images)": {
        "folded-blocks": resnet(*BLOCKS, model="cifar10-resnet20"),
        "folded-joint": resnet(*JOINT, model="cifar10-resnet20"),
        "folded-both": resnet(*BOTH, model="cifar10-resnet20"),
    },
    "Images (ResNet-20, norms kept)": {
        "kept-blocks-50": resnet(*BLOCKS, images=50),
        "kept-blocks-200": resnet(*BLOCKS, images=200),
        "kept-blocks-10000": resnet(*BLOCKS, images=10000),
        "kept-joint-50": resnet(*JOINT, images=50),
        "kept-joint-10000": resnet(*JOINT, images=10000),
    },
    "Augmentation and input": {
        "kept-blocks-plain": resnet(*BLOCKS, "--augment", "none"),
        "kept-joint-plain": resnet(*JOINT, "--augment", "none"),
        "kept-blocks-rgb": resnet(*BLOCKS, "--input", "rgb"),
    },
    "Places and segments": {
        "kept-joint-1tap": resnet(*JOINT, "--taps", "1"),
        "kept-joint-9taps": resnet(*JOINT, "--taps", "9"),
        "kept-blocks-4": resnet(*BLOCKS, "--segments", "4", "--steps", "200"),
    },
    "B": {
        "kept-blocks-b1.5": resnet(*BLOCKS, "--b", "1.5"),
        "kept-blocks-b1.25": resnet(*BLOCKS, "--b", "1.25"),
        "kept-blocks-biases": resnet(*BLOCKS, "--biases", "keep"),
        "kept-blocks-carried": resnet(*BLOCKS, "--biases", "carry"),
        "kept-carried-decay": resnet(*BOTH, "--biases", "carry", "--joint-steps", "60", "--bias-decay", "40"),
    },
    "Transformer (5,000 images)": {
        "vit-blocks": small("vit", *BLOCKS),
        "vit-blocks-lr03": small("vit", *BLOCKS, "--lr", "0.03"),
        "vit-joint": small("vit", *JOINT),
        "vit-both": small("vit", *BOTH, "--joint-steps", "200"),
    },
    "A small MobileNet (5,000 images; made by benches/alignment_networks.py)": {
        "mobilenet-blocks": small("mobilenet", *BLOCKS),
        "mobilenet-joint": small("mobilenet", *JOINT),
        "mobilenet-both": small("mobilenet", *BOTH),
        "mobilenet-grow": small("mobilenet", *GROW, "--steps", "300", "--lr", "0.01"),
        "mobilenet-grow-default": small("mobilenet", *GROW),
    },
    "A small DenseNet (5,000 images; made by benches/alignment_networks.py)": {
        "densenet-blocks": small("densenet", *BLOCKS),
        "densenet-joint": small("densenet", *JOINT),
        "densenet-both": small("densenet", *BOTH),
        "densenet-grow": small("densenet", *GROW, "--steps", "300", "--lr", "0.01"),
        "densenet-grow-default": small("densenet", *GROW),
    },
    "A narrow, deep ResNet (5,000 images; made by benches/alignment_networks.py)": {
        "resnet38-blocks": small("resnet38", *BLOCKS),
        "resnet38-grow": small("resnet38", *GROW, "--steps", "300", "--lr", "0.01"),
        "resnet38-grow-default": small("resnet38", *GROW),
    },
    "EfficientNet-Lite0 at 224 x 224 (540 photographs)": {
        "lite0-blocks": lite0(*BLOCKS),
        "lite0-both": lite0(*BOTH, "--joint-steps", "150"),
        "lite0-joint": lite0(*JOINT),
    },
    "EfficientNet-Lite0 at 128 x 128, B grown from the original (540 photographs)": {
        "lite0-grown-b1.1": grown("1.1", 60),
        "lite0-grown-b1.25": grown("1.25", 100),
        "lite0-grown-b1.5": grown("1.5", 160),
        "lite0-grown-b1.5-mixup": grown("1.5", 160, "--mixup-alpha", "0.8"),
        "lite0-grown-b1.5-crop": grown("1.5", 160, "--augment", "crop"),
        "lite0-grown-b1.5-head": grown("1.5", 160, *HEAD),
        "lite0-grown-b1.5-linear-head": grown("1.5", 160, "--b-last", "1", *HEAD),
        "lite0-grown-b2": grown("2", 500),
        "lite0-grown-b2-crop": grown("2", 500, "--augment", "crop"),
        "lite0-grown-b2-crop-head": grown("2", 500, "--augment", "crop", *HEAD),
        "lite0-grown-b2-linear-head": grown("2", 500, "--b-last", "1", *HEAD),
    },
    "Seeds (ResNet-20, 1,000 images)": {
        "kept-seed1": resnet("--seed", "1"),
        "kept-seed2": resnet("--seed", "2"),
        "folded-seed1": resnet("--seed", "1", model="cifar10-resnet20"),
        "folded-seed2": resnet("--seed", "2", model="cifar10-resnet20"),
    },
}


def run(name, model, options, arguments):
    kept = arguments.out / f"{name}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    shared = arguments.shared
    is_imagenet = model.startswith("imagenet")
    data = shared / ("imagenet/photographs" if is_imagenet else "cifar10")
    out = arguments.out / f"{name}.onnx"
    command = [
        str(arguments.bcosc), "align", str(shared / f"{model}.onnx"), "--data", str(data), "-o", str(out),
        "--sheet", "10", "--val-images", "2500", *options,
    ]  # fmt: skip
    if "vit" not in model:
        # It takes pictures of one size, and no grids.
        command += ["--gridpg", "--smooth", "1"]
    if is_imagenet:
        command += ["--labels", str(shared / "imagenet/classes.txt")]
    if arguments.threads:
        command += ["--threads", str(arguments.threads), "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    if done.returncode != 0:
        print(f"{name}: {done.stderr[-400:]}", file=sys.stderr)
        return None
    lines = (out.with_suffix(".alignment") / "metrics.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in lines]
    before, after = [line for line in lines if "agreement" in line]
    seconds = [float(s) for s in re.findall(r" steps in ([0-9.]+) s", done.stderr)]
    result = {
        "options": options,
        "seconds": round(sum(seconds), 1),
        "before": before,
        "after": after,
        "said": done.stderr,
    }
    kept.write_text(json.dumps(result, indent=1))
    return result


def cell(line, key):
    found = line.get(key)
    return "" if found is None else f"{found:.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bcosc", type=Path, required=True)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="*", help="names of rows, with * for any text")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--table", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for title, rows in STUDY.items():
        table = []
        for name, (model, options) in rows.items():
            there = (arguments.out / f"{name}.json").exists()
            patterns = arguments.only.split(",")
            wanted = any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
            if not there and (arguments.table or not wanted):
                continue
            found = run(name, model, options, arguments)
            if found is None:
                continue
            after = found["after"]
            table.append(
                f"| `{' '.join(o for o in options if o not in CIFAR + LITE0)}` | {found['seconds']:.0f} s "
                f"| {cell(after, 'agreement')} | {cell(after, 'val_top1')} | {cell(after, 'gridpg')} |"
            )
            print(name, table[-1], file=sys.stderr, flush=True)
        if table:
            print(f"\n**{title}**\n\n| options | steps took | agreement | accuracy | GridPG |\n|---|---|---|---|---|")
            print("\n".join(table))


if __name__ == "__main__":
    main()
