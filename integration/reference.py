"""Pages that the program itself knows: its commands, its errors, its messages, and the page of the package index.

`make reference` writes them; tests/test_reference.py holds them.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import typer
from typer.cli import get_docs_for_click
from typer.core import TyperGroup
from typer.main import get_command

import cdc
from cdc import errors
from cdc.cli.app import app
from cdc.cli.commands import load_all
from cdc.errors import CdcError

ROOT = Path(__file__).parent.parent
_MADE = "<!-- `make reference` makes this page. -->\n\n"
_FIRST = re.compile(r"<!-- --8<-- \[start:first\] -->\n(.*)<!-- --8<-- \[end:first\] -->", re.DOTALL)
_CASE = re.compile(r" \([A-E]-\d\d\)")  # of tests/CASES.md
_EXIT_CODES = (
    (errors.EXIT_DONE, "Done, or ended by SIGTERM, SIGINT or SIGHUP.", "Nothing."),
    (errors.EXIT_RESTARTABLE, "Failed. The same command may succeed later.", "Let a supervisor start it again."),
    (errors.EXIT_USAGE, "The command line, a DSN or the configuration is wrong.", "Correct what the message names."),
    (
        errors.EXIT_OPERATOR,
        "Going on would lose or change data.",
        "Do not restart it. Do what the hint says, or ask a person who may decide.",
    ),
)


def public_errors() -> list[type[CdcError]]:
    """All classes of errors, each behind the one that it is a kind of."""
    found = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, CdcError)]

    def below(kind: type[CdcError]) -> Iterator[type[CdcError]]:
        yield kind
        for other in found:
            if other.__base__ is kind:
                yield from below(other)

    return list(below(CdcError))


def commands_page() -> str:
    """Every command with its arguments and options, as its `--help` has them."""
    load_all()
    command = get_command(app)
    assert isinstance(command, TyperGroup)
    command.commands = dict(sorted(command.commands.items()))  # in whichever order they were loaded
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="cdc"), name="cdc", title="Commands")
    return f"{_MADE}{text.strip()}\n"


def errors_page() -> str:
    """Exit codes, and every class of error."""
    lines = [
        "# Errors and exit codes",
        "",
        "A command that fails writes `Error:` and what happened to which object, then `Hint:` and what to do. Its exit code says",
        "whether to start it again. [Troubleshooting](../troubleshooting.md) explains the messages that people meet;",
        "[Messages](messages.md) lists all of them.",
        "",
        "## Exit codes",
        "",
        "| code | meaning | what to do |",
        "| --- | --- | --- |",
        *(f"| {code} | {meaning} | {remedy} |" for code, meaning, remedy in _EXIT_CODES),
        "",
        "## Classes",
        "",
        "For Python programs: each is in `cdc.errors`, with `message` and `hint`. The link says what to do.",
        "",
        "| class | is a | exit code | tried again | meaning |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind in public_errors():
        meaning = _CASE.sub("", " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split()))
        base = f"`{kind.__base__.__name__}`" if issubclass(kind.__base__, CdcError) else ""
        tried = "yes" if kind.retry else "no"
        name = f"[`{kind.__name__}`](../troubleshooting.md#{kind.__name__.lower()})"
        lines.append(f"| {name} | {base} | {kind.exit_code} | {tried} | {meaning} |")
    return _MADE + "\n".join(lines) + "\n"


class Message(NamedTuple):
    """What an error may say.

    Attributes:
        kind: the name of its class.
        text: with `…` where a name or a number stands.
        hint: likewise; empty if there is none.
    """

    kind: str
    text: str
    hint: str


def messages() -> list[Message]:
    """All messages of errors, as the program's text has them."""
    names = {kind.__name__ for kind in public_errors()}
    found = set()
    for path in sorted(Path(cdc.__file__).parent.rglob("*.py")):
        if "testing" in path.parts:
            continue
        tree = ast.parse(path.read_text())
        constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names and node.args:
                hint = next((keyword.value for keyword in node.keywords if keyword.arg == "hint"), None)
                text = _words(node.args[0], constants)
                if re.search(r"\w{3,}", text):
                    found.add(Message(node.func.id, text, _words(hint, constants) if hint is not None else ""))
    return sorted(found)


def _words(node: ast.expr, constants: dict[str, ast.expr]) -> str:
    """The text of an expression, with `…` for what is known only when it happens."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return re.sub(r"…+", "…", "".join(_words(part, constants) for part in parts))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _words(left, constants) + _words(right, constants)
        case ast.IfExp(body=body, orelse=other):
            return f"{_words(body, constants)} / {_words(other, constants)}".strip(" /")
        case ast.Name(id=name) if name in constants:
            return _words(constants[name], {})
        case ast.Constant(value=None):
            return ""
        case _:
            return "…"


def messages_page() -> str:
    """Every message of an error with its hint."""
    lines = [
        "# Messages",
        "",
        "Every error that `cdc` can end with, and its hint. `…` stands for a name, a number or a reason. Search this page for some",
        "words of your message; the link of its class says what to do where the hint does not.",
    ]
    by_kind: dict[str, list[Message]] = {kind.__name__: [] for kind in public_errors()}
    for message in messages():
        by_kind[message.kind].append(message)
    for kind, said in by_kind.items():
        if said:
            lines += ["", f"## {kind}", "", f"[What to do](../troubleshooting.md#{kind.lower()})", ""]
            lines += ["| message | hint |", "| --- | --- |"]
            lines += [f"| {_cell(message.text)} | {_cell(message.hint)} |" for message in said]
    return _MADE + "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A text as a cell of a table, where nothing of it means anything but what is between backticks."""

    def plain(words: str) -> str:
        for char, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;")):
            words = words.replace(char, written)
        return re.sub(r"([\\`*_\[\]{}$])", r"\\\1", words)

    parts = re.split(r"(`[^`|]+`)", " ".join(text.split()))
    return "".join(part if number % 2 else plain(part) for number, part in enumerate(parts))


def first_section() -> str:
    """The first five minutes, as README.md has them."""
    match = _FIRST.search((ROOT / "README.md").read_text())
    assert match is not None
    return match[1]


def package_page() -> str:
    """The page of the package index: the first five minutes, without what no reader of it sees."""
    shown = re.sub(r"<!--.*?-->\n+", "", first_section(), flags=re.DOTALL)
    return (
        f"# cdc\n\n{shown}\n## The rest\n\n"
        "A pipeline is a source, a target and a log between them. cdc copies the tables from one snapshot whose place in the log is\n"
        "known exactly, and applies the log from that very place on, whole transactions at a time. The checkpoint commits with the data.\n\n"
        "`cdc --help` lists the commands, `cdc COMMAND --help` the options of one. The manual (folder `docs`, or as a site by `make docs`)\n"
        "and all tests (`tests`, `integration`) are in the source distribution: quick starts for each source and target, guides, a\n"
        "reference, and troubleshooting by message.\n"
    )


PAGES = {
    "docs/reference/commands.md": commands_page,
    "docs/reference/errors.md": errors_page,
    "docs/reference/messages.md": messages_page,
    "docs/package.md": package_page,
}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (ROOT / name).parent.mkdir(exist_ok=True)
        (ROOT / name).write_text(page())
