"""Seeded random weights under which a network is alive, and the images to fit them to."""

import re

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from common import MEAN, STD, smooth_images


def images(n, size, seed):
    """Smooth random images, normalised: unlike white noise they still differ after global pooling."""
    g = torch.Generator().manual_seed(seed)
    x = torch.zeros(n, 3, size, size)
    for cells in (2, 5, 16, size):
        noise = torch.randn(n, 3, cells, cells, generator=g)
        x += F.interpolate(noise, (size, size), mode="bilinear", align_corners=False)
    return x / 2


def photos(n, size, seed):
    """What acceptance tests feed: the same in [0,1], normalised as ImageNet's photos are."""
    return torch.from_numpy(((smooth_images(n, size, seed) - MEAN) / STD).astype("float32"))


def noise(n, size, seed):
    """White noise in [0,1], normalised: what bcosc's proof feeds."""
    g = torch.Generator().manual_seed(seed)
    return (torch.rand(n, 3, size, size, generator=g) - torch.from_numpy(MEAN)) / torch.from_numpy(STD)


def about_one(p, g):
    """Norm scales: a tenth of them negative."""
    p.uniform_(0.5, 1.5, generator=g).mul_(torch.where(torch.rand(p.shape, generator=g) < 0.1, -1.0, 1.0))


def share(p, g):
    """Scales of branches, which implementations start near zero."""
    p.uniform_(0.3, 1.0, generator=g)


def sharp(p, g):
    """Factors of cosines, large enough that a softmax over them prefers some."""
    p.uniform_(5, 15, generator=g)


def fan_in(p, g):
    """[out, in, ...] weights that keep variance."""
    p.normal_(generator=g).mul_(p[0].numel() ** -0.5)


# What starts a parameter, by the class of its module and its own name; the first line that fits.
# `fit` overwrites what belongs to layers that are called as modules.
STARTS = (
    (r"\.logit_scale$", lambda p, g: p.mul_(1 + 0.2 * torch.rand(p.shape, generator=g))),
    (r"Norm\w*\.weight$", about_one),
    (r"bias|\.beta$", lambda p, g: p.normal_(0, 0.2, generator=g)),
    (r"Embedding\.weight$|\.(cls_|mask_|class_|distillation_|pos|probe)", lambda p, g: p.normal_(0, 0.5, generator=g)),
    (r"temperature", sharp),
    (r"gain|gamma|lambda|scale|alpha|\.ls\d$", share),
    (r"\.proj$", lambda p, g: p.normal_(generator=g).mul_(p.shape[0] ** -0.5)),
    (r"weight$", fan_in),
)


def start(net, seed):
    g = torch.Generator().manual_seed(seed)
    for module in net.modules():
        for name, p in module.named_parameters(recurse=False):
            what = f"{type(module).__name__}.{name}"
            rule = next((rule for pattern, rule in STARTS if re.search(pattern, what)), None)
            if rule is None:
                raise ValueError(f"no rule starts {what}, shaped {list(p.shape)}")
            rule(p, g)


@torch.no_grad()
def fit(net, x, seed, lift=0.0, share_of_mean=0.0, share_of_squeezed=0.0):
    """Set weights layer by layer during one forward pass, from what each layer sees.

    Convolutions and linear layers get outputs of unit variance, about zero up to a random bias. Batch norms
    get the statistics they measure, randomly perturbed, and random scales and biases. Other parameters, and
    those of layers whose weights are used by functions, keep what `start` gave them.

    Three arguments keep deep networks with smooth activations well conditioned. `lift` is the mean of batch norms'
    biases: about zero, SiLU and HardSwish are nearly quadratic, and a stack of them makes rounding errors grow
    without bound. `share_of_mean` is how much of the mean square counts as variance at least: what hardly
    varies (a class token's first query) is not blown up. `share_of_squeezed` is the same for convolutions of globally
    pooled features: runtimes round sums over thousands of positions, and gates carry that into everything.
    """
    start(net, seed)
    done = set()

    def per_channel(m, v):
        v = v.flatten(0, -2).t() if isinstance(m, nn.Linear) else v.transpose(0, 1).flatten(1)
        return v.mean(1), v.var(1)

    def linear(m, args, _):
        if m in done:
            return None
        done.add(m)
        nn.init.normal_(m.weight)
        bias, m.bias = m.bias, None
        y = m.forward(*args)
        mean, var = per_channel(m, y)
        squeezed = isinstance(m, _ConvNd) and y[0, 0].numel() == 1
        least = (share_of_squeezed if squeezed else share_of_mean) * (var + mean**2).mean()
        scale = torch.maximum(var.mean(), least).add(1e-9).rsqrt()
        # A convolution that standardises its weights is scaled by its gain.
        getattr(m, "gain", m.weight).mul_(scale)
        if bias is not None:
            m.bias = bias
            m.bias.copy_(-mean * scale + 0.2 * torch.randn_like(mean))
        return m.forward(*args)

    def norm(m, args, _):
        if m in done:
            return None
        done.add(m)
        mean, var = per_channel(m, args[0])
        m.running_mean.copy_(mean + 0.2 * torch.randn_like(mean) * var.sqrt())
        m.running_var.copy_(var * torch.empty_like(var).uniform_(0.5, 1.5) + 1e-3)
        m.weight.uniform_(0.5, 1.5).mul_(torch.where(torch.rand_like(var) < 0.1, -1.0, 1.0))
        m.bias.normal_(lift, 0.2)
        return m.forward(*args)

    hooks = [
        m.register_forward_hook(norm if isinstance(m, _BatchNorm) else linear)
        for m in net.modules()
        if isinstance(m, (_ConvNd, nn.Linear, _BatchNorm))
    ]
    net(x)
    for h in hooks:
        h.remove()
