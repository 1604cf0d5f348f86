"""Pretraining is deterministic, fast enough code is the right code, and what it writes loads."""

from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen3ForCausalLM

from azr.nano import forward, pretrain, tokenizer
from azr.nano.documents import Turn
from azr.nano.muon import orthogonalize


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two tiny pretrainings with the same seed."""
    root = tmp_path_factory.mktemp("pretrain")
    for name in ("first", "second"):
        pretrain.pretrain(root / name, seed=3, num_tokens=5000)
    return [root / "first", root / "second"]


def load(folder: Path) -> Qwen3ForCausalLM:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert isinstance(model, Qwen3ForCausalLM)
    return model


def test_the_same_seed_gives_the_same_weights(folders: list[Path]) -> None:
    first, second = (load(folder).state_dict() for folder in folders)
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


def test_the_weights_are_small_enough_to_ship(folders: list[Path]) -> None:
    assert (folders[0] / "model.safetensors").stat().st_size < 10_000_000


def test_the_fast_forward_pass_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    model = pretrain.create_model()
    ids_BT = torch.randint(0, 199, (3, 50))
    expected_BTV = model(input_ids=ids_BT).logits
    torch.testing.assert_close(forward.logits(model, ids_BT), expected_BTV, atol=1e-4, rtol=1e-4)


def test_progress_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "REPORT_TOKENS", 2000)
    seen: list[pretrain.Pretraining] = []
    pretrain.pretrain(tmp_path, num_tokens=6000, report=lambda progress, _: seen.append(progress))
    assert seen
    assert all(progress.num_tokens == 6000 and progress.loss > 0 for progress in seen)


def test_the_vocabulary_fits_the_embedding() -> None:
    assert len(tokenizer.pieces()) + 3 <= pretrain.create_model().config.vocab_size


def test_only_replies_weigh_fully() -> None:
    ids, weights = pretrain.encode([Turn("<solve deduction>\n", "</think>")])
    assert weights[0] == pretrain.PROMPT_WEIGHT
    assert (weights[-1], ids[-1]) == (1.0, 1)


def test_batches_hold_about_the_wanted_tokens() -> None:
    batch = pretrain.draw_batch(Random(0), pretrain.mixture_at(0.5))
    assert pretrain.BATCH_TOKENS <= sum(len(ids) for ids, _ in batch) < pretrain.BATCH_TOKENS + 400


def test_the_last_phase_answers_mostly_directly_and_once() -> None:
    last = pretrain.mixture_at(0.99)
    assert last.thinking < 0.25
    assert last.answers == 1


def test_the_learning_rate_warms_up_and_decays() -> None:
    assert pretrain.rate_at(0) < pretrain.rate_at(0.3) == 1.0
    assert pretrain.rate_at(0.99) < 0.1


@pytest.mark.parametrize("shape", [(2, 16, 48), (2, 48, 16)])
def test_muon_directions_have_singular_values_about_one(shape: tuple[int, int, int]) -> None:
    values: Tensor = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))  # pyright: ignore[reportUnknownVariableType]
    assert 0.5 < values.min() <= values.max() < 1.4
