"""Tests against real servers, which they start themselves, and the benchmarks."""

import pytest

pytest.register_assert_rewrite("integration")  # so that an assertion that tests share says what it found
