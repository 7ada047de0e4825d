"""Run fuzz targets: `python -m tests.fuzz [TARGET ...] [--seconds N] [--seed N]`.

Each target runs in a process of its own, since libFuzzer ends the process that it ran in. New inputs that reach code
which the corpus does not are kept outside of the repository, in `--found`; `--minimise` takes into the corpus what of
them is worth it.
"""

from __future__ import annotations

import argparse
import importlib
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

from tests.fuzz.bounds import bounded, limit_memory
from tests.fuzz.corpus import CORPUS, LONGEST, TARGETS, TRACED
from tests.fuzz.minimise import minimise

_SLOWER = 10.0  # how much slower code may be that is traced for its coverage
_SEEDS = 20
_STUCK = 60  # seconds after which an input counts as one that never ends


def main() -> int:
    arguments = _arguments()
    if arguments.inside:
        _fuzz(arguments.targets[0], arguments.inside)
    seed = arguments.seed or random.SystemRandom().randrange(1, 1 << 31)
    failed = []
    for target in arguments.targets or TARGETS:
        found = arguments.found / target
        found.mkdir(parents=True, exist_ok=True)
        if arguments.minimise:
            print(f"{target}: {minimise(target, found)} inputs in the corpus", flush=True)
            continue
        print(f"{target}: {arguments.seconds} s, seed {seed}", flush=True)
        _sow(found, seed)
        options = [f"-max_total_time={arguments.seconds}", f"-seed={seed}", f"-artifact_prefix={found}/"]
        if _inside(target, [*options, str(found), str(CORPUS / target)]):
            failed.append(target)
    if failed:
        print(f"failed: {', '.join(failed)}; the input is in {arguments.found}")
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="per target")
    parser.add_argument("--seed", type=int, help="of a run to repeat")
    parser.add_argument("--found", type=Path, default=Path(tempfile.gettempdir()) / "cdc-fuzz", help="a folder")
    parser.add_argument("--minimise", action="store_true", help="take what was found into the corpus")
    parser.add_argument("--inside", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for target in arguments.targets:
        if target not in TARGETS:
            parser.error(f"{target!r} is not one of {', '.join(TARGETS)}")
    return arguments


def _inside(target: str, options: list[str]) -> int:
    common = [
        f"-timeout={_STUCK}",
        "-rss_limit_mb=4096",
        f"-max_len={LONGEST}",
        "-verbosity=0",
        "-len_control=0",
        "-print_final_stats=1",
    ]
    command = [sys.executable, "-m", "tests.fuzz", target, "--inside", *common, *options]
    return subprocess.run(command, check=False).returncode


def _sow(found: Path, seed: int) -> None:
    """Inputs to begin with that are long enough to draw large structures from."""
    source = random.Random(seed)
    for number in range(_SEEDS):
        (found / f"seed-{number}").write_bytes(source.randbytes(source.randrange(20, 1500)))


def _fuzz(target: str, options: list[str]) -> None:
    """Let libFuzzer have this process; does not come back."""
    limit_memory()
    name = f"tests.fuzz.targets.{target}"
    with atheris.instrument_imports(include=list(TRACED[target])):
        one_input = importlib.import_module(name).one_input
    one_input(b"")  # so that what is loaded on first use is not counted against an input
    atheris.Setup([sys.argv[0], *options], bounded(one_input, slack=_SLOWER))
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
