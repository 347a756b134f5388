"""Alignment of exported networks: every segment must come closer to the original.

    align_zoo.py --bcosc target/release/bcosc --images DIR [--steps 20] [--batch-size 8] [--limit GB] MODEL ...

Aligns each model in segments on the pictures in DIR, which need no labels, and checks that the error of every segment falls
and that memory stays below the limit (8 GB). Prints a line for each segment and one for each model, with seconds and peak
memory; exits with 1 if a check fails. Needs ONNX Runtime in the active Python environment, on Linux.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time


def aligned(model, arguments, folder):
    """The segments of an alignment, with seconds and peak memory in bytes."""
    out = pathlib.Path(folder) / "aligned.onnx"
    command = [
        arguments.bcosc, "align", model, "--data", arguments.images, "-o", out, "--normalization", "imagenet", "--method", "blocks",
        "--steps", arguments.steps, "--batch-size", arguments.batch_size, "--sheet", 0, "--val-split", 0.1,
    ]  # fmt: skip
    begun = time.monotonic()
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        return said.strip().splitlines()[-1], 0, 0
    lines = (out.with_suffix(".alignment") / "metrics.jsonl").read_text().splitlines()
    phases = [found["phase"] for found in map(json.loads, lines) if isinstance(found.get("phase"), dict)]
    return phases, time.monotonic() - begun, usage.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bcosc", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--limit", type=float, default=8.0)
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    failed = 0
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            phases, seconds, peak = aligned(model, arguments, folder)
        if isinstance(phases, str):
            print(f"FAILED {model.name}: {phases}")
            failed += 1
            continue
        for phase in phases:
            print(f"  {phase['name']}: {phase['before']:.4f} -> {phase['after']:.4f} in {phase['seconds']:.1f} s")
        rising = [phase["name"] for phase in phases if not phase["after"] < phase["before"]]
        good = phases and not rising and peak < arguments.limit * 1e9
        failed += not good
        verdict = "ok" if good else f"FAILED {', '.join(rising) or 'memory'}"
        print(f"{verdict} {model.name}: {len(phases)} segments, {seconds:.0f} s, {peak / 1e9:.1f} GB", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
