"""Block-by-block alignment written directly in PyTorch, to compare time and accuracy with `bcosc align` in one run.

    python benches/alignment_peer.py --bcosc target/release/bcosc --shared DIR [--steps 60] [--images 1000]

DIR as for benches/alignment.py. The network is `cifar10-resnet20.norms-kept.onnx`. Both sides do the same: input [x, 1-x] with the
normalisation absorbed, B = 2, no biases, Adam with half a cosine wave from 0.06 times the root mean square of each tensor, batches of
128, shifts by up to 4 pixels and flips. Prints seconds of the steps and accuracy on 2,500 validation images. Needs torch, onnx, Pillow and onnxruntime.
"""

import argparse
import copy
import math
import re
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from PIL import Image
from torch import nn
from torch.nn import functional as F

MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
STD = torch.tensor([0.2470, 0.2435, 0.2616]).view(1, 3, 1, 1)
# As a share of the root mean square of each tensor.
RATE = 0.06


class Conv(nn.Conv2d):
    """A convolution, B-cos with B = 2 where `bcos` is set."""

    bcos = False

    def forward(self, x):
        y = F.conv2d(x, self.weight, None, self.stride, self.padding)
        if not self.bcos:
            return y
        ones = torch.ones(1, 1, *self.kernel_size)
        squares = F.conv2d((x * x).sum(1, keepdim=True), ones, None, self.stride, self.padding)
        return y * (y.abs() / (squares + 1e-6).sqrt())


