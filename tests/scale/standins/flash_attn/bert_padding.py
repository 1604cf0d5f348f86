"""What `openrlhf.models.ring_attn_utils` imports."""

from __future__ import annotations

from typing import NoReturn

from einops import rearrange  # pyright: ignore  # comes with OpenRLHF

__all__ = ["index_first_axis", "pad_input", "rearrange", "unpad_input"]


def _missing(*arguments: object, **options: object) -> NoReturn:
    del arguments, options
    raise RuntimeError("packed samples need the real flash-attn")


index_first_axis = pad_input = unpad_input = _missing
