# The two commands: `make repro` and `make test`. Both install what they need, both can be run again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: repro test test-services lint docs pictures hooks lock team-server

repro: $(READY) ## run the pipeline (stand-in data unless params.yaml says otherwise)
	@echo "repro: dvc repro"
	@PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro
	@echo "repro: undertone sync" # where DVC has nothing to register, this clone's MLflow has yet nothing
	@$(BIN)/undertone sync || echo "repro: the results are here; MLflow gets the rest by \`undertone sync\`"

test: lint ## linters and the whole default suite
	@echo "test: pytest"
	@PATH="$(CURDIR)/$(BIN):$$PATH" pytest -n 2 --dist loadfile --no-loadscope-reorder

test-services: $(READY) ## the tests that need a real sshd, PostgreSQL, Chromium, LibreOffice or network namespace
	@echo "test-services: pytest -m services"
	@PATH="$(CURDIR)/$(BIN):$$PATH" pytest -m services -n 2 --dist loadfile

lint: $(READY)
	@echo "lint: ruff, mypy, import-linter"
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache

team-server: $(READY) ## start the team's MLflow server (docs/team-server.md)
	@$(BIN)/undertone team-server

pictures: $(READY) ## see this repository's runs and registry in a browser, into docs/pictures
	@UNDERTONE_PICTURES=1 $(BIN)/pytest -m services tests/test_browser.py

docs: $(READY) ## put the stand-in's leaderboard into the README
	@$(BIN)/python -m undertone.reporting.report

hooks: ## refuse commits that hold data
	@git config core.hooksPath .githooks
	@echo "hooks: git now asks .githooks/ before each commit and push"

# One resolution for everything: requirements.in is resolved into requirements.lock.
lock:
	$(PYTHON) -m venv --clear $(VENV)-lock
	$(VENV)-lock/bin/pip install -q -r requirements.in
	$(VENV)-lock/bin/pip freeze --all --exclude pip | sed -E 's/\+cpu$$//' > requirements.lock
	rm -rf $(VENV)-lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "undertone needs Python 3.11 or newer; name one with PYTHON=python3.12"; exit 1; }
	@echo "install: $(VENV) from requirements.lock (some minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check -r requirements.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
