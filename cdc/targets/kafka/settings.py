"""What a Kafka target's address says: `kafka://host:9092,host2:9092?topic={schema}.{table}&partitions=6`.

Whatever else the client is to know (TLS, SASL, time limits) stands in a file of librdkafka's properties, or in
variables of the environment, so that no password is on a command line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import parse_qsl

from cdc.errors import UsageError

DEFAULT_TOPIC = "{pipeline}.{schema}.{table}"
_EXAMPLE = "Write it as kafka://host:9092,host2:9092?topic={schema}.{table}; docs/kafka.md lists the options."
_BROKER = re.compile(r"(\[[0-9a-fA-F:]+\]|[\w.-]+)(:\d{1,5})?", re.ASCII)
_PLACEHOLDER = re.compile(r"\{(.*?)\}")
_VARIABLE = "CDC_KAFKA_"  # before the name of a property, in capitals and with underscores for dots
# What exactly-once delivery and the order of keys rest on.
_OURS = {
    "bootstrap.servers",
    "transactional.id",
    "enable.idempotence",
    "enable.gapless.guarantee",
    "max.in.flight.requests.per.connection",
    "max.in.flight",
    "acks",
    "request.required.acks",
    "isolation.level",
    "delivery.report.only.error",
    "enable.partition.eof",
    "enable.auto.commit",
}


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach a cluster, and what to write to it.

    Attributes:
        brokers: `host:port`, with commas between them.
        topic: the template of topics' names.
        partitions, replication: of topics that are made; -1 leaves it to the broker.
        create: whether topics that are missing are made.
        tombstones, schemas, transactions: of Debezium's format (see `cdc.formats.FormatSettings`); None for as it
            usually is.
        client: librdkafka's properties beside ours.
    """

    brokers: str
    topic: str = DEFAULT_TOPIC
    partitions: int = -1
    replication: int = -1
    create: bool = True
    tombstones: bool | None = None
    schemas: bool | None = None
    transactions: bool | None = None
    client: Mapping[str, str] = field(default_factory=dict)

    def refuse_other_than(self, messages: str) -> None:
        """Raise UsageError for options of a format that is not the one."""
        of_debezium = {"tombstones": self.tombstones, "schemas": self.schemas, "transactions": self.transactions}
        given = [name for name, choice in of_debezium.items() if choice is not None]
        if given and messages != "debezium":
            raise UsageError(f"?{given[0]}= needs Debezium's format.", hint="--format debezium, or leave it out.")


_OPTIONS = [entry.name for entry in fields(KafkaSettings) if entry.name not in ("brokers", "client")] + ["config"]


def read_settings(address: str, environment: Mapping[str, str] = os.environ) -> KafkaSettings:
    """Read what comes after `kafka:`; raises UsageError."""
    place, _, query = address.removeprefix("//").partition("?")
    if "@" in place:
        raise UsageError(
            "The Kafka target's address has a user or a password in it.",
            hint="Set CDC_KAFKA_SASL_USERNAME and CDC_KAFKA_SASL_PASSWORD, or name a file with ?config=FILE.",
        )
    brokers = [broker for broker in place.rstrip("/").split(",") if broker]
    if not address.startswith("//") or not brokers or not all(map(_BROKER.fullmatch, brokers)):
        raise UsageError("The Kafka target names no brokers.", hint=_EXAMPLE)
    try:
        given = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise UsageError("The Kafka target's options are not NAME=VALUE with & between them.", hint=_EXAMPLE) from None
    options = dict(given)
    for name in options:
        if name not in _OPTIONS:
            near = get_close_matches(name, _OPTIONS, 1)
            raise UsageError(
                f"A Kafka target has no option {name!r}.",
                hint=f"Did you mean {near[0]}?" if near else f"There are {', '.join(_OPTIONS)}.",
            )
    if len(options) < len(given):
        raise UsageError("An option of the Kafka target is given twice.", hint=_EXAMPLE)
    return KafkaSettings(
        brokers=",".join(broker if _has_port(broker) else f"{broker}:9092" for broker in brokers),
        topic=_template(options.get("topic", DEFAULT_TOPIC)),
        partitions=_count("partitions", options),
        replication=_count("replication", options),
        create=_choice("create", options) is not False,
        tombstones=_choice("tombstones", options),
        schemas=_choice("schemas", options),
        transactions=_choice("transactions", options),
        client=_properties(options.get("config"), environment),
    )


def _has_port(broker: str) -> bool:
    return ":" in broker.rpartition("]")[2]


def _template(text: str) -> str:
    found = _PLACEHOLDER.findall(text)
    if "table" not in found or not set(found) <= {"pipeline", "schema", "table"}:
        raise UsageError(
            f"{text!r} is not a template for the names of topics.",
            hint="It must have {table}, and may have {schema} and {pipeline}: two tables never share a topic.",
        )
    return text


def _count(name: str, options: Mapping[str, str]) -> int:
    if name not in options:
        return -1
    if not re.fullmatch(r"[1-9]\d{0,4}", options[name], re.ASCII):
        raise UsageError(f"The Kafka target's {name} are {options[name]!r}.", hint="Give a number from 1 on.")
    return int(options[name])


def _choice(name: str, options: Mapping[str, str]) -> bool | None:
    words = {"yes": True, "true": True, "no": False, "false": False}
    if name not in options:
        return None
    if options[name] not in words:
        raise UsageError(f"The Kafka target's {name} is {options[name]!r}.", hint="Write yes or no.")
    return words[options[name]]


def _properties(path: str | None, environment: Mapping[str, str]) -> dict[str, str]:
    """Of the file, and over them those of the environment."""
    found = _read(Path(path)) if path is not None else {}
    for variable, value in environment.items():
        if variable.startswith(_VARIABLE):
            found[variable.removeprefix(_VARIABLE).lower().replace("_", ".")] = value
    for name in sorted(_OURS & set(found)):
        raise UsageError(
            f"The Kafka client's property {name} is set by cdc itself.",
            hint="Leave it out: exactly-once delivery depends on it.",
        )
    return found


def _read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"The file {path} of the Kafka client's properties cannot be read.") from None
    found = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise UsageError(f"Line {number} of {path} is not a property.", hint="Write it as name=value.")
        found[name.strip()] = value.strip()
    return found
