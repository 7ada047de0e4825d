PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

SERVERS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/cdc-servers

.PHONY: demo test lint bench servers clean

demo: .venv/demo.done
	$(BIN)/cdc demo --source $(or $(SOURCE),postgresql)

test: lint servers
	$(BIN)/python -m pytest

# MySQL and MariaDB, unpacked once into a folder that all checkouts share; nothing is installed.
servers:
	integration/servers/unpack.sh bookworm $(SERVERS)/mariadb mariadb-server-core mariadb-client-core mariadb-client
	integration/servers/unpack.sh sid $(SERVERS)/mysql mysql-server-core mysql-client-core

lint: .venv/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile

bench: .venv/dev.done servers
	$(BIN)/python -m integration.benchmarks

.venv/%.done: pyproject.toml
	test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
