"""Reading a file of settings."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cdc.errors import Mistakes, UsageError
from cdc.settings.environment import substituted
from cdc.settings.key import Key
from cdc.settings.lines import Path as KeyPath
from cdc.settings.lines import line_of, lines_of
from cdc.settings.model import mistakes_in, model_of

_AT = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """A file that was read, without a mistake in it.

    Attributes:
        file: its name.
        process: keys that stand at the top.
        defaults: `[defaults]`.
        pipelines: by name, the keys that each has of its own.
    """

    file: Path
    text: str = field(repr=False)
    process: Values = field(repr=False)
    defaults: Values = field(repr=False)
    pipelines: dict[str, Values] = field(repr=False)

    def pipeline(self, name: str) -> Values:
        """The keys of one pipeline: its own over those of `[defaults]`.

        Raises:
            UsageError: there is no such pipeline.
        """
        if name not in self.pipelines:
            close = get_close_matches(name, self.pipelines, n=1)
            raise UsageError(
                f"{name!r} is not a pipeline of {self.file}.",
                hint=f"Did you mean {close[0]}?" if close else f"It has {', '.join(self.pipelines)}.",
            )
        return {"name": name, **self.defaults, **self.pipelines[name]}

    def place(self, name: str, key: str | None = None) -> KeyPath:
        """Where a pipeline has a key: in its own table, in that of the defaults, or at the top."""
        tables: tuple[KeyPath, ...] = (("pipelines", name), ("defaults",), ())
        lines = lines_of(self.text)
        found = [(*table, key) for table in tables if key is not None and (*table, key) in lines]
        return found[0] if found else tables[0]

    def wrong(self, mistakes: Sequence[tuple[KeyPath, str, str]]) -> Mistakes:
        """The error that says what is wrong in this file."""
        return _wrong(self.file, self.text, mistakes)


def read_settings(file: Path, keys: Sequence[Key], environment: Mapping[str, str]) -> Settings:
    """Read a file.

    Raises:
        Mistakes: something is wrong with it; all that is, with the lines.
        UsageError: it cannot be read.
    """
    try:
        text = file.read_text()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.", hint="`cdc init SOURCE` writes one.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not in UTF-8.", hint="Save it in that encoding.") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = _AT.search(str(error))
        line = int(at[1]) if at is not None and at[1] else len(text.splitlines())
        raise Mistakes(str(file), [f"{file}:{line}: {_AT.sub('', str(error))}"]) from None
    mistakes: list[tuple[KeyPath, str, str]] = []
    filled = substituted(content, environment, lambda *mistake: mistakes.append(mistake))
    unset = {path for path, *_ in mistakes}
    mistakes += [found for found in mistakes_in(filled, keys, model_of(keys)) if found[0] not in unset]
    if not content.get("pipelines"):
        mistakes.append(((), "there is no pipeline", "write [pipelines.NAME] with source and target"))
    if mistakes:
        raise _wrong(file, text, mistakes)
    defaults = filled.get("defaults", {})
    process = {name: value for name, value in filled.items() if name not in ("defaults", "pipelines")}
    settings = Settings(file, text, process, defaults, filled["pipelines"])
    without = [name for name in settings.pipelines if not settings.pipeline(name).get("source")]
    if without:
        lacking = "there is no source"
        raise settings.wrong([(("pipelines", name), lacking, 'write source = "postgresql://..."') for name in without])
    return settings


def _wrong(file: Path, text: str, mistakes: Sequence[tuple[KeyPath, str, str]]) -> Mistakes:
    lines = lines_of(text)
    found = sorted({(line_of(lines, path), ".".join(path), what, instead) for path, what, instead in mistakes})
    return Mistakes(
        str(file),
        [
            f"{file}:{line}: {f'{path}: ' if path else ''}{what}{f'; {instead}' if instead else ''}"
            for line, path, what, instead in found
        ],
    )
