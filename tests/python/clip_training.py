"""A training step of CLIP's ResNet-50 in ONNX Runtime: the network is to embed images as its original does.

    clip_training.py --bcosc target/release/bcosc [--form dynamo|ts] [--optimizer sgd|adamw]

Exports the network with random weights (open_clip's if that is installed, otherwise one of the same shape), converts it with
`--recipe clip`, writes the training-step graph with the original as the teacher and the loss of SigLIP, and checks it as
train_zoo.py does: onnx.checker (full_check), a finite loss, the slope along the gradient, and that the loss of a batch falls after
a step on it. Prints the figures, with seconds and peak memory.
Needs requirements-torch.txt, on Linux.
"""

import argparse
import importlib.util
import logging
import pathlib
import resource
import tempfile
import time
import warnings

import numpy as np
import torch

from common import MEAN, STD, bcosc
from export_models import write
from train_zoo import Step, checked, written
from zoo import MODELS, build


class TowerStep(Step):
    """A step whose targets are a teacher's outputs."""

    def run(self, state, x, rate):
        original = (x[:, :3] - MEAN) / STD
        inputs = {self.image.name: x, "teacher_images": original, "step": np.array(1),
                  "learning_rate": np.array(rate, np.float32)}
        found = dict(zip(self.outputs, self.session.run(None, inputs | state)))
        return float(found["loss"]), {name: found[following] for name, following in self.next.items()}


def exported(form, path):
    """The name of the network that was written."""
    name = "open_clip_rn50" if importlib.util.find_spec("open_clip") else "clip_rn50"
    line = write(build(name), MODELS[name], form, str(path))
    assert not line.startswith("FAILED"), line
    return name


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bcosc", required=True)
    parser.add_argument("--form", choices=("dynamo", "ts"), default="dynamo")
    parser.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        original, tower, graph = (pathlib.Path(folder) / name for name in ("net.onnx", "bcos.onnx", "step.onnx"))
        name = exported(args.form, original)
        start = time.time()
        flags = ["--recipe", "clip", "--input", "add-inverse", "--normalization", "imagenet"]
        written(*bcosc(args.bcosc, original, "-o", tower, "-q", *flags))
        converted = time.time()
        loss = ["--loss", "siglip", "--teacher", original, "--optimizer", args.optimizer]
        written(*bcosc(args.bcosc, "train-graph", tower, "-o", graph, "-q", *loss))
        made = time.time()
        found = checked(TowerStep(graph, args.optimizer))
        assert found["gradient"] > 0, "no gradient"
        memory = [resource.getrusage(who).ru_maxrss >> 10 for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    print(f"{name}.{args.form}: {found['parameters']} parameters, {found['numbers']:,} numbers, {found['nodes']} nodes")
    print(f"loss {found['loss']:.4f}, gradient {found['gradient']:.2e}, slope {found['slope']:.4f}, a step takes "
          f"{found['fall']:.1e} of the loss away; idle: {', '.join(found['idle']) or 'none'}")
    print(f"conversion {converted - start:.0f} s, graph {made - converted:.0f} s, checks {time.time() - made:.0f} s; "
          f"bcosc {memory[0]} MiB, ONNX Runtime {memory[1]} MiB")


if __name__ == "__main__":
    main()
