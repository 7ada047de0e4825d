"""A target with a planted defect, three branches deep: random bytes hardly ever find it, a guided search does."""

from __future__ import annotations

import sys

import atheris


@atheris.instrument_func
def one_input(data: bytes) -> None:
    if data[:1] == b"w" and data[1:2] == b"a" and data[2:3] == b"l":
        raise RuntimeError("found it")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
