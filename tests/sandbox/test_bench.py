"""The benchmark's arithmetic and its parts; what it measures is never compared with a clock here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from sandbox import Execution, Job
from sandbox.bench import comparison, floor_guest, floors, guests, load, machine, programs
from sandbox.bench.floors import FloorContainer, Pace
from sandbox.bench.guests import Memory
from sandbox.bench.programs import BadPrograms, Sample
from sandbox.bench.statistics import Latency, Spread, paired_ratio, percentile
from sandbox.docker import image
from tests.fakes import InProcessExecutor

DOUBLE = Sample("def f(x):\n    return 2 * x", "21")


def test_percentiles_lie_between_neighbours() -> None:
    assert [percentile([1.0, 2.0, 3.0, 4.0], share) for share in (0.0, 0.5, 1.0)] == [1.0, 2.5, 4.0]


def test_nothing_measured_is_an_error_and_no_zero() -> None:
    for summarise in (Spread.of, Latency.of):
        with pytest.raises(ValueError, match="nothing was measured"):
            summarise([])


def test_a_spread_is_median_and_extremes() -> None:
    assert Spread.of([3.0, 1.0, 100.0]) == Spread(median=3.0, low=1.0, high=100.0, repeats=3)


def test_a_latency_is_in_milliseconds_and_its_quantiles_are_a_curve() -> None:
    latency = Latency.of([at / 1000 for at in range(101)])
    assert (latency.p50_ms, latency.p95_ms, latency.p99_ms, latency.highest_ms) == pytest.approx((50, 95, 99, 100))
    assert list(latency.quantiles_ms) == sorted(latency.quantiles_ms)
    assert len(latency.quantiles_ms) == 101


def test_a_ratio_pairs_neighbours_so_that_a_slow_minute_cancels_out() -> None:
    assert paired_ratio([90.0, 9.0, 45.0], [100.0, 10.0, 50.0]) == Spread(0.9, 0.9, 0.9, 3)


def test_ratios_are_left_out_where_a_floor_is_missing() -> None:
    rates = {comparison.ONE_CORE_SERVICE: 10.0, comparison.ALL_CORES: 19.0, comparison.ONE_CORE: 11.0}
    assert comparison.ratios({name: [Pace(per_s, 1.0)] for name, per_s in rates.items()}) == {
        "scaling": Spread(1.9, 1.9, 1.9, 1)
    }


def test_processor_time_is_compared_with_the_fork_of_the_same_round() -> None:
    paces = {
        comparison.ONE_CORE: [Pace(9.0, 3.0), Pace(9.0, 30.0)],
        comparison.FLOOR_ONE: [Pace(10.0, 2.0), Pace(10.0, 20.0)],
    }
    assert comparison.ratios(paces)["CPU to the floor"] == Spread(1.5, 1.5, 1.5, 2)


def test_growth_is_of_guests_that_lived_through_it() -> None:
    before = {7: Memory(10.0, 5.0), 8: Memory(10.0, 5.0), 9: Memory(30.0, 9.0)}
    after = {7: Memory(10.5, 5.0), 8: Memory(12.0, 6.0), 10: Memory(11.0, 5.0)}
    grown = guests.growth(before, after, runs=100)
    assert grown is not None
    assert (grown.memory, grown.grown_mb, grown.runs) == (Memory(12.0, 6.0), 2.0, 100)
    assert guests.growth(before, {}, runs=100) is None


def test_every_embedded_program_gives_a_value_on_each_of_its_inputs() -> None:
    for row in programs.read_rows([]):
        for text in row.inputs:
            namespace: dict[str, object] = {}
            exec(row.program, namespace)
            eval(f"f({text}\n)", namespace)


def test_the_embedded_set_serves_every_task_type() -> None:
    rows = programs.read_rows([])
    assert len(rows) >= 40
    assert all(len(set(row.inputs)) == 10 and row.message for row in rows)


def test_imports_stand_before_the_program(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"snippet": "def f(x): return x", "input": "1", "imports": ["import re"]}) + "\n")
    assert programs.samples_of(programs.read_rows([file])) == [Sample("import re\ndef f(x): return x", "1")]


@pytest.mark.parametrize(
    "line", ['{"snippet": "x"}', "not json", '{"snippet": 7, "input": "1"}', '{"snippet": "x", "inputs": []}']
)
def test_a_line_that_is_no_program_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"snippet": "def f(x): return x", "input": "1"}}\n{line}\n')
    with pytest.raises(BadPrograms, match=r"rows.jsonl:2 is no program"):
        programs.read_rows([file])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadPrograms, match="nowhere"):
        programs.read_rows([tmp_path / "nowhere.jsonl"])


async def test_programs_that_fail_are_not_measured() -> None:
    wrong = Sample("def f(x):\n    return x / 0", "1")
    assert await programs.small_ones(InProcessExecutor(), [DOUBLE, wrong]) == [DOUBLE]


def test_jobs_take_the_seed_slots_in_turn() -> None:
    assert [job.seed_slot for job in load.jobs_of([DOUBLE] * 3)] == [0, 1, 0]


class Watching(InProcessExecutor):
    """Notes how many calls are under way."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    async def run(self, jobs: Sequence[Job]) -> list[Execution]:
        import asyncio

        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        return await super().run(jobs)


@pytest.mark.parametrize("in_flight", [1, 3])
async def test_latency_keeps_so_many_jobs_in_flight_and_no_more(in_flight: int) -> None:
    executor = Watching()
    seconds = await load.latencies_s(executor, load.jobs_of([DOUBLE] * 9), in_flight=in_flight)
    assert (len(seconds), executor.most) == (9, in_flight)


def test_the_floor_runs_a_program_in_a_fork_and_in_a_fresh_interpreter() -> None:
    for way in (floor_guest.fork, floor_guest.fresh):
        took, value = way(DOUBLE.program, DOUBLE.input)
        assert took > 0
        assert value.strip() == b"42"


def test_the_floor_is_as_warm_as_the_supervisor() -> None:
    assert "collections" in floors.preimported()


def test_the_machine_is_described() -> None:
    found = machine.look()
    assert found.cores == len(machine.usable_cores()) >= 1
    assert found.cpu
    assert 0 <= found.busy <= 1


@pytest.mark.parametrize(("busy", "load_1min", "is_warned"), [(0.02, 0.9, False), (0.6, 0.1, True), (0.02, 5.0, True)])
def test_a_busy_machine_is_a_warning(busy: float, load_1min: float, is_warned: bool) -> None:
    found = machine.Machine("cpu", 2, "6.1", "3.11", "", (), load_1min=load_1min, busy=busy)
    assert bool(found.warning) is is_warned


@pytest.mark.docker
def test_the_floor_answers_from_a_container_of_its_own() -> None:
    with FloorContainer(image.ensure(), machine.usable_cores()[0]) as container:
        reply = container.ask({"do": "fork", "programs": [(DOUBLE.program, DOUBLE.input)] * 3})
        assert (reply["values"], len(reply["seconds"])) == (3, 3)
        assert floors.pace([container], "fresh", [DOUBLE]).per_s > 0
        assert floors.busy_pace([container], 1000).per_s > 0
