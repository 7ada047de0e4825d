"""The file of settings: its keys are the options of `cdc run`, and all of its mistakes are found at once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command
from typer.testing import CliRunner

from cdc.cli.app import app
from cdc.cli.commands import load_all
from cdc.cli.config import markdown
from cdc.cli.init import _address
from cdc.cli.process import ProcessOptions, Wanted
from cdc.cli.settings import key_name, keys, run_command
from cdc.errors import Mistakes, UsageError
from cdc.options import AfterShape
from cdc.settings.environment import Substituted, substituted
from cdc.settings.key import Key
from cdc.settings.lines import line_of, lines_of
from cdc.settings.model import mistakes_in, model_of, schema_of
from cdc.settings.reading import Settings, read_settings
from cdc.target import Mode

DOCS = Path(__file__).parent.parent / "docs"
SHOP = """\
[pipelines.shop]
source = "postgresql://h/shop"
target = "duckdb:shop.duckdb"
"""


def read(folder: Path, text: str, **environment: str) -> Settings:
    file = folder / "cdc.toml"
    file.write_text(text)
    return read_settings(file, keys(), environment)


def mistakes(folder: Path, text: str, **environment: str) -> list[str]:
    """What is said of a text, without the name of the file."""
    with pytest.raises(Mistakes) as wrong:
        read(folder, text, **environment)
    return [mistake.removeprefix(f"{folder}/cdc.toml:") for mistake in wrong.value.mistakes]


def wanted(folder: Path, text: str, *arguments: str, **environment: str) -> list[Wanted]:
    """What `cdc run` with some arguments would carry out."""
    settings = read(folder, text, **environment)
    command = run_command()
    with command.make_context("run", list(arguments)) as context:
        return command.all_wanted(context, settings)[0]


def parameters(name: str, *arguments: str, before: Sequence[str] = ()) -> dict[str, Any]:
    """What a command is called with, with some arguments of it, and some of all commands before it."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    command = group.commands[name]
    with group.make_context("cdc", [*before, name, *arguments]) as parent:
        return command.make_context(name, list(arguments), parent=parent).params


def test_every_option_of_a_run_is_a_key() -> None:
    """None is written down a second time: what is added to the command is in the file, in its schema and its checks."""
    command = run_command()
    options = {max(option.opts, key=len).removeprefix("--").replace("_", "-") for option in command.params}
    of_all = {"log-format", "log-level", "quiet", "verbose"}
    assert {key.name for key in keys()} == options | of_all
    assert {"listen", "notify"} | of_all <= {key.name for key in keys() if key.is_of_process}
    assert {"source", "target", "to", "memory", "verify-every", "format"} <= options
    assert set(schema_of(keys())["$defs"]["Pipeline"]["properties"]) == {
        key.name for key in keys() if not key.is_of_process
    }


def test_every_option_of_a_run_has_a_variable() -> None:
    for parameter in run_command().params:
        if parameter.param_type_name == "option":
            name = max(parameter.opts, key=len).removeprefix("--")
            assert parameter.envvar == f"CDC_{name.upper().replace('-', '_')}"


