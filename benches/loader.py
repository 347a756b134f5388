"""Training pictures: the loader of bcosc, and PyTorch's DataLoader with torchvision's transforms.

    loader.py --loader target/release/examples/load_images --model NET.onnx --images DIR
              [--augment none|shift|crop|trivial] [--side N] [--batch N] [--workers 1 2] [--rounds N] [--inverse]

DIR has pictures at any depth. NET.onnx takes pictures of N x N, normalised, or [x, 1-x], which PyTorch makes with --inverse.
Both run in turns. The table has images per second and the processor time of an image in microseconds, for the first epoch and for
later ones, as medians over the rounds: bcosc then has the decoded pictures in memory, and PyTorch keeps its workers. On a
busy machine only the processor time is of use.
Needs tests/python/requirements-torch.txt, and `cargo build --release --example load_images`.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

import torch
from PIL import Image
from torchvision import transforms as T

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Pictures(torch.utils.data.Dataset):
    def __init__(self, paths, transform):
        self.paths, self.transform = paths, transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB"))


def with_inverse(x):
    return torch.cat([x, 1 - x])


def transform(augment, side, inverse):
    first = {
        "none": [T.Resize(side), T.CenterCrop(side)],
        "shift": [T.Resize(side), T.CenterCrop(side), T.RandomCrop(side, padding=4), T.RandomHorizontalFlip()],
        "crop": [T.RandomResizedCrop(side), T.RandomHorizontalFlip()],
        "trivial": [T.RandomResizedCrop(side), T.RandomHorizontalFlip(), T.TrivialAugmentWide()],
    }[augment]
    return T.Compose([*first, T.ToTensor(), with_inverse if inverse else T.Normalize(MEAN, STD)])


def pytorch(args):
    """What load_images does: a line per epoch."""
    suffixes = {".jpg", ".jpeg", ".png"}
    paths = sorted(f for f in pathlib.Path(args.images).rglob("*") if f.suffix.lower() in suffixes)
    data = Pictures(paths, transform(args.augment, args.side, args.inverse))
    (workers,) = args.workers
    loader = torch.utils.data.DataLoader(data, args.batch, shuffle=True, drop_last=True, num_workers=workers,
                                         persistent_workers=workers > 0)
    for _ in range(args.epochs):
        start, images = time.perf_counter(), 0
        for batch in loader:
            images += len(batch)
        print(images / (time.perf_counter() - start), images)


def run(command):
    """Images per second of each epoch, and the processor time of all."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} failed")
    return [[float(number) for number in line.split()] for line in lines], usage.ru_utime + usage.ru_stime


def measure(command):
    """Images per second and microseconds of processor time of an image, in the first epoch and in later ones."""
    _, start = run(command(0))
    _, first = run(command(1))
    epochs, all_four = run(command(4))
    images = epochs[0][1]
    later = statistics.median(rate for rate, _ in epochs[1:])
    return epochs[0][0], (first - start) / images * 1e6, later, (all_four - first) / images / 3 * 1e6


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--loader", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--images", required=True)
    p.add_argument("--augment", default="shift", choices=["none", "shift", "crop", "trivial"])
    p.add_argument("--side", type=int, default=32)
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--inverse", action="store_true")
    p.add_argument("--epochs", type=int, help=argparse.SUPPRESS)
    args = p.parse_args()
    torch.set_num_threads(1)
    if args.epochs is not None:
        return pytorch(args)
    print(f"{args.images}, {args.augment}, {args.side} x {args.side}, batches of {args.batch}")
    print("                       first epoch          later epochs")
    print("                     images/s    us/image images/s    us/image")
    for workers in args.workers:
        commands = {
            "bcosc": lambda n: [args.loader, args.model, args.images, args.augment,
                                *map(str, (args.side, args.batch, workers, n))],
            "PyTorch": lambda n: [sys.executable, *sys.argv, "--workers", str(workers), "--epochs", str(n)],
        }
        rounds = [[measure(command) for command in commands.values()] for _ in range(args.rounds)]
        for name, found in zip(commands, zip(*rounds)):
            numbers = [statistics.median(numbers) for numbers in zip(*found)]
            print(f"  {workers} workers  {name:<8}", *(f"{number:9.0f}" for number in numbers), flush=True)


if __name__ == "__main__":
    main()
