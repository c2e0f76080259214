# Every target sets up what it needs from a bare checkout: Python 3.11 with venv and pip is enough.
# Versions are those of constraints.txt; what a target needs beyond the service is an extra of
# pyproject.toml. Both files date the stamps in .venv, so a change to either installs again.

SHELL := bash
.SHELLFLAGS := -o errexit -o nounset -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# The first Python here that is new enough and has venv and pip; PYTHON=/some/python overrides it.
FITS := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3.11 python3 python; do \
	"$$p" -c '$(FITS)' > /dev/null 2>&1 && command -v "$$p" && break; done)

# pip says one harmless line per package and index where an index has none of that package.
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
HUSH_PIP := sed -e '/WARNING: Location .* is ignored: /d'

VERSIONS := pyproject.toml constraints.txt

.PHONY: help
help: ## this page
	@echo "Acclimate: decisions that adapt to each account within a handful of interactions."
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "Start with 'make demo'; the first run of a target installs what it needs into $(VENV)."
	@echo "Options pass through ARGS: make demo ARGS='--help', make test ARGS='tests/contract -x'."

.PHONY: demo
demo: $(VENV)/.demo ## real households adapt through the live service, in minutes (no torch)
	@$(BIN)/acclimate demo $(ARGS)

.PHONY: serve
serve: $(VENV)/.demo ## keep a service up, memory in-process, ledger in ./data (Ctrl-C ends it)
	@$(BIN)/python -m service $(ARGS)

.PHONY: bench-serving
bench-serving: $(VENV)/.bench ## the service beside a bare echo: requests/s, latency, accounts, replay
	@$(BIN)/acclimate bench serving $(ARGS)

.PHONY: bench-training
bench-training: $(VENV)/.peer ## steps/s of a whole training iteration beside sb3-contrib's RecurrentPPO
	@$(BIN)/acclimate bench training $(ARGS)

.PHONY: bench-console
bench-console: $(VENV)/.bench ## load times of the console over 100,000 accounts and 1,000,000 rows (Chromium)
	@$(BIN)/acclimate bench console $(ARGS)

.PHONY: console-shot
console-shot: $(VENV)/.bench ## pictures of each page of the console, of a live, simulated run (Chromium)
	@$(BIN)/python -m benchmarks.console_shot $(ARGS)

.PHONY: lint
lint: $(VENV)/.test ## style, types and the one-way imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: test
test: lint ## lint, then every test, against real servers that it starts itself
	$(BIN)/python -m pytest --verbosity=0 --numprocesses 2 --dist loadfile $(ARGS)

.PHONY: docs
docs: $(VENV)/.docs ## the docs site, with the API's reference, in build/docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict $(ARGS)
	@echo "Built build/docs: $(BIN)/python -m http.server --directory build/docs"

.PHONY: fuzz
fuzz: $(VENV)/.test ## schemathesis against the live service, for longer than the tests do
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-300} $(BIN)/python -m pytest --verbosity=0 --capture=no \
		tests/service/test_api_contract.py $(ARGS)

.PHONY: audit
audit: $(VENV)/.audit ## look every pinned version up in the advisory database
	@$(BIN)/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip $(ARGS)

.PHONY: sbom
sbom: $(VENV)/.audit ## sbom.cdx.json: what the image installs (CycloneDX)
	@scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	echo "Installing the production profile in a scratch environment ..."; \
	$(PYTHON) -m venv --without-pip "$$scratch"; \
	$(BIN)/python -m pip --python "$$scratch/bin/python" install --quiet \
		--disable-pip-version-check -c constraints.txt '.[client,otel,production,worker]' 2>&1 | $(HUSH_PIP); \
	$(BIN)/cyclonedx-py environment "$$scratch/bin/python" --pyproject pyproject.toml \
		--output-reproducible --output-format JSON --output-file sbom.cdx.json; \
	echo "sbom.cdx.json lists $$($(BIN)/python -c \
		"import json; print(len(json.load(open('sbom.cdx.json'))['components']))") packages."

.PHONY: constraints
constraints: ## pin what pyproject.toml asks for now; UPGRADE=1 takes the newest versions of all
	@scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	echo "Resolving every extra in a scratch environment ..."; \
	$(PYTHON) -m venv "$$scratch"; \
	"$$scratch/bin/python" -m pip install --quiet --disable-pip-version-check \
		$(if $(UPGRADE),,$(addprefix -c ,$(wildcard constraints.txt))) -e '.[audit,baseline,bench,demo,docs,otel,peers,production,test,train,worker]' 2>&1 | $(HUSH_PIP); \
	{ echo "# Every version that is installed, exactly. Written by 'make constraints'."; \
	  "$$scratch/bin/python" -m pip freeze --all --exclude pip --exclude-editable \
	  | sed -n -E 's/^([A-Za-z0-9._-]+==[^+ ]+).*/\1/p'; } > "$$scratch/pins"; \
	cp "$$scratch/pins" constraints.txt; \
	echo "constraints.txt pins $$(grep -c == constraints.txt) packages."

.PHONY: dashboards
dashboards: $(VENV)/.test ## write Grafana's dashboards from infra/grafana/*.yml
	@$(BIN)/python infra/grafana/dashboards.py

.PHONY: clean
clean: ## remove the environment and every cache (never ./data or ./runs)
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up. A stamp is touched only when its installation went through.

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "Acclimate needs Python 3.11 or newer with venv and pip on PATH," \
		"or PYTHON=/path/to/it (on Debian: python3 and python3-venv)." >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.made $(VERSIONS)
	@echo "Installing the service and the demo into $(VENV) (no torch; a minute or two) ..."
	@$(PIP_INSTALL) -c constraints.txt -e '.[demo]' 2>&1 | $(HUSH_PIP)
	@touch $@

$(VENV)/.bench: $(VENV)/.made $(VERSIONS)
	@echo "Installing the service and real servers into $(VENV) (no torch; a minute or two) ..."
	@$(PIP_INSTALL) -c constraints.txt -e '.[production,test]' 2>&1 | $(HUSH_PIP)
	@touch $@

$(VENV)/.peer: $(VENV)/.made $(VERSIONS)
	@echo "Installing training and its peer into $(VENV) (with torch; some minutes) ..."
	@$(PIP_INSTALL) -c constraints.txt -e '.[bench,train]' 2>&1 | $(HUSH_PIP)
	@touch $@

$(VENV)/.audit: $(VENV)/.made $(VERSIONS)
	@echo "Installing pip-audit and the CycloneDX generator into $(VENV) ..."
	@$(PIP_INSTALL) -c constraints.txt -e '.[audit]' 2>&1 | $(HUSH_PIP)
	@touch $@

$(VENV)/.docs: $(VENV)/.made $(VERSIONS)
	@echo "Installing the service and mkdocs into $(VENV) (no torch; a minute or two) ..."
	@$(PIP_INSTALL) -c constraints.txt -e '.[demo,docs]' 2>&1 | $(HUSH_PIP)
	@touch $@

$(VENV)/.test: $(VENV)/.made $(VERSIONS)
	@echo "Installing the service, training and tests into $(VENV) (with torch; some minutes) ..."
	@$(PIP_INSTALL) -c constraints.txt -e '.[baseline,bench,demo,docs,otel,peers,production,test,train,worker]' 2>&1 | $(HUSH_PIP)
	@touch $@
