"""Training samples as right-padded tensors, in micro-batches of a bounded number of padded tokens.

Shapes: `B` samples in the micro-batch, `T` positions that predict a token (one less than the longest sequence).
Attention is causal and the padding is on the right, so no real token attends to padding and no attention mask is
needed.
"""

# ruff: noqa: N815 (names of tensors end in their shape)

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from azr.types import TrainingSample


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Samples that share one forward and backward pass. Position t predicts `targets_BT[:, t]`.

    The prompt (5, 9) with the completion (7, 3) gives inputs 5 9 7, targets 9 7 3, action mask 0 1 1.
    """

    rows: tuple[int, ...]
    """Index of each sample in the sequence that was batched."""
    inputs_BT: Tensor
    targets_BT: Tensor
    action_mask_BT: Tensor
    """True where the target is a token of the completion."""
    sampling_logprobs_BT: Tensor
    """0 outside the action mask."""
    advantages_BT: Tensor
    """The sample's advantage at each of its actions; 0 elsewhere."""

    @property
    def num_actions(self) -> int:
        return int(self.action_mask_BT.sum())

    def to(self, device: torch.device) -> MicroBatch:
        return MicroBatch(
            rows=self.rows,
            inputs_BT=self.inputs_BT.to(device),
            targets_BT=self.targets_BT.to(device),
            action_mask_BT=self.action_mask_BT.to(device),
            sampling_logprobs_BT=self.sampling_logprobs_BT.to(device),
            advantages_BT=self.advantages_BT.to(device),
        )


def micro_batches(samples: Sequence[TrainingSample], *, max_tokens: int) -> list[MicroBatch]:
    """All samples, the longest first, in micro-batches of at most `max_tokens` tokens including padding.

    A longer sample gets a micro-batch of its own. Samples of equal length keep their order.
    """
    return [collate(samples, rows) for rows in split_rows([_length(s) for s in samples], max_tokens=max_tokens)]


def split_rows(lengths: Sequence[int], *, max_tokens: int) -> list[list[int]]:
    """Row numbers in groups whose padded size, `rows x longest`, is at most `max_tokens`."""
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= max_tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def collate(samples: Sequence[TrainingSample], rows: Iterable[int]) -> MicroBatch:
    """The micro-batch of these rows."""
    chosen = tuple(rows)
    picked = [samples[row] for row in chosen]
    width = max(_length(sample) for sample in picked) - 1
    inputs = [_padded((*s.prompt_ids, *s.token_ids)[:-1], width=width) for s in picked]
    targets = [_padded((*s.prompt_ids, *s.token_ids)[1:], width=width) for s in picked]
    mask = [_placed([1.0] * len(s.token_ids), s, width=width) for s in picked]
    logprobs = [_placed(s.sampling_logprobs, s, width=width) for s in picked]
    advantages = [_placed([s.advantage] * len(s.token_ids), s, width=width) for s in picked]
    return MicroBatch(
        rows=chosen,
        inputs_BT=torch.tensor(inputs),
        targets_BT=torch.tensor(targets),
        action_mask_BT=torch.tensor(mask, dtype=torch.bool),
        sampling_logprobs_BT=torch.tensor(logprobs, dtype=torch.float32),
        advantages_BT=torch.tensor(advantages, dtype=torch.float32),
    )


def _length(sample: TrainingSample) -> int:
    return len(sample.prompt_ids) + len(sample.token_ids)


def _padded(tokens: Sequence[int], *, width: int) -> list[int]:
    return [*tokens, *[0] * (width - len(tokens))]


def _placed(values: Sequence[float], sample: TrainingSample, *, width: int) -> list[float]:
    """One value per completion token, at the position that predicts the token; 0 elsewhere."""
    before = len(sample.prompt_ids) - 1
    return [*[0.0] * before, *values, *[0.0] * (width - before - len(values))]
