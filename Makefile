# `make run` and `make test` need Python 3.11 or newer and make; they fetch the rest into .venv.
PYTHON ?= python3
MAKEFLAGS += --no-print-directory
BIN := .venv/bin

.PHONY: run demo test test-postgresql test-faults lint types fmt check dist bench bench-quick screenshots clean

run: .venv/run.stamp
	@$(BIN)/python -m console serve

# An example to look at, in a directory of its own: filled once, then served.
demo: export LATCHKEY_DATA_DIR := $(or $(LATCHKEY_DATA_DIR),data-demo)
demo: .venv/run.stamp
	@$(BIN)/python -m console demo --again
	@$(BIN)/python -m console serve

# Files of tests side by side, in their order, one worker a core. Where nothing compiled may be kept, each
# of the hundreds of processes that the tests start would compile all modules anew: half of its time.
WORKERS ?= auto
PYTEST = env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# The files of what the domain does.
DOMAIN := keys check limits audit db partitions move journal jobs sessions throttle chain usage search idempotency \
  webhooks rights doors upgrade permission_table

# On SQLite. With SHORT, for CI's time, without test_dist.py and what it builds, and light pages alone.
test: .venv/dev.stamp
	TEST_DATABASE_URL='' $(PYTEST) $(if $(SHORT),--ignore=tests/test_dist.py)

# On PostgreSQL, in databases that are made there for it (latchkey_test_gw0 …) and dropped. Left out
# is what stands before Latchkey and never sees the database, and what brings databases of its own.
# PART=domain: the files of the domain alone.
test-postgresql: export TEST_DATABASE_URL ?= postgresql://postgres@127.0.0.1:5432/latchkey_test
test-postgresql: .venv/dev.stamp
	$(PYTEST) -m "not browser and not outside" \
	  $(if $(filter domain,$(PART)),$(DOMAIN:%=tests/test_%.py) tests/faults/test_nth_call.py)

# The faults of tests/faults at length; its README says what and how long.
test-faults: export FAULTS := long
test-faults: export ROUNDS ?= 50
test-faults: .venv/dev.stamp
	$(BIN)/python -m pytest tests/faults tests/test_promises.py tests/test_moved_clock.py

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/djlint --lint --quiet templates

types: .venv/dev.stamp
	$(BIN)/mypy

fmt: .venv/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What CI runs, in its 20 minutes, of which PostgreSQL takes two fifths; where what comes before took so long that it would
# be more, only the files of the domain run there. Before a release: FUZZ_CASES=500 make test; make test-postgresql test-faults
SLOW_SECONDS := 580
check: export SHORT := 1
check: export WORKERS := 4
check: export FUZZ_CASES ?= 10
check: .venv/proxies.stamp
	@began=$$(date +%s); $(MAKE) lint types test && \
	if [ $$(($$(date +%s) - began)) -lt $(SLOW_SECONDS) ]; then $(MAKE) test-postgresql; else \
	  echo 'A slow machine: on PostgreSQL only the files of the domain are tested.'; \
	  $(MAKE) test-postgresql PART=domain; fi

# Latchkey as one file, dist/latchkey, that needs nothing installed; needs binutils and Python's shared library.
dist: dist/latchkey

SHIPPED := config.py requirements-dist.txt deploy/latchkey.spec deploy/onefile.py \
  $(shell find console templates static docs/proxies docs/clients -type f ! -name '*.pyc')

dist/latchkey: .venv-dist/stamp $(SHIPPED)
	PYINSTALLER_CONFIG_DIR=.venv-dist/cache .venv-dist/bin/pyinstaller --noconfirm --log-level ERROR \
	  --workpath .venv-dist/work --distpath dist deploy/latchkey.spec
	@touch $@

.venv-dist/stamp: requirements.txt requirements-dist.txt
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dist.txt
	@touch $@

# Both need wrk. KEEP=DIR: the database of a million keys is filled there once, and used again.
bench: .venv/run.stamp
	@$(BIN)/python -m bench.run $(if $(KEEP),--keep $(KEEP))

bench-quick: .venv/run.stamp
	@$(BIN)/python -m bench.run --quick

# The README's pictures, of a demo that is made for them; needs chromium.
screenshots: .venv/dev.stamp
	@$(BIN)/python -m docs.screenshots.take

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Latchkey needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=python3.12'; exit 1; }
	$(PYTHON) -m venv .venv

.venv/run.stamp: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/dev.stamp: requirements.txt requirements-dev.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ .venv/run.stamp

# Real proxies that Debian has not, for tests/test_proxies.py, which skips those that are not there.
.venv/proxies.stamp: requirements-proxies.txt .venv/dev.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-proxies.txt
	@touch $@

clean:
	rm -rf .venv .venv-dist dist .mypy_cache .pytest_cache .ruff_cache
