"""Trains a small DenseNet, a small MobileNet and a narrow, deep ResNet on CIFAR-10, and exports them for benches/alignment.py.

    python benches/alignment_networks.py --shared DIR [--epochs 6] [--only NAME]

DIR holds CIFAR-10 as class folders (`cifar10/train`, `cifar10/val`); the networks are written there as `cifar10-densenet.onnx`,
`cifar10-mobilenet.onnx` and `cifar10-resnet38.onnx`. Input: (rgb/255 - mean)/std, as for the other networks. Needs torch, onnxscript and Pillow.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
STD = torch.tensor([0.2470, 0.2435, 0.2616]).view(1, 3, 1, 1)


class DenseLayer(nn.Module):
    def __init__(self, inputs, growth):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False)

    def forward(self, x):
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


class Transition(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x):
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


def densenet(growth=8, layers=(3, 3, 3)):
    channels = 2 * growth
    parts = [nn.Conv2d(3, channels, 3, 1, 1, bias=False)]
    for stage, count in enumerate(layers):
        for _ in range(count):
            parts.append(DenseLayer(channels, growth))
            channels += growth
        if stage + 1 < len(layers):
            parts.append(Transition(channels, channels // 2))
            channels //= 2
    parts += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
    return nn.Sequential(*parts)


class Inverted(nn.Module):
    """Expansion, depthwise layer, linear bottleneck."""

    def __init__(self, inputs, outputs, stride, expansion=4):
        super().__init__()
        hidden = inputs * expansion
        self.body = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(),
            nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.body(x) if self.skips else self.body(x)


def mobilenet():
    parts = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
    channels = 16
    for outputs, stride in [(24, 2), (24, 1), (40, 2), (40, 1), (64, 1)]:
        parts.append(Inverted(channels, outputs, stride))
        channels = outputs
    parts += [nn.Conv2d(channels, 192, 1, bias=False), nn.BatchNorm2d(192), nn.ReLU6()]
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(192, 10)]
    return nn.Sequential(*parts)


class Residual(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        same = stride == 1 and inputs == outputs
        reshaped = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.skip = nn.Identity() if same else reshaped

    def forward(self, x):
        return F.relu(self.skip(x) + self.body(x))


def resnet38(width=8, blocks=6):
    parts = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    channels = width
    for stage in range(3):
        for block in range(blocks):
            outputs = width << stage
            parts.append(Residual(channels, outputs, 2 if stage and block == 0 else 1))
            channels = outputs
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
    return nn.Sequential(*parts)


NETWORKS = {"densenet": densenet, "mobilenet": mobilenet, "resnet38": resnet38}


def pictures(folder):
    classes = sorted(p.name for p in folder.iterdir())
    paths = sorted(folder.glob("*/*"))
    images = np.stack([np.asarray(Image.open(p).convert("RGB")) for p in paths])
    labels = torch.tensor([classes.index(p.parent.name) for p in paths])
    return (torch.tensor(images).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD, labels


def changed(images, generator):
    """Shifted by up to 4 pixels, the whole batch alike, and half of them flipped."""
    dy, dx = torch.randint(0, 9, (2,), generator=generator).tolist()
    images = F.pad(images, (4, 4, 4, 4))[:, :, dy : dy + 32, dx : dx + 32]
    flip = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(flip.view(-1, 1, 1, 1), images.flip(3), images)


def train(network, images, labels, epochs, batch=128):
    generator = torch.Generator().manual_seed(0)
    steps = epochs * (len(images) // batch)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=steps)
    network.train()
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(order) - batch + 1, batch):
            chosen = order[start : start + batch]
            loss = F.cross_entropy(network(changed(images[chosen], generator)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}", flush=True)
    network.eval()


def accuracy(network, images, labels):
    with torch.no_grad():
        found = torch.cat([network(part).argmax(1) for part in images.split(250)])
    return (found == labels).float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--only", choices=NETWORKS)
    arguments = parser.parse_args()
    images, labels = pictures(arguments.shared / "cifar10/train")
    val = pictures(arguments.shared / "cifar10/val")
    for name, make in NETWORKS.items():
        if arguments.only not in (None, name):
            continue
        torch.manual_seed(0)
        network, begun = make(), time.monotonic()
        train(network, images, labels, arguments.epochs)
        seconds = time.monotonic() - begun
        print(f"{name}: accuracy {accuracy(network, *val):.3f} after {seconds:.0f} s", flush=True)
        batch = {"images": {0: torch.export.Dim("batch")}}
        path = arguments.shared / f"cifar10-{name}.onnx"
        torch.onnx.export(
            network, (images[:2],), path, input_names=["images"], output_names=["logits"], dynamo=True,
            dynamic_shapes=(batch["images"],), external_data=False,
        )  # fmt: skip


if __name__ == "__main__":
    main()
