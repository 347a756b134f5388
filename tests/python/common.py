"""What the acceptance scripts share: running bcosc, running models in ONNX Runtime, images, tables."""

import os
import subprocess

import numpy as np
import onnxruntime as ort

MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
# For comparisons with the original: nothing alters from it.
EXACT = ["--b", "1", "--keep-biases", "--keep-max-pool", "--logit-bias", "none"]


def bcosc(exe, *args, timeout=1800):
    """Run bcosc; returns (exit code, stderr). A death by signal is a negative code, a timeout 124."""
    try:
        done = subprocess.run([exe, *map(str, args)], capture_output=True, text=True, errors="replace",
                              timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return 124, f"no answer within {timeout} s"
    return done.returncode, done.stderr


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("error")), lines[-1] if lines else "")


def session(path, threads=1):
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])


def run(path, x):
    """First output of the model for input x."""
    s = session(path)
    return s.run(None, {s.get_inputs()[0].name: x})[0]


def smooth_images(n, size, seed):
    """[n,3,size,size] in [0,1]: noise at several scales, so that images still differ after pooling."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, 3, size, size), np.float32)
    for cells in (2, 5, 16, size):
        noise = rng.standard_normal((n, 3, cells, cells)).astype(np.float32)
        at = np.arange(size) * cells // size
        x += noise[:, :, at[:, None], at[None, :]]
    return 1 / (1 + np.exp(-x))


def write_jpegs(folder, n=32, size=256, seed=0):
    """A folder of images for --calibrate."""
    from PIL import Image

    os.makedirs(folder, exist_ok=True)
    for i, x in enumerate(smooth_images(n, size, seed)):
        pixels = (x.transpose(1, 2, 0) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(os.path.join(folder, f"{i:03}.jpg"), quality=92)
    return folder


def relative(got, want):
    """Largest difference, relative to the largest magnitude wanted. NaN is as wrong as can be."""
    if got.shape != want.shape:
        return float("inf")
    error = np.abs(got.astype(np.float64) - want).max() / np.abs(want).max()
    return float(error) if np.isfinite(error) else float("inf")


def table(head, rows):
    """A markdown table, aligned for reading as text too."""
    rows = [[str(c) for c in row] for row in rows]
    width = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    line = lambda cells: "| " + " | ".join(c.ljust(w) for c, w in zip(cells, width)) + " |"
    return "\n".join([line(head), "|" + "|".join("-" * (w + 2) for w in width) + "|", *map(line, rows)])
