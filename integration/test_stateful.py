"""Any work and any disturbance, in any order: nothing is ever different, nothing is forgotten too early."""

from __future__ import annotations

import pytest

from cdc.demo.mysql import PrivateMySql
from cdc.demo.server import PrivatePostgres
from integration.mistakes import Mistaken
from integration.stateful import Watch, work_at_random


@pytest.mark.long
def test_on_postgres(postgres: PrivatePostgres) -> None:
    """A-05, A-33, A-37 to A-51, A-60, C-07, D-01 to D-05, D-18, D-19, D-25: work, kills, tables that come and go."""
    with Watch(postgres) as watch:
        work_at_random(Mistaken, postgres, steps=45, outcomes=10)
    assert watch.looks > 20


@pytest.mark.long
def test_on_mysql(mysql: PrivateMySql) -> None:
    """B-10, B-27, B-29, B-41, B-42, C-07, D-01 to D-05, D-18, D-19, D-25 on MySQL."""
    work_at_random(Mistaken, mysql, steps=45, outcomes=10)


@pytest.mark.long
def test_on_mariadb(mariadb: PrivateMySql) -> None:
    """B-10, B-27, B-29, B-41, B-42, C-07, D-01 to D-05, D-18, D-19, D-25 on MariaDB."""
    work_at_random(Mistaken, mariadb, steps=45, outcomes=10)
