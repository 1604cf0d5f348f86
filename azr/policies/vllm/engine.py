"""vLLM, at the border: the one module that imports it. Requests in, continuations out, weights replaced in place.

What was found with vLLM 0.29 and is worked around here, once:

- Its CPU build packs a tied output head when it starts and never again, so a tied head is untied and sent as well.
- Its CPU build cannot take back a seeded draw, which an unfinished prefill needs: there, prompts are never split.
- It seeds Python's, NumPy's and torch's random numbers, and its CPU build forbids `torch.set_num_threads` for good.
"""

from __future__ import annotations

import importlib
import os
import random
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

import numpy
import torch
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]  # bare PathLike
from torch import Tensor

from azr.config import VllmConfig
from azr.errors import PolicyError
from azr.policies.generation import Continuation
from azr.policies.randomness import untouched_randomness

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine lives in this process, so that weights need no copy on disk
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else it takes all cores from the learner and the sandbox
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
"""What vLLM reads from the environment; the user's own settings go before all but the first."""
WEIGHTS_FOLDER = Path("/dev/shm")
CPU_PREFILL_TOKENS = 8192
Weights = Iterable[tuple[str, Tensor]]


class EngineFault(PolicyError):
    """The engine is beyond use."""


class Request(NamedTuple):
    """One prompt to continue."""

    prompt_ids: tuple[int, ...]
    num_samples: int
    """Of a greedy request the engine draws one, whatever is said here."""
    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int
    allowed_ids: tuple[int, ...] | None = None
    """Tokens that may be drawn; None allows all."""


class Setup(NamedTuple):
    """What an engine is made of."""

    source: str
    """The model's folder or hub name."""
    dtype: torch.dtype
    device: torch.device
    window: int
    """Tokens of a prompt and its completion."""
    positions: int
    """What the model's folder says it was made for."""
    vocabulary: int
    """Tokens that the model knows."""
    is_tied: bool
    """Whether the output head is the embedding."""
    end_ids: tuple[int, ...]
    ignores_temperature: bool
    """Logprobs are those before temperature; else they are after temperature and top-p."""


class Engine(Protocol):
    """What `sampler.VllmSampler` drives; one thread at a time."""

    def add(self, name: str, request: Request) -> None:
        """Let the request join the batch with the next step."""
        ...

    def step(self) -> list[tuple[str, list[Continuation]]]:
        """One forward pass over all that runs; requests that finished with it."""
        ...

    def load(self, weights: Weights) -> None:
        """Replace the weights and forget all that was computed with the ones before. Wakes the engine."""
        ...

    def sleep(self) -> None:
        """Give the accelerator's memory back; only `load` may follow."""
        ...

    def shutdown(self) -> None:
        """Let go of everything."""
        ...


class VllmEngine:
    """Implements `Engine`. Every fault of vLLM is an `EngineFault`."""

    def __init__(self, setup: Setup, config: VllmConfig) -> None:
        self._setup = setup
        self._vllm = import_vllm()
        self._sleeps = config.sleep and setup.device.type == "cuda"
        self._is_asleep = False
        self._in_process = config.tensor_parallel == 1
        arguments = engine_arguments(setup, config)
        with _faults("start"), _left_alone():
            self._engine: Any = self._vllm.LLMEngine.from_engine_args(self._vllm.EngineArgs(**arguments))

    def add(self, name: str, request: Request) -> None:
        with _faults("take a request"):
            prompt = {"prompt_token_ids": list(request.prompt_ids)}
            self._engine.add_request(name, prompt, self._sampling_params(request))

    def step(self) -> list[tuple[str, list[Continuation]]]:
        with _faults("generate"), untouched_randomness():
            finished = [output for output in self._engine.step() if output.finished]
        return [(output.request_id, [_continuation(one) for one in output.outputs]) for output in finished]

    def load(self, weights: Weights) -> None:
        with _faults("take over the learner's weights"):
            self._wake("weights")
            if self._in_process:
                self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
            else:
                self._load_through_folder(weights)
            self._wake("kv_cache")
            self._is_asleep = False
            if not self._engine.reset_prefix_cache():
                raise EngineFault("vLLM did not forget the prefixes that it computed with the weights before")

    def sleep(self) -> None:
        if self._sleeps and not self._is_asleep:
            with _faults("sleep"):
                self._engine.sleep(level=2)  # 2 drops the weights instead of keeping a copy: `load` brings new ones
            self._is_asleep = True

    def shutdown(self) -> None:
        with _left_alone():
            self._engine.engine_core.shutdown()

    def _wake(self, what: str) -> None:
        if self._is_asleep:
            torch.cuda.empty_cache()
            self._engine.wake_up(tags=[what])

    def _load_through_folder(self, weights: Weights) -> None:
        """Worker processes of their own cannot be handed tensors: they read the weights from memory that looks like
        a disk."""
        with TemporaryDirectory(dir=WEIGHTS_FOLDER if WEIGHTS_FOLDER.is_dir() else None) as folder:
            save_file({name: weight.contiguous() for name, weight in weights}, Path(folder) / "model.safetensors")
            self._engine.collective_rpc("reload_weights", kwargs={"weights_path": folder})

    def _sampling_params(self, request: Request) -> object:
        return self._vllm.SamplingParams(
            n=request.num_samples if request.temperature else 1,
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_new_tokens,
            seed=request.seed,
            allowed_token_ids=list(request.allowed_ids) if request.allowed_ids is not None else None,
            stop_token_ids=list(self._setup.end_ids),
            ignore_eos=True,  # the end tokens are ours, whatever the folder says
            logprobs=0,
            detokenize=False,
            output_kind=self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        )


