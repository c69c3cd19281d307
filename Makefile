# The commands that a person has to know. Each sets up what it needs: on a fresh Debian machine as root that includes the
# engine, Elixir and builder images (integration/world.py), kept in a cache so that the second run is quick.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test lint format package unit exunit matrix soak bench clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORLD := $(PYTHON) integration/world.py
IMAGES := --image new --image new-1.28.0 --image old
PACKAGED := elixir_shim/priv/python/__main__.py
# Those that are not in git yet included.
SCRIPTS := git ls-files --cached --others --exclude-standard '*.sh'
# Two blanks, and the patterns of `case` indented.
SHFMT := shfmt -i 2 -ci
HELPER_SOURCES := $(shell find python/nerves_docker_port -name '*.py' -o -name '*.sh') python/package_helper.py requirements/runtime.txt

## demo: `mix nerves.artifact` on the miniature system, to an artifact
demo: package
	$(PYTHON) integration/demo.py

## test: everything that CI runs
test: lint package
	$(WORLD) run --elixir bookworm -- $(MAKE) --no-print-directory exunit
	$(WORLD) run --elixir trixie -- $(MAKE) --no-print-directory exunit
	$(WORLD) run $(IMAGES) --elixir host -- $(BIN)/python -m pytest --durations=15

## unit: the tests that need no engine
unit: $(VENV)/.ready
	$(BIN)/python -m pytest tests/unit

## exunit: the shim's own suite, with the Elixir that is on the PATH
exunit:
	cd elixir_shim && MIX_BUILD_PATH=$${MIX_BUILD_PATH:-_build/otp-$$(erl -noshell -eval 'io:put_chars(erlang:system_info(otp_release)), halt().')} MIX_ENV=test mix do compile --warnings-as-errors + test

## matrix: the shim's suite on every Elixir
matrix: package
	for elixir in bookworm trixie sid; do $(WORLD) run --elixir $$elixir -- $(MAKE) --no-print-directory exunit; done

## soak: what takes too long for every run
soak: package
	NDP_RANDOM_CANCELLATIONS=1000 $(WORLD) run --image new -- $(BIN)/python -m pytest -s tests/faults/test_real_engine.py -k random
	NDP_RACES=100 $(WORLD) run --image new -- $(BIN)/python -m pytest -s tests/faults/test_real_engine.py -k 'instant or same'

## bench: everything side by side in one run; ratios, not seconds
bench: package
	$(WORLD) run --image new --image old --elixir host -- $(BIN)/python -m bench

## lint: formatting, types, warnings, the layers of the helper, the scripts
lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	for platform in linux darwin; do $(BIN)/mypy --platform $$platform; done
	PYTHONPATH=python $(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/vermin --quiet --no-tips --violations --target=3.10- python/nerves_docker_port
	$(WORLD) tools shellcheck shfmt
	scripts="$$($(SCRIPTS))"; shellcheck .ci/run $$scripts; $(SHFMT) --diff .ci/run $$scripts
	$(WORLD) run --elixir host -- sh -c 'cd elixir_shim && mix format --check-formatted'

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	scripts="$$($(SCRIPTS))"; $(SHFMT) --write .ci/run $$scripts
	cd elixir_shim && mix format

## package: the helper and its dependencies into elixir_shim/priv/python
package: $(PACKAGED)

$(PACKAGED): $(HELPER_SOURCES) | $(VENV)/.ready
	$(BIN)/python python/package_helper.py elixir_shim/priv/python
	touch $@

$(VENV)/.ready: requirements/dev.txt
	$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
	  $(PYTHON) -c 'from integration.host import apt_install; apt_install(["python3-venv"], "the tests need a virtual environment")'; \
	  rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 --require-hashes -r requirements/dev.txt
	touch $@

clean:
	rm -rf $(VENV) elixir_shim/priv/python elixir_shim/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis
