"""Fuzzing of everything that reads what a server, a file or a user wrote: `python -m tests.fuzz [TARGET]`.

Each target is a module in `targets` with a function `one_input(data: bytes)`. Whatever the bytes are, it must come back
with an answer or with the error that the code under test promises; any other exception is a finding, and so is work
that is out of proportion to the input. Findings become files in `corpus/TARGET`, which every test run replays.
"""
