"""What SHOW GRANTS says, as the servers write it."""

from __future__ import annotations

from cdc.sources.mysql.rights import Rights


def test_what_is_granted_and_what_is_not() -> None:
    """M22: on everything, on databases by patterns, on tables; never what a grant on columns says."""
    rights = Rights.parse(
        [
            "GRANT `app`@`%` TO `cdc`@`%`",
            "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO `cdc`@`%` IDENTIFIED BY PASSWORD '*D8'",
            "GRANT XA_RECOVER_ADMIN ON *.* TO `cdc`@`%`",
            r"GRANT ALL PRIVILEGES ON `shop\_%`.* TO `cdc`@`%` WITH GRANT OPTION",
            "GRANT SELECT, LOCK TABLES ON `odd``name`.* TO `cdc`@`%`",
            "GRANT SELECT, UPDATE (`id`, `a)b`) ON `one`.`whole` TO `cdc`@`%`",
            "GRANT SELECT (`id`, `z`), INSERT ON `one`.`part` TO `cdc`@`%`",
            "GRANT EXECUTE ON PROCEDURE `one`.`p` TO `cdc`@`%`",
            "GRANT PROXY ON ''@'%' TO 'cdc'@'%'",
        ]
    )
    assert rights.may("REPLICATION SLAVE")
    assert rights.may("BINLOG MONITOR")
    assert rights.may("XA_RECOVER_ADMIN")
    assert not rights.may("RELOAD")
    assert rights.may("LOCK TABLES", "shop_1")
    assert rights.may("SELECT", "shop_1", "t")
    assert not rights.may("SELECT", "shopx1", "t")
    assert rights.may("SELECT", "odd`name", "t")
    assert rights.may("SELECT", "one", "whole")
    assert not rights.may("SELECT", "one", "part")
    assert rights.may("INSERT", "one", "part")
    assert not rights.may("SELECT", "one", "p")
    assert not rights.may("SELECT", "one")


def test_rights_that_are_taken_away_again() -> None:
    """M22: MySQL's partial revokes."""
    rights = Rights.parse(["GRANT SELECT, RELOAD ON *.* TO `u`@`%`", "REVOKE SELECT ON `secret`.* FROM `u`@`%`"])
    assert rights.may("SELECT", "shop", "t")
    assert not rights.may("SELECT", "secret", "t")
    assert rights.may("RELOAD")
