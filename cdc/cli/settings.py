"""The file of settings on the command line: its keys are the options of `cdc run`, its pipelines are names that stand
for SOURCE and TARGET."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from cdc.cli.app import app, is_given
from cdc.cli.completion import FILE
from cdc.cli.quantity import WRITTEN
from cdc.errors import UsageError
from cdc.settings.key import Key

if TYPE_CHECKING:  # help loads nothing of what runs, and a run without a file nothing of what reads one
    from cdc.cli.process import ProcessOptions, Wanted
    from cdc.settings.lines import Path as KeyPath
    from cdc.settings.reading import Settings

PROCESS = "Options of the process"  # the panel of the help with options that concern all pipelines of a process

# What another command takes of a pipeline: which one it is, and when it counts as late. What has no target looks at the
# source, and does so as the pipeline would. Its other options are for a run, or mean something else there.
_OF_COMMANDS = ("source", "target", "name", "max-lag")
_OF_LOOKS = ("source", "tables", "exclude", "include-keyless")

Parameter = TyperArgument | TyperOption


class RunCommand(TyperCommand):
    """A command whose function says what is wanted of one pipeline. It is called for each that is meant, with what the
    file has as defaults: one path validates what comes from there, from the environment and from the command line."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        for parameter in self.params:
            if isinstance(parameter, TyperOption) and parameter.envvar is None:
                parameter.envvar = f"CDC_{key_name(parameter).upper().replace('-', '_')}"

    def invoke(self, ctx: Any) -> None:
        """Run the pipeline of SOURCE, or without it all of the file."""
        from cdc.cli.process import carry_out

        if ctx.params["source"]:
            wanted, process = super().invoke(ctx)
            carry_out([wanted], process)
        else:
            settings = the_settings(ctx)
            _set_up_process(ctx, settings)
            carry_out(*self.all_wanted(ctx, settings))

    def all_wanted(self, context: Any, settings: Settings) -> tuple[list[Wanted], ProcessOptions]:
        """What is wanted of each pipeline of a file, and of the process: the options that are given in `context` go
        over those of the file.

        Raises:
            Mistakes: all that is wrong with any of them.
        """
        given = {name: value for name, value in context.params.items() if is_given(context, name)}
        from cdc.cli.process import ProcessOptions, refuse_wrong

        if "target" in given or "name" in given:
            raise UsageError(
                "A target and --name cannot be given for several pipelines.", hint="Name one: cdc run NAME."
            )
        mistakes: list[tuple[KeyPath, str, str]] = []
        wanted: list[Wanted] = []
        process = ProcessOptions()
        for name in settings.pipelines:
            try:
                values = defaults_of(self, settings, name)
                each = self.make_context(context.info_name, [], parent=context.parent, default_map=values)
                each.params.update(given)
                of_pipeline, process = super().invoke(each)  # of the process it is the same each time
                refuse_wrong(of_pipeline)
                wanted.append(of_pipeline)
            except UsageError as error:
                option = re.search(r"--([a-z-]+)", error.message)
                place = settings.place(name, option[1] if option is not None else None)
                mistakes.append((place, error.message, error.hint or ""))
        if mistakes:
            raise settings.wrong(mistakes)
        _refuse_clashes(settings, wanted)
        return wanted, process


def _refuse_clashes(settings: Settings, wanted: Sequence[Wanted]) -> None:
    """Two pipelines of one process have neither one name, which is that of a slot, nor one target."""
    from cdc.whereabouts import own_socket

    mistakes: list[tuple[KeyPath, str, str]] = []
    names: dict[str, str] = {}
    places: dict[Path, str] = {}
    for key, each in zip(settings.pipelines, wanted, strict=True):
        other = names.setdefault(each.options.name, key)
        if other != key:
            mistakes.append((settings.place(key, "name"), f"pipeline {other} has this name, too", ""))
        for target in each.targets:
            # A journal has one process that writes it, and may have many that read it.
            other = places.setdefault(own_socket(target, each.options.name), key)
            if other != key:
                at = "target" if each.feeds is None else "journal" if target == each.target else "to"
                mistakes.append((settings.place(key, at), f"pipeline {other} writes to this target, too", ""))
        if (copy := each.options.publish) is not None:
            other = places.setdefault(copy.resolve(), key)
            if other != key:
                mistakes.append((settings.place(key, "publish"), f"pipeline {other} writes to this file, too", ""))
    if mistakes:
        raise settings.wrong(mistakes)


def key_name(parameter: Parameter) -> str:
    """What an option is called in a file: as on the command line, without the dashes."""
    name = max(parameter.opts, key=len).removeprefix("--") if isinstance(parameter, TyperOption) else parameter.name
    return str(name).replace("_", "-")


@cache
def run_command() -> RunCommand:
    """The command whose options are the keys."""
    import_module("cdc.cli.run")  # which needs this module
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    command = group.commands["run"]
    assert isinstance(command, RunCommand)
    return command


