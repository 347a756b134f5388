"""Networks of torchvision. Names ending in `_transform` have its `transform_input`, an affine map of the
channels ahead of the first convolution."""

from functools import partial

from .model import Model

CNN = (
    "resnet18 resnet50 densenet121 alexnet vgg11_bn vgg16 resnext50_32x4d googlenet inception_v3 "
    "squeezenet1_1 mobilenet_v2 mnasnet1_0 shufflenet_v2_x1_0"
).split()
MODERN = (
    "vit_b_16 swin_t swin_v2_t maxvit_t convnext_tiny efficientnet_b0 efficientnet_v2_s mobilenet_v3_small "
    "regnet_y_400mf"
).split()
TRANSFORMED = ["googlenet_transform", "inception_v3_transform"]
RAW = {"resnet18", "resnet50", "swin_t"}


def build(name):
    import torchvision

    arch = name.removesuffix("_transform")
    kwargs = {"weights": None}
    if arch in ("googlenet", "inception_v3"):
        kwargs.update(aux_logits=False, init_weights=False, transform_input=name != arch)
    return getattr(torchvision.models, arch)(**kwargs)


def model(name, group, extra=False):
    side = 299 if name.startswith("inception") else 224
    return Model(partial(build, name), group, side, raw=name in RAW, extra=extra)


MODELS = (
    {n: model(n, "cnn") for n in CNN}
    | {n: model(n, "cnn", extra=True) for n in TRANSFORMED}
    | {n: model(n, "torchvision") for n in MODERN}
)
