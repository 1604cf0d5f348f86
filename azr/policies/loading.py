"""From a model's name or folder to torch modules: which path, which device, which dtype, which weights are trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

import azr
from azr.config import LoraConfig, ModelConfig
from azr.errors import PolicyError

NANO_WEIGHTS = Path(azr.__file__).parent / "nano" / "weights"


class LoadedModel(NamedTuple):
    """A causal language model ready to sample and to train."""

    model: PreTrainedModel
    """Computes logits; adapters, if any, are already inside its layers."""
    tokenizer: PreTrainedTokenizerBase
    adapters: PeftModel | None
    """The same modules seen through peft; None when all weights are trained."""
    generation_config: GenerationConfig
    """As the model's folder had it. The model's own is emptied, so that its sampling defaults cannot leak in."""

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end a completion: those of the generation config, or of the model, and the tokenizer's."""
        return _united_ends(self.generation_config, self.model.config, self.tokenizer.eos_token_id)


def end_ids(source: str, of_tokenizer: int | None) -> list[int]:
    """The same of a model's folder or hub name, without its weights."""
    config = cast(PreTrainedConfig, AutoConfig.from_pretrained(source))
    try:
        generation = GenerationConfig.from_pretrained(source)
    except OSError:  # a model need not have one
        generation = GenerationConfig()
    return _united_ends(generation, config, of_tokenizer)


def _united_ends(generation: GenerationConfig, config: PreTrainedConfig, of_tokenizer: object) -> list[int]:
    of_model = cast(object, generation.eos_token_id) or cast(object, getattr(config, "eos_token_id", None))
    named = cast("tuple[int | list[int] | None, ...]", (of_model, of_tokenizer))
    return sorted({end for ends in named if ends is not None for end in ([ends] if isinstance(ends, int) else ends)})


def load_model(config: ModelConfig) -> LoadedModel:
    """The model and tokenizer that `config` names, on their device. Draws random numbers for fresh adapters.

    Raises:
        PolicyError: the folder is not there, cannot be read as a causal language model, or there is no such device.
    """
    device = pick_device(config.device)
    source = resolve_path(config.path)
    transformers_logging.disable_progress_bar()
    try:
        tokenizer = cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(source))
        model = _build(source, pick_dtype(config.dtype, device))
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise PolicyError(f"cannot load the model {source}: {error}") from error
    shipped = cast("GenerationConfig | None", model.generation_config) or GenerationConfig()
    model.generation_config = GenerationConfig()
    _remove_dropout(model)
    if config.gradient_checkpointing:
        _checkpoint_gradients(model)
    adapters = _add_adapters(model, config.lora) if config.lora.rank else None
    torch.nn.Module.to(model, device)
    return LoadedModel(model, tokenizer, adapters, shipped)


def resolve_path(path: str) -> str:
    """The folder or hub name that `path` means; what looks like a folder is never asked for over the network.

    Raises:
        PolicyError: it looks like a folder and is not there.
    """
    folder = NANO_WEIGHTS if path == "nano" else Path(path).expanduser()
    if folder.is_dir():
        return str(folder)
    if path == "nano":
        raise PolicyError(f"the embedded model is missing: there is no folder {folder}")
    if folder.is_file():
        raise PolicyError(f"model.path must be a folder, but {folder} is a file")
    parts = folder.parts
    is_hub_name = len(parts) <= 2 and not folder.is_absolute() and path[0] not in "~." and not path.endswith("/")
    if not is_hub_name or (len(parts) == 2 and Path(parts[0]).is_dir()):
        raise PolicyError(f"there is no model folder {folder.absolute()}")
    return path


def pick_device(device: str) -> torch.device:
    """`auto` is the GPU where there is one.

    Raises:
        PolicyError: `cuda` was asked for by name and torch sees none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise PolicyError("model.device is cuda, but torch sees no GPU; use auto or cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else torch.device(device)


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on a GPU and float32 on a CPU."""
    if dtype == "auto":
        dtype = "bfloat16" if device.type == "cuda" else "float32"
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32


def _build(source: str, dtype: torch.dtype) -> PreTrainedModel:
    config = cast(PreTrainedConfig, AutoConfig.from_pretrained(source))
    if hasattr(config, "attention_dropout"):
        config.attention_dropout = 0.0
    return cast(PreTrainedModel, AutoModelForCausalLM.from_pretrained(source, config=config, dtype=dtype))


def _remove_dropout(model: torch.nn.Module) -> None:
    """A ratio of logprobs means nothing if the two come from different random sub-networks."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def _checkpoint_gradients(model: PreTrainedModel) -> None:
    """Layers recompute their activations in the backward pass. `transformers` renamed the method on the way to 6."""
    name = "activation_checkpointing_enable"
    enable = getattr(model, name if hasattr(model, name) else "gradient_checkpointing_enable")
    cast("Callable[[dict[str, bool]], None]", enable)({"use_reentrant": False})


def _add_adapters(model: PreTrainedModel, lora: LoraConfig) -> PeftModel:
    targets = list(lora.target_modules) or "all-linear"
    config = PeftLoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    try:
        with warnings.catch_warnings():  # peft 0.21 still asks transformers 5.23 by the name that was
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            return cast(PeftModel, get_peft_model(model, config))
    except ValueError as error:
        raise PolicyError(f"model.lora does not fit this model: {error}") from error