def keys() -> list[Key]:
    """The keys of a file."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    return [_key(each, is_of_process=True) for each in _of_all(group)] + [
        _key(each, is_of_process=isinstance(each, TyperOption) and each.rich_help_panel == PROCESS)
        for each in _parameters(run_command())
    ]


def _of_all(group: TyperGroup) -> list[Parameter]:
    """The options of all commands that a file may have: those that say how the process talks."""
    return [each for each in _parameters(group) if each.name not in ("version", "config")]


def _set_up_process(context: typer.Context, settings: Settings) -> None:
    """Do again what is done before any command, with what the file has at its top as defaults."""
    root = context.find_root()
    group = root.command
    assert isinstance(group, TyperGroup)
    defaults = {str(each.name): settings.process.get(key_name(each)) for each in _of_all(group)}
    with group.make_context(root.info_name, [], default_map=defaults) as again:
        again.params.update({name: value for name, value in root.params.items() if is_given(context, name)})
        assert group.callback is not None
        again.invoke(group.callback, **again.params)


def _parameters(command: TyperCommand | TyperGroup) -> Iterator[Parameter]:
    for parameter in command.params:
        if isinstance(parameter, TyperArgument | TyperOption) and parameter.expose_value and not parameter.hidden:
            yield parameter


def _key(parameter: Parameter, *, is_of_process: bool) -> Key:
    described = parameter.type_descriptor
    kind = described.annotation
    choices = tuple(str(choice.value if isinstance(choice, Enum) else choice) for choice in described.choices or ())
    return Key(
        key_name(parameter),
        list if described.is_list else kind if kind in (int, float, bool) else str,
        (parameter.help or "").partition(" [default:")[0],
        choices,
        described.parameter_info.min,
        described.parameter_info.max,
        WRITTEN.get(parameter.metavar or ""),
        is_of_process,
    )


def defaults_of(command: TyperCommand, settings: Settings, name: str | None) -> dict[str, Any]:
    """What a command takes from a file, by the names of its parameters: for a pipeline of it, or for any other."""
    values = settings.process | (settings.pipeline(name) if name is not None else settings.defaults)
    if name is not None and not isinstance(command, RunCommand):
        values["target"] = _target_of(values)
    has = {key_name(parameter): str(parameter.name) for parameter in _parameters(command)}
    if isinstance(command, RunCommand):
        values = {key: value for key, value in values.items() if name is None or _fits(key, name, settings)}
    else:
        has = {key: has[key] for key in (_OF_COMMANDS if "target" in has else _OF_LOOKS) if key in has}
    return {has[key]: value for key, value in values.items() if key in has}


def _fits(key: str, name: str, settings: Settings) -> bool:
    """Whether a pipeline can have a key of the defaults: one of other kinds of target is for other pipelines. (Its own
    keys are refused where they do not fit, as on the command line.)"""
    from cdc.connectors import OPTIONS_OF_TARGETS, target_module

    if key in settings.pipelines[name] or f"--{key}" not in OPTIONS_OF_TARGETS:
        return True
    values = settings.pipeline(name)
    try:
        targets = [target_module(target)[0] for target in (_target_of(values), *values.get("to", ()))]
    except UsageError:  # which is said when the pipeline is made
        return True
    return any(f"--{key}" in target.ABILITIES.options for target in targets)


def the_file(context: typer.Context) -> Path | None:
    """The file that a command means: that of --config, or ./cdc.toml; None if there is no such file."""
    given: Path | None = context.find_root().params.get("config")
    return given or (FILE if FILE.exists() else None)


def the_settings(context: typer.Context) -> Settings:
    """What that file has.

    Raises:
        UsageError: there is no file, or it has mistakes.
    """
    file = the_file(context)
    if file is None:
        raise UsageError(
            "There is no cdc.toml in this folder.",
            hint="Write a first file: cdc init SOURCE. Without one: cdc run SOURCE TARGET",
        )
    return read(file)


def read(file: Path) -> Settings:
    """Read a file, with the environment in it; raises UsageError."""
    from cdc.settings.reading import read_settings

    return read_settings(file, keys(), os.environ)


def of_source(context: typer.Context, source: str) -> str:
    """SOURCE as it was given, or that of the pipeline of this name: what else the command takes of it is a default."""
    command = context.command
    assert isinstance(command, TyperCommand)
    file = the_file(context)
    if ":" in source:
        if isinstance(command, RunCommand) and is_given(context, "config"):
            context.default_map = defaults_of(command, the_settings(context), None)
        return source
    if file is None:
        return source  # which is refused as what it is
    settings = the_settings(context)
    if isinstance(command, RunCommand):
        _set_up_process(context, settings)
    context.default_map = values = defaults_of(command, settings, source)
    return str(values["source"])


def of_target(context: typer.Context, target: str) -> str:
    """The target of the pipeline of this name; without a file what was given."""
    if the_file(context) is None:
        return target
    return _target_of(the_settings(context).pipeline(target))


def _target_of(values: Mapping[str, Any]) -> str:
    """What a pipeline writes to; where a journal feeds targets, the journal."""
    from cdc.connectors import JOURNAL

    target: str | None = values.get("target")
    return target or f"{JOURNAL}:{values.get('journal', '').removeprefix(f'{JOURNAL}:')}"
