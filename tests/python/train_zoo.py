"""Training steps of converted networks in ONNX Runtime.

    train_zoo.py --bcosc target/release/bcosc [--only NAME ...] [--b B] [--optimizer sgd|adamw] [--log FILE] MODEL|DIR ...

Converts each model with `--input add-inverse --normalization imagenet` (without flags where bcosc refuses these), writes its
training-step graph, checks that with onnx.checker (full_check) and runs it on two images with labels, in a process of its own:
  loss     finite, as are all new states; with a rate of 0 parameters stay what they are;
  slope    the change of the loss along the gradient, over the one that the gradient predicts: 1 if gradients are right;
  step     the loss on the same images falls after a step at a small rate;
  idle     parameters whose gradient is 0 (images of a batch of two leave some channels without gradient).
A network without any gradient at B = 2 is `dead` if it has one at B = 1.25, or calibrated. An error of bcosc is `refused`; what
it says follows.
Prints a line for each model, with seconds and peak memory (of bcosc, and of ONNX Runtime with the checker), and a summary;
exits with 1 if a model failed or was refused. Models with a line `ok` in the file --log are skipped.
Needs requirements.txt, on Linux.
"""

import argparse
import collections
import json
import multiprocessing
import os
import pathlib
import resource
import sys
import tempfile
import time

import numpy as np
import onnx
from safetensors.numpy import load_file

from common import bcosc, last_line, session, smooth_images

STATE = "bcosc.training.state"
BATCH = 2
# Shares of the loss that the steps to try are to take away.
FALLS = (1e-3, 1e-2, 1e-4)
# How far the slope may be off: losses are single precision, and activations have kinks.
TOLERANCE = 0.02


class Refused(Exception):
    """bcosc reported an error instead of writing a model."""


def written(code, err):
    line = last_line(err)
    if code == 1 and line.startswith("error"):
        raise Refused(line.removeprefix("error").removeprefix(":").strip())
    assert code == 0, f"exit code {code}: {line}"


def image_input(path):
    """The name and sizes (None where open) of the first input without a value."""
    graph = onnx.load(path, load_external_data=False).graph
    given = {tensor.name for tensor in graph.initializer}
    found = next(value for value in graph.input if value.name not in given)
    return found.name, [dim.dim_value or None for dim in found.type.tensor_type.shape.dim]


def converted(args, path, out, b):
    """Converts; returns the flags that did it."""
    name, dims = image_input(path)
    fixed = []
    if dims and dims[0] is not None:
        fixed = ["--input-shapes", f"{name}:batch,{','.join(str(size or 224) for size in dims[1:])}"]
    refusal = None
    for flags in (["--input", "add-inverse", "--normalization", "imagenet"], []):
        code, err = bcosc(args.bcosc, path, "-o", out, "-q", "--verify", "off", "--b", b, *flags, *fixed)
        try:
            written(code, err)
            return flags
        except Refused as error:
            refusal = refusal or error
    raise refusal


class Step:
    """A training-step graph in ONNX Runtime, with its state."""

    def __init__(self, path, optimizer):
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path)
        self.nodes = len(model.graph.node)
        self.operators = {node.op_type for node in model.graph.node}
        domains = {node.domain for node in model.graph.node}
        assert domains == {""}, f"operators of {domains}"
        pairs = json.loads({entry.key: entry.value for entry in model.metadata_props}[STATE])
        self.next = {name: following for name, following, _ in pairs}
        self.parameters = [name for name, _, kind in pairs if kind == "parameter"]
        del model
        self.initial = load_file(path.with_suffix(".safetensors"))
        self.session = session(path)
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.image = self.session.get_inputs()[0]
        self.classes = self.session.get_outputs()[self.outputs.index("logits")].shape[1]
        self.kept = {"sgd": ("momentum_buffer", 1.0), "adamw": ("exp_avg", 0.1)}[optimizer]

    def images(self):
        channels, *sides = (dim if isinstance(dim, int) else 224 for dim in self.image.shape[1:])
        last = channels > 16 >= sides[-1]
        if last:
            channels, sides = sides[-1], [channels, *sides[:-1]]
        x = smooth_images(BATCH, max(sides), seed=1)[:, :, : sides[0], : sides[1]].astype(np.float32)
        x = {6: np.concatenate([x, 1 - x], 1), 3: x, 1: x[:, :1]}[channels]
        return x.transpose(0, 2, 3, 1) if last else x

    def run(self, state, x, rate):
        """The loss, and the new state."""
        labels = np.arange(BATCH) % self.classes
        inputs = {self.image.name: x, "targets": labels, "step": np.array(1), "learning_rate": np.array(rate, np.float32)}
        found = dict(zip(self.outputs, self.session.run(None, inputs | state)))
        assert len(found["logits"]) == BATCH
        return float(found["loss"]), {name: found[following] for name, following in self.next.items()}

    def gradient(self, state, name):
        suffix, share = self.kept
        return state[f"{name}.{suffix}"] / share


