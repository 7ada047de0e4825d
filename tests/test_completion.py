"""What a shell offers where somebody types: by the protocol between the two, and in bash itself."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

# `cdc` as a shell calls it, and bash's own way to break words: at `:`, `=` and `@` as well.
SHELL = r"""
eval "$(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION=1 cdc --show-completion bash)"
while IFS= read -r line; do
  COMP_WORDS=($line)
  [[ $line == *" " ]] && COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
  _cdc_completion cdc
  printf '%s\n' "${COMPREPLY[*]}"
done
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which somebody works."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cdc.toml").write_text('[defaults]\nx = 1\n[pipelines.shop]\nsource = "x"\n[pipelines."sales eu"]\n')
    for name in ("shop.duckdb", "other.db", "notes.txt", "in/here.duckdb", ".hidden.duckdb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    said = {"tables": {"public.orders": {}, "public.customers": {}, "sales.orders": {}, "bad\nname": {}}}
    (tmp_path / "shop.duckdb.cdc.json").write_text(json.dumps(said))
    return tmp_path


def in_bash(*lines: str) -> list[list[str]]:
    """What bash offers at the end of each line, whose words are broken as bash does."""
    broken = ["".join(f" {char} " if char in ":=@" else char for char in line) for line in lines]
    programs = Path("in")
    (programs / "cdc").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m cdc "$@"\n')
    (programs / "cdc").chmod(0o755)
    done = subprocess.run(
        ["bash", "--norc", "-c", SHELL],
        input="\n".join(broken) + "\n",
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PATH": f"{programs.resolve()}:{os.environ['PATH']}"},
    )
    assert done.stderr == ""
    return [line.split() for line in done.stdout.splitlines()]


def test_in_bash(folder: Path) -> None:
    run = "cdc run postgresql://u@h/d duckdb:shop.duckdb"
    expected: dict[str, Sequence[str]] = {
        "cdc ver": ["verify"],
        "cdc journal pr": ["prune"],
        "cdc run --until": ["--until-caught-up"],
        "cdc run --mode so": ["soft-delete"],
        "cdc run --mode=h": ["history"],
        "cdc --log-format j": ["json"],
        "cdc run a b --log-level w": ["warning"],
        "cdc run a b --qui": ["--quiet"],
        "cdc run sh": ["shop"],
        "cdc run postgresql://u@h/d duck": ["duckdb:", "ducklake:"],
        "cdc run postgresql://u@h/d duckdb:": ["in/", "other.db", "shop.duckdb"],
        "cdc status postgresql://u@h/d duckdb:in/": ["in/here.duckdb"],
        f"{run} --tables public.o": ["public.orders"],
        f"{run} --tables=public.": ["public.customers", "public.orders"],
        f"{run} --tables public.orders,sa": ["public.orders,sales.orders"],
        "cdc resync postgresql://u@h/d shop.duckdb -t sales": ["sales.orders"],
    }
    assert dict(zip(expected, in_bash(*expected), strict=True)) == expected


@pytest.mark.parametrize(
    "line",
    [
        "cdc run postgresql://u:secret@127.0.0.1:1/d duckdb:none.duckdb --tables ",
        "cdc --bogus ",
        "cdc nonsense --x ",
        "cdc run --mode nonsense --tables 'not ended ",
        "cdc verify x duckdb:broken.duckdb --tables ",
        "cdc verify x duckdb:pipe --tables ",
        "cdc run duckdb:/nowhere/",
    ],
)
def test_nothing_is_said_of_what_is_wrong(folder: Path, line: str) -> None:
    """Neither errors nor warnings, and nothing is waited for."""
    (folder / "cdc.toml").write_text("[broken")
    (folder / "broken.duckdb.cdc.json").write_text("{")
    os.mkfifo(folder / "pipe.cdc.json")
    words = line.split(" ")
    asked = {"_CDC_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "cdc"], capture_output=True, text=True, timeout=60, env=os.environ | asked, check=False
    )
    assert done.stderr == ""
    assert not done.stdout.strip() or not words[-2].startswith("--tables")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells(folder: Path, shell: str) -> None:
    """They hand the line over in one piece."""
    asked = {"_CDC_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    offers = {"cdc ver": "verify", "cdc run x duckdb:sh": "shop.duckdb", "cdc status x y --na": "--name"}
    for line, offer in offers.items():
        environment = os.environ | asked | {"_TYPER_COMPLETE_ARGS": line}
        done = subprocess.run(
            [sys.executable, "-m", "cdc"], capture_output=True, text=True, env=environment, check=False
        )
        assert offer in done.stdout
        assert done.stderr == ""


def test_it_can_be_installed(tmp_path: Path) -> None:
    """`cdc --install-completion`, in the shell that somebody uses."""
    environment = os.environ | {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    install = [sys.executable, "-m", "cdc", "--install-completion", "bash"]
    done = subprocess.run(install, capture_output=True, text=True, env=environment, check=True)
    assert "bash completion installed" in done.stdout
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert str(script) in (tmp_path / ".bashrc").read_text()
    assert "_CDC_COMPLETE=complete_bash" in script.read_text()
