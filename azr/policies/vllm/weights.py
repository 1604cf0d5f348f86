"""The learner's weights under the names that the model's folder uses, with adapters merged, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from azr.policies.loading import LoadedModel

HEAD = "lm_head.weight"


def checkpoint_weights(loaded: LoadedModel, *, with_tied_head: bool) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors; a tensor without adapters is the model's own, not a copy."""
    modules = dict(cast("Iterator[tuple[str, torch.nn.Module]]", loaded.model.named_modules()))
    for name, parameter in loaded.model.named_parameters():
        layer, is_adapted, suffix = name.partition(".base_layer.")
        if is_adapted and suffix == "weight":
            yield f"{layer}.weight", merged(modules[layer])
        elif ".lora_" not in name:
            yield name.replace(".base_layer.", "."), parameter.detach()
    head = head_weight(loaded)
    if with_tied_head and head is not None and is_tied(loaded):
        yield HEAD, head.detach()


@torch.no_grad()
def merged(layer: torch.nn.Module) -> Tensor:
    """The weight of a layer with its adapters added."""
    assert isinstance(layer, LoraLayer)
    weight = cast(Tensor, layer.get_base_layer().weight).clone()
    delta_of = cast("Callable[[str], Tensor]", getattr(layer, "get_delta_weight"))  # noqa: B009  # peft's base lacks it
    for adapter in layer.active_adapters:
        weight += delta_of(adapter).to(weight.dtype)
    return weight


def is_tied(loaded: LoadedModel) -> bool:
    """Whether the output head is the embedding."""
    return head_weight(loaded) is loaded.model.get_input_embeddings().weight


def head_weight(loaded: LoadedModel) -> Tensor | None:
    """The output head's weight; None if the model has no head."""
    head = cast("torch.nn.Module | None", loaded.model.get_output_embeddings())
    return None if head is None else cast(Tensor, head.weight)
