PYTHON ?= $(shell command -v python3.11 || echo python3)
PORT ?= 5000
# Each is a process of one thread; ARGS goes to pytest, e.g. ARGS='--shuffle 1' or ARGS='-k release'.
WORKERS ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
PYTEST = python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false
export RAY_USAGE_STATS_ENABLED := 0
# Without its bytecode every process would compile its libraries anew, for seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test check ui app lint bench chaos sources

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## */  make \1\t/p' Makefile | expand -t 18

install: .venv/.installed  ## make .venv and install Echosyn with its tools into it
	@.venv/bin/python -m echosyn.runtime.place || \
		{ echo "if .venv came from another machine, remove it and make again: rm -r .venv"; exit 1; }

# Not compiled at once: a module is when it is first imported, and most never are.
.venv/.installed: pyproject.toml constraints.txt
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv; the first time takes minutes"
	@python -m pip install --quiet --no-compile --disable-pip-version-check \
		-c constraints.txt -e '.[cluster,dev]'
	@touch $@

demo: install  ## run everything that params.yaml asks for, by default on the phantom
	@echosyn run
	@python -c 'import pathlib as p; [print("report:", f.resolve().as_uri()) \
		for f in sorted(p.Path("reports").glob("*/index.html"))]'
	@echo "runs and releases side by side: make ui"

test: install  ## run all tests, on all cores (WORKERS=... for fewer): 8 to 14 minutes on two
	@$(PYTEST) $(ARGS)

check: lint  ## check format, style and types, and run the quick tests: a minute
	@$(PYTEST) -m "not slow" $(ARGS)

ui: install  ## MLflow in the browser, at http://127.0.0.1:5000 (PORT=... for another port)
	@mkdir -p mlruns
	@python -m echosyn.tracking http://127.0.0.1:$(PORT)
	@MLFLOW_BACKEND_STORE_URI=sqlite:///mlruns/mlflow.db MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
		mlflow ui --host 127.0.0.1 --port $(PORT) --workers 1 \
		--default-artifact-root mlruns/artifacts

app: PORT = 5001
app: install  ## single synthetic videos in the browser, after make demo (DATASET=... PORT=...)
	@echosyn app $(DATASET) --port $(PORT)

lint: install  ## check format, style and types
	@ruff format --check --quiet . || { ruff format --check .; exit 1; }
	@ruff check --quiet .
	@mypy --no-error-summary

bench: install  ## run every benchmark of speed, after make demo; its last line, in JSON, compares
	@set -e; for file in $$(grep -lE '^ *(conclude|compare)\(' benchmarks/[!h]*.py); do \
		python -m benchmarks.$$(basename $$file .py); done

chaos: install  ## kill parts of a local cluster for minutes; the log goes to docs/results/chaos.md
	@python tests/support/chaos.py --minutes 6 --log docs/results/chaos.md

sources: install  ## run the whole graph on small files of each kind of source: 5 minutes or more
	@python -m pytest -q --all-sources tests/pipelines/test_every_source.py $(ARGS)
