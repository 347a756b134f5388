"""Training pictures per second: the loader of bcosc, and PyTorch's DataLoader with torchvision's transforms.

    loader.py --loader target/release/examples/load_images --model NET.onnx --images DIR
              [--augment none|shift|crop|trivial] [--side N] [--batch N] [--workers 1 2] [--rounds N]

DIR has pictures at any depth; NET.onnx says in which form they are wanted, and its input should be [x, 1-x] or normalised.
PyTorch makes what a model with [x, 1-x] takes if --inverse is given, otherwise it normalises. Both run an epoch twice in each
round, in turns; bcosc has the pictures decoded in the second epoch, and PyTorch keeps its workers. Medians over the rounds.
Needs tests/python/requirements-torch.txt, and `cargo build --release --example load_images`.
"""

import argparse
import pathlib
import statistics
import subprocess
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


def pytorch(paths, args, workers, epochs):
    data = Pictures(paths, transform(args.augment, args.side, args.inverse))
    loader = torch.utils.data.DataLoader(data, args.batch, shuffle=True, drop_last=True, num_workers=workers,
                                         persistent_workers=workers > 0)
    rates = []
    for _ in range(epochs):
        start, images = time.perf_counter(), 0
        for batch in loader:
            images += len(batch)
        rates.append(images / (time.perf_counter() - start))
    return rates


def bcosc(args, workers, epochs):
    numbers = [args.side, args.batch, workers, epochs]
    command = [args.loader, args.model, args.images, args.augment, *map(str, numbers)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return [float(line) for line in lines]


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
    args = p.parse_args()
    torch.set_num_threads(1)
    suffixes = {".jpg", ".jpeg", ".png"}
    paths = sorted(f for f in pathlib.Path(args.images).rglob("*") if f.suffix.lower() in suffixes)
    print(f"{len(paths)} pictures, {args.augment}, {args.side} x {args.side}, batches of {args.batch}; images/s, two epochs")
    for workers in args.workers:
        rounds = [(bcosc(args, workers, 2), pytorch(paths, args, workers, 2)) for _ in range(args.rounds)]
        for name, found in zip(("bcosc", "PyTorch"), zip(*rounds)):
            medians = [statistics.median(rates) for rates in zip(*found)]
            print(f"  {workers} workers  {name:<8} {medians[0]:9.0f} {medians[1]:9.0f}")


if __name__ == "__main__":
    main()
