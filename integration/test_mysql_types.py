"""Every type of MySQL and MariaDB, any value, by both paths, compared in SQL on both servers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from integration.conftest import MySqlDatabase, make_replica

DATETIMES = ["1000-01-01 00:00:00", "9999-12-31 23:59:59.999999", "2024-02-29 12:00:00.5", "1969-12-31 23:59:59.000001"]
DIGITS65 = "9" * 35 + "." + "9" * 30
BOTH: dict[str, list[str]] = {
    "tinyint": ["-128", "127", "0"],
    "tinyint(1)": ["2", "1", "0"],
    "tinyint unsigned": ["255", "0"],
    "smallint": ["-32768", "32767"],
    "smallint unsigned": ["65535"],
    "mediumint": ["-8388608", "8388607", "-1"],
    "mediumint unsigned": ["16777215"],
    "int": ["-2147483648", "2147483647"],
    "int(5) unsigned zerofill": ["4294967295", "42"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "bigint unsigned": ["18446744073709551615", "0"],
    "decimal(12,2)": ["-9999999999.99", "0.01", "-0.01", "0", "10"],
    "decimal(5,5)": ["0.12345", "-0.00001", "0"],
    "decimal(38,0)": ["9" * 38, "-" + "9" * 38],
    "decimal(65,30)": [DIGITS65, "-" + DIGITS65, "0", "0.000000000000000000000000000001"],
    "decimal(10,4) unsigned": ["123456.7890"],
    "float": ["1.1", "-0.0", "3.4028234e38", "1e-38", "16777217"],
    "double": ["1.1", "-0.0", "1.7976931348623157e308", "5e-324", "1e15", "0.1"],
    "bit(1)": ["b'1'", "b'0'"],
    "bit(10)": ["b'1000000001'"],
    "bit(64)": ["18446744073709551615", "1"],
    "year": ["1901", "2155", "0"],
    "date": ["'1000-01-01'", "'9999-12-31'", "'2024-02-29'", "'1969-12-31'"],
    "datetime": [f"'{text}'" for text in DATETIMES[:1]],
    "datetime(3)": ["'2024-01-01 01:02:03.120'", "'2024-01-01 01:02:03'"],
    "datetime(6)": [f"'{text}'" for text in DATETIMES],
    "timestamp null": ["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'"],
    "timestamp(1) null": ["'2024-03-31 01:30:00.5'"],
    "timestamp(6) null": ["'2024-10-27 01:30:00.123456'", "'2024-10-27 02:30:00'"],
    "time": ["'-838:59:59'", "'838:59:59'", "'00:00:00'", "'-00:00:01'"],
    "time(2)": ["'-00:00:00.10'", "'-01:00:00.50'", "'12:34:56.78'"],
    "time(6)": ["'-838:59:58.999999'", "'-00:00:00.000001'", "'-00:00:00.5'", "'838:59:58.000001'"],
    "char(10)": ["'a'", "''", "'é€😀'"],
    "char(255)": ["'xyz'"],
    "varchar(40)": ["'a  '", "''", "'é€😀'", "'NULL'", "'\\\\N'"],
    "varchar(1000)": [
        "repeat('x', 1000)",
        "'a'",
        *(f"repeat('x', {length})" for length in (250, 251, 252, 253, 254, 255, 256)),
    ],
    "text": ["'é€😀'", "repeat('é', 5000)"],
    "mediumtext": ["repeat('x', 70000)"],
    "longtext": ["repeat('y', 100)"],
    "binary(16)": ["x'00112200000000000000000000000000'", "x'ff'", "''"],
    "binary(1)": ["x'00'"],
    "varbinary(20)": ["x'0011ff00'", "''"],
    "blob": ["x'00ff'", "''", "repeat(x'80', 3000)"],
    "longblob": ["repeat(x'00', 70000)"],
    "enum('a','b','it''s, so')": ["'a'", "'it''s, so'", "''"],
    "enum('é','(x)')": ["'é'", "'(x)'"],
    r"enum('back\\slash','new\nline','cr\r','\\n','%')": [r"'back\\slash'", r"'new\nline'", r"'cr\r'", r"'\\n'"],
    "set('a','b','c')": ["'c,a'", "''", "'b'"],
    "json": ['\'{"a": [1, 2.5, null, true], "b": {"c": "é😀"}}\'', "'[]'", "'null'", "'\"x\"'"],
    "geometry": ["ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('LINESTRING(0 0, 1 1)')"],
    "point": ["ST_GeomFromText('POINT(-1.5 2)')"],
    "polygon": ["ST_GeomFromText('POLYGON((0 0, 1 0, 1 1, 0 0))')"],
}
CHARSETS = {  # B-52, B-53: text that each of them can hold
    "latin1": "caf\u00e9 \u20ac \u0081\u008d",
    "latin2": "\u0141\u00f3d\u017a",
    "latin5": "\u0130stanbul",
    "latin7": "\u0160iauliai",
    "ascii": "plain",
    "cp1250": "\u017dlu\u0165",
    "cp1251": "\u041c\u043e\u0441\u043a\u0432\u0430",
    "cp1256": "\u0633\u0644\u0627\u0645",
    "cp1257": "R\u012bga",
    "cp850": "\u00e9\u00fc",
    "cp852": "\u0159",
    "cp866": "\u0414\u0430",
    "cp932": "\u65e5\u672c\u8a9e",
    "dec8": "\u00e9\u00d8",
    "hp8": "\u00e9\u00fc",
    "koi8r": "\u043f\u0440\u0438\u0432\u0435\u0442",
    "koi8u": "\u0407\u0436\u0430\u043a",
    "keybcs2": "\u010de\u0161tina",
    "macce": "\u010de\u0161tina",
    "macroman": "\u00e9\u00fc",
    "swe7": "\u00c5\u00c4\u00d6",
    "armscii8": "\u0540\u0561\u0575",
    "geostd8": "\u10e5\u10d0",
    "greek": "\u0391\u03b8\u03ae\u03bd\u03b1",
    "hebrew": "\u05e9\u05dc\u05d5\u05dd",
    "tis620": "\u0e44\u0e17\u0e22",
    "big5": "\u4e2d\u6587",
    "gb2312": "\u4e2d\u6587",
    "gbk": "\u4e2d\u6587\u9555",
    "euckr": "\ud55c\uad6d",
    "sjis": "\u65e5\u672c",
    "ujis": "\u65e5\u672c\u8a9e",
    "eucjpms": "\u65e5\u672c\u8a9e",
    "ucs2": "A\u20ac\u4e2d",
    "utf16": "A\u20ac\U0001f600",
    "utf16le": "A\u20ac\U0001f600",
    "utf32": "A\u20ac\U0001f600",
    "utf8mb3": "\u00e9\u20ac",
    "utf8mb4": "\u00e9\u20ac\U0001f600",
}


def both_paths(database: MySqlDatabase, folder: Path, types: dict[str, list[str]]) -> None:
    """Every value once by the copy and once by the stream, and then as before and after images of updates."""
    columns = [f"c{number} {kind}" for number, kind in enumerate(types)]
    database.execute(f"CREATE TABLE v (id int PRIMARY KEY, {', '.join(columns)})")
    most = max(map(len, types.values()))
    rows = [[values[number % len(values)] for values in types.values()] for number in range(most)] + [
        ["NULL"] * len(types)
    ]
    inserts = [f"INSERT IGNORE INTO v VALUES ({number}, {', '.join(row)})" for number, row in enumerate(rows)]
    database.execute("SET sql_mode = ''", *inserts)
    replica = make_replica(database, folder)
    replica.catch_up()
    replica.assert_equal()
    copied = replica.query("SELECT columns('c.*')::varchar FROM v ORDER BY id")
    database.execute("SET sql_mode = ''", "TRUNCATE v", *inserts)
    replica.catch_up()
    replica.assert_equal()
    assert replica.query("SELECT columns('c.*')::varchar FROM v ORDER BY id") == copied
    shifted = ", ".join(f"v.c{n} = o.c{n}" for n in range(len(types)))
    database.execute(
        "SET sql_mode = ''",
        "CREATE TEMPORARY TABLE o AS SELECT * FROM v",
        f"UPDATE v JOIN o ON o.id = (v.id + 1) % {len(rows)} SET {shifted}",
        "DELETE FROM v WHERE id = 1",
    )
    replica.catch_up()
    replica.assert_equal()


def test_all_types(my: MySqlDatabase, tmp_path: Path) -> None:
    """B-50, B-55, B-56, B-57, B-58, B-59, B-60, B-62, B-63: the copy and the stream have the same values, exactly."""
    both_paths(my, tmp_path, BOTH)


def test_types_without_names_in_the_log(my: MySqlDatabase, tmp_path: Path) -> None:
    """B-40: with the default binlog_row_metadata the types are known from the table's own history."""
    usual = "MINIMAL" if my.flavor == "mysql" else "NO_LOG"
    my.execute(f"SET GLOBAL binlog_row_metadata = '{usual}'")
    try:
        both_paths(my, tmp_path, BOTH)
    finally:
        my.execute("SET GLOBAL binlog_row_metadata = 'FULL'")


def test_character_sets(my: MySqlDatabase, tmp_path: Path) -> None:
    """B-52, B-53: every character set that the server has."""
    there = {name for (name,) in my.execute("SELECT character_set_name FROM information_schema.character_sets")}
    assert there - {"binary", "gb18030"} <= set(CHARSETS), "a character set without a value"
    types = {
        f"varchar(50) CHARACTER SET {name}": [f"_utf8mb4'{text}'", "''", "'ascii'"]
        for name, text in CHARSETS.items()
        if name in there
    }
    both_paths(my, tmp_path, types)


def test_every_byte_of_small_character_sets(my: MySqlDatabase, tmp_path: Path) -> None:
    """B-52: no byte is refused, and each means what the server says."""
    there = my.execute("SELECT character_set_name FROM information_schema.character_sets WHERE maxlen = 1")
    everything = bytes(range(1, 256)).hex()
    types = {f"varchar(300) CHARACTER SET {name}": [f"x'{everything}'"] for (name,) in there if name != "binary"}
    both_paths(my, tmp_path, types)


def test_types_of_mariadb(on_mariadb: MySqlDatabase, tmp_path: Path) -> None:
    """B-62: MariaDB's own types."""
    version1, version4 = "'6ba7b810-9dad-11d1-80b4-00c04fd430c8'", "'123e4567-e89b-42d3-a456-426614174000'"
    both_paths(
        on_mariadb,
        tmp_path,
        {
            "uuid": [
                version1,
                version4,
                "'00000000-0000-0000-0000-000000000000'",
                "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
            ],
            "inet6": [
                "'::1'",
                "'::ffff:192.168.1.1'",
                "'2001:db8::ff00:42:8329'",
                "'::'",
                "'::192.168.0.1'",
                "'1:0:0:2::3'",
            ],
            "inet4": ["'192.168.0.1'", "'0.0.0.0'", "'255.255.255.255'"],
        },
    )


