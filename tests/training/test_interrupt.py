"""The first signal stops a run after its step, the second one aborts it."""

from __future__ import annotations

import os
import signal

import pytest

from azr.training.interrupt import interruptible


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_and_the_second_aborts(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []
    before = signal.getsignal(number)
    with interruptible(lambda: calls.append("stop"), lambda: calls.append("abort")):
        os.kill(os.getpid(), number)
        assert calls == ["stop"]
        assert "press Ctrl-C again to abort" in capsys.readouterr().err
        os.kill(os.getpid(), number)
        assert calls == ["stop", "abort"]
    assert signal.getsignal(number) == before
