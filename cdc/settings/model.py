"""What the file may hold, as a pydantic model that is made of the keys: it checks values and writes a JSON schema."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    create_model,
)
from pydantic_core import ErrorDetails

from cdc.errors import UsageError
from cdc.settings.environment import Substituted
from cdc.settings.key import Key
from cdc.settings.lines import Path

SCHEMA = "https://json-schema.org/draft/2020-12/schema"
_PIPELINE = r"^[a-z0-9_]{1,40}$"  # a slot is named after it
_KINDS = {
    "string_type": "a text in quotes",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": 'a list of texts, as ["one", "two"]',
    "model_type": "a table of keys",
    "model_attributes_type": "a table of keys",
    "dict_type": "a table of pipelines",
    "int_from_float": "a whole number",
}
_CONFIG = ConfigDict(extra="forbid", strict=True, populate_by_name=False)


def model_of(keys: Sequence[Key]) -> type[BaseModel]:
    """The model of a file."""
    of_pipeline = [key for key in keys if not key.is_of_process]
    pipeline: Any = _model("Pipeline", "What a pipeline copies, from where, to where, and how.", of_pipeline)
    defaults = _model("Defaults", "What all pipelines have that do not say otherwise.", of_pipeline)
    name: Any = Annotated[str, StringConstraints(pattern=_PIPELINE)]
    tables: dict[str, Any] = {
        "defaults": (defaults, Field(None, description=defaults.__doc__, json_schema_extra=_without_default)),
        "pipelines": (dict[name, pipeline], Field(default_factory=dict, description="The pipelines, by their names.")),
    }
    fields = _fields([key for key in keys if key.is_of_process])
    return create_model("Settings", __config__=_CONFIG, __doc__="Settings of cdc: cdc.toml.", **fields, **tables)


def schema_of(keys: Sequence[Key]) -> dict[str, Any]:
    """The JSON schema of a file, for editors."""
    return {"$schema": SCHEMA, **model_of(keys).model_json_schema()}


def mistakes_in(content: object, keys: Sequence[Key], model: type[BaseModel]) -> list[tuple[Path, str, str]]:
    """All that is wrong: the path of the key, what is wrong with it, and what to write, which may be empty."""
    try:
        model.model_validate(content)
    except ValidationError as error:
        return [_mistake(found, keys) for found in error.errors(include_url=False)]
    return []


def _model(name: str, meaning: str, keys: Sequence[Key]) -> type[BaseModel]:
    return create_model(name, __config__=_CONFIG, __doc__=meaning, **_fields(keys))


def _fields(keys: Sequence[Key]) -> dict[str, Any]:
    # A name of Python for each, since those of keys have hyphens: it is never seen.
    return {
        f"key_{number}": (
            _type(key),
            Field(None, alias=key.name, description=key.help or None, json_schema_extra=_without_default),
        )
        for number, key in enumerate(keys)
    }


def _without_default(schema: dict[str, Any]) -> None:
    """TOML has nothing that would be None: a key is there or it is not."""
    del schema["default"]


def _type(key: Key) -> Any:
    if key.choices:
        return Literal[key.choices]
    if key.kind is list:
        return list[str]
    if key.written is not None:
        return _written(key)
    if key.kind is str:
        return str
    bounds = Field(ge=key.least, le=key.most) if key.kind is not bool else Field()
    return Annotated[key.kind, bounds, BeforeValidator(_as_value)]


def _written(key: Key) -> Any:
    """A text of a form: the option's own function reads it, so that there is one meaning of what is right."""
    written = key.written
    assert written is not None

    def read(text: str) -> str:
        if text.strip().replace(".", "", 1).isdigit():
            raise ValueError(f"a number needs a unit; write it as {written.example}")
        try:
            written.read(key.name, text)
        except UsageError:
            raise ValueError(f"is not {written.what}; write it as {written.example}") from None
        return text

    schema = {
        "type": "string",
        "pattern": written.pattern,
        "examples": written.example.replace(" or ", ", ").split(", "),
    }
    return Annotated[str, AfterValidator(read), WithJsonSchema(schema)]


def _as_value(value: object) -> object:
    """A variable of the environment is a text, whatever it stands for."""
    if not isinstance(value, Substituted):
        return value
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _mistake(found: ErrorDetails, keys: Sequence[Key]) -> tuple[Path, str, str]:
    path: Path = tuple(str(part) for part in found["loc"] if not isinstance(part, int))
    kind, context = found["type"], found.get("ctx", {})
    if kind == "extra_forbidden":
        return path, "there is no such key", _did_you_mean(path, keys)
    if kind == "literal_error":
        choices = next(key.choices for key in keys if key.name == path[-1])
        return path, f"has to be {_listed(choices)}", _meant(str(found["input"]), choices)
    if kind == "string_pattern_mismatch":  # only of names of pipelines
        fitting = re.sub(r"[^a-z0-9]+", "_", path[-2].lower())[:40]
        meant = f'did you mean "{fitting}"?' if fitting.strip("_") else ""
        return path[:-1], "a pipeline's name has up to 40 lower-case letters, digits and underscores", meant
    if kind in ("greater_than_equal", "less_than_equal"):
        bound, word = (context["ge"], "least") if "ge" in context else (context["le"], "most")
        return path, f"has to be {bound:g} at {word}", ""
    if kind == "value_error":
        return path, *_in_two(str(context["error"]))
    return path, f"has to be {_KINDS[kind]}" if kind in _KINDS else found["msg"], ""


def _did_you_mean(path: Path, keys: Sequence[Key]) -> str:
    """Where a key is misspelt, has underscores, or stands in another table."""
    name, is_top = path[-1], len(path) == 1
    here = [key.name for key in keys if key.is_of_process == is_top]
    elsewhere = [key.name for key in keys if key.is_of_process != is_top]
    spelt = name.replace("_", "-").lower().removeprefix("--")
    place = "it stands in [defaults] or [pipelines.NAME]" if is_top else "it stands at the top of the file"
    if spelt not in here and spelt in elsewhere:
        return place
    if meant := _meant(spelt, [*here, "defaults", "pipelines"] if is_top else here):
        return meant
    return f"{meant} {place[0].upper()}{place[1:]}" if (meant := _meant(spelt, elsewhere)) else ""


def _meant(given: str, known: Sequence[str]) -> str:
    close = get_close_matches(given.lower(), known, n=1)
    return f'did you mean "{close[0]}"?' if close else ""


def _in_two(text: str) -> tuple[str, str]:
    what, _, instead = text.partition("; ")
    return what, instead


def _listed(choices: Sequence[str]) -> str:
    quoted = [f'"{choice}"' for choice in choices]
    return f"{', '.join(quoted[:-1])} or {quoted[-1]}" if len(quoted) > 1 else quoted[0]
