"""What overlap would gain with an engine that batches continuously: `python -m tests.selfplay.overlap_simulation`.

The game is real; engine, sandbox and time are not. Each completion has a length, drawn log-normally and cut at the
limit, the same one in turn and overlapped. The engine runs up to `sequences` at once, first come first served; a token
of each takes `idle_s + loaded_s * running / sequences`. Prefill is free. The sandbox has two cores, 5 ms of one a job,
as `azr bench sandbox` measured (3.2 s on two cores for 1,280 jobs). Time is virtual: no figure depends on the machine.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import selectors
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, TypeVar

from azr.selfplay.absolute_zero import play_step
from azr.selfplay.episode import PlayedStep
from azr.types import Completion, Role
from sandbox.types import Execution, Job
from tests.fakes import InProcessExecutor, block, game, induction_proposal, proposal, reply, task
from tests.selfplay.players import NO_TAGS, WRONG_OUTPUT, cell_of, program, right_output

V = TypeVar("V")
MAX_TOKENS = 8096
JOB_S = 0.005
CORES = 2


class Jumping(selectors.DefaultSelector):
    """Does not wait: its clock jumps to where the wait would have ended."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if timeout is None and not ready:
            raise RuntimeError("everyone waits for someone else")
        self.now_s += timeout or 0.0
        return ready


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop in which minutes pass in no time."""

    def __init__(self) -> None:
        self._jumping = Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


def passed(work: Coroutine[Any, Any, V]) -> tuple[V, float]:
    """What the work gave, and how many virtual seconds it took."""
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        return runner.run(work), runner.get_loop().time()


@dataclass(frozen=True, slots=True)
class Engine:
    """How fast tokens come."""

    sequences: int
    idle_s: float
    loaded_s: float

    def token_s(self, running: int) -> float:
        return self.idle_s + self.loaded_s * running / self.sequences


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long completions are: a log-normal distribution, cut at the limit."""

    median: float
    sigma: float

    def draw(self, rng: random.Random) -> int:
        return max(1, min(MAX_TOKENS, round(self.median * rng.lognormvariate(0.0, self.sigma))))


class Batching:
    """Sequences that grow by a token at a time, all at the same pace."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._slots = asyncio.Semaphore(engine.sequences)
        self._ends: list[tuple[float, int, asyncio.Future[None]]] = []
        self._tokens = 0.0
        self._since_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.generated = 0

    async def grow(self, length: int) -> None:
        """Wait for a place, then for `length` tokens."""
        async with self._slots:
            self._move_on()
            end = asyncio.get_running_loop().create_future()
            self.generated += length
            heapq.heappush(self._ends, (self._tokens + length, self.generated, end))
            self._wake_at_the_next_end()
            await end

    def _move_on(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._ends:
            self._tokens += (now_s - self._since_s) / self._engine.token_s(len(self._ends))
        self._since_s = now_s

    def _wake_at_the_next_end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._ends:
            wait_s = (self._ends[0][0] - self._tokens) * self._engine.token_s(len(self._ends))
            self._timer = asyncio.get_running_loop().call_later(max(0.0, wait_s), self._end)

    def _end(self) -> None:
        self._move_on()
        while self._ends and self._ends[0][0] <= self._tokens + 1e-6:
            heapq.heappop(self._ends)[2].set_result(None)
        self._wake_at_the_next_end()


class SimulatedPolicy:
    """Proposes fair tasks four times in five and solves half of what it is asked."""

    def __init__(self, engine: Engine, lengths: Lengths, seed: int) -> None:
        self._batching = Batching(engine)
        self._lengths = lengths
        self._seed = seed

    async def __call__(self, prompts: Sequence[str], num_samples: int, stream: str) -> list[list[Completion]]:
        del stream
        words = [[random.Random(f"{self._seed} {prompt} {i}") for i in range(num_samples)] for prompt in prompts]
        lengths = [[self._lengths.draw(rng) for rng in group] for group in words]
        await asyncio.gather(*(self._batching.grow(length) for group in lengths for length in group))
        return [
            [_completion(_written(prompt, rng), length) for rng, length in zip(rngs, tokens, strict=True)]
            for prompt, rngs, tokens in zip(prompts, words, lengths, strict=True)
        ]


def _completion(text: str, length: int) -> Completion:
    return Completion(text, (1,), (0,) * length, (0.0,) * length, is_truncated=length == MAX_TOKENS)


def _written(prompt: str, rng: random.Random) -> str:
    cell = cell_of(prompt)
    if cell.role is Role.SOLVER:
        right = right_output(prompt) if cell.task_type == "deduction" else reply(block("input", "5"))
        return right if rng.random() < 0.5 else WRONG_OUTPUT
    if rng.random() < 0.2:
        return NO_TAGS
    number = rng.randrange(10**6)
    if cell.task_type == "induction":
        return induction_proposal(["1", "2", "3", str(number)])
    return proposal(program(number))


class TwoCores(InProcessExecutor):
    """Takes as long as the sandbox does."""

    def __init__(self) -> None:
        super().__init__()
        self._cores = asyncio.Semaphore(CORES)

    async def run(self, jobs: Sequence[Job]) -> list[Execution]:
        return [execution for job in jobs for execution in await self._run_one(job)]

    async def _run_one(self, job: Job) -> list[Execution]:
        async with self._cores:
            await asyncio.sleep(JOB_S)
            return await super().run([job])


def step(engine: Engine, lengths: Lengths, *, seed: int, **config: Any) -> tuple[PlayedStep, float]:
    """A step of the game with the paper's sizes, and its virtual seconds."""
    sizes: dict[str, Any] = {"proposals_per_type": 64, "group_size": 8, "references": 6, **config}

    async def play() -> PlayedStep:
        made = game(SimulatedPolicy(engine, lengths, seed), executor=TwoCores(), seed=seed, **sizes)
        for name in made.task_types:
            for number in range(60):
                made.buffer.add(task(program(number), output="7", task_type=name))
        return await play_step(replace(made, batches_continuously=True))

    return passed(play())


ENGINES = {
    "30 ms a token, however many of 256 run": Engine(256, 0.030, 0.0),
    "10 to 30 ms a token, with 1 to 256 running": Engine(256, 0.010, 0.020),
    "10 to 30 ms a token, with 1 to 1,024 running": Engine(1024, 0.010, 0.020),
}
LENGTHS = {"median 300, mean 490": Lengths(300, 1.0), "median 1,500, mean 2,000": Lengths(1500, 0.8)}
SEEDS = 3


MODES: tuple[dict[str, Any], ...] = ({}, {"overlap": True}, {"overlap": True, "duplicates": "rejected"})


def main() -> None:
    print("| engine | tokens a completion | in turn | overlap | gain | duplicates rejected | gain |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for engine_name, engine in ENGINES.items():
        for lengths_name, lengths in LENGTHS.items():
            in_turn, *faster = (
                fmean(step(engine, lengths, seed=seed, **mode)[1] for seed in range(SEEDS)) for mode in MODES
            )
            cells = [f"{seconds:.0f} s | {in_turn / seconds:.2f} x" for seconds in faster]
            print(f"| {engine_name} | {lengths_name} | {in_turn:.0f} s | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
