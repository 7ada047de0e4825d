"""Tests against real servers, which they start themselves, and the benchmarks."""

import pkgutil

import pytest

# So that an assertion which tests share says what it found.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))