def import_vllm() -> Any:
    """vLLM, told by the environment how to behave in here.

    Raises:
        PolicyError: it is not installed.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    try:
        return importlib.import_module("vllm")
    except ImportError as error:
        raise PolicyError(
            f"policy.rollouts is \"vllm\", but vLLM cannot be imported ({error}): pip install 'azr[vllm]', "
            'or set policy.rollouts = "transformers"'
        ) from error


def engine_arguments(setup: Setup, config: VllmConfig) -> dict[str, object]:
    """Arguments of vLLM's `EngineArgs`."""
    arguments: dict[str, object] = {
        "model": setup.source,
        "skip_tokenizer_init": True,
        "dtype": str(setup.dtype).removeprefix("torch."),
        "max_model_len": setup.window,
        "max_num_seqs": config.max_sequences,
        "tensor_parallel_size": config.tensor_parallel,
        "gpu_memory_utilization": config.memory_share,
        "enforce_eager": config.enforce_eager,
        "enable_prefix_caching": True,
        "enable_sleep_mode": config.sleep and setup.device.type == "cuda",
        "load_format": "dummy"
        if config.tensor_parallel == 1
        else "auto",  # `load` follows; it needs "auto" for folders
        "logprobs_mode": "raw_logprobs" if setup.ignores_temperature else "processed_logprobs",
        "generation_config": "vllm",
        "disable_log_stats": True,
    }
    return arguments | _overrides(setup) | (_cpu_arguments(setup, config) if setup.device.type == "cpu" else {})


def _overrides(setup: Setup) -> dict[str, object]:
    overrides: dict[str, object] = {}
    if setup.window > setup.positions:
        overrides["max_position_embeddings"] = setup.window
    if setup.is_tied and setup.device.type == "cpu":
        overrides["tie_word_embeddings"] = False
    return {"hf_overrides": overrides}


def _cpu_arguments(setup: Setup, config: VllmConfig) -> dict[str, object]:
    return {
        "kv_cache_memory_bytes": config.cpu_cache_gib * 2**30,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(setup.window, CPU_PREFILL_TOKENS),
        "enforce_eager": True,  # compiling takes 20 s and gains nothing at the sizes that a CPU is for
    }


def _continuation(output: Any) -> Continuation:
    tokens = tuple(int(token) for token in output.token_ids)
    logprobs: Iterator[Mapping[int, Any]] = iter(output.logprobs or ())
    values = tuple(float(place[token].logprob) for place, token in zip(logprobs, tokens, strict=True))
    return Continuation(tokens, values, is_truncated=output.finish_reason != "stop")


@contextmanager
def _faults(doing: str) -> Generator[None]:
    """Whatever vLLM raises, as ours: it has no tree of errors that says which of them it survives."""
    try:
        yield
    except EngineFault:
        raise
    except Exception as error:
        raise EngineFault(f"vLLM failed to {doing}: {type(error).__name__}: {error}") from error


@contextmanager
def _left_alone() -> Generator[None]:
    """Global random numbers and torch's way to set threads are afterwards what they were."""
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    set_num_threads: Callable[[int], None] = torch.set_num_threads
    try:
        with untouched_randomness():
            yield
    finally:
        torch.set_num_threads = set_num_threads
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)
