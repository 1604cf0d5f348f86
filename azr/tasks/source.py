"""Programs as text and syntax trees on the host: parsed, never compiled to code and never run.

The parser itself is a target (`((((...`, a megabyte of `-`), so every text passes `parse`, which bounds its length and
turns what CPython's parser raises when it reaches its own depth limits into `Malformed`.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import re
import warnings
from collections.abc import Iterator

from azr.errors import Malformed

ENTRY = "f"
MAX_CHARS = 65_536
Function = ast.FunctionDef | ast.AsyncFunctionDef
_BUILTINS = frozenset(dir(builtins))


def parse(program: str) -> ast.Module:
    """The program's syntax tree.

    Raises:
        Malformed: it does not parse, or it is too long.
    """
    if len(program) > MAX_CHARS:
        raise Malformed("program too long")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in a program is not our warning
            return ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Malformed("syntax_error") from error


def parses(program: str) -> bool:
    try:
        return bool(parse(program).body)
    except Malformed:
        return False


def entry_program(program: str) -> str:
    """The program with its entry function called `f`; every other character stays as the model wrote it.

    Without an `f` at module level, the function that no other one calls is renamed (the last of several).

    Raises:
        Malformed: it does not parse, defines no function, or already uses the name `f` where the entry is called.
    """
    tree = parse(program)
    functions = [node for node in tree.body if isinstance(node, Function)]
    if any(node.name == ENTRY for node in functions) or _assigns_lambda(tree):
        return program
    if not functions:
        raise Malformed("no function")
    called = {name.id for node in functions for name in _loads(node) if name.id != node.name}
    entry = next((node for node in reversed(functions) if node.name not in called), functions[-1])
    return _rename(program, tree, old=entry.name)


def takes_input(program: str) -> bool:
    """True when the entry function has at least one parameter."""
    entry = entry_node(parse(program))
    return bool(_parameters(entry.args)) if entry is not None else False


def entry_node(tree: ast.Module) -> Function | ast.Lambda | None:
    """The node of the entry function; the last one where it is defined twice."""
    for node in reversed(tree.body):
        if isinstance(node, Function) and node.name == ENTRY:
            return node
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda) and _targets_entry(node):
            return node.value
    return None


def _assigns_lambda(tree: ast.Module) -> bool:
    return isinstance(entry_node(tree), ast.Lambda)


def _targets_entry(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == ENTRY for target in node.targets)


def _loads(node: ast.AST) -> Iterator[ast.Name]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load):
            yield inner


def _parameters(arguments: ast.arguments) -> list[ast.arg]:
    several = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *several]


class _References(ast.NodeVisitor):
    """Finds every place that means the module-level name `old`: scopes that bind the name themselves are left out."""

    def __init__(self, old: str) -> None:
        self.old = old
        self.places: list[tuple[int, int]] = []
        self._local: list[set[str]] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def _function(self, node: Function) -> None:
        arguments = node.args
        outside = [*node.decorator_list, *arguments.defaults, *arguments.kw_defaults, node.returns]
        for part in [*outside, *(argument.annotation for argument in _parameters(arguments))]:
            if part is not None:
                self.visit(part)
        self._scope(_bound(node), node.body)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)
        self._scope({argument.arg for argument in _parameters(node.args)}, [node.body])

    def _scope(self, bound: set[str], body: list[ast.stmt] | list[ast.expr]) -> None:
        self._local.append(bound)
        for statement in body:
            self.visit(statement)
        self._local.pop()

    def visit_Name(self, node: ast.Name) -> None:
        if node.id != self.old or any(self.old in bound for bound in self._local):
            return
        if any(ENTRY in bound for bound in self._local):
            raise Malformed("the name f is used otherwise")
        self.places.append((node.lineno, node.col_offset))


def _bound(function: Function) -> set[str]:
    """Names that a function binds in its own scope."""
    names = {argument.arg for argument in _parameters(function.args)}
    free: set[str] = set()
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Global | ast.Nonlocal):
            free.update(node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        elif isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            continue
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        waiting.extend(ast.iter_child_nodes(node))
    return names - free


def _rename(program: str, tree: ast.Module, *, old: str) -> str:
    """Write `f` over every reference to `old`, by position, from the end to the start."""
    finder = _References(old)
    finder.visit(tree)
    lines = [line.encode() for line in re.split(r"(?<=\n)", program)]
    places = set(finder.places)
    for node in tree.body:
        if isinstance(node, Function) and node.name == old:
            line = lines[node.lineno - 1]
            defined = re.compile(rb"\b" + re.escape(old.encode()) + rb"\b").search(line, node.col_offset)
            if defined is not None:
                places.add((node.lineno, defined.start()))
    for line_number, column in sorted(places, reverse=True):
        line = lines[line_number - 1]
        lines[line_number - 1] = line[:column] + ENTRY.encode() + line[column + len(old.encode()) :]
    renamed = b"".join(lines).decode()
    if not any(isinstance(node, Function) and node.name == ENTRY for node in parse(renamed).body):
        raise Malformed("the entry function cannot be renamed")
    return renamed


class _Normalise(ast.NodeTransformer):
    """Renames what the program binds to v0, v1, ... and drops docstrings and annotations."""

    def __init__(self, bound: set[str]) -> None:
        self._bound = bound
        self._names: dict[str, str] = {ENTRY: ENTRY}

    def _name(self, name: str) -> str:
        if name not in self._bound:
            return name
        return self._names.setdefault(name, f"v{len(self._names) - 1}")

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(id=self._name(node.id), ctx=node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(arg=self._name(node.arg), annotation=None)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._definition(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._definition(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self._name(node.name)
        return self.generic_visit(_without_docstring(node))

    def _definition(self, node: Function) -> ast.AST:
        node.name = self._name(node.name)
        node.returns = None
        return self.generic_visit(_without_docstring(node))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.Pass()
        return self.generic_visit(ast.Assign(targets=[node.target], value=node.value, lineno=node.lineno))


def _without_docstring(node: Function | ast.ClassDef) -> Function | ast.ClassDef:
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        node.body = node.body[1:] or [ast.Pass()]
    return node


def normal_form(program: str) -> str:
    """The program without comments, docstrings, annotations and chosen names: equal for renamed duplicates.

    Raises:
        Malformed: it does not parse.
    """
    tree = parse(program)
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    bound |= {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    try:
        return ast.unparse(_Normalise(bound - (_BUILTINS - {ENTRY})).visit(tree))
    except RecursionError as error:
        raise Malformed("syntax_error") from error


def fingerprint(program: str, inputs: tuple[str, ...] = ()) -> str:
    """Hash of the normal form and the canonical inputs: what the buffers and the held-out set compare."""
    sized = "".join(f"{len(part)}:{part}" for part in (normal_form(program), *inputs))
    return hashlib.sha256(sized.encode("utf-8", "surrogatepass")).hexdigest()[:24]
