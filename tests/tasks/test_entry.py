"""The entry function is called `f` without a change of meaning, or the program is Malformed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr.errors import Malformed
from azr.tasks.source import entry_program, parses, takes_input
from sandbox.types import Job
from tests.fakes import InProcessExecutor

KEPT = {
    "as it stands": "def f(x):  # keep me\n    return ( x )",
    "with helpers": "def g(x): return x\n\n\ndef f(x): return g(x)\ndef solve(x): return x",
    "async": "async def f(x):\n    return x",
    "lambda": "f = lambda x: x  # short",
    "twice": "def f(x): return 1\ndef f(x): return 2",
    "unicode and tabs": "def f(größe):\n\treturn 'é' + größe  # naïve\n",
}


@pytest.mark.parametrize("program", KEPT.values(), ids=list(KEPT))
def test_program_with_an_f_stays_as_it_is(program: str) -> None:
    assert entry_program(program) == program


RENAMED = {
    "plain": ("def solve(x):\n    return x * 2", "def f(x):\n    return x * 2"),
    "comment kept": ("def solve(x):  # solve it\n    return x", "def f(x):  # solve it\n    return x"),
    "recursion": (
        "def solve(n):\n    return n * solve(n - 1) if n else 1",
        "def f(n):\n    return n * f(n - 1) if n else 1",
    ),
    "text of the same name": (
        "def solve(x):\n    return 'solve(1)' + x  # solve(2)",
        "def f(x):\n    return 'solve(1)' + x  # solve(2)",
    ),
    "passed on": ("def solve(x):\n    return list(map(solve, x))", "def f(x):\n    return list(map(f, x))"),
    "letters around it": ("def add(add_to):\n    return add_to.add", "def f(add_to):\n    return add_to.add"),
    "parameter shadows it": ("def solve(solve):\n    return solve", "def f(solve):\n    return solve"),
    "async": ("async def solve(x):\n    return x", "async def f(x):\n    return x"),
    "decorator": ("@staticmethod\ndef solve(x):\n    return x", "@staticmethod\ndef f(x):\n    return x"),
    "name that begins like def": ("def d(x):\n    return d", "def f(x):\n    return f"),
    "unicode name": ("def é(x):\n    return é", "def f(x):\n    return f"),
    "unicode before it": ("def solve(x):\n    return 'äöü€𝄞', solve", "def f(x):\n    return 'äöü€𝄞', f"),
    "method of the same name": (
        "class A:\n    def add(self, x):\n        return x\n\ndef add(x):\n    return A().add(x)",
        "class A:\n    def add(self, x):\n        return x\n\ndef f(x):\n    return A().add(x)",
    ),
    "keyword of the same name": (
        "def g(solve):\n    return solve\ndef solve(x):\n    return g(solve=x)",
        "def g(solve):\n    return solve\ndef f(x):\n    return g(solve=x)",
    ),
    "carriage returns": ("x = 1\rdef solve(a):\r\n    return a", "x = 1\ndef f(a):\n    return a"),
}


@pytest.mark.parametrize(("program", "expected"), RENAMED.values(), ids=list(RENAMED))
def test_only_the_entry_is_renamed(program: str, expected: str) -> None:
    assert entry_program(program) == expected


@pytest.mark.parametrize(
    "program",
    [
        "def helper(x):\n    return x\ndef solve(x):\n    return helper(x)",
        "def solve(x):\n    return helper(x)\ndef helper(x):\n    return x",
        "class Box:\n    def get(self, x):\n        return helper(x)\n\ndef solve(x):\n    return Box().get(x)\n\n"
        "def helper(x):\n    return x",
        "def twice(g):\n    return lambda x: g(g(x))\n\n@twice\ndef solve(x):\n    return x",
        "def solve(x):\n    return x\nprint(solve(1))",
    ],
)
def test_entry_is_the_function_that_no_other_one_calls(program: str) -> None:
    assert "def f(x)" in entry_program(program)
    assert "def solve" not in entry_program(program)


SAME_MEANING = {
    "recursion": ("def solve(n):\n    return 1 if n == 0 else n * solve(n - 1)", "5"),
    "passed to map": ("def solve(x):\n    return list(map(solve, x)) if isinstance(x, list) else x + 1", "[1, [2]]"),
    "local of the same name elsewhere": (
        "def g(x):\n    solve = x + 1\n    return solve\ndef solve(x):\n    return g(x)",
        "1",
    ),
    "parameter of the same name elsewhere": ("def g(solve):\n    return solve\ndef solve(x):\n    return g(x)", "1"),
    "comprehension variable": ("def solve(x):\n    return [solve for solve in x]", "[1, 2]"),
    "comprehension over itself": ("def solve(x):\n    return [g(x) for g in [len, sum] if g is not solve]", "[1, 2]"),
    "comprehension variable called f": ("def g(x):\n    return [f for f in x]\ndef solve(x):\n    return g(x)", "[1]"),
    "import of the same name inside": (
        "def g(x):\n    import math as solve\n    return solve.pi\ndef solve(x):\n    return g(x)",
        "1",
    ),
    "exception of the same name": (
        "def g(x):\n    try:\n        raise ValueError(x)\n    except ValueError as solve:\n        return str(solve)\n"
        "def solve(x):\n    return g(x)",
        "1",
    ),
    "match capture": (
        "def g(x):\n    match x:\n        case [solve, *_]:\n            return solve\ndef solve(x):\n    return g(x)",
        "[4, 5]",
    ),
    "class attribute of the same name": (
        "class A:\n    solve = 7\n    twice = solve * 2\n\ndef solve(x):\n    return A.solve + A.twice + x",
        "1",
    ),
    "method calls the function": (
        "class A:\n    def solve(self, n):\n        return solve(n - 1)\n\n"
        "def solve(n):\n    return A().solve(n) if n else 'done'",
        "3",
    ),
    "default argument": ("def g(x, solve=3):\n    return x + solve\ndef solve(x):\n    return g(x)", "1"),
    "nested function": (
        "def solve(x):\n    def inner(y):\n        return solve(y - 1) if y else 0\n    return inner(x)",
        "2",
    ),
    "f-string": ("def solve(x):\n    return f'{solve.__class__.__name__} {x}'", "1"),
    "alias called f": ("def solve(x):\n    return x + 1\nf = solve", "1"),
    "partial called f": (
        "import functools\ndef solve(a, x):\n    return a * x\nf = functools.partial(solve, 3)",
        "2",
    ),
    "rebound at module level": ("def solve(x):\n    return x + 1\nsolve = (lambda g: lambda x: g(x) * 2)(solve)", "1"),
}


@pytest.mark.parametrize(("program", "argument"), SAME_MEANING.values(), ids=list(SAME_MEANING))
async def test_renamed_program_does_what_the_original_does(program: str, argument: str) -> None:
    original = Job(program, (argument,), entry="f" if "\nf = " in program else "solve")
    before, after = await InProcessExecutor().run([original, Job(entry_program(program), (argument,))])
    assert before.ok
    assert after.results[0].value == before.results[0].value


@pytest.mark.parametrize(
    "program",
    [
        "def solve(x):\n    f = 3\n    return solve(f)",
        "def solve(f):\n    return solve(f)",
        "def solve(x):\n    return [solve(f) for f in x]",
        "def solve(x):\n    return (lambda f: solve(f))(x)",
        "f = 3\ndef solve(x):\n    return x + f",
        "import math as f\ndef solve(x):\n    return f.pi",
        "class f:\n    pass\ndef solve(x):\n    return f()",
        "f = 3\ndef solve(x):\n    global f\n    return solve",
        "def solve(x):\n    global solve\n    solve = 3\n    return x",
    ],
)
def test_a_name_f_that_means_something_else_is_malformed(program: str) -> None:
    with pytest.raises(Malformed, match="the name f is used otherwise"):
        entry_program(program)


@pytest.mark.parametrize("program", ["def \\\n  solve(x):\n    return x", "def \u017folve(x):\n    return solve"])
def test_a_name_that_is_not_where_the_parser_says_is_malformed(program: str) -> None:
    with pytest.raises(Malformed, match="cannot be renamed"):
        entry_program(program)


@pytest.mark.parametrize("program", ["", "x = 1", "class f:\n    pass", "f = 3", "print('def f(x): pass')"])
def test_a_program_without_functions_is_malformed(program: str) -> None:
    with pytest.raises(Malformed, match="no function"):
        entry_program(program)


@pytest.mark.parametrize(
    "program",
    [
        "def f(x): pass",
        "def f(*x): pass",
        "def f(**x): pass",
        "def f(*, x): pass",
        "def f(x, /): pass",
        "f = lambda x: 1",
    ],
)
def test_any_kind_of_parameter_takes_input(program: str) -> None:
    assert takes_input(program)


@pytest.mark.parametrize(
    "program",
    [
        "def f(): pass",
        "f = lambda: 1",
        "def f(x): pass\ndef f(): pass",
        "class A:\n    def f(self): pass\ndef f(): pass",
    ],
)
def test_an_entry_without_parameters_takes_none(program: str) -> None:
    assert not takes_input(program)


PIECES = st.sampled_from(
    [
        "def solve(x):\n",
        "    return solve(x)\n",
        "class A:\n",
        "    f = solve\n",
        "f",
        "solve",
        "(",
        ")",
        "'",
        "\r",
        "\\",
        "é",
        "{",
        "\n",
    ]
)


@given(st.lists(PIECES).map("".join) | st.text(st.characters(codec=None, exclude_categories=())))
def test_any_text_is_a_program_or_malformed(text: str) -> None:
    try:
        program = entry_program(text)
    except Malformed:
        return
    assert parses(program)