class Norm(nn.BatchNorm2d):
    """A batch norm; where `centred` is not set, the mean is not subtracted and there is no bias."""

    centred = True

    def forward(self, x):
        if self.centred:
            return super().forward(x)
        if self.training:
            var = x.var((0, 2, 3), unbiased=False)
            with torch.no_grad():
                self.running_var.lerp_(var, 0.1)
        else:
            var = self.running_var
        return x * (self.weight / (var + self.eps).sqrt()).view(1, -1, 1, 1)


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = Conv(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = Norm(outputs)
        self.conv2 = Conv(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = Norm(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(Conv(inputs, outputs, 1, stride, bias=False), Norm(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Stem(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = Conv(channels, 16, 3, 1, 1, bias=False)
        self.bn1 = Norm(16)

    def forward(self, x):
        return F.relu(self.bn1(self.conv1(x)))


def network(channels):
    blocks = [Stem(channels)]
    inputs = 16
    for stage, outputs in enumerate([16, 32, 64]):
        for index in range(3):
            blocks.append(Block(inputs, outputs, 2 if stage and not index else 1))
            inputs = outputs
    return nn.ModuleList(blocks)


def load(path):
    """The original: its blocks, and the weights and biases of the head."""
    model = onnx.load(path)
    constants = {c.name: torch.tensor(numpy_helper.to_array(c)) for c in model.graph.initializer}
    # Equal constants are stored once.
    for node in model.graph.node:
        if node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]].clone()
    blocks = network(3)
    convolutions = [m for m in blocks.modules() if isinstance(m, Conv)]
    norms = [m for m in blocks.modules() if isinstance(m, Norm)]
    of = {name: [n for n in model.graph.node if n.op_type == name] for name in ("Conv", "BatchNormalization")}
    # Modules in the order of the graph: the shortcut of a block is exported after its second convolution.
    for module, node in zip(convolutions, of["Conv"], strict=True):
        module.weight.data = constants[node.input[1]]
    for module, node in zip(norms, of["BatchNormalization"], strict=True):
        module.weight.data, module.bias.data, module.running_mean, module.running_var = (
            constants[name] for name in node.input[1:5]
        )
        module.eps = next(a.f for a in node.attribute if a.name == "epsilon")
    head = next(n for n in model.graph.node if n.op_type == "Gemm")
    return blocks.eval(), constants[head.input[1]], constants[head.input[2]]


def converted(original):
    blocks = copy.deepcopy(original)
    for module in blocks.modules():
        if isinstance(module, Conv):
            module.bcos = True
        if isinstance(module, Norm):
            module.centred = False
    stem = blocks[0].conv1
    weight = stem.weight.data
    stem.weight.data = torch.cat([weight * (1 - MEAN) / STD, -weight * MEAN / STD], 1)
    return blocks


def pictures(folder, count=None):
    paths = sorted(folder.glob("*/*"))
    classes = sorted(p.name for p in folder.iterdir())
    if count:
        paths = [paths[i * len(paths) // count] for i in range(count)]
    images = np.stack([np.asarray(Image.open(p).convert("RGB")) for p in paths])
    labels = torch.tensor([classes.index(p.parent.name) for p in paths])
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 255, labels


def batches(images, size, generator):
    while True:
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(order) - size + 1, size):
            batch = F.pad(images[order[start : start + size]], (4, 4, 4, 4))
            shifted = []
            for image in batch:
                dy, dx = torch.randint(0, 9, (2,), generator=generator).tolist()
                image = image[:, dy : dy + 32, dx : dx + 32]
                shifted.append(image.flip(2) if torch.rand(1, generator=generator) < 0.5 else image)
            yield torch.stack(shifted)


def doubled(x):
    return torch.cat([x, 1 - x], 1)


def through(blocks, x):
    for block in blocks:
        x = block(x)
    return x


def remeasured(student, images):
    """Variances at B = 2, layer by layer."""
    x = doubled(images)
    with torch.no_grad():
        for block in student:
            block.train()
            for _ in range(60):
                block(x)
            block.eval()
            x = block(x)


def align(student, original, images, steps, generator):
    source = batches(images, 128, generator)
    for index, block in enumerate(student):
        block.train()
        # One group per tensor, whose rate follows the tensor's size.
        optimizer = torch.optim.Adam([{"params": [tensor]} for tensor in block.parameters()])
        for step in range(steps):
            x = next(source)
            with torch.no_grad():
                target = through(original[: index + 1], (x - MEAN) / STD)
                features = through(student[:index], doubled(x))
            error = (block(features) - target).square().mean() / target.square().mean()
            optimizer.zero_grad()
            error.backward()
            rate = RATE * (1 + math.cos(math.pi * step / steps)) / 2
            for group in optimizer.param_groups:
                size = group["params"][0].detach().square().mean().sqrt().item()
                group["lr"] = rate * max(size, 1e-3)
            optimizer.step()
        block.eval()
        print(f"  block {index}: {error.item():.4f}", flush=True)


def accuracy(student, weight, images, labels):
    """The head is B-cos too, before the mean over positions."""
    right = 0
    with torch.no_grad():
        for start in range(0, len(images), 250):
            x = through(student, doubled(images[start : start + 250]))
            y = F.conv2d(x, weight[:, :, None, None])
            y = y * (y.abs() / (x.square().sum(1, keepdim=True) + 1e-6).sqrt())
            right += (y.mean((2, 3)).argmax(1) == labels[start : start + 250]).sum().item()
    return right / len(images)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bcosc", type=Path, required=True)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--images", type=int, default=1000)
    arguments = parser.parse_args()
    model = arguments.shared / "cifar10-resnet20.norms-kept.onnx"
    data = arguments.shared / "cifar10"

    original, weight, _ = load(model)
    images, _ = pictures(data / "train", arguments.images)
    val, labels = pictures(data / "val", 2500)
    student = converted(original)
    remeasured(student, images[:256])
    begun = time.monotonic()
    align(student, original, images, arguments.steps, torch.Generator().manual_seed(0))
    peer = time.monotonic() - begun
    print(f"PyTorch {torch.__version__}: {peer:.1f} s, accuracy {accuracy(student.eval(), weight, val, labels):.3f}")

    with tempfile.TemporaryDirectory() as folder:
        command = [
            arguments.bcosc, "align", model, "--data", data, "-o", f"{folder}/out.onnx", "--images", str(arguments.images),
            "--mean", "0.4914,0.4822,0.4465", "--std", "0.2470,0.2435,0.2616", "--steps", str(arguments.steps),
            "--lr", str(RATE), "--method", "blocks", "--val-images", "2500", "--sheet", "0",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    print(done.stderr)
    own = sum(float(s) for s in re.findall(r" steps in ([0-9.]+) s", done.stderr))
    print(f"bcosc: {own:.1f} s, {own / peer:.2f} times PyTorch")


if __name__ == "__main__":
    main()
