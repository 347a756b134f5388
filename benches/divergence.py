"""How far aligned models are from their original on pictures that were held out, and on those that were used.

    python benches/divergence.py --original net.onnx --data DIR [--size 128] [--mean M] [--std S] ALIGNED ...

DIR has the folders `train` and `val`, with pictures in any folders, as `bcosc align --data DIR` takes them. The aligned models take
[x, 1-x], and both output logits. Pictures are resized and cropped at the centre as torchvision does it. Prints the mean Kullback-Leibler
divergence of a model's probabilities from those of the original, the cosine of centred logits, and how often both decide the same, or the
original's class is among the model's first five. Needs numpy, Pillow and ONNX Runtime.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

# Of the pictures that were used, one in so many is enough.
EVERY = 5


def picture(path, size):
    image = Image.open(path).convert("RGB")
    scale = round(size / 0.875) / min(image.size)
    image = image.resize([max(size, round(side * scale)) for side in image.size], Image.BILINEAR)
    left, top = [(side - size) // 2 for side in image.size]
    image = image.crop((left, top, left + size, top + size))
    return np.asarray(image, np.float32).transpose(2, 0, 1) / 255


def logits(path, batches):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: x[None]})[0] for x in batches])


def log_softmax(x):
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def figures(original, aligned):
    want, found = log_softmax(original), log_softmax(aligned)
    divergence = (np.exp(want) * (want - found)).sum(1).mean()
    a, b = [x - x.mean(1, keepdims=True) for x in (original, aligned)]
    cosine = ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean()
    decided = original.argmax(1)
    first = np.argsort(-aligned, 1)[:, :5] == decided[:, None]
    return divergence, cosine, first[:, 0].mean(), first.any(1).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--mean", type=float, default=0.498)
    parser.add_argument("--std", type=float, default=0.502)
    parser.add_argument("aligned", nargs="+")
    arguments = parser.parse_args()
    print("| model | pictures | divergence | cosine | same decision | in the first five |\n|---|---|---|---|---|---|")
    for part, every in (("val", 1), ("train", EVERY)):
        paths = sorted(p for p in (arguments.data / part).rglob("*") if p.is_file())[::every]
        pictures = [picture(path, arguments.size) for path in paths]
        original = logits(arguments.original, [(x - arguments.mean) / arguments.std for x in pictures])
        for path in arguments.aligned:
            aligned = logits(path, [np.concatenate([x, 1 - x]) for x in pictures])
            cells = " | ".join(f"{figure:.3f}" for figure in figures(original, aligned))
            print(f"| {Path(path).stem} | {part} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