def checked(step):
    """Runs a step graph; returns the figures. `gradient` is 0 if the network is dead."""
    x = step.images()
    loss, still = step.run(step.initial, x, 0)
    assert np.isfinite(loss), f"the loss is {loss}"
    broken = [name for name, tensor in still.items() if not np.isfinite(tensor).all()]
    assert not broken, f"not finite: {', '.join(broken[:3])}"
    moved = [name for name in step.parameters if not np.array_equal(still[name], step.initial[name])]
    assert not moved, f"moved by a rate of 0: {', '.join(moved[:3])}"
    gradient = {name: step.gradient(still, name).astype(np.float64) for name in step.parameters}
    square = sum(float((g * g).sum()) for g in gradient.values())
    figures = {
        "nodes": step.nodes, "parameters": len(gradient), "numbers": sum(g.size for g in gradient.values()),
        "idle": [name for name, g in gradient.items() if not g.any()], "loss": loss, "gradient": square**0.5,
    }
    if square**0.5 < 1e-7:
        return figures | {"gradient": 0.0}

    def away(rate):
        """The loss of parameters that a step along the gradient gives."""
        state = {name: (step.initial[name] - rate * g).astype(step.initial[name].dtype) for name, g in gradient.items()}
        return step.run(step.initial | state, x, 0)[0]

    slopes, falls = [], []
    for fall in FALLS:
        rate = fall * loss / square
        slopes.append((away(-rate) - away(rate)) / (2 * rate * square))
        rate = rate if step.kept[0] == "momentum_buffer" else fall * loss / sum(np.abs(g).sum() for g in gradient.values())
        falls.append(loss - step.run(step.run(step.initial, x, rate)[1], x, 0)[0])
        if abs(slopes[-1] - 1) < TOLERANCE and falls[-1] > 0:
            break
    figures["slope"] = min(slopes, key=lambda slope: abs(slope - 1))
    figures["fall"] = max(falls) / loss
    assert abs(figures["slope"] - 1) < TOLERANCE, f"slopes {', '.join(f'{s:.4f}' for s in slopes)}"
    assert figures["fall"] > 0, "the loss rises after a step"
    return figures


def peak(who):
    return resource.getrusage(who).ru_maxrss // 1024


def work(args, path, queue):
    """Does one model and puts its result, a dictionary, on the queue."""
    start, figures = time.time(), {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            figures = attempt(args, path, pathlib.Path(folder))
    except Refused as error:
        figures = {"result": "refused", "why": str(error)}
    except Exception as error:  # ONNX Runtime's and the checker's errors have no common class
        figures = {"result": "FAIL", "why": f"{type(error).__name__}: {error}"}
    memory = {"bcosc_mib": peak(resource.RUSAGE_CHILDREN), "ort_mib": peak(resource.RUSAGE_SELF)}
    queue.put(figures | memory | {"seconds": time.time() - start})


def attempt(args, path, folder):
    for b in dict.fromkeys([args.b, "1.25"]):
        model, graph = folder / "model.onnx", folder / "step.onnx"
        flags = converted(args, path, model, b)
        optimizer = ["--optimizer", args.optimizer]
        written(*bcosc(args.bcosc, "train-graph", model, "-o", graph, *optimizer, "-q"))
        figures = checked(Step(graph, args.optimizer)) | {"flags": " ".join(flags)}
        if figures["gradient"] > 0:
            return figures | {"result": "ok" if b == args.b else f"dead, ok at B = {b}"}
    return figures | {"result": "FAIL", "why": f"no gradient, also at B = {b}"}


def line(name, found):
    text = f"{name:44} {found['result']:22}"
    if "nodes" in found:
        text += (
            f" {found['parameters']:4} parameters {found['numbers']:>11,} {len(found['idle']):3} idle {found['nodes']:6} nodes"
            f"  loss {found['loss']:.4f}"
        )
    if "slope" in found:
        text += f" falls {found['fall']:.0e} slope {found['slope']:.4f}"
    text += f"  {found['seconds']:4.0f} s {found['bcosc_mib']:5}/{found['ort_mib']:5} MiB"
    return text + (f"\n    {found['why']}" if "why" in found else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bcosc", required=True)
    parser.add_argument("--only", action="append", default=[], help="text in the names of models to do")
    parser.add_argument("--b", default="2")
    parser.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd")
    parser.add_argument("--log", type=pathlib.Path)
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    paths = [p for path in args.models for p in (sorted(path.glob("*.onnx")) if path.is_dir() else [path])]
    log = json.loads(args.log.read_text()) if args.log and args.log.exists() else {}
    spawn = multiprocessing.get_context("spawn")
    results = collections.Counter()
    for path in paths:
        name = f"{path.parent.name}/{path.stem}"
        if args.only and not any(text in name for text in args.only):
            continue
        found = log.get(name, {"result": ""})
        if "ok" not in found["result"]:
            queue = spawn.SimpleQueue()
            process = spawn.Process(target=work, args=(args, path, queue))
            process.start()
            process.join()
            died = {"result": "FAIL", "why": f"died with {process.exitcode}", "seconds": 0, "bcosc_mib": 0, "ort_mib": 0}
            found = died if queue.empty() else queue.get()
            print(line(name, found), flush=True)
            log[name] = found
            if args.log:
                args.log.write_text(json.dumps(log, indent=1))
        results[found["result"]] += 1
    print(", ".join(f"{count} {result}" for result, count in sorted(results.items())))
    sys.exit(any("ok" not in result for result in results))


if __name__ == "__main__":
    main()
