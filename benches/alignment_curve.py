"""Alignment against end-to-end training at equal time: accuracy and GridPG over seconds, as a picture.

    python benches/alignment_curve.py --bcosc target/release/bcosc --shared DIR --out results/ --png docs/images/alignment-curve.png

DIR as for benches/alignment.py. The network is `cifar10-resnet20.norms-kept.onnx`. Alignment sees 1,000 images without labels;
training all 20,000 with labels, at a learning rate of 0.001. Every point is a run of its own, whose learning rate falls to 0. Seconds are
those of the steps and of features between segments, without conversion and evaluation, which both have. Figures are kept in
results/NAME.json. Needs ONNX Runtime and matplotlib.
"""

import argparse
import json
import re
import subprocess
from pathlib import Path

CIFAR = ["--mean", "0.4914,0.4822,0.4465", "--std", "0.2470,0.2435,0.2616"]
ABSORBED = ["--input", "add-inverse", "--absorb-normalization"]
# Steps of a segment, and steps of training.
BLOCKS = [10, 30, 80]
TRAINING = [15, 60, 150]


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def run(name, command, work_dir, seconds, arguments):
    kept = arguments.out / f"{name}.json"
    if not kept.exists():
        usual = ["--gridpg", "--smooth", "1", "--sheet", "0", "--val-images", "2500", *CIFAR]
        out = arguments.out / f"{name}.onnx"
        done = subprocess.run(
            [arguments.bcosc, *command, "-o", out, "--data", arguments.shared / "cifar10", *usual],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode != 0:
            raise SystemExit(f"{name}: {done.stderr}")
        found = lines(out.with_suffix(work_dir))
        last = [line for line in found if "val_top1" in line][-1]
        figures = {"seconds": seconds(found, done.stderr), "accuracy": last["val_top1"], "gridpg": last.get("gridpg")}
        kept.write_text(json.dumps(figures))
    figures = json.loads(kept.read_text())
    print(name, figures, flush=True)
    return figures


def of_phases(_, said):
    return sum(float(s) for s in re.findall(r" steps in ([0-9.]+) s", said))


def of_steps(found, _):
    return sum(128 / line["images_per_second"] for line in found if "images_per_second" in line)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bcosc", type=Path, required=True)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--png", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = arguments.shared / "cifar10-resnet20.norms-kept.onnx"
    curves = {"alignment, 1,000 images without labels": [], "end-to-end training, 20,000 labelled images": []}
    aligned, trained = curves.values()
    for steps in BLOCKS:
        command = ["align", model, "--images", "1000", "--method", "blocks", "--steps", str(steps)]
        aligned.append(run(f"blocks-{steps}", command, ".alignment", of_phases, arguments))
    for steps in TRAINING:
        command = ["train", model, "--steps", str(steps), "--augment", "shift", "--eval-steps", "100000", *ABSORBED]
        trained.append(run(f"train-{steps}", command, ".training", of_steps, arguments))

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4))
    for axis, key, title in zip(axes, ["accuracy", "gridpg"], ["accuracy", "GridPG, 40 grids of 3x3"], strict=True):
        for (label, points), marker in zip(curves.items(), "os", strict=True):
            # Without images of all classes that it is sure of, a model has no grids.
            shown = [p for p in points if p[key] is not None]
            axis.plot([p["seconds"] for p in shown], [p[key] for p in shown], marker=marker, label=label)
        axis.set_xlabel("seconds on two cores")
        axis.set_ylim(0, 1)
        axis.set_title(title)
        axis.grid(alpha=0.3)
    axes[0].axhline(0.846, linestyle=":", color="grey")
    axes[0].text(0, 0.86, " the original", color="grey", fontsize=8)
    axes[0].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(arguments.png, dpi=110)


if __name__ == "__main__":
    main()
