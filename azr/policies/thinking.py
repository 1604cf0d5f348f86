"""Steers the first tokens of a completion, to measure accuracy without a thought or with a forced one.

`</think>` closes the thought. In some vocabularies it is one token, alone or with text that follows; in others it is
several tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from azr.policies.base import Thinking

THOUGHT_END = "</think>"

Steps = tuple[tuple[int, ...], ...]
"""For each of the first tokens of a completion, the ids that close the thought."""


def closing_steps(tokenizer: PreTrainedTokenizerBase) -> Steps:
    """One step with every token that starts with `</think>`; if there is none, one step per token of its spelling."""
    spelled = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    closing = tuple(token for token, text in enumerate(spelled) if text.startswith(THOUGHT_END))
    if closing:
        return (closing,)
    return tuple((token,) for token in tokenizer.encode(THOUGHT_END, add_special_tokens=False))


class ThoughtSteering(LogitsProcessor):
    """`off`: only closing tokens can be drawn first. `forced`: the first token cannot be a closing one."""

    def __init__(self, thinking: Thinking, steps: Sequence[Sequence[int]], *, prompt_width: int) -> None:
        self._thinking = thinking
        self._steps = steps
        self._prompt_width = prompt_width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self._prompt_width
        if self._thinking == "off" and step < len(self._steps):
            return self._only(scores, self._steps[step])
        if self._thinking == "forced" and step == 0:
            return self._without(scores, self._steps[0])
        return scores

    def _only(self, logits_BV: Tensor, tokens: Sequence[int]) -> Tensor:
        kept_BV = torch.full_like(logits_BV, -torch.inf)
        kept_BV[:, list(tokens)] = logits_BV[:, list(tokens)]
        return kept_BV

    def _without(self, logits_BV: Tensor, tokens: Sequence[int]) -> Tensor:
        kept_BV = logits_BV.clone()
        kept_BV[:, list(tokens)] = -torch.inf
        return kept_BV
