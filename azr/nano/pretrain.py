"""Makes the nano base model from random weights: one pass over an endless stream of documents, on one CPU thread.

`azr nano pretrain` runs it. A seed gives the same weights on the same kind of machine and version of torch. The
packaged weights were made with seed 0.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer
from transformers import Qwen3Config, Qwen3ForCausalLM

from azr.nano import tokenizer
from azr.nano.documents import DEPTHS, Mixture, Turn, document
from azr.nano.forward import logits
from azr.nano.muon import Muon

NUM_TOKENS = 4_600_000
"""About twenty CPU minutes."""
BATCH_TOKENS = 1100
REPORT_TOKENS = 100_000
PROMPT_WEIGHT = 0.1
"""Weight of a prompt token in the loss; a reply token has weight 1."""
MUON_RATE, ADAM_RATE = 1.5e-2, 4e-3

SOLVING = (0.28, 0.28, 0.3, 0.05, 0.05, 0.04)
"""Shares of the cells in the phase that is mostly about solving; see `Mixture.cells`."""

Batch = list[tuple[list[int], list[float]]]
"""Token ids and loss weights of each document."""


class Pretraining(NamedTuple):
    """Progress of a pretraining."""

    tokens: int
    num_tokens: int
    loss: float
    """Weighted mean over the steps since the last report, in nats."""
    wall_s: float


Report = Callable[[Pretraining, Qwen3ForCausalLM], None]


def pretrain(
    out_dir: Path,
    *,
    seed: int = 0,
    num_tokens: int = NUM_TOKENS,
    report: Report = lambda done, model: None,
) -> None:
    """Train a model from random weights and write it with its tokenizer, ready for `AutoModelForCausalLM`."""
    with _reproducible(seed):
        model = create_model()
        _train(model, Random(seed), num_tokens, report)
    model.save_pretrained(out_dir)
    tokenizer.build().save_pretrained(out_dir)


@contextmanager
def _reproducible(seed: int) -> Generator[None]:
    """Use this seed, one thread, and zeros for denormal numbers; restore torch's settings afterwards."""
    num_threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_flush_denormal(False)
            torch.set_num_threads(num_threads)


def _train(model: Qwen3ForCausalLM, rng: Random, num_tokens: int, report: Report) -> None:
    optimizers = _optimizers(model)
    tokens, losses, start, reported = 0, list[float](), time.monotonic(), 0
    while tokens < num_tokens:
        done = tokens / num_tokens
        batch = draw_batch(rng, mixture_at(done))
        _set_rates(optimizers, rate_at(done))
        losses.append(_step(model, optimizers, batch))
        tokens += sum(len(ids) for ids, _ in batch)
        if tokens - reported >= REPORT_TOKENS:
            reported = tokens
            report(Pretraining(tokens, num_tokens, sum(losses) / len(losses), time.monotonic() - start), model)
            losses.clear()


def create_model() -> Qwen3ForCausalLM:
    """880,000 random parameters."""
    config = Qwen3Config(
        vocab_size=208,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        use_cache=True,
        dtype="float32",
    )
    return Qwen3ForCausalLM(config)


def mixture_at(done: float) -> Mixture:
    """The curriculum: short programs, then all, mostly with thoughts; finally mostly direct replies."""
    if done < 0.16:
        return Mixture(statements=(0.7, 0.3, 0, 0), thinking=0.7, answers=5, cells=SOLVING)
    if done < 0.26:
        return Mixture(statements=(0.35, 0.35, 0.2, 0.1), thinking=0.75, answers=5, cells=SOLVING)
    if done < 0.82:
        return Mixture(statements=DEPTHS, thinking=0.8, answers=5, cells=SOLVING)
    return Mixture(statements=DEPTHS, thinking=0.15, answers=1)


def rate_at(done: float) -> float:
    """Share of the full learning rate: a short warm-up, then linear decay over the last two fifths."""
    return min(1.0, done / 0.01 + 0.05, max(0.03, (1 - done) / 0.4))


def draw_batch(rng: Random, mixture: Mixture) -> Batch:
    """Token ids and loss weights of about `BATCH_TOKENS` tokens of documents, shortest first."""
    batch: Batch = []
    while sum(len(ids) for ids, _ in batch) < BATCH_TOKENS:
        batch.append(encode(document(rng, mixture)))
    return sorted(batch, key=lambda pair: len(pair[0]))


def encode(turns: list[Turn]) -> tuple[list[int], list[float]]:
    """Token ids with an end of sequence after each reply, and the weight of each token in the loss."""
    ids: list[int] = []
    weights: list[float] = []
    for turn in turns:
        prompt, completion = tokenizer.encode(turn.prompt), [*tokenizer.encode(turn.completion), 1]
        ids += prompt + completion
        weights += [PROMPT_WEIGHT] * len(prompt) + [1.0] * len(completion)
    return ids, weights


def pad(batch: Batch) -> tuple[Tensor, Tensor]:
    """Ids and weights, each [B, T], padded on the right."""
    width = max(len(ids) for ids, _ in batch)
    ids_BT = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in batch])
    weights_BT = torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights in batch])
    return ids_BT, weights_BT


def _step(model: Qwen3ForCausalLM, optimizers: list[Optimizer], batch: Batch) -> float:
    total = sum(sum(weights[1:]) for _, weights in batch)
    half = (len(batch) + 1) // 2
    loss_sum = 0.0
    for first in range(0, len(batch), half):
        ids_BT, weights_BT = pad(batch[first : first + half])
        logits_BTV = logits(model, ids_BT[:, :-1])
        loss_BT = functional.cross_entropy(logits_BTV.transpose(1, 2), ids_BT[:, 1:], reduction="none")
        loss = (loss_BT * weights_BT[:, 1:]).sum() / total
        loss.backward()
        loss_sum += loss.item()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return loss_sum


def _optimizers(model: Qwen3ForCausalLM) -> list[Optimizer]:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    adam = torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    return [Muon(matrices, lr=MUON_RATE), adam]


def _set_rates(optimizers: list[Optimizer], share: float) -> None:
    for optimizer, rate in zip(optimizers, (MUON_RATE, ADAM_RATE), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate * share
