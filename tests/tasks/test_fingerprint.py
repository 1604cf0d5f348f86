"""Two programs are the same task when they differ only in what a reader would not call a difference."""

from __future__ import annotations

import pytest

from azr.tasks.source import fingerprint, normal_form

PROGRAM = "def g(y):\n    return y + 1\n\ndef f(x):\n    total = g(y=x)\n    return total * 2"


@pytest.mark.parametrize(
    "variant",
    [
        "def g(b):\n    return b + 1\n\ndef f(a):\n    s = g(b=a)\n    return s * 2",
        "def helper(y):\n    return y + 1\n\ndef f(x):\n    total = helper(y=x)\n    return total * 2",
        "# twice\ndef g(y):\n    # one more\n    return y + 1\ndef f(x):\n    total = (g(y=x))\n\n"
        "    return (total*2)  # ok",
        "def g(y: int) -> int:\n    return y + 1\n\ndef f(x: 'int') -> int:\n"
        "    total: int = g(y=x)\n    return total * 2",
        '"""Doc."""\ndef g(y):\n    "Doc."\n    return y + 1\n\ndef f(x):\n    """Doc."""\n'
        "    total = g(y=x)\n    return total * 2",
    ],
    ids=["variables", "helper", "comments and layout", "annotations", "docstrings"],
)
def test_renamed_and_commented_variants_are_one_program(variant: str) -> None:
    assert fingerprint(variant) == fingerprint(PROGRAM)


DIFFERENT = [
    ("def f(x):\n    return x + 1", "def f(x):\n    return x + 2"),
    ("def f(x, y):\n    return x - y", "def f(x, y):\n    return y - x"),
    ("def f(x):\n    return 'a'", "def f(x):\n    return 'b'"),
    ("def f(x):\n    return sorted(x)", "def f(x):\n    return reversed(x)"),
    ("def f(x):\n    return x.upper()", "def f(x):\n    return x.lower()"),
    ("def f(x):\n    return dict(a=x)", "def f(x):\n    return dict(b=x)"),
    ("def f(a, b):\n    return dict(a=b)", "def f(b, a):\n    return dict(b=b)"),
    ("async def f(x):\n    return x", "def f(x):\n    return x"),
    ("def f(x):\n    return x", "def f(*x):\n    return x"),
    ("def f(x):\n    return f(x)", "def f(x):\n    return g(x)"),
    (
        "class A:\n    def one(self): return 1\n    def two(self): return 2\ndef f(x): return A().one()",
        "class A:\n    def two(self): return 1\n    def one(self): return 2\ndef f(x): return A().one()",
    ),
    (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    a: int\n    b: int\ndef f(x): return P(1, x).a",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    b: int\n    a: int\ndef f(x): return P(1, x).a",
    ),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_programs_differ(one: str, other: str) -> None:
    assert fingerprint(one) != fingerprint(other)


def test_other_inputs_make_another_task() -> None:
    assert len({fingerprint(PROGRAM, inputs) for inputs in [(), ("1",), ("2",), ("1", "2"), ("12",), ("1, 2",)]}) == 6


@pytest.mark.parametrize("program", [one for one, _ in DIFFERENT] + [PROGRAM])
def test_normal_form_is_its_own_normal_form(program: str) -> None:
    assert normal_form(normal_form(program)) == normal_form(program)
