"""What `openrlhf.models.ring_attn_utils` imports."""

from __future__ import annotations

from flash_attn.bert_padding import pad_input as all_gather

__all__ = ["all_gather"]