def test_all_mistakes_at_once_each_in_its_line(tmp_path: Path) -> None:
    text = """\
memory = "1GB"
nonsense = 1

[defaults]
memory = "64"
verify_every = "1h"

[pipelines.shop]
source = "postgresql://u:${SECRET}@h/shop"
target = "duckdb:shop.duckdb"
mode = "mirorr"
workers = 0
segment = "many"
tables = [
  "public.*",
  3,
]
keys = "unique"

[pipelines.Other]
source = "mysql://h/d"
until-caught-up = "yes"
workers = 2.5
[pipelines.Other.more]
x = 1
"""
    assert mistakes(tmp_path, text) == [
        "1: memory: there is no such key; it stands in [defaults] or [pipelines.NAME]",
        "2: nonsense: there is no such key",
        "5: defaults.memory: a number needs a unit; write it as 500MB or 100GB",
        '6: defaults.verify_every: there is no such key; did you mean "verify-every"?',
        "9: pipelines.shop.source: the variable SECRET is not set; set it, or write ${SECRET:-default}",
        '11: pipelines.shop.mode: has to be "mirror", "history" or "soft-delete"; did you mean "mirror"?',
        "12: pipelines.shop.workers: has to be 1 at least",
        "13: pipelines.shop.segment: is not a size; write it as 500MB or 100GB",
        "14: pipelines.shop.tables: has to be a text in quotes",
        '18: pipelines.shop.keys: has to be "index" or "primary"',
        "20: pipelines.Other: a pipeline's name has up to 40 lower-case letters, digits and underscores; "
        'did you mean "other"?',
        "22: pipelines.Other.until-caught-up: has to be true or false",
        "23: pipelines.Other.workers: has to be a whole number",
        '24: pipelines.Other.more: there is no such key; did you mean "mode"?',
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[pipelines.shop]\nsource = 'a\n", "2: "),
        ("[pipelines.shop]\nsource = 'a'\nsource = 'b'\n", "3: "),
        ("x = [\n1,\n", "2: "),
    ],
)
def test_what_is_not_toml_has_a_line(tmp_path: Path, text: str, found: str) -> None:
    (mistake,) = mistakes(tmp_path, text)
    assert mistake.startswith(found), mistake


def test_what_is_missing(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "") == ["1: there is no pipeline; write [pipelines.NAME] with source and target"]
    text = "[pipelines.a]\ntarget = 'x.duckdb'\n\n[pipelines.b]\nmode = 'history'\n"
    assert mistakes(tmp_path, text) == [
        '1: pipelines.a: there is no source; write source = "postgresql://..."',
        '4: pipelines.b: there is no source; write source = "postgresql://..."',
    ]
    with pytest.raises(UsageError, match="cannot be read"):
        read_settings(tmp_path / "other.toml", keys(), {})


def test_lines_of_keys() -> None:
    text = '# a\n\na = """\nb = 1\n"""\n["x y"]\nb.c = [ # d\n  1,\n]\n\n# e\n[x.z]  # f\ne = {g = 1}\n'
    lines = lines_of(text)
    assert {path: line for path, line in lines.items() if len(path) != 1} == {
        ("x y", "b"): 7,
        ("x y", "b", "c"): 7,
        ("x", "z"): 12,
        ("x", "z", "e"): 13,
        ("x", "z", "e", "g"): 13,
    }
    assert (lines["a",], lines["x y",]) == (3, 6)
    assert line_of(lines, ("x", "z", "nothing")) == 12
    assert line_of(lines, ("nothing",)) == 1


def test_variables_of_the_environment() -> None:
    wrong: list[tuple[tuple[str, ...], str, str]] = []
    values = {"a": "x${A}${B:-y}$${A}", "b": ["${C:-}", 1], "c": {"d": "${A}"}, "e": "plain", "f": "${B}${bad name}${"}
    done = substituted(values, {"A": "1", "C": "2"}, lambda *mistake: wrong.append(mistake))
    assert done == {"a": "x1y${A}", "b": ["2", 1], "c": {"d": "1"}, "e": "plain", "f": ""}
    assert isinstance(done["a"], Substituted)
    assert not isinstance(done["e"], Substituted)
    assert [(path, what) for path, what, _ in wrong] == [
        (("f",), "the variable B is not set"),
        (("f",), "'${bad name}' names no variable"),
        (("f",), "'${' names no variable"),
    ]


