"""What is packaged, and what an index page would show of it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools._distutils.filelist import FileList

_ROOT = Path(__file__).parent.parent
_SETTINGS = tomllib.loads((_ROOT / "pyproject.toml").read_text())
_PROJECT = _SETTINGS["project"]

# What is installed exactly, and the extra that it is made of.
_LOCKED = {"dev": "dev", "demo": "demo", "image": "kafka"}

# The last release with a vulnerability that is known by now, of each requirement that has had one, or has brought an
# OpenSSL with one.
_VULNERABLE = {
    "confluent-kafka": ("2.15.1", "OpenSSL 3.5.7"),
    "cryptography": ("50.0.1", "OpenSSL 4.0.2; CVE-2026-69247 before"),
    "duckdb": ("1.4.1", "CVE-2025-64429"),
    "orjson": ("3.11.5", "CVE-2025-67221"),
    "psycopg": ("3.3.4", "OpenSSL 3.5.4; CVE-2025-1094 of libpq before"),
    "pyarrow": ("23.0.0", "CVE-2026-25087"),
    "pymysql": ("1.1.0", "CVE-2024-36039"),
    "pytest": ("9.0.2", "CVE-2025-71176"),
    "setuptools": ("78.1.0", "CVE-2025-47273"),
}


def test_the_source_distribution_has_manual_and_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """O49."""
    monkeypatch.chdir(_ROOT)
    found = FileList()
    found.findall(".")
    for line in Path("MANIFEST.in").read_text().splitlines():
        found.process_template_line(line)
    packed = {str(Path(name)) for name in found.files}
    for folder in (".github", "docker", "docs", "integration", "requirements", "tests"):
        expected = {str(path) for path in Path(folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        assert expected <= packed
    assert {"CHANGELOG.md", "SECURITY.md", ".ci/run", ".pre-commit-config.yaml", "docs/deploy/cdc@.service"} <= packed


def test_the_page_of_the_service_is_packaged_with_the_licence_of_its_charts() -> None:
    """What is no module is left out of a wheel unless it is named."""
    folder = _ROOT / "cdc" / "service"
    named = _SETTINGS["tool"]["setuptools"]["package-data"]["cdc.service"]
    packed = {path for pattern in named for path in folder.glob(pattern) if path.is_file()}
    assert packed == {path for path in (folder / "page").rglob("*") if path.is_file()}
    assert set(_PROJECT["license-files"]) == {"LICENSE", "cdc/service/page/uplot/LICENSE"}


def test_the_index_page_has_no_relative_links() -> None:
    """O49: they would lead nowhere."""
    text = (_ROOT / _PROJECT["readme"]).read_text()
    assert [link for link in re.findall(r"\]\(([^)]*)\)", text) if not link.startswith("https://")] == []


def test_nothing_says_to_install_by_a_name_that_is_not_published() -> None:
    """O48: the name is open to anyone; it stands where it is defined, and in what asks for its version."""
    name = _PROJECT["name"]
    files = [*(_ROOT / "cdc").rglob("*.py"), *(_ROOT / "docs").glob("*.md"), _ROOT / "README.md"]
    assert [path.name for path in files if name in path.read_text()] == ["version.py"]


def ranges(extra: str) -> list[Requirement]:
    """What pyproject.toml asks for with an extra, and to build the package."""
    texts = [
        *_PROJECT["dependencies"],
        *_PROJECT["optional-dependencies"][extra],
        *_SETTINGS["build-system"]["requires"],
    ]
    found = [Requirement(text) for text in texts]
    inner = [name for requirement in found if requirement.name == _PROJECT["name"] for name in requirement.extras]
    return [*(one for one in found if one.name != _PROJECT["name"]), *(one for name in inner for one in ranges(name))]


def locked(name: str) -> Iterator[tuple[Requirement, list[str]]]:
    """What is installed exactly, each with its hashes."""
    text = (_ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.lstrip().startswith("#"):
            requirement, *hashes = line.split(" --hash=")
            yield Requirement(requirement.strip()), [found.strip() for found in hashes]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("name", list(_LOCKED))
def test_what_is_installed_exactly_is_what_the_package_asks_for(name: str, machine: str, python: str) -> None:
    """O52: pyproject.toml's ranges were not changed without `make requirements`."""
    place = {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine}
    place |= {"sys_platform": "linux", "platform_python_implementation": "CPython", "implementation_name": "cpython"}

    def is_meant(requirement: Requirement) -> bool:
        return requirement.marker is None or requirement.marker.evaluate(place)

    here = [requirement for requirement, _ in locked(name) if is_meant(requirement)]
    versions = {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==") for requirement in here
    }
    assert len(versions) == len(here)
    wanted = [requirement for requirement in ranges(_LOCKED[name]) if is_meant(requirement)]
    assert len(wanted) > 12
    for requirement in wanted:
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("name", list(_LOCKED))
def test_what_is_installed_has_hashes_and_comes_from_anywhere(name: str) -> None:
    """O52: each release is known by its files, and no registry is named."""
    for requirement, hashes in locked(name):
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), requirement
        assert requirement.url is None
    lines = (_ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    assert [line for line in lines if line.startswith("-") or "://" in line] == []


def test_the_oldest_duckdb_is_the_one_that_is_tested() -> None:
    """O52, E-15: pyproject.toml admits none that is older than the one in `integration/test_duckdb_versions.py`."""
    ((requirement, hashes),) = locked("oldest-duckdb")
    asked = {str(one.specifier) for one in ranges("dev") if one.name == "duckdb"}
    assert hashes
    assert asked == {str(requirement.specifier).replace("==", ">=")}


def test_no_range_admits_a_release_that_is_known_to_be_vulnerable() -> None:
    """O52."""
    asked = {canonicalize_name(requirement.name): requirement.specifier for requirement in ranges("dev")}
    admitted = [name for name, (last, _) in _VULNERABLE.items() if name not in asked or asked[name].contains(last)]
    assert admitted == []
