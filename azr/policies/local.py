"""A policy in this process, with torch and transformers: any causal language model, on the CPU or one GPU."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from azr.config import LearnerConfig, ModelConfig, SamplingConfig
from azr.errors import PolicyError
from azr.policies import checkpoint
from azr.policies.base import Sampling
from azr.policies.generation import Continuation, Markers, continue_batch
from azr.policies.learner import Learner, Reference, action_logprobs
from azr.policies.loading import LoadedModel, load_model
from azr.policies.randomness import random_stream
from azr.policies.thinking import Steps, closing_steps
from azr.rl.batch import MicroBatch
from azr.types import Completion, TrainingSample

Value = TypeVar("Value")
Stream = Callable[[], AbstractContextManager[torch.Generator]]


class LocalPolicy:
    """Implements `azr.policies.base.Policy`.

    All torch work runs in one thread of its own: calls queue up there, the event loop stays free for the sandbox, and
    there is never more than one stream of torch operations. What a call draws depends on the seed and on how many
    calls came before it, on nothing else; torch's global random state is as it was afterwards.
    On a CPU the same seed gives the same bits; on a GPU as far as its kernels do.
    """

    def __init__(self, model: ModelConfig, learner: LearnerConfig, sampling: SamplingConfig, seed: int) -> None:
        """Load the model.

        Raises:
            PolicyError: it is not there or does not load.
        """
        if model.threads:
            torch.set_num_threads(model.threads)
        self._batch_size = sampling.batch_size
        self._counters = checkpoint.Counters(seed=seed, generate_calls=0, update_calls=0)
        with random_stream(seed, "adapters"):
            self._loaded = load_model(model)
        self._loaded.model.eval()
        reference = _reference(self._loaded, sampling.temperature) if learner.kl_coef else None
        self._learner = Learner(self._loaded.model, learner, temperature=sampling.temperature, reference=reference)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="policy")

    @property
    def batches_continuously(self) -> bool:
        return False

    async def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[list[Completion]]:
        """`num_samples` completions for each prompt, in the order of the prompts.

        Logprobs are of the temperature-scaled distribution, before top-p. `text` keeps special tokens such as tags.

        Raises:
            PolicyError: a prompt is empty, the memory is too small, or the logits are not finite.
        """
        counters = self._counters
        if not sampling.stream:
            self._counters = counters._replace(generate_calls=counters.generate_calls + 1)
        stream = partial(random_stream, counters.seed, f"generate {sampling.stream or counters.generate_calls}")
        return await self._in_thread(partial(self._generate, list(prompts), sampling, stream=stream))

    def count_tokens(self, text: str) -> int:
        """Length of a prompt in tokens."""
        return len(self._tokenize([text])[0])

    async def update(self, samples: Sequence[TrainingSample]) -> Mapping[str, float]:
        """Learn from one step's samples; token means of `loss`, `ratio`, `clip_share`, `entropy`, `kl`, `sampler_kl`,
        `entropy/<role>/<type>`, and `grad_norm`, `learning_rate`, `tokens`, `optimizer_steps`.

        Raises:
            PolicyError: a value is not finite, or the memory is too small; the weights are those from before.
        """
        counters = self._counters
        self._counters = counters._replace(update_calls=counters.update_calls + 1)
        stream = partial(random_stream, counters.seed, f"update {counters.update_calls}")
        return await self._in_thread(partial(self._update, list(samples), stream=stream))

    def save(self, folder: Path) -> None:
        """Write trained weights (adapters alone where there are adapters), moments and counters; no pickles."""
        self._thread.submit(lambda: checkpoint.write(folder, self._learner.state(), self._counters)).result()

    def load(self, folder: Path) -> None:
        """Become exactly what `save` wrote, its seed included.

        Raises:
            CheckpointError: the folder is incomplete, damaged or of another model.
        """
        self._thread.submit(self._load, folder).result()

    def export(self, folder: Path) -> None:
        """Write a model that `transformers` loads by itself, with adapters merged into a copy of the weights."""
        self._thread.submit(self._export, folder).result()

    async def _in_thread(self, work: Callable[[], Value]) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _generate(self, prompts: list[str], sampling: Sampling, *, stream: Stream) -> list[list[Completion]]:
        rows = [row for row in self._tokenize(prompts) for _ in range(sampling.num_samples)]
        if not all(rows):
            raise PolicyError("a prompt without a single token cannot be continued")
        by_length = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
        batches = [by_length[start : start + self._batch_size] for start in range(0, len(rows), self._batch_size)]
        markers = Markers(self._loaded.end_ids, () if sampling.thinking == "free" else self._closing_steps)
        sampled: dict[int, Continuation] = {}
        with _torch_errors("generate; a smaller sampling.batch_size needs less memory"), stream():
            for batch in batches:
                prompt_rows = [rows[place] for place in batch]
                continued = continue_batch(self._loaded.model, prompt_rows, sampling=sampling, markers=markers)
                sampled.update(zip(batch, continued, strict=True))
        completions = self._completions(rows, [sampled[place] for place in range(len(rows))])
        return [
            completions[start : start + sampling.num_samples] for start in range(0, len(rows), sampling.num_samples)
        ]

    @cached_property
    def _closing_steps(self) -> Steps:
        return closing_steps(self._loaded.tokenizer)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        return cast("list[list[int]]", self._loaded.tokenizer(list(texts))["input_ids"])

    def _completions(self, rows: Sequence[Sequence[int]], sampled: Sequence[Continuation]) -> list[Completion]:
        visible = [list(c.token_ids if c.is_truncated else c.token_ids[:-1]) for c in sampled]
        texts = [self._loaded.tokenizer.decode(tokens, clean_up_tokenization_spaces=False) for tokens in visible]
        return [
            Completion(
                text=cast(str, text),
                prompt_ids=tuple(row),
                token_ids=continuation.token_ids,
                sampling_logprobs=continuation.logprobs,
                is_truncated=continuation.is_truncated,
            )
            for text, row, continuation in zip(texts, rows, sampled, strict=True)
        ]

    def _update(self, samples: list[TrainingSample], *, stream: Stream) -> dict[str, float]:
        with _torch_errors("learn; a smaller learner.micro_batch_tokens needs less memory"), stream() as generator:
            return self._learner.update(samples, generator=generator)

    def _load(self, folder: Path) -> None:
        state, counters = checkpoint.read(folder)
        self._learner.restore(state)
        self._counters = counters

    def _export(self, folder: Path) -> None:
        model, adapters = self._loaded.model, self._loaded.adapters
        if adapters is not None:
            model = cast(PreTrainedModel, copy.deepcopy(adapters).merge_and_unload())
        model.save_pretrained(folder)
        self._loaded.generation_config.save_pretrained(folder)
        self._loaded.tokenizer.save_pretrained(folder)


def _reference(loaded: LoadedModel, temperature: float) -> Reference:
    """Logprobs under the start model: the one below the adapters, or a frozen copy where all weights are trained."""
    adapters = loaded.adapters
    model = loaded.model if adapters else copy.deepcopy(loaded.model).requires_grad_(False)

    @torch.no_grad()
    def logprobs(batch: MicroBatch) -> Tensor:
        with adapters.disable_adapter() if adapters else nullcontext():
            return action_logprobs(model, batch, temperature=temperature).logprobs_N

    return logprobs


@contextmanager
def _torch_errors(doing: str) -> Generator[None]:
    """Torch's errors as ours, said once at the border."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        raise PolicyError(f"the model failed to {doing}: {error}") from error