def test_a_variable_can_stand_for_a_number_and_is_never_shown(tmp_path: Path) -> None:
    """E-03: what comes from the environment may be a secret."""
    text = SHOP + 'workers = "${N}"\nuntil-caught-up = "${YES}"\nmode = "${MODE}"\n'
    (found,) = wanted(tmp_path, text, N="3", YES="true", MODE="history")
    assert (found.options.workers, found.options.until_caught_up, found.options.mode) == (3, True, Mode.HISTORY)
    for mistake in mistakes(tmp_path, text, N="secret", YES="secret", MODE="secret"):
        assert "secret" not in mistake
    (quoted,) = mistakes(tmp_path, SHOP + 'workers = "3"\n')
    assert quoted == "4: pipelines.shop.workers: has to be a whole number"


def test_what_overrides_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line, the environment, the pipeline, the defaults, what is built in."""
    text = """\
[defaults]
source = "postgresql://h/shop"
workers = 2
memory = "128MB"
segment = "2MB"
verify-after-ddl = "off"
[pipelines.a]
target = "duckdb:a.duckdb"
workers = 3
tables = ["a", "b"]
[pipelines.b]
target = "duckdb:b.duckdb"
name = "other"
"""
    a, b = wanted(tmp_path, text)
    assert (a.source, a.target, a.options.name) == ("postgresql://h/shop", "duckdb:a.duckdb", "a")
    assert (b.options.name, b.options.workers, a.options.workers) == ("other", 2, 3)
    assert a.options.selection.include == ("a", "b")
    assert a.options.after_shape is AfterShape.OFF
    assert (a.options.segment_bytes, a.options.stall_timeout, a.options.mode) == (2 << 20, 300, None)
    monkeypatch.setenv("CDC_WORKERS", "4")
    monkeypatch.setenv("CDC_TABLES", "c d,e")
    monkeypatch.setenv("CDC_MEMORY", "")
    a, b = wanted(tmp_path, text, "--segment", "4MB")
    assert (a.options.workers, b.options.workers) == (4, 4)
    assert a.options.selection.include == ("c", "d", "e")
    assert a.options.segment_bytes == b.options.segment_bytes == 4 << 20
    assert a.options.target_memory == 128 << 20
    a, b = wanted(tmp_path, text, "--workers", "5", "--until-caught-up")
    assert (a.options.workers, b.options.until_caught_up) == (5, True)


def test_an_option_of_the_process_that_is_wrong_is_one_mistake(tmp_path: Path) -> None:
    """Though every pipeline is made with it."""
    text = 'notify-slot = "6h"\nlisten = "nowhere at all"\n' + SHOP + SHOP.replace("shop", "other")
    with pytest.raises(Mistakes) as wrong:
        wanted(tmp_path, text)
    (mistake,) = wrong.value.mistakes
    assert mistake.startswith(f"{tmp_path}/cdc.toml:2: listen: "), mistake


def test_a_journal_that_feeds_targets(tmp_path: Path) -> None:
    text = f"""\
[pipelines.shop]
source = "postgresql://h/shop"
journal = "{tmp_path}/j"
to = ["duckdb:{tmp_path}/a.duckdb", "jsonl:{tmp_path}/e"]
"""
    (found,) = wanted(tmp_path, text)
    assert found.target == f"journal:{tmp_path}/j"
    assert found.feeds == (f"duckdb:{tmp_path}/a.duckdb", f"jsonl:{tmp_path}/e")


def test_defaults_are_for_those_that_have_such_an_option(tmp_path: Path) -> None:
    """What only some kinds of target have is no mistake in [defaults], where another pipeline has such a target."""
    text = f"""\
[defaults]
source = "postgresql://h/shop"
memory = "128MB"
rotate = "1MB"
[pipelines.a]
target = "duckdb:{tmp_path}/a.duckdb"
[pipelines.b]
target = "jsonl:{tmp_path}/events"
"""
    a, b = wanted(tmp_path, text)
    assert (a.options.target_memory, a.options.rotate_bytes) == (128 << 20, None)
    assert (b.options.target_memory, b.options.rotate_bytes) == (None, 1 << 20)
    with pytest.raises(Mistakes, match="a mistake"):
        wanted(tmp_path, text + 'memory = "64MB"\n')


def test_what_only_a_run_finds_out_is_a_mistake_of_the_file_too(tmp_path: Path) -> None:
    """Refused options, sizes out of bounds and DSNs, of all pipelines at once."""
    text = """\
