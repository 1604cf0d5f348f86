"""These tests need the second environment, `.venv-scale`: `make test-scale`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

STANDINS = Path(__file__).parent / "standins"
if importlib.util.find_spec("flash_attn") is None:
    sys.path.insert(0, str(STANDINS))
collect_ignore_glob = (
    [] if all(importlib.util.find_spec(name) for name in ("openrlhf", "vllm", "ray")) else ["test_*.py"]
)
