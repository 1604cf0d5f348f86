"""The shipped weights load by the ordinary classes and do what the base is for."""

from pathlib import Path
from typing import cast

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3ForCausalLM

import azr.nano
from azr.nano import evaluate, heldout, tokenizer

WEIGHTS = Path(azr.nano.__file__).parent / "weights"


@pytest.fixture(scope="module")
def model() -> Qwen3ForCausalLM:
    loaded = AutoModelForCausalLM.from_pretrained(WEIGHTS)
    assert isinstance(loaded, Qwen3ForCausalLM)
    return loaded


def test_they_are_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 10_000_000


def test_the_shipped_tokenizer_is_the_one_that_is_built() -> None:
    loaded = cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(WEIGHTS))
    assert loaded.get_vocab() == tokenizer.build().get_vocab()


def test_the_base_solves_some_of_each_type_without_thoughts(model: Qwen3ForCausalLM) -> None:
    rows = [row for row in heldout.read() if int(str(row["id"]).split("-")[1]) < 60]
    scores = evaluate.score(model, rows)
    assert all(score.correct > 10 and score.thinks < 50 for score in scores.values())


def test_the_base_proposes_mostly_valid_tasks(model: Qwen3ForCausalLM) -> None:
    torch.manual_seed(0)
    shares = evaluate.proposals(model, 60)
    assert min(shares["valid"], shares["valid_induction"], shares["distinct"]) > 60
