"""Latency of converted models in ONNX Runtime, one thread, beside the plain ones.

    latency.py --bcosc target/release/bcosc --models DIR [--rounds 40] [--only NAME]

resnet50 and densenet121 (DIR/NAME.dynamo.onnx and DIR/NAME.ts.onnx, see tests/python/export_models.py) are
converted with `--b 2 --deploy` and calibrated: an uncalibrated B-cos network of this depth computes on
denormal numbers, which is a latency of its own. Plain and converted models take turns on the same image.
Time is the calling thread's processor time (it does all the work), so that other processes count less.
Limits on the median ratio: resnet50 1.20, densenet121 1.35. Exits with 1 if one is missed.
Needs tests/python/requirements.txt.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnxruntime as ort

LIMITS = {"resnet50": 1.20, "densenet121": 1.35}


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def image(seed):
    """A smooth normalised image."""
    rng = np.random.default_rng(seed)
    x = sum(rng.standard_normal((1, 3, c, c)).repeat(224 // c, 2).repeat(224 // c, 3) for c in (2, 8, 32, 224))
    return (x / 2).astype(np.float32)


def calibration(folder):
    """Enough images to measure norms on, as .npy: the form that the model takes."""
    path = os.path.join(folder, "images.npy")
    np.save(path, np.concatenate([image(i) for i in range(8)]))
    return path


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bcosc", required=True)
    p.add_argument("--models", required=True, metavar="DIR")
    p.add_argument("--rounds", type=int, default=40)
    p.add_argument("--only", default="", metavar="NAME")
    p.add_argument("--extra", default="", help="more flags for the conversion, in one string")
    args = p.parse_args()

    missed = []
    with tempfile.TemporaryDirectory() as tmp:
        images, pairs = calibration(tmp), {}
        for name, limit in LIMITS.items():
            for form in ("dynamo", "ts"):
                plain = os.path.join(args.models, f"{name}.{form}.onnx")
                if not f"{name}.{form}".startswith(args.only) or not os.path.exists(plain):
                    continue
                out = os.path.join(tmp, os.path.basename(plain))
                subprocess.run([args.bcosc, plain, "-o", out, "--b", "2", "--deploy", "--calibrate", images, "-q",
                                *args.extra.split()], check=True)
                pairs[f"{name}.{form}"] = limit, session(plain), session(out)
        if not pairs:
            sys.exit("no models found")

        x = image(100)
        times = {key: ([], []) for key in pairs}
        for turn in range(args.rounds + 3):
            for key, (_, *both) in pairs.items():
                for s, t in zip(both, times[key]):
                    start = time.thread_time()
                    y, = s.run(None, {s.get_inputs()[0].name: x})
                    if turn >= 3:  # the first rounds warm up
                        t.append(time.thread_time() - start)
                    assert np.isfinite(y).all(), f"{key}: not finite"
    for key, (limit, *_) in pairs.items():
        plain, bcos = (np.array(t) * 1e3 for t in times[key])
        ratio = np.median(bcos) / np.median(plain)
        print(f"{key:<20} plain {np.median(plain):7.2f} ms   B-cos {np.median(bcos):7.2f} ms   "
              f"ratio {ratio:.3f} (limit {limit:.2f}), of the fastest runs {bcos.min() / plain.min():.3f}")
        if ratio > limit:
            missed.append(key)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
