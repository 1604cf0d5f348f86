"""`make test-fast` needs no engine: unmarked tests cannot reach one, and marks do not depend on one being there."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest

from sandbox.docker.engine import connect
from sandbox.jail.bubblewrap import find
from sandbox.types import EngineUnavailable
from tests.conftest import ROOT, without_engine
from tests.sandbox.engines import SDK_LEAVES_SOCKETS

FAST = "not docker and not jail and not slow and not ray"
"""As in the Makefile."""


@SDK_LEAVES_SOCKETS
@pytest.mark.parametrize("reach", [connect, find])
def test_a_test_without_a_mark_reaches_no_engine(reach: object) -> None:
    assert callable(reach)
    with pytest.raises(EngineUnavailable):
        reach()
    gc.collect()  # the Docker SDK's socket, while its warning is ignored


def test_the_makefile_selects_by_these_marks() -> None:
    assert f'-m "{FAST}"' in (ROOT / "Makefile").read_text()


def test_the_fast_tests_are_found_without_an_engine() -> None:
    folders = ["tests/sandbox", "tests/training/test_resume.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-q", "-p", "no:cacheprovider", "-m", FAST, *folders],
        cwd=ROOT, env={**os.environ, **without_engine()}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    assert "tests/sandbox/shared/test_values.py" in done.stdout
    for needs_engine in ("test_contract.py", "test_resume.py", "test_jail.py", "test_docker.py"):
        assert needs_engine not in done.stdout
