"""Variables of the environment in values: `${NAME}`, `${NAME:-default}`; `$${` is a `${` that stays."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from cdc.settings.lines import Path

_VARIABLE = re.compile(r"\$\$\{|\$\{(?P<name>[^}:]*)(?::-(?P<default>[^}]*))?\}?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Substituted(str):
    """A text that a variable is a part of: no message may show it, and it can stand for a number."""

    __slots__ = ()


def substituted(
    values: Mapping[str, Any], environment: Mapping[str, str], complain: Callable[[Path, str, str], None]
) -> dict[str, Any]:
    """The values with those of the environment in them.

    Args:
        complain: called with the path of a value, what is wrong with it, and what to do.
    """

    def replaced(path: Path, text: str) -> str:
        def value(found: re.Match[str]) -> str:
            name, default = found["name"], found["default"]
            if name is None:
                return "${"
            if not found[0].endswith("}") or not _NAME.fullmatch(name):
                begin = found[0].partition(":-")[0]  # the rest may be a secret
                complain(path, f"{begin!r} names no variable", "write ${NAME} or ${NAME:-default}, and $${ for ${")
                return ""
            if default is not None:
                return environment.get(name) or default
            if name not in environment:
                complain(path, f"the variable {name} is not set", f"set it, or write ${{{name}:-default}}")
            return environment.get(name, "")

        done = _VARIABLE.sub(value, text)
        return Substituted(done) if done != text else text

    def walk(path: Path, value: Any) -> Any:
        if isinstance(value, str):
            return replaced(path, value)
        if isinstance(value, list):
            return [walk(path, entry) for entry in value]
        if isinstance(value, dict):
            return {name: walk((*path, name), entry) for name, entry in value.items()}
        return value

    return {name: walk((name,), value) for name, value in values.items()}
