"""What export_models.py needs to know about a network."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Model:
    build: Callable[[], nn.Module]
    group: str  # networks that are exported together: `export_models.py OUT group`
    side: int = 224  # of the images it is made for
    outputs: tuple[str, ...] = ("logits",)  # `image_embeds` for towers without classes
    raw: bool = False  # export the unoptimised dynamo form as well
    extra: bool = False  # only on request
