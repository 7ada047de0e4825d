"""Reading what is written on a command line without pydantic, where that is not needed.

typer reads each value with pydantic, even one that was not given. To load that takes longer than all else that `--help`
and a completion need.

typer 0.29.2 has no other way to say this: `typer.Option` takes no class of its own, and pydantic reads also what has a
`parser` (`typer._coercion.build_runtime_param`). So the method is replaced on each parameter. With a typer that has not
this method any more, `tests/test_commands.py` fails, since a command then loads pydantic again.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from enum import EnumType
from typing import Any

from typer import _completion_classes
from typer.core import TyperArgument, TyperOption

_TEXTS = (str, list[str])


def read_lightly(parameters: Iterable[object]) -> None:
    """Have texts and words of a list taken as they are, and whatever else only be read if it was given."""
    for parameter in parameters:
        if isinstance(parameter, TyperArgument | TyperOption):
            lightly = _Lightly(parameter)
            parameter.get_runtime_param = lambda lightly=lightly: lightly  # type: ignore[method-assign, misc]


def offer_plainly() -> None:
    """Have shells show the help of what they offer as it is: our texts have no markup, to take which out of them typer
    loads rich."""
    _completion_classes._sanitize_help_text = lambda text: text


class _Lightly:
    """What typer asks to read a value of a parameter."""

    def __init__(self, parameter: TyperArgument | TyperOption) -> None:
        self._by_typer = parameter.get_runtime_param

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if ctx.resilient_parsing:  # of a completion, which looks no further
            return value
        kind = param.type_descriptor.annotation
        if kind in _TEXTS and param.type_descriptor.parameter_info.parser is None:
            return value
        if isinstance(kind, EnumType):
            with suppress(ValueError):  # of which typer says which words there are
                return kind(value)
        return self._by_typer().coerce(value, param=param, ctx=ctx)
