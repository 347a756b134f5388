"""Latency of converted models in ONNX Runtime on the CPU, one thread.

    latency.py --bcosc target/release/bcosc --models DIR [--rounds 40] [--only NAME]
    latency.py --bcosc target/release/bcosc --models DIR --without PASS

The networks are DIR/NAME.dynamo.onnx and DIR/NAME.ts.onnx (see tests/python/export_models.py) for each NAME of
NETWORKS. They are converted with `--b 2 --deploy` and calibrated: an uncalibrated B-cos network of this depth
computes on denormal numbers, which are slow. Without `--without`, plain and converted models take
turns on the same image; with it, the converted model and the one that is converted without PASS (no turns are
taken where both are the same file). `--without` measures the effect of a pass: the ratio is the cost of
leaving it out. Both medians and fastest runs are compared, in the calling thread's processor time (it does all the
work, so that other processes count less) and in wall time.
`--uncalibrated` saves the time that calibration takes; ONNX Runtime then takes denormal numbers as zero.
Limits on the median ratio of plain and converted models: resnet50 1.20, densenet121 1.35. Exits with 1 if one
is missed. Needs tests/python/requirements.txt.
"""

import argparse
import filecmp
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnxruntime as ort

# With the limit on the median ratio, where there is one.
NETWORKS = {
    "resnet50": 1.20, "densenet121": 1.35, "mobilenet_v2": None, "mnasnet1_0": None, "squeezenet1_1": None,
    "resnext50_32x4d": None,
}
WARM_UP = 3


def session(path, denormals):
    options = ort.SessionOptions()
    options.add_session_config_entry("session.set_denormal_as_zero", str(int(not denormals)))
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def image(seed):
    """A smooth normalised image."""
    rng = np.random.default_rng(seed)
    x = sum(rng.standard_normal((1, 3, c, c)).repeat(224 // c, 2).repeat(224 // c, 3) for c in (2, 8, 32, 224))
    return (x / 2).astype(np.float32)


def calibration(folder):
    """Calibration images as .npy, in the input format of the model."""
    path = os.path.join(folder, "images.npy")
    np.save(path, np.concatenate([image(i) for i in range(8)]))
    return path


def compare(name, paths, x, rounds, denormals=True):
    """Milliseconds of two models that take turns: by model, by round, processor and wall time."""
    times = [], []
    sessions = [session(path, denormals) for path in paths]
    for turn in range(rounds + WARM_UP):
        for s, taken in zip(sessions, times):
            start = time.thread_time(), time.perf_counter()
            y, = s.run(None, {s.get_inputs()[0].name: x})
            end = time.thread_time(), time.perf_counter()
            if turn >= WARM_UP:
                taken.append(np.subtract(end, start) * 1e3)
            assert np.isfinite(y).all(), f"{name}: not finite"
    return np.array(times)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bcosc", required=True)
    p.add_argument("--models", required=True, metavar="DIR")
    p.add_argument("--rounds", type=int, default=40)
    p.add_argument("--only", default="", metavar="NAME")
    p.add_argument("--without", metavar="PASS", help="compare conversions with and without this pass")
    p.add_argument("--uncalibrated", action="store_true", help="skip calibration")
    p.add_argument("--extra", default="", help="more flags for the conversion, in one string")
    args = p.parse_args()

    found, missed = False, []
    labels = ("with", "without") if args.without else ("plain", "B-cos")
    with tempfile.TemporaryDirectory() as tmp:
        calibrate = [] if args.uncalibrated else ["--calibrate", calibration(tmp)]

        def convert(plain, out, *more):
            out = os.path.join(tmp, out)
            subprocess.run([args.bcosc, plain, "-o", out, "--b", "2", "--deploy", "-q", *calibrate, *args.extra.split(),
                            *more], check=True)
            return out

        for name, limit in NETWORKS.items():
            for key in (f"{name}.dynamo", f"{name}.ts"):
                plain = os.path.join(args.models, f"{key}.onnx")
                if not key.startswith(args.only) or not os.path.exists(plain):
                    continue
                found = True
                paths = plain, convert(plain, "deploy.onnx")
                if args.without:
                    paths = paths[1], convert(plain, "without.onnx", "--skip-pass", args.without)
                    if filecmp.cmp(*paths, shallow=False):
                        print(f"{key:<23} the same without {args.without}", flush=True)
                        continue
                first, second = compare(key, paths, image(100), args.rounds, not args.uncalibrated)
                median, fastest = np.median(second, 0) / np.median(first, 0), second.min(0) / first.min(0)
                print(f"{key:<23} {labels[0]} {np.median(first, 0)[0]:7.2f} ms   {labels[1]} "
                      f"{np.median(second, 0)[0]:7.2f} ms   ratio {median[0]:.3f} (wall {median[1]:.3f}), "
                      f"of the fastest runs {fastest[0]:.3f} (wall {fastest[1]:.3f})", flush=True)
                if not args.without and limit and median[0] > limit:
                    missed.append(f"{key}: over its limit of {limit:.2f}")
    if not found:
        sys.exit("no models found")
    print(*missed, sep="\n", end="\n" if missed else "")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
