"""All task types: those of this package, then those that other packages register under `azr.task_types`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from importlib.metadata import entry_points

from azr.errors import PluginError
from azr.tasks.abduction import Abduction
from azr.tasks.base import Rules, TaskType
from azr.tasks.deduction import Deduction
from azr.tasks.induction import Induction

TASK_TYPES: dict[str, type[TaskType]] = {
    "deduction": Deduction,
    "abduction": Abduction,
    "induction": Induction,
}
GROUP = "azr.task_types"


def task_type(name: str) -> type[TaskType]:
    """The class of a task type by its name.

    Raises:
        PluginError: no task type has this name, or what is registered cannot be imported or is not a task type.
    """
    if name in TASK_TYPES:
        return TASK_TYPES[name]
    plugins = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in plugins:
        known = [*TASK_TYPES, *plugins]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known task types are {', '.join(known)}."
        raise PluginError(
            f"there is no task type {name!r}; {hint} Installed packages can add task types (entry point group {GROUP})."
        )
    try:
        found = plugins[name].load()
    except Exception as error:  # importing a plugin can raise anything
        raise PluginError(f"the task type {name!r} ({plugins[name].value}) cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, TaskType)):
        raise PluginError(f"the task type {name!r} ({plugins[name].value}) is not a subclass of TaskType")
    if getattr(found, "name", None) != name or inspect.isabstract(found):
        raise PluginError(
            f"the task type {name!r} ({plugins[name].value}) is incomplete: "
            f"set its `name` to {name!r} and define every abstract method"
        )
    return found


def make_task_types(names: Sequence[str], rules: Rules) -> dict[str, TaskType]:
    """One task type per name, in this order."""
    return {name: task_type(name)(rules) for name in names}
