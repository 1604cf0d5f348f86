"""Atomic files and JSON state."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr.errors import CheckpointError, RunError
from azr.runs.files import disk_faults, read_json, write_atomically, write_json

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))
STATES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
    max_leaves=20,
)


@given(state=STATES)
def test_json_state_comes_back_as_it_was_lone_surrogates_and_infinities_included(
    tmp_path_factory: pytest.TempPathFactory, state: object
) -> None:
    path = tmp_path_factory.mktemp("state") / "state.json"
    write_json(path, state)
    assert read_json(path) == state


def test_a_failed_write_leaves_the_file_from_before_and_no_leftover(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_json(path, {"step": 1})
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # pyright: ignore[reportArgumentType]  # the fault that is injected
    assert read_json(path) == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("content", [b"", b'{"step": ', b"\xff\xfe"])
def test_damaged_json_state_is_a_checkpoint_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"state\.json"):
        read_json(path)


def test_missing_json_state_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        read_json(tmp_path / "state.json")


def test_writing_state_to_a_folder_that_is_not_there_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No such file"):
        write_json(tmp_path / "missing" / "state.json", {})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_in_plain_words(number: int) -> None:
    with (
        pytest.raises(RunError, match=r"cannot write it: the disk is full\. Free some space.*--resume"),
        disk_faults("write it"),
    ):
        raise OSError(number, "No space")


def test_another_refusal_keeps_its_own_words() -> None:
    with pytest.raises(RunError, match="cannot write it: disk I/O error"), disk_faults("write it"):
        raise sqlite3.OperationalError("disk I/O error")
