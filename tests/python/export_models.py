"""Export torchvision classifiers as real exporters write them.

    export_models.py OUTDIR [NAME ...]

Each network is written as `NAME.dynamo.onnx` (dynamo exporter, defaults: batch norm folded away) and
`NAME.ts.onnx` (TorchScript exporter, opset 17), resnet18 and resnet50 also as `NAME.raw.onnx` (dynamo,
unoptimised). The batch is dynamic, weights are inline. Finished files are kept, so a run can be resumed,
and a line for each goes to OUTDIR/INDEX.txt.

Weights are random but seeded, and scaled on synthetic images so that activations neither vanish nor explode
and the logits of two images differ; a comparison on a dead network would prove nothing. Norm statistics,
scales (a tenth of them negative) and biases are all non-trivial. Names ending in `_transform` also have
torchvision's `transform_input`, an affine map of the channels ahead of the first convolution.
"""

import argparse
import logging
import os
import time
import warnings
import zlib

import torch
import torch.nn.functional as F
import torchvision.models as zoo
from torch import nn

NAMES = (
    "resnet18 resnet50 densenet121 alexnet vgg11_bn vgg16 resnext50_32x4d googlenet inception_v3 "
    "squeezenet1_1 mobilenet_v2 mnasnet1_0 shufflenet_v2_x1_0"
).split()
EXTRA = ["googlenet_transform", "inception_v3_transform"]
RAW = {"resnet18", "resnet50"}


def side(name):
    """Image side that a network is made for."""
    return 299 if name.startswith("inception") else 224


def images(n, size, seed):
    """Smooth random images, normalised: unlike white noise they still differ after global pooling."""
    g = torch.Generator().manual_seed(seed)
    x = torch.zeros(n, 3, size, size)
    for cells in (2, 5, 16, size):
        noise = torch.randn(n, 3, cells, cells, generator=g)
        x += F.interpolate(noise, (size, size), mode="bilinear", align_corners=False)
    return x / 2


def build(name):
    """The network in eval mode, with seeded weights fitted to synthetic images."""
    torch.manual_seed(zlib.crc32(name.encode()))
    arch = name.removesuffix("_transform")
    kwargs = {"weights": None}
    if arch in ("googlenet", "inception_v3"):
        kwargs.update(aux_logits=False, init_weights=False, transform_input=name != arch)
    net = getattr(zoo, arch)(**kwargs).eval()
    fit(net, images(8, side(name), seed=1))
    return net


@torch.no_grad()
def fit(net, x):
    """Set weights layer by layer during one forward pass, from what each layer sees.

    Convolutions and linear layers get outputs of unit variance, about zero up to a random bias. Norms get
    the statistics they measure, randomly perturbed, and random scales and biases.
    """

    def per_channel(v):
        v = v.transpose(0, 1).flatten(1)
        return v.mean(1), v.var(1)

    def linear(m, args, _):
        nn.init.normal_(m.weight)
        bias, m.bias = m.bias, None
        y = m.forward(*args)
        mean, var = per_channel(y)
        scale = var.mean().add(1e-9).rsqrt()
        m.weight *= scale
        if bias is not None:
            m.bias = bias
            m.bias.copy_(-mean * scale + 0.2 * torch.randn_like(mean))
        return m.forward(*args)

    def norm(m, args, _):
        mean, var = per_channel(args[0])
        m.running_mean.copy_(mean + 0.2 * torch.randn_like(mean) * var.sqrt())
        m.running_var.copy_(var * torch.empty_like(var).uniform_(0.5, 1.5) + 1e-3)
        m.weight.uniform_(0.5, 1.5).mul_(torch.where(torch.rand_like(var) < 0.1, -1.0, 1.0))
        m.bias.normal_(0, 0.2)
        return m.forward(*args)

    hooks = [
        m.register_forward_hook(norm if isinstance(m, nn.BatchNorm2d) else linear)
        for m in net.modules()
        if isinstance(m, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))
    ]
    net(x)
    for h in hooks:
        h.remove()


def export(net, name, form, path):
    x = images(2, side(name), seed=2)
    io = {"input_names": ["input"], "output_names": ["logits"]}
    partial = path + ".part"
    if form == "ts":
        axes = {"input": {0: "batch"}, "logits": {0: "batch"}}
        torch.onnx.export(net, (x,), partial, dynamo=False, opset_version=17, dynamic_axes=axes, **io)
    else:
        torch.onnx.export(
            net, (x,), partial, dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False, optimize=form == "dynamo", verbose=False, **io,
        )
    os.replace(partial, path)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("outdir")
    p.add_argument("names", nargs="*", default=NAMES, metavar="NAME",
                   help=f"default: {' '.join(NAMES)}; also {' '.join(EXTRA)}")
    args = p.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    os.makedirs(args.outdir, exist_ok=True)

    for name in args.names:
        todo = [f for f in ("dynamo", "ts", "raw") if f != "raw" or name in RAW]
        todo = [f for f in todo if not os.path.exists(os.path.join(args.outdir, f"{name}.{f}.onnx"))]
        if not todo:
            continue
        net = build(name)
        with torch.no_grad():
            logits = net(images(4, side(name), seed=3))
        spread = logits.std(0).mean() / logits.abs().max()
        assert spread > 0.02, f"{name}: logits hardly differ between images ({spread:.4f})"
        for form in todo:
            start = time.time()
            path = os.path.join(args.outdir, f"{name}.{form}.onnx")
            export(net, name, form, path)
            line = f"{os.path.basename(path)}\t{os.path.getsize(path) / 1e6:.1f} MB\tspread {spread:.3f}"
            print(line, f"\t{time.time() - start:.0f} s", flush=True)
            with open(os.path.join(args.outdir, "INDEX.txt"), "a") as index:
                index.write(line + "\n")


if __name__ == "__main__":
    main()
