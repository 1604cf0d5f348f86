"""The clipped policy loss of PPO with a raised upper clip, a second clip, an entropy bonus and an optional KL term.

Shapes: `N` action tokens (completion tokens of all samples, padding left out), `V` vocabulary. Logprobs are natural.
"""

# ruff: noqa: N815 (tensors wear their shape)

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]  # torch leaves it untyped

from azr.config import LearnerConfig

MAX_LOG_RATIO = 20.0
"""exp(20) is far beyond every clip and still finite in float32."""
CHUNK_VALUES = 2**26
"""Logits taken to float32 at once: 256 MiB."""


class TokenLogprobs(NamedTuple):
    """What the policy says of the action tokens now."""

    logprobs_N: Tensor
    entropies_N: Tensor
    """Entropy of the whole distribution that each token is drawn from, in nats."""


class SampledTokens(NamedTuple):
    """What was fixed before the update."""

    sampling_logprobs_N: Tensor
    advantages_N: Tensor
    reference_logprobs_N: Tensor | None
    """Of the frozen start model; None where no KL term is asked for."""


class LossFigures(NamedTuple):
    """Token means for the log, without gradient. A micro-batch gives its share of the update's means: add them up."""

    loss: Tensor
    ratio: Tensor
    """exp(logprob - sampling logprob)."""
    clip_share: Tensor
    """Tokens whose policy gradient a clip cut off."""
    entropy: Tensor
    kl: Tensor
    """k3 estimate of KL(policy || reference); 0 without a reference."""
    sampler_kl: Tensor
    """k3 estimate of KL(sampler || policy): how far the policy is from the one that sampled."""


def token_logprobs(logits_NV: Tensor, targets_N: Tensor, *, temperature: float) -> TokenLogprobs:
    """Logprob of each target and entropy at `temperature`, in float32.

    Many logits are taken to float32 a chunk at a time and once more in the backward pass, so that the peak stays small.
    """
    rows = max(1, CHUNK_VALUES // logits_NV.shape[-1])
    if len(logits_NV) <= rows:
        return TokenLogprobs(*_chunk_logprobs(logits_NV, targets_N, temperature))
    chunks = zip(_split(logits_NV, rows), _split(targets_N, rows), strict=True)
    pieces = [
        cast("tuple[Tensor, Tensor]", checkpoint(_chunk_logprobs, logits, targets, temperature, use_reentrant=False))
        for logits, targets in chunks
    ]
    return TokenLogprobs(torch.cat([piece[0] for piece in pieces]), torch.cat([piece[1] for piece in pieces]))


def _split(tensor: Tensor, rows: int) -> tuple[Tensor, ...]:
    return cast("tuple[Tensor, ...]", tensor.split(rows))


def _chunk_logprobs(logits_NV: Tensor, targets_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    distribution_NV = (logits_NV.float() / temperature).log_softmax(-1)
    logprobs_N = distribution_NV.gather(-1, targets_N.unsqueeze(-1)).squeeze(-1)
    return logprobs_N, -(distribution_NV.exp() * distribution_NV).sum(-1)


def policy_loss(
    current: TokenLogprobs, sampled: SampledTokens, *, config: LearnerConfig, num_tokens: int
) -> tuple[Tensor, LossFigures]:
    """Sum of the token losses divided by `num_tokens`, the action tokens of the whole update; figures for the log.

    Dividing by the update's count, not the micro-batch's, makes the gradient independent of how the update is split.
    PPO's clip (arXiv 1707.06347, equation 7) with clip-higher (DAPO, arXiv 2503.14476, equation 10) and dual-clip
    (arXiv 1912.09729, equation 5), token mean (DAPO); KL by the k3 estimator (GRPO, arXiv 2402.03300, equation 4).
    """
    log_ratios_N = (current.logprobs_N - sampled.sampling_logprobs_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratios_N = log_ratios_N.exp()
    objective_N, is_clipped_N = clipped_objective(ratios_N, sampled.advantages_N, config=config)
    kl_N = _reference_kl(current.logprobs_N, sampled.reference_logprobs_N)
    losses_N = config.kl_coef * kl_N - objective_N - config.entropy_coef * current.entropies_N
    loss = losses_N.sum() / num_tokens
    figures = (ratios_N, is_clipped_N, current.entropies_N, kl_N, ratios_N - 1 - log_ratios_N)
    return loss, LossFigures(loss.detach(), *(figure_N.detach().sum() / num_tokens for figure_N in figures))


def clipped_objective(ratios_N: Tensor, advantages_N: Tensor, *, config: LearnerConfig) -> tuple[Tensor, Tensor]:
    """The objective to maximise, and where a clip cut its gradient off."""
    plain_N = ratios_N * advantages_N
    clipped_N = ratios_N.clamp(1 - config.clip_low, 1 + config.clip_high) * advantages_N
    floor_N = torch.where(advantages_N < 0, config.dual_clip * advantages_N, -torch.inf)
    return torch.maximum(torch.minimum(plain_N, clipped_N), floor_N), (clipped_N < plain_N) | (plain_N < floor_N)


def _reference_kl(logprobs_N: Tensor, reference_logprobs_N: Tensor | None) -> Tensor:
    if reference_logprobs_N is None:
        return torch.zeros_like(logprobs_N)
    log_ratios_N = (reference_logprobs_N - logprobs_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return log_ratios_N.exp() - 1 - log_ratios_N
