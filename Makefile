# The commands that a person has to know. Each sets up what it needs: on a fresh Debian machine as root that includes the
# engine, Elixir and builder images (integration/world.py), kept in a cache so that the second run is quick.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test lint format package unit pytest exunit coverage matrix engines pythons soak bench nerves dialyzer lock audit hex dist clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The tools that make and check a release. The tests do not need most of them, and they take long to install.
RELEASE := $(VENV)-release
DIST ?= dist
WORLD := $(PYTHON) integration/world.py
# Most tests wait for an engine, so three at a time keep two cores busy.
WORKERS ?= 3
# For `make nerves`: a version that the newest Nerves runs on.
ELIXIR ?= trixie
# Nerves is compiled in the test then. It needs make on the PATH, which some tests take away, a path without blanks, and a
# checkout that the user may read.
WITH_NERVES := not python and not any_uid and not spaces
SIDE_BY_SIDE := -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
# What needs no real engine: a fake one, or only a listener.
NO_ENGINE := tests/unit $(wildcard tests/faults/test_fake_engine*.py) $(addprefix tests/engine/test_,dockerignore.py endpoint.py tls.py)
PYTEST := $(BIN)/python -m pytest $(SIDE_BY_SIDE)
LOCKING := --quiet --upgrade --python-version 3.10 --generate-hashes --no-header
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
test: package
	$(PYTHON) integration/side_by_side.py lint exunit-bookworm exunit-trixie pytest

## unit: the tests that need no engine
unit: $(VENV)/.ready
	$(PYTEST) tests/unit

## pythons: the same with Python 3.11, 3.13 and 3.14, which are Debian 12's, Debian 13's and Debian unstable's
pythons: $(VENV)/.ready
	$(BIN)/python integration/pythons.py -- $(SIDE_BY_SIDE) tests/unit

## pytest: all tests but the shim's own suite, with an engine
pytest: package
	$(WORLD) run $(IMAGES) --elixir host -- $(PYTEST) --durations=15

## coverage: the lines and branches of the helper that the tests without a real engine run
coverage: $(VENV)/.ready
	rm -f .coverage*
	$(BIN)/python -m coverage run -m pytest $(SIDE_BY_SIDE) $(NO_ENGINE)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

## exunit: the shim's own suite, with the Elixir that is on the PATH; exunit-trixie: with Debian 13's
exunit:
	cd elixir_shim && MIX_BUILD_PATH=$${MIX_BUILD_PATH:-_build/otp-$$(erl -noshell -eval 'io:put_chars(erlang:system_info(otp_release)), halt().')} MIX_ENV=test mix do compile --warnings-as-errors + test

exunit-%: package
	$(WORLD) run --elixir $* -- $(MAKE) --no-print-directory exunit

## matrix: the shim's suite on every Elixir
matrix: exunit-bookworm exunit-trixie exunit-sid

## engines: the same tests on every kind of engine; what they show is written into docs/engines.md
engines: package
	NDP_ENGINES=all NDP_ENGINES_TABLE=docs/engines.md $(WORLD) run --image new --elixir host -- $(BIN)/python -m pytest tests/engines

## soak: what takes too long for every run
soak: package
	NDP_RANDOM_CANCELLATIONS=1000 $(WORLD) run --image new -- $(BIN)/python -m pytest -s tests/faults/test_real_engine.py -k random
	NDP_RACES=100 $(WORLD) run --image new -- $(BIN)/python -m pytest -s tests/faults/test_real_engine.py -k 'instant or same'
	NDP_KILLS=100 $(WORLD) run --image new -- $(BIN)/python -m pytest -s tests/engine/test_record.py -k killed

## bench: everything side by side in one run; the figures are written into docs/performance.md
bench: package
	$(WORLD) run --image new --image old --elixir host -- $(BIN)/python -m bench --page docs/performance.md

## lint: formatting, types, warnings, the layers of the helper, the scripts
lint: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	for platform in linux darwin; do $(BIN)/mypy --platform $$platform; done
	PYTHONPATH=python $(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/vermin --quiet --no-tips --violations --target=3.10- python/nerves_docker_port
	$(WORLD) tools shellcheck shfmt
	scripts="$$($(SCRIPTS))"; shellcheck .ci/run $$scripts; $(SHFMT) --diff .ci/run $$scripts
	PATH="$(CURDIR)/$(BIN):$$PATH" actionlint
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

## dialyzer: the types of the shim; no result is ignored by accident
dialyzer:
	$(PYTHON) integration/dialyzer.py

## nerves: the demo and the tests of Mix with real Nerves, for example NERVES_PATH=... NERVES_DEPS_PATH=... MIX_HOME=...
nerves: package
	test -f "$(NERVES_PATH)/mix.exs" || { echo 'NERVES_PATH has to be a checkout of Nerves: see CONTRIBUTING.md' >&2; exit 1; }
	HEX_OFFLINE=1 $(PYTHON) integration/demo.py --elixir $(ELIXIR)
	HEX_OFFLINE=1 $(WORLD) run $(IMAGES) --elixir $(ELIXIR) -- $(PYTEST) tests/mix/test_tasks.py tests/mix/test_mix.py -k "$(WITH_NERVES)"

## hex: the Hex package, into build/hex
hex: package
	$(WORLD) run --elixir host -- $(BIN)/python python/package_hex.py build/hex

## dist: the Python distribution, as a wheel and as sources, into dist/
dist: $(RELEASE)/.ready
	rm -rf $(DIST)
	$(RELEASE)/bin/python -m build --no-isolation --outdir $(DIST)
	$(RELEASE)/bin/twine check --strict $(DIST)/*

## lock: renew requirements/*.txt from requirements/*.in
lock: $(RELEASE)/.ready
	cd requirements && ../$(RELEASE)/bin/uv pip compile $(LOCKING) --python-platform linux --output-file runtime.txt runtime.in
	cd requirements && for name in dev release; do \
	  ../$(RELEASE)/bin/uv pip compile $(LOCKING) --universal --output-file $$name.txt $$name.in; done

## audit: look for known vulnerabilities in what is locked (asks the package index)
audit: $(RELEASE)/.ready
	for name in runtime dev release; do \
	  $(RELEASE)/bin/pip-audit --strict --disable-pip --require-hashes -r requirements/$$name.txt; done

$(VENV)/.ready: requirements/dev.txt
$(RELEASE)/.ready: requirements/release.txt
%/.ready:
	$(PYTHON) -m venv $* >/dev/null 2>&1 || { \
	  $(PYTHON) -c 'from integration.host import apt_install; apt_install(["python3-venv"], "the tests need a virtual environment")'; \
	  rm -rf $*; $(PYTHON) -m venv $*; }
	$*/bin/python -m pip install --quiet --disable-pip-version-check --use-pep517 --require-hashes -r $<
	touch $@

clean:
	rm -rf $(VENV) $(RELEASE) $(DIST) build elixir_shim/priv/python elixir_shim/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis
