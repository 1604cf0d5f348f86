"""Which model a path means, and how it sits in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from azr.config import LoraConfig, ModelConfig
from azr.errors import PolicyError
from azr.policies import loading
from azr.policies.loading import load_model, pick_device, pick_dtype, resolve_path
from tests.policies.models import END, EOS, policy


@pytest.mark.parametrize("path", ["/no/such/model", "./model", "../model", "~/no-such-model", "a/b/c", "model/"])
def test_what_looks_like_a_folder_and_is_not_there_is_named_in_the_error(path: str) -> None:
    with pytest.raises(PolicyError, match=str(Path(path).expanduser().name)):
        resolve_path(path)


def test_a_path_below_a_folder_that_exists_is_no_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PolicyError, match="there is no folder"):
        resolve_path("runs/first")


@pytest.mark.parametrize("name", ["gpt2", "Qwen/Qwen2.5-Coder-3B", "meta-llama/Llama-3.1-8B"])
def test_hub_names_are_left_to_transformers(name: str) -> None:
    assert resolve_path(name) == name


def test_an_existing_folder_is_taken(model_folder: Path) -> None:
    assert resolve_path(str(model_folder)) == str(model_folder)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(PolicyError, match="is a file"):
        resolve_path(str(tmp_path / "model.safetensors"))


def test_nano_means_the_packaged_weights(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert loading.NANO_WEIGHTS.parts[-3:] == ("azr", "nano", "weights")
    monkeypatch.setattr(loading, "NANO_WEIGHTS", model_folder)
    assert resolve_path("nano") == str(model_folder)
    monkeypatch.setattr(loading, "NANO_WEIGHTS", model_folder / "gone")
    with pytest.raises(PolicyError, match="embedded model is missing"):
        resolve_path("nano")


@pytest.mark.parametrize("config_text", [None, "{", '{"model_type": "no-such-type"}'])
def test_a_folder_without_a_model_names_itself_in_the_error(tmp_path: Path, config_text: str | None) -> None:
    if config_text is not None:
        (tmp_path / "config.json").write_text(config_text)
    with pytest.raises(PolicyError, match=str(tmp_path)):
        load_model(ModelConfig(path=str(tmp_path), device="cpu"))


def test_a_folder_without_weights_names_itself_in_the_error(model_folder: Path, tmp_path: Path) -> None:
    for path in model_folder.iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(PolicyError, match=str(tmp_path)):
        load_model(ModelConfig(path=str(tmp_path), device="cpu"))


def test_all_tokens_that_end_a_completion_are_found(model_folder: Path) -> None:
    loaded = load_model(ModelConfig(path=str(model_folder), device="cpu"))
    assert loaded.end_ids == [EOS, END]


def test_dropout_is_off_even_in_training(model_folder: Path) -> None:
    """The folder's config asks for an attention dropout of 0.5."""
    model = load_model(ModelConfig(path=str(model_folder), device="cpu")).model.train()
    ids = torch.tensor([[4, 5, 6, 7]])
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_torch_takes_as_many_threads_as_the_config_says(model_folder: Path) -> None:
    torch.set_num_threads(2)
    policy(model_folder)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("checkpointing", [True, False])
def test_gradient_checkpointing_follows_the_config(model_folder: Path, checkpointing: bool) -> None:
    config = ModelConfig(path=str(model_folder), device="cpu", gradient_checkpointing=checkpointing)
    layers = [m for m in load_model(config).model.modules() if hasattr(m, "gradient_checkpointing")]
    assert {m.gradient_checkpointing for m in layers} == {checkpointing}


def test_with_adapters_only_they_are_trained(model_folder: Path) -> None:
    config = ModelConfig(path=str(model_folder), device="cpu", lora=LoraConfig(rank=2, target_modules=("q_proj",)))
    trained = {name for name, p in load_model(config).model.named_parameters() if p.requires_grad}
    assert len(trained) == 4
    assert all("q_proj.lora_" in name for name in trained)


def test_an_adapter_for_a_module_that_is_not_there_is_refused(model_folder: Path) -> None:
    config = ModelConfig(path=str(model_folder), device="cpu", lora=LoraConfig(rank=2, target_modules=("nothing",)))
    with pytest.raises(PolicyError, match="lora"):
        load_model(config)


@pytest.mark.parametrize(
    ("dtype", "device", "expected"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", "cuda", torch.bfloat16),
        ("bfloat16", "cpu", torch.bfloat16),
        ("float32", "cuda", torch.float32),
    ],
)
def test_auto_is_bfloat16_on_a_gpu_and_float32_on_a_cpu(dtype: str, device: str, expected: torch.dtype) -> None:
    assert pick_dtype(dtype, torch.device(device)) == expected


def test_a_gpu_asked_for_by_name_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(PolicyError, match="no GPU"):
        pick_device("cuda")
