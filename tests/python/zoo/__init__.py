"""The networks that export_models.py writes, by name. One module a source; a package is imported only when
one of its networks is built."""

import zlib

import torch

from . import clip_resnet, timm_models, torchvision_models, towers
from .fit import fit, images, noise, photos
from .model import Model

MODELS: dict[str, Model] = {**torchvision_models.MODELS, **timm_models.MODELS, **towers.MODELS, **clip_resnet.MODELS}


def build(name):
    """The network in eval mode, with seeded weights fitted to synthetic images."""
    seed = zlib.crc32(name.encode())
    torch.manual_seed(seed)
    model = MODELS[name]
    net = model.build().eval()
    if model.group == "cnn":
        fit(net, images(8, model.side, seed=1), seed)
    else:
        fit(net, photos(12, model.side, seed=1), seed, lift=1.0, share_of_mean=0.05, share_of_squeezed=1.0)
    return net
