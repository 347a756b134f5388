"""Training steps of the golden networks in ONNX Runtime, against the published implementation.

    training.py --bcosc target/release/bcosc --golden GOLDEN [--export model.onnx] [NETWORK ...]

Converts each network, writes its training-step graph with SGD (whose momentum is the gradient) and AdamW with clipping, checks both
with onnx.checker, runs them and compares: gradients of the first step, clipped gradients, losses of five steps, parameters after one
and five steps (AdamW divides a gradient by its size: where it is rounding, so is the step; such elements are counted), running variances. Golden parameters have PyTorch's names; each is assigned the parameter of its shape whose
gradient is closest, no parameter twice. Exits with 1 if a limit is missed. Needs tests/python/requirements.txt.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime as ort
from safetensors.numpy import load_file

NETWORKS = ["resnet_tiny", "resnet_tiny_grouped", "densenet_tiny", "vit_tiny", "vitc_tiny"]
# Fixed in the published transformers.
FROZEN = {"vit_tiny": ["node_cat*"], "vitc_tiny": ["node_cat*"]}
STATE = "bcosc.training.state"


def as_published(path, folder):
    """densenet_tiny with the average pool behind its last norm, as the published implementation ran it."""
    model = onnx.load(path)
    nodes = model.graph.node
    index, norm = next((i, node) for i, node in enumerate(nodes) if "features.norm5.weight" in node.input)
    normed = norm.output[0]
    norm.output[0] = "normed"
    pool = dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)
    nodes.insert(index + 1, onnx.helper.make_node("AveragePool", ["normed"], [normed], **pool))
    del model.graph.value_info[:]
    onnx.save(model, folder / "published.onnx")
    return folder / "published.onnx"


def bcosc(binary, *arguments):
    subprocess.run([binary, *map(str, arguments), "-q"], check=True)


class Step:
    """A training-step graph with its state."""

    def __init__(self, path):
        model = onnx.load(path)
        onnx.checker.check_model(str(path), full_check=True)
        entries = {entry.key: entry.value for entry in model.metadata_props}
        self.pairs = json.loads(entries[STATE])
        self.state = load_file(path.with_suffix(".safetensors"))
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.images = self.session.get_inputs()[0].name
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.steps = 0

    def run(self, images, targets, rate):
        self.steps += 1
        inputs = {
            self.images: images, "targets": targets, "learning_rate": np.array(rate, np.float32), "step": np.array(self.steps),
        }
        found = dict(zip(self.outputs, self.session.run(None, {**inputs, **self.state})))
        for name, following, _ in self.pairs:
            self.state[name] = found[following]
        return float(found["loss"])

    def of_kind(self, kind):
        return {name: self.state[name] for name, _, found in self.pairs if found == kind}


def forms(found):
    """A weight as it is, turned, and with the channels [x, 1-x] of each pixel of a patch side by side."""
    yield found
    if found.ndim == 2:
        yield found.T
        if len(found) % 6 == 0:
            yield np.concatenate(np.split(found.T.reshape(found.shape[1], -1, 3), 2, 1), 2).reshape(found.T.shape)


def like(found, wanted):
    """The form of a weight that is closest to a golden one; None if none has its shape."""
    fits = [form for form in forms(found) if form.shape == wanted.shape]
    if wanted.ndim == 1 and found.squeeze().shape == wanted.shape:
        fits.append(found.squeeze())
    return min(fits, key=lambda form: np.abs(form - wanted).max(), default=None)


def error(found, wanted):
    found = like(found, wanted)
    return None if found is None else np.abs(found - wanted).max() / np.abs(wanted).max()


def assign(found, wanted):
    """The name in `found` of each golden tensor, and the largest error.

    What is far smaller than all others is rounding: the loss does not depend on the scale of a norm that only scale-invariant
    layers read, as in densenet_tiny's stem.
    """
    names, worst = {}, 0
    floor = 1e-5 * max(np.abs(golden).max() for golden in wanted.values())
    for name, golden in wanted.items():
        errors = [(error(x, golden), own) for own, x in found.items() if own not in names.values()]
        errors = [(e, own) for e, own in errors if e is not None]
        assert errors, f"nothing has the shape of {name}"
        least, own = min(errors)
        names[name] = own
        if np.abs(golden).max() > floor:
            worst = max(worst, least)
    return names, worst


def part(golden, prefix):
    return {name[len(prefix):]: x for name, x in golden.items() if name.startswith(prefix)}


def check(args, network, folder):
    golden = load_file(args.golden / network / "golden.safetensors")
    facts = json.loads((args.golden / network / "golden.json").read_text())["train"]
    images = np.concatenate([golden["image"], 1 - golden["image"]], 1).astype(np.float32)
    labels = golden["train.labels"].astype(np.int64)
    model = folder / "model.onnx"
    original, flags = args.golden / network / args.export, ["--input", "add-inverse", "--normalization", "imagenet"]
    if network == "densenet_tiny":
        original = as_published(original, folder)
        flags.append("--keep-max-pool")
    bcosc(args.bcosc, original, "-o", model, *flags)
    frozen = [flag for pattern in FROZEN.get(network, []) for flag in ("--freeze", pattern)]

    def step(name, *flags):
        path = folder / f"{name}.onnx"
        bcosc(args.bcosc, "train-graph", model, "-o", path, *flags, *frozen)
        return Step(path)

    def gradients(*flags):
        sgd = step("sgd", "--optimizer", "sgd", "--momentum", "0.5", *flags)
        sgd.run(images, labels, 1e-3)
        parameters = sgd.of_kind("parameter")
        return {name: sgd.state[f"{name}.momentum_buffer"] for name in parameters}

    plain = gradients()
    names, worst = assign(plain, part(golden, "train.grad/"))
    figures = {"parameters": f"{len(names)}/{len(plain)}", "gradients": worst}
    figures["clipped"] = assign(gradients("--agc"), part(golden, "train.grad_agc/"))[1]
    adamw = step("adamw", "--agc")
    losses, far, total = [], {}, 0
    for count in range(1, 6):
        losses.append(adamw.run(images, labels, facts["lr"]))
        if count in (1, 5):
            differ = [
                np.abs(like(adamw.state[names[name]], wanted) - wanted) > 1e-5
                for name, wanted in part(golden, f"train.step{count}/").items()
            ]
            far[count], total = sum(int(x.sum()) for x in differ), sum(x.size for x in differ)
    figures["losses"] = max(abs(a - b) for a, b in zip(losses, facts["losses"]))
    figures["far after 1"], figures["far after 5"] = (f"{far[count]}/{total}" for count in (1, 5))
    variances = part(golden, "train.step5_running_var/")
    figures["variances"] = assign(adamw.of_kind("statistic"), variances)[1] if variances else 0
    good = figures["gradients"] < 1e-4 and figures["clipped"] < 1e-4 and figures["losses"] < 1e-5 and figures["variances"] < 2e-5
    good &= max(far.values()) * 1000 < total
    text = ", ".join(f"{name} {x:.1e}" if isinstance(x, (float, np.floating)) else f"{name} {x}" for name, x in figures.items())
    # Where a gradient is rounding, AdamW's step is noise; variances feel it in densenet_tiny.
    print(f"{network:20} {'ok' if good else 'MISSED'}  {text}", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bcosc", required=True)
    parser.add_argument("--golden", required=True, type=pathlib.Path)
    parser.add_argument("--export", default="model.onnx")
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    args = parser.parse_args()
    good = True
    for network in args.networks:
        with tempfile.TemporaryDirectory() as folder:
            good &= check(args, network, pathlib.Path(folder))
    sys.exit(not good)


if __name__ == "__main__":
    main()
