"""A model's size is counted, and equals what transformers builds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from azr.sizing.architecture import PUBLISHED, Architecture, architecture_of, read_architecture

ON_THE_HUB = {
    "Qwen2.5-0.5B": 494_032_768,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Qwen2.5-3B": 3_085_938_688,
    "Qwen2.5-7B": 7_615_616_512,
    "Qwen2.5-14B": 14_770_033_664,
    "Qwen3-4B-Base": 4_022_468_096,
    "Llama-3.1-8B": 8_030_261_248,
}
"""Parameters, as the model pages and their index files of weights give them."""


def built(shape: Architecture) -> torch.nn.Module:
    """The model that transformers makes of the same numbers, without memory for its weights."""
    numbers: dict[str, Any] = {
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.is_tied,
    }
    with torch.device("meta"):
        if shape.has_head_norms:
            return Qwen3ForCausalLM(Qwen3Config(**numbers))
        if shape.has_attention_bias:
            return Qwen2ForCausalLM(Qwen2Config(**numbers))
        return LlamaForCausalLM(LlamaConfig(**numbers))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_as_many_parameters_as_its_weights(name: str) -> None:
    assert PUBLISHED[name].parameters == ON_THE_HUB[name]


@pytest.mark.parametrize("name", ["Qwen2.5-3B", "Qwen2.5-7B", "Qwen3-4B-Base", "Llama-3.1-8B"])
def test_parameters_and_tensors_are_those_that_transformers_builds(name: str) -> None:
    weights = list(built(PUBLISHED[name]).parameters())
    assert PUBLISHED[name].parameters == sum(weight.numel() for weight in weights)
    assert PUBLISHED[name].tensors == len(weights)


def test_cache_of_a_token_is_keys_and_values_of_every_layer_in_two_bytes() -> None:
    assert PUBLISHED["Qwen2.5-7B"].cache_bytes == 2 * 28 * 4 * 128 * 2 == 56 * 1024


def test_the_embedding_is_looked_up_and_not_multiplied_with() -> None:
    shape = PUBLISHED["Qwen2.5-7B"]
    assert shape.parameters - shape.computing_parameters == 152_064 * 3584
    tied = PUBLISHED["Qwen2.5-3B"]
    assert tied.parameters == tied.computing_parameters


def test_a_coder_model_has_the_shape_of_its_base() -> None:
    assert architecture_of("Qwen/Qwen2.5-Coder-7B") is PUBLISHED["Qwen2.5-7B"]


def test_nano_is_read_from_its_folder() -> None:
    shape = architecture_of("nano")
    assert shape is not None
    assert (shape.parameters, shape.positions) == (880_000, 512)


def test_a_model_that_nobody_knows_has_no_shape(tmp_path: Path) -> None:
    assert architecture_of("someone/their-model") is None
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    assert read_architecture(tmp_path / "config.json") is None
    (tmp_path / "config.json").write_text("not JSON")
    assert read_architecture(tmp_path / "config.json") is None
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 8}))
    assert read_architecture(tmp_path / "config.json") is None