def test_types_of_mysql(on_mysql: MySqlDatabase, tmp_path: Path) -> None:
    """B-60, B-62: MySQL's own types, and JSON with what only SQL can put into it."""
    documents = [
        "JSON_OBJECT('t', CAST('12:34:56.5' AS TIME(6)), 'd', CAST('2024-02-29' AS DATE))",
        "JSON_ARRAY(CAST('2024-02-29 01:02:03.000001' AS DATETIME(6)), CAST(-12.50 AS DECIMAL(5,2)), CAST('-0:0:1' AS TIME))",
        "JSON_ARRAY(18446744073709551615, -9223372036854775808, 1e20, 1.5e-20, 1e14, 1e15, 0.1, -0.0, 3.0, 1e-14, 1e-16)",
        "JSON_OBJECT('b', CAST(x'00ff' AS BINARY), 'bit', b'101')",
        "JSON_OBJECT('long', REPEAT('x', 70000), 'a', JSON_ARRAY(1, 2))",
        '\'"\\\\u0001\\\\n\\\\"\\\\\\\\ é😀"\'',
        '\'{"b": 1, "a": 2, "b": 3, "aa": {}}\'',
        "CAST('true' AS JSON)",
        "JSON_ARRAY(32767, 32768, 65535, 65536, -32769, 2147483648)",
    ]
    both_paths(on_mysql, tmp_path, {"json": documents, "vector(3)": ["STRING_TO_VECTOR('[1,-2.5,3e10]')"]})


def test_dates_of_no_calendar(my: MySqlDatabase, tmp_path: Path) -> None:
    """B-51: they make the column text, on both paths; year 0 stays 0."""
    types = {
        "date": ["'0000-00-00'", "'2020-00-15'", "'2020-02-00'", "'2020-01-01'"],
        "datetime(3)": ["'0000-00-00 00:00:00'", "'2020-02-00 01:02:03.5'", "'2020-01-01 01:02:03.5'"],
        "timestamp(2) null": ["'0000-00-00 00:00:00'", "'2020-01-01 01:02:03.5'"],
        "year": ["0", "2000"],
    }
    both_paths(my, tmp_path, types)


@pytest.mark.parametrize("kind", ["int", "decimal(20,6)", "double", "datetime(6)", "time(6)", "varchar(50)", "blob"])
def test_any_value(my: MySqlDatabase, tmp_path: Path, kind: str) -> None:
    """B-50, B-57, B-58: values that nobody thought of."""
    numbers = st.integers(-(10**12), 10**12)
    values = {
        "int": st.integers(-(2**31), 2**31 - 1).map(str),
        "decimal(20,6)": numbers.map(lambda n: f"{n / 1000:.6f}"),
        "double": st.floats(allow_nan=False, allow_infinity=False).map(repr),
        "datetime(6)": st.datetimes(min_value=_datetime(1000)).map(lambda d: f"'{d.isoformat(' ')}'"),
        "time(6)": st.integers(-3020399999999, 3020399999999).map(lambda n: f"SEC_TO_TIME({n} / 1000000.0)"),
        "varchar(50)": st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=50).map(_hexadecimal),
        "blob": st.binary(max_size=300).map(lambda b: f"x'{b.hex()}'"),
    }[kind]

    @settings(max_examples=2, phases=[Phase.generate])
    @given(st.lists(values, min_size=40, max_size=40))
    def check(found: list[str]) -> None:
        my.execute("DROP TABLE IF EXISTS v")
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        both_paths(my, folder, {kind: found})

    check()


def _hexadecimal(text: str) -> str:
    return f"_utf8mb4 x'{text.encode().hex()}'"


def _datetime(year: int):  # type: ignore[no-untyped-def]
    from datetime import datetime

    return datetime(year, 1, 1)
