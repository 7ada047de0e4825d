"""What looks at the files that no test runs: `make lint`, the hooks of pre-commit, and the workflows."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from cdc.cli.app import app
from cdc.cli.commands import load_all

_ROOT = Path(__file__).parent.parent


def read(name: str) -> Any:
    return yaml.safe_load((_ROOT / name).read_text())


def test_the_hooks_are_what_make_lint_runs() -> None:
    """A commit that passes one of them passes the other."""
    makefile = (
        (_ROOT / "Makefile").read_text().replace("$(CONFORMS)", "$(BIN)/check-jsonschema --quiet --builtin-schema")
    )
    (recipe,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    lint = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == lint


def test_each_file_of_github_is_looked_at() -> None:
    """A workflow that is added has to be named in the Makefile."""
    makefile = (_ROOT / "Makefile").read_text()
    files = [path for path in (_ROOT / ".github").rglob("*") if path.is_file()]
    assert len(files) > 3
    assert [path.name for path in files if str(path.relative_to(_ROOT)) not in makefile] == []


def test_a_workflow_may_do_no_more_than_it_says() -> None:
    """Nothing but reading, unless a job names it."""
    for path in (_ROOT / ".github" / "workflows").iterdir():
        assert read(str(path.relative_to(_ROOT)))["permissions"] == {"contents": "read"}


@pytest.mark.parametrize(
    ("tag", "heading", "code"),
    [
        ("v1.2.3", "## 1.2.3 (2026-12-01)", 0),
        ("v1.2.4", "## 1.2.3 (2026-12-01)", 1),
        ("1.2.3", "## 1.2.3 (2026-12-01)", 1),
        ("v1.2.3", "## 1.2.3 (unreleased)", 1),
    ],
)
def test_a_release_is_of_the_version_that_its_tag_names(tmp_path: Path, tag: str, heading: str, code: int) -> None:
    """And that the changelog gives a date."""
    *_, step = read(".github/workflows/release.yaml")["jobs"]["version"]["steps"]
    settings = (_ROOT / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(re.sub(r'^version = ".*"$', 'version = "1.2.3"', settings, flags=re.M))
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
    shell = shutil.which("bash")
    assert shell is not None
    environment = {"GITHUB_REF_NAME": tag, "PATH": "/usr/bin:/bin"}
    done = subprocess.run([shell, "-e", "-c", step["run"]], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == code


def test_the_examples_name_this_version() -> None:
    """Of the image."""
    (version,) = re.findall(r'^version = "(.*)"$', (_ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert re.findall(r"image: cdc:(.*)", (_ROOT / "docs/deploy/kubernetes.yaml").read_text()) == [version]


def test_the_settings_of_the_examples_are_options_of_a_run() -> None:
    """In Kubernetes' ConfigMap and in what docs/deploy.md shows for systemd."""
    settings, *_ = yaml.safe_load_all((_ROOT / "docs/deploy/kubernetes.yaml").read_text())
    shown = re.findall(r"<<'END'\n(.*?)\n    END", (_ROOT / "docs/deploy.md").read_text(), re.DOTALL)
    texts = [settings["data"]["cdc.toml"], *shown]
    assert len(texts) == 2
    load_all()
    known = {name.removeprefix("--") for option in get_command(app).commands["run"].params for name in option.opts}
    for text in texts:
        (pipeline,) = tomllib.loads(text)["pipelines"].values()
        assert set(pipeline) <= known


def test_the_issue_forms_ask_for_what_is_needed() -> None:
    """What happened, what `cdc check` and `cdc status` say, the versions, and the journal."""
    fields = {field.get("id"): field for field in read(".github/ISSUE_TEMPLATE/bug.yaml")["body"]}
    needed = {name for name, field in fields.items() if field.get("validations", {}).get("required")}
    assert needed == {"happened", "versions", "check", "status"}
    assert {"journal", "log"} <= fields.keys()
