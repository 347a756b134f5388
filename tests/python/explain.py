"""Run explanation graphs in ONNX Runtime and compare with what reference implementations computed.

    explain.py --bcosc target/release/bcosc --golden DIR [--data DIR] [--time MODEL.onnx]

For each network of --golden: converted with `--emit explain`, its maps against the reference's, relative to the
largest magnitude of each image's map (1e-3), the class equal, onnx.checker (full_check) content; every class in one batch as alone (1e-5). densenet_tiny is altered as
golden.py explains. With --data: `explain-graph` of cifar10-resnet20.bcos-aligned.onnx, exported from PyTorch, against
its golden file, and the residual of completeness relative to the logit (1e-4).
--time: converts a model and compares the time of its explanation with that of its forward pass, one thread.
Exits with 1 if anything failed. Needs requirements.txt.
"""

import argparse
import json
import os
import sys
import tempfile
import time

import numpy as np
import onnx
from safetensors.numpy import load_file

from common import bcosc, last_line, session, table
from golden import as_the_reference

NETWORKS = ("resnet_tiny", "resnet_tiny_grouped", "densenet_tiny", "vit_tiny", "vitc_tiny", "clip_rn_tiny")
LIMIT = 1e-3


def explain(path, x, target=None):
    """Outputs of an explanation graph by name."""
    s = session(path)
    onnx.checker.check_model(path, full_check=True)
    image, choice = s.get_inputs()
    target = np.full(len(x), -1, np.int64) if target is None else np.asarray(target, np.int64)
    names = [o.name for o in s.get_outputs()]
    return dict(zip(names, s.run(None, {image.name: x, choice.name: target})))


def worst(found, want):
    """Largest difference of a map, relative to the map's largest magnitude, over the images."""
    if found.shape != want.shape:
        return float("inf")
    axes = tuple(range(1, want.ndim))
    return float((np.abs(found - want).max(axes) / np.abs(want).max(axes)).max())


def colour(weights, contributions):
    """The colour pictures of the B-cos papers."""
    w = np.maximum(weights / np.abs(weights).max(1, keepdims=True), 0)
    rgb = w[:, :3] / (w[:, :3] + w[:, 3:])
    strength = np.where(contributions >= 0, np.sqrt((weights.astype(np.float64) ** 2).sum(1)), 0)
    padded = np.pad(strength, ((0, 0), (7, 7), (7, 7)))
    alpha = np.lib.stride_tricks.sliding_window_view(padded, (15, 15), (1, 2)).mean((-1, -2))
    alpha = alpha / np.percentile(alpha, 99.5, (1, 2), keepdims=True)
    return np.concatenate([np.nan_to_num(rgb.transpose(0, 2, 3, 1)), alpha.clip(0, 1)[..., None]], -1)


def golden(exe, folder, network, tmp):
    """A row of figures for one network of the golden data."""
    folder = os.path.join(folder, network)
    data = load_file(os.path.join(folder, "golden.safetensors"))
    model = os.path.join(folder, "model.onnx")
    flags = ["--input", "add-inverse", "--normalization", "imagenet"]
    if network == "densenet_tiny":
        model = as_the_reference(model, os.path.join(tmp, "altered.onnx"))
        flags.append("--keep-max-pool")
    if network == "clip_rn_tiny":
        flags = ["--input", "add-inverse", "--normalization", "clip", "--b", "1.25"]
    out = os.path.join(tmp, f"{network}.onnx")
    code, err = bcosc(exe, model, "-o", out, *flags, "--emit", "explain", "-q")
    if code:
        return [network, f"FAIL exit code {code}: {last_line(err)}"]
    x = np.concatenate([data["image"], 1 - data["image"]], 1)
    found = explain(os.path.join(tmp, f"{network}.explain.onnx"), x)
    want_class = data["explain.class"]
    row = [network, "equal" if (found["class"] == want_class).all() else "FAIL"]
    for name in ("weights", "contributions"):
        key = f"explain.{name}"
        error = worst(found[name], data[key]) if key in data else None
        row.append("" if error is None else f"{'' if error <= LIMIT else 'FAIL '}{error:.1e}")
    if "explain.rgba" in data:
        error = worst(colour(found["weights"], found["contributions"]), data["explain.rgba"])
        row.append(f"{'' if error <= LIMIT else 'FAIL '}{error:.1e}")
    # Every class at once, in one batch, is what each of them is alone.
    classes = np.arange(len(x)) % found["logits"].shape[1]
    together = explain(os.path.join(tmp, f"{network}.explain.onnx"), x, classes)["weights"]
    alone = [explain(os.path.join(tmp, f"{network}.explain.onnx"), x[i : i + 1], [c])["weights"]
             for i, c in enumerate(classes)]
    error = worst(together, np.concatenate(alone))
    row += [""] * (6 - len(row))
    return row + [f"{'' if error <= 1e-5 else 'FAIL '}{error:.1e}"]


