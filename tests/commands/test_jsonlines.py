"""JSON lines: same order, ids carried through, a bad line does not affect the others, no half-written target."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr.commands.jsonlines import CHUNK_LINES, process, read_line
from azr.errors import InputError
from azr.tasks.rows import BadRow, Row


class Echo:
    """Needs a field `n` and sends it back."""

    def check(self, row: Row) -> None:
        if "n" not in row:
            raise BadRow("`n` is missing")

    async def work(self, rows: Sequence[Row]) -> list[Row]:
        return [{"id": row.get("id"), "n": row["n"]} for row in rows]


async def processed(tmp_path: Path, text: str, seen: list[int] | None = None) -> tuple[int, list[Row]]:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    on_progress = (seen if seen is not None else list[int]()).append
    num_bad = await process(source, target, Echo(), on_progress=on_progress)
    return num_bad, [json.loads(line) for line in target.read_text().splitlines()]


async def test_rows_come_back_in_order_with_their_ids(tmp_path: Path) -> None:
    ids: list[object] = ["a", 7, None, {"deep": [1]}, "é\u2028", "\udc80"]
    text = "".join(json.dumps({"id": one, "n": place}) + "\n" for place, one in enumerate(ids))
    _, rows = await processed(tmp_path, text)
    assert [(row["id"], row["n"]) for row in rows] == [(one, place) for place, one in enumerate(ids)]


async def test_a_bad_line_is_answered_in_its_place(tmp_path: Path) -> None:
    text = '{"id": 1, "n": 1}\n{\n\n[]\n{"id": "c"}\n{"id": 2, "n": 2}'
    num_bad, rows = await processed(tmp_path, text)
    assert num_bad == 3
    assert [row["id"] for row in rows] == [1, None, None, "c", 2]
    assert [row.get("error", "").partition(":")[0] for row in rows] == ["", "line 2", "line 4", "line 5", ""]
    assert rows[3] == {"id": "c", "error": "line 5: `n` is missing"}


@pytest.mark.parametrize(
    "line", ["{", "nul", "[" * 100_000, '{"n": ' + "9" * 5000 + "}", "\udcff", '"text"', "3", "NaN"]
)
async def test_any_bad_line_leaves_the_others_alone(line: str, tmp_path: Path) -> None:
    num_bad, rows = await processed(tmp_path, line + '\n{"n": 1}\r\n')
    assert num_bad == 1
    assert rows[0]["error"].startswith("line 1: not ")
    assert rows[1]["n"] == 1


async def test_many_lines_are_worked_on_in_chunks(tmp_path: Path) -> None:
    seen: list[int] = []
    _, rows = await processed(tmp_path, '{"n": 0}\n' * (2 * CHUNK_LINES + 5), seen)
    assert seen == [CHUNK_LINES, CHUNK_LINES, 5]
    assert len(rows) == 2 * CHUNK_LINES + 5


async def test_an_empty_file_gives_an_empty_file(tmp_path: Path) -> None:
    assert await processed(tmp_path, "\n\n") == (0, [])


async def test_the_target_is_unchanged_when_the_work_fails(tmp_path: Path) -> None:
    class Failing(Echo):
        async def work(self, rows: Sequence[Row]) -> list[Row]:
            raise RuntimeError(f"{len(rows)} rows are too many")

    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"n": 1}\n')
    target.write_text("earlier")
    with pytest.raises(RuntimeError):
        await process(source, target, Failing(), on_progress=lambda _: None)
    assert target.read_text() == "earlier"


async def test_source_may_be_its_own_target(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": 1, "n": 1}\n')
    await process(file, file, Echo(), on_progress=lambda _: None)
    assert json.loads(file.read_text()) == {"id": 1, "n": 1}
    assert list(tmp_path.iterdir()) == [file]


async def test_a_dash_means_the_standard_streams(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"id": 1, "n": 2}\n'))
    await process(Path("-"), Path("-"), Echo(), on_progress=lambda _: None)
    assert json.loads(capsys.readouterr().out) == {"id": 1, "n": 2}


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [("nowhere", "out", "cannot read"), (".", "out", "cannot read"), ("in", "no/folder/out", "cannot write")],
)
async def test_a_file_that_cannot_be_used_is_named(source: str, target: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text('{"n": 1}\n')
    with pytest.raises(InputError, match=why):
        await process(tmp_path / source, tmp_path / target, Echo(), on_progress=lambda _: None)


@given(st.text())
def test_any_line_is_a_row_or_has_an_error(text: str) -> None:
    line = read_line(3, text, check=Echo().check)
    assert line.error.startswith("line 3: ") or "n" in line.row
