"""What a backend provides: guests in isolation, each at the other end of a byte channel."""

from __future__ import annotations

from typing import Protocol

from sandbox.types import Isolation


class ChannelBroken(Exception):
    """The guest at the other end died, hangs, or does not follow the format."""


class Channel(Protocol):
    """A byte stream to one guest; `send` and `receive` raise `ChannelBroken`."""

    async def send(self, data: bytes) -> None: ...

    async def receive(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        ...

    async def close(self) -> None:
        """End the guest; does not raise if it has ended already."""
        ...


class Backend(Protocol):
    """One kind of isolation. Each verb raises `SandboxError`, except `close`."""

    def prepare(self) -> Isolation:
        """Check that guests can be started here, and say what isolates them. Blocks."""
        ...

    async def open(self, slot: int) -> Channel:
        """Start a guest of a seed slot. If it fails or is cancelled, nothing of the guest remains."""
        ...

    async def check(self) -> None:
        """Check that the engine that holds the guests still answers.

        Raises:
            EngineUnavailable: it does not.
        """
        ...

    def close(self) -> None:
        """Remove whatever is left of the guests. Blocks; also called if `prepare` failed."""
        ...
