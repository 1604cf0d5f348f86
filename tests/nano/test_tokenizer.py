"""Encoding and decoding lose nothing."""

from pathlib import Path
from random import Random
from typing import cast

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from azr.nano import tokenizer
from azr.nano.documents import DEPTHS, Mixture, document


def texts(count: int) -> list[str]:
    rng = Random(0)
    mixture = Mixture(DEPTHS, 0.5, 2)
    turns = [turn for _ in range(count) for turn in document(rng, mixture)]
    return [turn.prompt + turn.completion for turn in turns]


@pytest.fixture(scope="module")
def built() -> PreTrainedTokenizerFast:
    return tokenizer.build()


def ids(built: PreTrainedTokenizerFast, text: str) -> list[int]:
    return cast(list[int], built(text)["input_ids"])


def test_documents_survive_the_round_trip(built: PreTrainedTokenizerFast) -> None:
    for text in texts(300):
        assert built.decode(ids(built, text)) == text
        assert built.decode(ids(built, text), skip_special_tokens=True) == text


def test_the_fast_encoding_is_the_saved_tokenizer(built: PreTrainedTokenizerFast) -> None:
    for text in texts(300):
        assert tokenizer.encode(text) == ids(built, text)


@pytest.mark.parametrize("text", ["class A:\n    pass  # 123 ~", "a  =  b", "x.replace('q', \"z\")", "<think>", "100"])
def test_any_printable_ascii_survives_the_round_trip(built: PreTrainedTokenizerFast, text: str) -> None:
    assert built.decode(ids(built, text)) == text


def test_other_characters_are_unknown_and_not_an_error(built: PreTrainedTokenizerFast) -> None:
    assert 2 in ids(built, "é")


def test_it_reloads_as_it_was(built: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    built.save_pretrained(tmp_path)
    again = cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(tmp_path))
    assert all(again(text)["input_ids"] == tokenizer.encode(text) for text in texts(50))
    assert (again.pad_token_id, again.eos_token_id) == (0, 1)


def test_the_answer_starts_with_one_token() -> None:
    assert all(len(tokenizer.encode(start)) == 1 for start in (*tokenizer.ANSWER.values(), tokenizer.CLOSE))
