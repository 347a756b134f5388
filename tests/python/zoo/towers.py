"""Image models of transformers, small but of the real structure, and open_clip's image towers at full size.

`hf_*_eager` use attention written out (matmul, softmax, matmul) where others use PyTorch's fused function.
`hf_vit_hidden` has hidden states as further outputs.
"""

from functools import partial

from torch import nn

from .model import Model

VIT = {
    "image_size": 224, "patch_size": 16, "hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 3,
    "intermediate_size": 768,
}
# name: (class of the model, class of its configuration, configuration, attribute that is the output)
HF = {
    "hf_vit": ("ViTForImageClassification", "ViTConfig", VIT, "logits"),
    "hf_deit": ("DeiTForImageClassification", "DeiTConfig", VIT, "logits"),
    "hf_swin": (
        "SwinForImageClassification", "SwinConfig",
        {"image_size": 224, "patch_size": 4, "embed_dim": 48, "depths": [2, 2, 2], "num_heads": [2, 4, 8],
         "window_size": 7},
        "logits",
    ),
    "hf_beit": (
        "BeitForImageClassification", "BeitConfig",
        VIT | {"use_relative_position_bias": True, "use_mean_pooling": True, "use_mask_token": False},
        "logits",
    ),
    "hf_dinov2": ("Dinov2ForImageClassification", "Dinov2Config", VIT | {"patch_size": 14}, "logits"),
    "hf_siglip": ("SiglipVisionModel", "SiglipVisionConfig", VIT, "pooler_output"),
    "hf_clip": (
        "CLIPVisionModelWithProjection", "CLIPVisionConfig", VIT | {"patch_size": 32, "projection_dim": 128},
        "image_embeds",
    ),
}
OPEN_CLIP = {"open_clip_rn50": "RN50", "open_clip_vit_b32": "ViT-B-32"}
CLASSES = 100


class Tower(nn.Module):
    """A transformers model that gives a tensor instead of a structure."""

    def __init__(self, model, output, hidden):
        super().__init__()
        self.model, self.output, self.hidden = model, output, hidden

    def forward(self, x):
        y = self.model(pixel_values=x, output_hidden_states=self.hidden)
        return (getattr(y, self.output), *y.hidden_states) if self.hidden else getattr(y, self.output)


def transformers_model(name, attention, hidden):
    import transformers

    cls, config, kwargs, output = HF[name]
    if output == "logits":
        kwargs = kwargs | {"num_labels": CLASSES}
    config = getattr(transformers, config)(**kwargs)
    config._attn_implementation = attention
    return Tower(getattr(transformers, cls)(config), output, hidden)


def open_clip_tower(arch):
    import open_clip

    return open_clip.create_model(arch, pretrained=None).visual


def model(name, attention="sdpa", hidden=False, extra=False):
    output = "logits" if HF[name][3] == "logits" else "image_embeds"
    states = tuple(f"hidden_{i}" for i in range(VIT["num_hidden_layers"] + 1)) if hidden else ()
    return Model(partial(transformers_model, name, attention, hidden), "transformers",
                 outputs=(output, *states), extra=extra)


MODELS = (
    {n: model(n) for n in HF}
    | {f"{n}_eager": model(n, "eager") for n in HF}
    | {"hf_vit_hidden": model("hf_vit", hidden=True)}
    | {n: Model(partial(open_clip_tower, OPEN_CLIP[n]), "open_clip", outputs=("image_embeds",)) for n in OPEN_CLIP}
)