[defaults]
segment = "1kB"
[pipelines.a]
source = "nonsense"
target = "duckdb:a.duckdb"
segment = "1MB"
[pipelines.b]
source = "postgresql://h/b"
target = "duckdb:b.duckdb"
[pipelines.c]
source = "postgresql://h/c"
target = "duckdb:c.duckdb"
segment = "1MB"
rotate = "1MB"
[pipelines.d]
source = "postgresql://h/c"
segment = "1MB"
"""
    with pytest.raises(Mistakes) as wrong:
        wanted(tmp_path, text)
    found = [mistake.removeprefix(f"{tmp_path}/cdc.toml:") for mistake in wrong.value.mistakes]
    assert len(found) == 4, found
    for mistake, begin in zip(
        found,
        [
            "2: defaults.segment: --segment 1kB is too small.",
            "3: pipelines.a: The source is not a DSN.",
            "14: pipelines.c.rotate: duckdb:c.duckdb cannot use --rotate.",
            "15: pipelines.d: There is no target.",
        ],
        strict=True,
    ):
        assert mistake.startswith(begin), mistake


def test_clashing_pipelines_are_refused_at_once(tmp_path: Path) -> None:
    text = f"""\
[pipelines.a]
source = "postgresql://h/a"
target = "duckdb:{tmp_path}/x.duckdb"
[pipelines.b]
source = "mysql://h/b"
target = "{tmp_path}/./x.duckdb"
[pipelines.c]
source = "mysql://h/c"
target = "{tmp_path}/c.duckdb"
name = "a"
"""
    with pytest.raises(Mistakes) as wrong:
        wanted(tmp_path, text)
    assert [mistake.removeprefix(f"{tmp_path}/cdc.toml:") for mistake in wrong.value.mistakes] == [
        "6: pipelines.b.target: pipeline a writes to this target, too",
        "10: pipelines.c.name: pipeline a has this name, too",
    ]
    with pytest.raises(UsageError, match="A target and --name cannot be given for several pipelines"):
        wanted(tmp_path, text, "--name", "x")


def test_what_an_option_of_the_process_is(tmp_path: Path) -> None:
    """It stands at the top, and in no pipeline."""
    known = [Key("listen", str, is_of_process=True), Key("source", str)]
    content = {"listen": "x", "source": "y", "pipelines": {"a": {"listen": "x"}}}
    assert sorted(mistakes_in(content, known, model_of(known))) == [
        (("pipelines", "a", "listen"), "there is no such key", "it stands at the top of the file"),
        (("source",), "there is no such key", "it stands in [defaults] or [pipelines.NAME]"),
    ]


# Values of options that are texts of any form; each other kind of option says itself what it may hold.
TEXTS = {
    "exclude": "b.*",
    "format": "json",
    "journal": "other",
    "listen": ":1",
    "name": "other",
    "notify": "json://localhost",
    "notify-command": "true",
    "publish": "other.duckdb",
    "serve": "http://127.0.0.1:1",
    "serve-tls-cert": "cert.pem",
    "serve-tls-key": "key.pem",
    "tables": "a.*",
    "to": "duckdb:other.duckdb",
}


def another(key: Key) -> list[str]:
    """An option with a value that is none of those which are built in."""
    if key.kind is bool:
        return [f"--{key.name}"]
    if key.choices:
        return [f"--{key.name}", key.choices[-1]]
    written = {"a duration": "7m", "a size": "77MB", "a share": "7%"}
    value = written[key.written.what] if key.written is not None else TEXTS.get(key.name, "7")
    return [f"--{key.name}", value]


@pytest.mark.parametrize(
    "key", [key for key in keys() if key.name not in ("source", "target")], ids=lambda key: key.name
)
def test_an_option_of_the_process_is_declared_as_one(key: Key) -> None:
    """One that is not would be a key of pipelines, of which the process has one value: that of the last pipeline. The
    other way round, a pipeline could not have a value of its own."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    if key.name in {key_name(parameter) for parameter in group.params if isinstance(parameter, TyperOption)}:
        assert key.is_of_process  # which says how the process talks
        return

    def said(*arguments: str) -> tuple[Wanted, ProcessOptions]:
        ends = ["postgresql://h/d", *([] if key.name in ("journal", "to") else ["duckdb:x.duckdb"])]
        if key.name in ("journal", "to"):
            ends += ["--journal", "j", "--to", "duckdb:x.duckdb"]
        if key.name.startswith(("publish-", "serve")):
            ends += ["--publish", "copy.duckdb", "--name", "x"]
        if key.name.startswith("serve-"):
            ends += ["--serve", "http://127.0.0.1:2"]
        with run_command().make_context("run", [*ends, *arguments]) as context:
            found: tuple[Wanted, ProcessOptions] = TyperCommand.invoke(run_command(), context)
            return found

    wanted_before, process_before = said()
    wanted_after, process_after = said(*another(key))
    assert (wanted_before == wanted_after) == key.is_of_process
    assert (process_before != process_after) == key.is_of_process


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            'lisen = ":1"',
            '4: pipelines.shop.lisen: there is no such key; did you mean "listen"? It stands at the top of the file',
        ),
        (
            'mode = "HISTORY"',
            '4: pipelines.shop.mode: has to be "mirror", "history" or "soft-delete"; did you mean "history"?',
        ),
        ("Log_Level = 1", "4: pipelines.shop.Log_Level: there is no such key; it stands at the top of the file"),
        (
            "[pipelines.my-shop]",
            "4: pipelines.my-shop: a pipeline's name has up to 40 lower-case letters, digits and "
            'underscores; did you mean "my_shop"?',
        ),
    ],
)
def test_what_was_meant(tmp_path: Path, line: str, found: str) -> None:
    assert mistakes(tmp_path, SHOP + line) == [found]


