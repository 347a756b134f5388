"""CLIP's image tower ResNet-50 without open_clip: a stem of three convolutions, blocks that average where others have a stride, and
attention from the mean over positions in place of pooling (arXiv 2103.00020)."""

import torch
import torch.nn.functional as F
from torch import nn

from .model import Model


class Block(nn.Module):
    def __init__(self, width, inner, stride):
        super().__init__()
        pool = lambda: [nn.AvgPool2d(stride)] if stride > 1 else []
        norm = nn.BatchNorm2d
        self.main = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False), norm(inner), nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False), norm(inner), nn.ReLU(), *pool(),
            nn.Conv2d(inner, 4 * inner, 1, bias=False), norm(4 * inner),
        )
        fits = stride == 1 and width == 4 * inner
        projection = [*pool(), nn.Conv2d(width, 4 * inner, 1, bias=False), norm(4 * inner)]
        self.skip = nn.Identity() if fits else nn.Sequential(*projection)

    def forward(self, x):
        return F.relu(self.main(x) + self.skip(x))


class AttentionPool(nn.Module):
    def __init__(self, positions, width, heads, outputs):
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(positions + 1, width) / width**0.5)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, outputs)
        self.heads = heads

    def forward(self, x):
        x = x.flatten(2).permute(2, 0, 1)
        x = torch.cat([x.mean(0, keepdim=True), x]) + self.positional_embedding[:, None]
        biases = torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias])
        found, _ = F.multi_head_attention_forward(
            x[:1], x, x, x.shape[-1], self.heads, None, biases, None, None, False, 0, self.c_proj.weight,
            self.c_proj.bias, training=False, need_weights=False, use_separate_proj_weight=True,
            q_proj_weight=self.q_proj.weight, k_proj_weight=self.k_proj.weight, v_proj_weight=self.v_proj.weight,
        )
        return found[0]


def clip_resnet50(width=64, side=224, outputs=1024):
    def conv(before, after, stride=1):
        return [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]

    layers = [*conv(3, width // 2, 2), *conv(width // 2, width // 2), *conv(width // 2, width), nn.AvgPool2d(2)]
    before = width
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = width << stage
        for block in range(blocks):
            layers.append(Block(before, inner, 2 if stage and not block else 1))
            before = 4 * inner
    return nn.Sequential(*layers, AttentionPool((side // 32) ** 2, before, before // 64, outputs))


MODELS = {"clip_rn50": Model(clip_resnet50, "clip", outputs=("image_embeds",))}
