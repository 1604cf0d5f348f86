"""The paper-size step without a sandbox: what it asks, what it counts, and the whole benchmark once, tiny and real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from azr.bench.counting import Counting
from azr.bench.report import Judgement, figures, to_json
from azr.bench.step import choose, proposal_reply
from azr.commands.bench import Asked, measure
from azr.config import SelfplayConfig
from azr.configfile import defaults
from azr.tasks.registry import make_task_types
from sandbox import Job
from sandbox.bench import programs
from sandbox.bench.comparison import Plan
from sandbox.bench.programs import Row
from tests.fakes import InProcessExecutor, rules

TYPES = ("deduction", "abduction", "induction")
SINGLE = [Row(f"def f(x):\n    return x + {n}", (str(n),), "") for n in range(8)]
SEVERAL = [Row(f"def f(x):\n    return x * {n}", tuple(map(str, range(10))), "times") for n in range(2)]
BAD = Row("def f(x):\n    return x / 0", ("1",), "")


async def test_every_type_gets_its_number_of_fair_proposals() -> None:
    types = make_task_types(TYPES, rules())
    selfplay = SelfplayConfig(proposals_per_type=3)
    rows = [BAD, *SINGLE, *SEVERAL]
    material = await choose(rows, types, InProcessExecutor(), selfplay=selfplay, seed=1)
    assert {name: len(chosen) for name, chosen in material.rows.items()} == dict.fromkeys(TYPES, 3)
    assert all(BAD not in chosen for chosen in material.rows.values())
    assert not set(material.rows["deduction"]) & set(material.rows["abduction"])
    assert all(len(row.inputs) == 10 for row in material.rows["induction"])


async def test_a_seed_chooses_the_same_proposals() -> None:
    types = make_task_types(TYPES, rules())
    selfplay = SelfplayConfig(proposals_per_type=2)
    rows = [*SINGLE, *SEVERAL]
    first, again = [await choose(rows, types, InProcessExecutor(), selfplay=selfplay, seed=1) for _ in range(2)]
    assert first == again


@pytest.mark.parametrize("name", TYPES)
def test_a_proposal_is_read_back_as_it_was_meant(name: str) -> None:
    [task_type] = make_task_types([name], rules()).values()
    row = SEVERAL[1] if name == "induction" else SINGLE[1]
    proposal = task_type.parse_proposal(proposal_reply(name, row), [task_type.seed_task()])
    assert proposal.inputs == row.inputs[-len(proposal.inputs) :]
    assert proposal.message == row.message


async def test_counting_passes_on_and_counts_runs_statuses_and_askers() -> None:
    counting = Counting(InProcessExecutor())
    await counting.run([Job("def f(x): return x", ("1", "2")), Job("def f(x): return x / 0", ("1",))])
    assert (counting.runs, counting.askers, dict(counting.statuses)) == (3, 1, {"ok": 2, "error": 1})


TINY = Plan(rounds=1, block_s=0.02, latency_runs=4, growth_runs=10, cold_starts=1, docker_runs=1, steps=1)


@pytest.mark.docker
async def test_a_tiny_benchmark_measures_everything(tmp_path: Path) -> None:
    config = defaults(["selfplay.proposals_per_type=2", "selfplay.group_size=2"])
    report = await measure(Asked(config, (), TINY), programs.read_rows([])[:6])
    rows = {row.name: row for row in figures(report)}
    for row in rows.values():
        assert (
            row.measured is None
            or row.measured.median > 0
            or row.name in ("growth of it", "audit log, share of the time")
        )
    assert all(spread.median > 0 for spread in report.comparison.ratios.values())
    assert rows["paper-size step"].judgement is not Judgement.OPEN
    [step] = report.steps
    assert [stage.completions for stage in step.stages.values()] == [6, 12, 6]
    assert sum(step.mix.values()) == sum(step.verdicts.values()) == 18
    (tmp_path / "bench.json").write_text(to_json(report))
    assert json.loads((tmp_path / "bench.json").read_text())["isolation"]["backend"] == "docker"