def test_no_default_of_a_variable_is_shown(tmp_path: Path) -> None:
    """E-03: it may be a secret as well."""
    (mistake,) = mistakes(tmp_path, SHOP.replace("//h", "//u:${DB-PASSWORD:-secret}@h"))
    assert "secret" not in mistake
    assert "'${DB-PASSWORD' names no variable" in mistake


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("clickhouse://u:se/cr@et@h/d", "clickhouse://u:${X}@h/d"),
        (
            "postgresql://h/d?user=u&password=secret&sslpassword=secret&a=b",
            "postgresql://h/d?user=u&password=${X}&sslpassword=${X}&a=b",
        ),
        ("mysql://u@h:3306/d?a=b", "mysql://u@h:3306/d?a=b"),
        ("duckdb:${x}.duckdb", "duckdb:$${x}.duckdb"),
    ],
)
def test_a_first_file_has_no_password_of_either_end(address: str, kept: str) -> None:
    """E-03."""
    assert json.loads(_address(address, "X")) == kept


def test_the_schema_is_the_one_in_the_documentation(tmp_path: Path) -> None:
    """It is valid by the metaschema, takes what is right, and refuses what is wrong. To write it again:
    cdc config schema > docs/cdc.schema.json"""
    file = DOCS / "cdc.schema.json"
    assert json.loads(file.read_text()) == schema_of(keys())
    check = (sys.executable, "-m", "check_jsonschema")
    done = subprocess.run([*check, "--check-metaschema", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    right, wrong = tmp_path / "right.toml", tmp_path / "wrong.toml"
    right.write_text(SHOP + 'memory = "64MB"\nmode = "history"\nworkers = 2\ntables = ["a.*"]\n')
    wrong.write_text(SHOP + 'memory = 64\nmode = "mirorr"\nworkers = 0\ntabels = []\nevery = "5"\n')
    done = subprocess.run([*check, "--schemafile", file, right], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    done = subprocess.run([*check, "--schemafile", file, wrong, "-v"], capture_output=True, text=True, check=False)
    for key in ("memory", "mode", "workers", "tabels", "every"):
        assert key in done.stdout, done.stdout


def test_all_keys_are_in_the_documentation() -> None:
    """To write the table again: cdc config schema --markdown"""
    page = (DOCS / "configuration.md").read_text()
    assert f"\n\n{markdown(keys())}\n" in page


def test_examples_in_the_documentation_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```toml\n(.*?)```", (DOCS / "configuration.md").read_text(), re.DOTALL)
    assert examples
    for example in examples:
        assert wanted(tmp_path, example, DB_PASSWORD="x")


def test_names_of_pipelines_where_commands_have_source_and_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One mechanism for all commands: what they are called with is a default of their own parameters."""
    monkeypatch.chdir(tmp_path)
    text = SHOP + 'name = "store"\ntables = ["public.a"]\n'
    Path("cdc.toml").write_text(text)
    load_all()
    seen: dict[str, dict[str, object]] = {}
    for name, arguments in {
        "status": ["shop"],
        "verify": ["shop", "--sample", "0.5"],
        "resync": ["shop", "--name", "x"],
        "teardown": ["shop", "other.duckdb"],
        "check": ["shop"],
        "tail": ["shop"],
        "backup": ["shop", "f"],
        "history": ["shop", "t", "1"],
    }.items():
        seen[name] = parameters(name, *arguments)
    source, target = "postgresql://h/shop", "duckdb:shop.duckdb"
    for name in ("status", "verify"):
        assert (seen[name]["source"], seen[name]["target"], seen[name]["name"]) == (source, target, "store")
    assert (seen["resync"]["name"], seen["resync"]["tables"]) == ("x", ())  # what to copy again is never a default
    assert (seen["teardown"]["source"], seen["teardown"]["target"]) == (source, "other.duckdb")
    for name in ("check", "tail"):
        assert (seen[name]["source"], seen[name]["tables"]) == (source, ["public.a"])
    assert (seen["backup"]["target"], seen["history"]["target"]) == (target, target)


def test_a_name_that_no_pipeline_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load_all()
    Path("cdc.toml").write_text(SHOP)
    refused = CliRunner().invoke(app, ["status", "shap"]).exception
    assert isinstance(refused, UsageError)
    assert refused.hint == "Did you mean shop?"
    assert "'shap' is not a pipeline of cdc.toml" in refused.message


def test_a_run_that_is_given_both_ends_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies in the folder; unless --config asks for it, and then its defaults apply."""
    monkeypatch.chdir(tmp_path)
    Path("cdc.toml").write_text("this is not [TOML")
    command = run_command()
    ends = ["postgresql://h/d", "x.duckdb"]
    with command.make_context("run", list(ends)) as context:
        assert context.params["memory"] is None
    Path("cdc.toml").write_text("[defaults]\nmemory = '64MB'\n" + SHOP)
    given = parameters("run", *ends, before=["--config", "cdc.toml"])
    assert (given["memory"], given["name"]) == ("64MB", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run",), "There is no cdc.toml in this folder."),
        (("config", "check"), "There is no cdc.toml in this folder."),
        (("run", "shop"), "'shop' is not a DSN, and no cdc.toml in this folder has a pipeline of that name."),
        (("run", "postgresql://h/d"), "There is no target."),
    ],
)
def test_a_name_without_a_file(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    """What is missing is said, and the command that makes it."""
    command = [sys.executable, "-m", "cdc", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {message}\nHint: ")
