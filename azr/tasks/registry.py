"""Which task types there are: a visible dict, then what other packages register under `azr.task_types`."""

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
        PluginError: nobody registered the name, or what is registered cannot be imported or is no task type.
    """
    if name in TASK_TYPES:
        return TASK_TYPES[name]
    plugins = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in plugins:
        known = [*TASK_TYPES, *plugins]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}."
        raise PluginError(
            f"there is no task type {name!r}; {hint} Others come from packages, entry point group {GROUP}."
        )
    try:
        found = plugins[name].load()
    except Exception as error:  # what a module does when it is imported is its own affair
        raise PluginError(f"the task type {name!r} ({plugins[name].value}) does not import: {error}") from error
    if not (isinstance(found, type) and issubclass(found, TaskType)):
        raise PluginError(f"the task type {name!r} ({plugins[name].value}) is no subclass of azr.tasks.base.TaskType")
    if getattr(found, "name", None) != name or inspect.isabstract(found):
        raise PluginError(
            f"the task type {name!r} ({plugins[name].value}) is not complete: "
            f"its `name` must be {name!r}, and every verb must be there"
        )
    return found


def make_task_types(names: Sequence[str], rules: Rules) -> dict[str, TaskType]:
    """One task type a name, in that order."""
    return {name: task_type(name)(rules) for name in names}