def with_sums(model, path):
    """The network with sums where the exporter wrote means: it left `divisor_override=1` out of every pool of a norm.

    As it lies there the file is another network than the one that the golden numbers are of: its logits are up
    to 1e6 times as large."""
    m = onnx.load(model)
    nodes = []
    for node in m.graph.node:
        nodes.append(node)
        if node.op_type == "AveragePool":
            cells = np.prod(next(a.ints for a in node.attribute if a.name == "kernel_shape"))
            value, mean = node.output[0], node.output[0] + "_mean"
            node.output[0] = mean
            m.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(cells), value + "_cells"))
            nodes.append(onnx.helper.make_node("Mul", [mean, value + "_cells"], [value]))
    m.graph.ClearField("node")
    m.graph.node.extend(nodes)
    onnx.save(m, path)
    return path


def aligned(exe, folder, tmp):
    """A row for a tuned B-cos network from PyTorch."""
    name = "cifar10-resnet20.bcos-aligned"
    data = load_file(os.path.join(folder, f"{name}.golden.safetensors"))
    out = os.path.join(tmp, "aligned.onnx")
    model = with_sums(os.path.join(folder, f"{name}.onnx"), os.path.join(tmp, "sums.onnx"))
    code, err = bcosc(exe, "explain-graph", model, "-o", out, "-q")
    if code:
        return [name, f"FAIL exit code {code}: {last_line(err)}"]
    found = explain(out, np.concatenate([data["image"], 1 - data["image"]], 1))
    if worst(found["logits"], data["logits"]) > LIMIT:
        return [name, f"FAIL logits: {worst(found['logits'], data['logits']):.1e}"]
    row = [name, "equal" if (found["class"] == data["explain_class"]).all() else "FAIL"]
    for key in ("weights", "contributions"):
        error = worst(found[key], data[key])
        row.append(f"{'' if error <= LIMIT else 'FAIL '}{error:.1e}")
    logits = found["logits"][np.arange(len(found["class"])), found["class"]] + np.log(9.0)
    residual = np.abs(found["contributions"].sum((1, 2), dtype=np.float64) - logits) / np.abs(logits)
    return row + ["", f"{'' if residual.max() <= 1e-4 else 'FAIL '}{residual.max():.1e}"]


def timed(exe, model, tmp, repeats=15):
    """Medians in milliseconds of forward pass and explanation, one image, one thread, taken in turns."""
    out = os.path.join(tmp, "timed.onnx")
    code, err = bcosc(exe, model, "-o", out, "--emit", "explain", "--verify", "off", "-q")
    if code:
        return f"FAIL exit code {code}: {last_line(err)}"
    x = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    runs = []
    for path in (out, os.path.join(tmp, "timed.explain.onnx")):
        s = session(path)
        feed = {i.name: x if i.type == "tensor(float)" else np.array([-1]) for i in s.get_inputs()}
        s.run(None, feed)
        runs.append((s, feed, []))
    for _ in range(repeats):
        for s, feed, times in runs:
            start = time.perf_counter()
            s.run(None, feed)
            times.append(1e3 * (time.perf_counter() - start))
    forward, explained = (float(np.median(times)) for *_, times in runs)
    return f"forward {forward:.1f} ms, explanation {explained:.1f} ms: {explained / forward:.2f} times"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bcosc", required=True)
    p.add_argument("--golden", metavar="DIR")
    p.add_argument("--data", metavar="DIR")
    p.add_argument("--time", metavar="MODEL.onnx")
    args = p.parse_args()
    rows, timing = [], ""
    with tempfile.TemporaryDirectory() as tmp:
        if args.golden:
            rows += [golden(args.bcosc, args.golden, network, tmp) for network in NETWORKS]
        if args.data:
            rows.append(aligned(args.bcosc, args.data, tmp))
        if args.time:
            timing = timed(args.bcosc, args.time, tmp)
    width = 7
    rows = [row + [""] * (width - len(row)) for row in rows]
    if rows:
        print(table(["network", "class", "weights", "contributions", "colours", "residual", "together"], rows))
    if timing:
        print(timing)
    sys.exit("FAIL" in json.dumps(rows) or timing.startswith("FAIL"))


if __name__ == "__main__":
    main()
