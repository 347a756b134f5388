"""Networks of timm, under timm's names."""

from functools import partial

from .model import Model

NAMES = (
    "vit_tiny_patch16_224 deit_tiny_patch16_224 deit3_small_patch16_224 beit_base_patch16_224 "
    "eva02_tiny_patch14_224 convnextv2_atto mixer_s32_224 gmixer_12_224 resmlp_12_224 poolformer_s12 "
    "xcit_nano_12_p16_224 seresnet50 resnet26d nfnet_l0 levit_128s mobilevitv2_050 efficientformerv2_s0 "
    "fastvit_t8 edgenext_xx_small coatnet_nano_rw_224 tf_efficientnet_lite0 ghostnet_100 hrnet_w18_small "
    "repvgg_a0 davit_tiny"
).split()
SIDE = {"mobilevitv2_050": 256, "fastvit_t8": 256, "edgenext_xx_small": 256}


# Attention written out as well, for exporters that do not manage the fused function in these.
EAGER = ["beit_base_patch16_224", "eva02_tiny_patch14_224"]


def build(name, fused=True):
    import timm
    from timm.layers import set_fused_attn

    set_fused_attn(fused)
    net = timm.create_model(name, pretrained=False)
    set_fused_attn(True)
    return net


def model(name, fused=True):
    # eva02_tiny was made without classes; its output is the pooled embedding.
    output = "image_embeds" if name.startswith("eva02_tiny") else "logits"
    return Model(partial(build, name, fused), "timm", SIDE.get(name, 224), outputs=(output,))


MODELS = {n: model(n) for n in NAMES} | {f"{n}_eager": model(n, fused=False) for n in EAGER}
