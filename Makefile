# Everything runs in a virtual environment of its own, made on first use.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
SMALL  ?= --disable-pip-version-check --progress-bar off

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types man docs deps bench bench-setup fresh ends fixtures fuzz fuzz-model parity parity-long interp-long cover-table crowded-long conformance coverage repair-table intercept-table trace-table lower-table dwarf-table relax-long shrink-long shrink-table values-long clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV), once; what pip does comes next" >&2
	@$(BIN)/python -m pip install $(SMALL) --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## Rewrite the bundled XDP object, show the change, run both versions
	@$(BIN)/bpfpatch demo

test: $(STAMP) ## Run the tests, side by side (what needs more than Python skips, and is counted)
	@$(BIN)/python -m pytest --numprocesses=auto $(PYTEST_ARGS)

lint: $(STAMP) ## ruff and import-linter
	@$(BIN)/ruff check src tests benchmarks examples docs
	@$(BIN)/ruff format --check src tests benchmarks examples docs
	@$(BIN)/lint-imports

types: $(STAMP) ## mypy --strict
	@$(BIN)/mypy

coverage: $(STAMP) ## Tests of the core, which must cover every branch of it
	@$(BIN)/python -m pytest tests/unit/program tests/unit/patch tests/property/test_patch_model.py \
	  --quiet --cov=bpfpatch.program --cov=bpfpatch.patch --cov-branch \
	  --cov-report=term-missing:skip-covered --cov-fail-under=100

man: $(STAMP) ## Write the man page, build/man/bpfpatch.1
	@mkdir -p build/man
	@$(BIN)/python -m bpfpatch.cli.manpage >build/man/bpfpatch.1
	@echo build/man/bpfpatch.1

docs: $(VENV)/.docs ## Build the manual and the API reference, build/site (strict)
	@$(BIN)/python docs/site/build.py
	@echo "build/site/index.html; search takes a server: python3 -m http.server -d build/site"
$(VENV)/.docs: $(STAMP)
	@$(BIN)/python -m pip install $(SMALL) --quiet --editable '.[docs]'
	@touch $@

fresh: ## What a new user does: clone, make demo, make test, on a machine with nothing else
	@.ci/fresh

ends: ## The tests at the oldest and the newest versions that pyproject.toml allows
	@.ci/ends

check: ## All that CI runs, a new user's first minutes before anything else
	@.ci/run

deps: ## Install what the skipped tests need (Debian, as root)
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	  clang-14 clang-16 clang-19 llvm-19 clang-22 llvm-22 gcc-bpf bpftool bpftrace iproute2 \
	  libxdp1 xdp-tools libbpf-tools libbpf-dev golang-go golang-github-cilium-ebpf-dev \
	  lcov chromium graphviz groff-base gcc git >/dev/null

bench: bench-setup ## Measure, next to the kernel and other tools, beside what was saved (BENCH="NAME" for less, BENCH=--save to save all)
	@$(BIN)/python -m benchmarks $(BENCH)

bench-setup: $(VENV)/.bench ## Install what benchmarks compare with and draw with
$(VENV)/.bench: $(STAMP)
	@$(BIN)/python -m pip install $(SMALL) --editable '.[bench]'
	@touch $@

fixtures: $(STAMP) ## Build the test objects again from their sources (needs make deps)
	@$(BIN)/python tests/fixtures/build.py

parity: $(STAMP) ## Count how many programs we rewrite as the running kernel does (root)
	@$(BIN)/python tests/parity/report.py

parity-long: $(STAMP) ## 50,000 random programs against the running kernel (root)
	@$(BIN)/python tests/property/long.py parity

interp-long: $(STAMP) ## 100,000 random programs, the interpreter against the running kernel (root)
	@$(BIN)/python tests/property/long.py interp

fuzz: $(STAMP) ## 20,000 mutated inputs through every command, 5,000 to the verifier, 200,000 through the readers
	@$(BIN)/python tests/fuzz --cases 20000
	@$(BIN)/python tests/fuzz --kernel --cases 5000
	@$(BIN)/python tests/fuzz --readers --cases 200000

fuzz-model: $(STAMP) ## 100,000 random programs against the naive model
	@$(BIN)/python tests/property/long.py model

cover-table: $(STAMP) ## What passes refuse that need places, and what loads after them (root)
	@$(BIN)/python tests/coverage_table.py

crowded-long: $(STAMP) ## 10,000 random programs under register and stack pressure (root)
	@$(BIN)/python tests/property/long.py crowded

conformance: $(STAMP) ## The bpf_conformance vectors in every mode, after every pass
	@$(BIN)/python tests/conformance

repair-table: $(STAMP) ## Repair the production objects, and count (root)
	@$(BIN)/python tests/repair/report.py $(REPAIR_ARGS)

intercept-table: $(STAMP) ## Loaders under intercept, in every way (root)
	@$(BIN)/python tests/intercept_table.py

trace-table: $(STAMP) ## Trace every function of every object at hand (root)
	@$(BIN)/python tests/trace_table.py

lower-table: $(STAMP) ## Every object at hand in an older instruction set (root)
	@$(BIN)/python tests/lower_table.py

dwarf-table: $(STAMP) ## Lines of every object at hand after rewriting, by other tools (needs make deps)
	@$(BIN)/python tests/dwarf_table.py

relax-long: $(STAMP) ## 100,000 random programs with far jumps against the naive model
	@$(BIN)/python tests/property/long.py relax

shrink-long: $(STAMP) ## 10,000 random programs before and after every shrinking pass
	@$(BIN)/python tests/property/long.py shrink

shrink-table: $(STAMP) ## What shrinking saves of every object at hand, and what it costs (root)
	@$(BIN)/python tests/shrink_table.py --save

values-long: $(STAMP) ## 100,000 random cases for each rule of the value analysis
	@$(BIN)/python tests/property/long.py values

clean: ## Remove what make made
	rm -rf build $(VENV) $(VENV)-oldest $(VENV)-newest demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
