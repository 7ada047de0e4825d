"""A private Kafka broker out of Maven's packages, and somebody who reads what was committed."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc.demo.private import cache_folder, free_port
from cdc.errors import Unavailable, UsageError
from integration.tls import Authority

USER = "app"
_START_WITHIN = 120.0  # seconds
_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.controller.protocol": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "security.inter.broker.protocol": "SASL_PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:SASL_PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "num.network.threads": "2",
    "num.io.threads": "2",
    "log.cleaner.dedupe.buffer.size": "4194304",
}


@dataclass(frozen=True, slots=True)
class Record:
    """A message that a reader of committed ones sees."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class PrivateKafka:
    """One broker on a free port, gone with everything it holds when this is closed. Only `USER` may come in.

    Attributes:
        folder: of all its files.
        password: of `USER`, made up for this broker.
        port: where nothing is encrypted.
        secure_port: where everything is.
        controller_port: where its parts talk to each other.
        authority: who signed the certificate that the broker shows there.
    """

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cdc-kafka-"))
        self.password = secrets.token_hex(16)
        self.port, self.secure_port = free_port(), free_port()
        self.authority = Authority(self.folder, "authority")
        self.controller_port = free_port()
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.create()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def brokers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def address(self, *options: str) -> str:
        """The broker as a target, with how to log in: `//127.0.0.1:9092?config=FILE&partitions=3`."""
        return f"//{self.brokers}?{'&'.join((f'config={self._properties}', *options))}"

    def create(self) -> None:
        """Make the folder of a cluster that has one node."""
        atexit.register(self.close)
        self.authority.issue("127.0.0.1", self.folder)
        keystore = self.folder / "keystore.pem"
        keystore.write_bytes((self.folder / "server.key").read_bytes() + (self.folder / "server.pem").read_bytes())
        self._properties.touch(0o600)
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in self._login.items()))
        clients = f"SASL_PLAINTEXT://{self.brokers},SASL_SSL://127.0.0.1:{self.secure_port}"
        users = f'username="{USER}" password="{self.password}" user_{USER}="{self.password}"'
        login = f"{_LOGIN} required {users};"
        own = {
            "listeners": f"{clients},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": clients,
            **{
                f"listener.name.{of}.plain.sasl.jaas.config": login
                for of in ("controller", "sasl_plaintext", "sasl_ssl")
            },
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keystore),
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "log.dirs": str(self.folder / "data"),
        }
        lines = [f"{name}={value}\n" for name, value in (_SETTINGS | own | self._settings).items()]
        settings = self.folder / "server.properties"
        settings.touch(0o600)
        settings.write_text("".join(lines))
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().strip("=")
        identity = f"x{cluster[1:]}"  # a name that begins with a dash would be taken for an option
        with self._log.open("ab") as log:
            self._java("kafka.tools.StorageTool", "format", "-t", identity, "-c", log=log).wait(_START_WITHIN)

    def start(self) -> None:
        """Start the broker and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = self._java("kafka.Kafka", log=log)
        admin = AdminClient(self._client | {"log_level": "0", "reconnect.backoff.max.ms": "100"})
        until = time.monotonic() + _START_WITHIN
        while time.monotonic() < until and self._process.poll() is None:
            try:
                admin.list_topics(timeout=1)
                return
            except Exception:
                time.sleep(0.1)
        raise Unavailable(f"The Kafka broker did not start: {self._log.read_text(errors='replace')[-2000:]}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop the broker; SIGKILL is a crash."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_START_WITHIN)
            self._process = None

    def send(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT: it answers nobody for a while."""
        assert self._process is not None
        self._process.send_signal(number)

    def close(self) -> None:
        """Stop the broker and remove its folder."""
        atexit.unregister(self.close)
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def admin(self) -> AdminClient:
        return AdminClient(self._client)

    def topics(self, prefix: str) -> list[str]:
        """The topics whose names begin so."""
        return sorted(name for name in self.admin().list_topics(timeout=30).topics if name.startswith(prefix))

    def read(self, prefix: str) -> list[Record]:
        """Everything that is committed in the topics whose names begin so, partition by partition."""
        reader = Consumer(
            {
                **self._client,
                "group.id": "reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        found = reader.list_topics(timeout=30).topics
        left = [
            TopicPartition(name, partition, 0)
            for name, topic in found.items()
            if name.startswith(prefix)
            for partition in topic.partitions
        ]
        records = []
        reader.assign(left)
        ended: set[tuple[str | None, int | None]] = set()
        while len(ended) < len(left):
            message = reader.poll(60)
            assert message is not None, "the broker does not answer"
            topic, partition = message.topic(), message.partition()
            if (error := message.error()) is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                ended.add((topic, partition))
            else:
                assert topic is not None
                assert partition is not None
                headers = tuple(message.headers() or ())
                records.append(Record(topic, partition, message.key(), message.value(), headers))
        reader.close()
        records.sort(key=lambda record: (record.topic, record.partition))  # which the broker gives as they come
        return records

    def events(self, pipeline: str) -> list[Record]:
        """What a pipeline has emitted, without the shapes of its tables."""
        return [record for record in self.read(f"{pipeline}.") if record.topic != f"{pipeline}.schema"]

    @property
    def _login(self) -> dict[str, str]:
        how = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}
        return how | {"sasl.username": USER, "sasl.password": self.password}

    @property
    def _client(self) -> dict[str, str]:
        return {"bootstrap.servers": self.brokers, **self._login}

    @property
    def _properties(self) -> Path:
        """How a client logs in, for who runs the tests alone."""
        return self.folder / "client.properties"

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _java(self, program: str, *arguments: str, log: object) -> subprocess.Popen[bytes]:
        libraries = cache_folder() / "kafka" / "libs"
        java = shutil.which("java")
        if java is None or not libraries.is_dir():
            raise UsageError("There is no Kafka on this machine.", hint="Install Java and Maven, then `make servers`.")
        command = [java, "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{libraries}/*", program]
        return subprocess.Popen(
            [*command, *arguments, str(self.folder / "server.properties")],
            stdin=subprocess.DEVNULL,
            stdout=log,  # type: ignore[call-overload]
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env=os.environ | {"LOG_DIR": str(self.folder)},
        )
