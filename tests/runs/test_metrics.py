"""metrics.jsonl: one line a step, whatever happens in between."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr.errors import RunError
from azr.runs.metrics import MetricsLog, read


class RecordingSink:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.written: list[tuple[int, dict[str, float]]] = []
        self.is_closed = False

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.written.append((step, dict(values)))

    def close(self) -> None:
        self.is_closed = True


def log_of(path: Path, steps: int) -> MetricsLog:
    log = MetricsLog(path)
    for step in range(1, steps + 1):
        log.append(step, {"loss": step / 2})
    return log


def test_a_line_a_step_is_on_disk_as_soon_as_append_returns(tmp_path: Path) -> None:
    log_of(tmp_path / "metrics.jsonl", 2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 1.0}]


@given(value=st.floats())
def test_every_number_makes_strict_json_and_what_is_not_finite_becomes_null(
    tmp_path_factory: pytest.TempPathFactory, value: float
) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    MetricsLog(path).append(1, {"reward": value})

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    written = json.loads(path.read_text(), parse_constant=refuse)["reward"]
    assert written == (value if math.isfinite(value) else None)
    assert read(path)[0]["reward"] == value or math.isnan(read(path)[0]["reward"])


def test_the_step_is_the_caller_s_not_the_metrics_own(tmp_path: Path) -> None:
    MetricsLog(tmp_path / "m").append(3, {"step": 99.0})
    assert read(tmp_path / "m") == [{"step": 3}]


@given(cut=st.integers(min_value=1, max_value=26))
def test_a_kill_inside_the_last_line_costs_that_line_only(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    log_of(path, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - min(cut, len(whole.splitlines()[-1]) + 1)])
    assert [line["step"] for line in read(path)] == [1, 2]
    MetricsLog(path).append(3, {"loss": 9.0})
    assert [line["loss"] for line in read(path)] == [0.5, 1.0, 9.0]


def test_resume_forgets_the_steps_that_are_done_again(tmp_path: Path) -> None:
    log = log_of(tmp_path / "m", 5)
    log.truncate_after(3)
    log.append(4, {"loss": 7.0})
    assert [(line["step"], line["loss"]) for line in read(tmp_path / "m")] == [(1, 0.5), (2, 1.0), (3, 1.5), (4, 7.0)]


def test_there_is_nothing_to_forget_before_the_first_step(tmp_path: Path) -> None:
    MetricsLog(tmp_path / "m").truncate_after(0)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("line", [b"{half", b"[1]", b'{"loss": 1}'])
def test_damage_before_the_last_line_is_named_not_passed_over(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl:2"):
        read(path)


def test_a_missing_file_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No such file"):
        read(tmp_path / "metrics.jsonl")


def test_sinks_get_every_step_s_finite_values_and_are_closed(tmp_path: Path) -> None:
    sink = RecordingSink()
    log = MetricsLog(tmp_path / "m", [sink])
    log.append(1, {"loss": 0.5, "entropy": math.nan})
    log.close()
    assert sink.written == [(1, {"loss": 0.5})]
    assert sink.is_closed
