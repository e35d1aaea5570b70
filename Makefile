# Everything runs from one environment, `.venv`, made on first use from constraints.txt.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
SPREAD := -n 2 --dist loadfile  # tests wait for processes most of the time; those of a file share what they set up

.DEFAULT_GOAL := help
.PHONY: help demo up rollback evidently test test-all test-slow check bench backtest clean

help:            ## what there is
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/ —/' | sed 's/^/make /'

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Evergreen needs Python 3.11 or newer; this is %d.%d. Choose another with make PYTHON=..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: $(READY)   ## watch a model rot and be replaced: months of real flights in some minutes
	$(BIN)/python -m demo

up: $(READY)     ## Prefect, MLflow and the serving API on this machine; Ctrl-C takes them down
	@exec $(BIN)/python -m stack

rollback: $(READY) ## take a release back at once: make rollback MODEL=flight_delay (AGAIN=1: one further)
	@$(BIN)/python -m stack.rollback $(MODEL) $(if $(AGAIN),--again)

evidently: $(READY) ## Evidently's own pages over what the watch compared: http://127.0.0.1:8010
	DO_NOT_TRACK=1 $(BIN)/evidently ui --host 127.0.0.1 --port $${EVERGREEN_EVIDENTLY_PORT:-8010} --workspace $${EVERGREEN_HOME:-.evergreen}/evidently/workspace

test: $(READY)   ## the test suite
	$(BIN)/python -m pytest -m "not slow and not alone" $(SPREAD)
	$(BIN)/python -m pytest -m "not slow and alone"

test-all: test test-slow ## the suite, then the slow tests

test-slow: $(READY) ## only the slow tests: whole flows, kills, the demo
	$(BIN)/python -m pytest -m "slow and not alone" $(SPREAD)
	$(BIN)/python -m pytest -m "slow and alone"

check: $(READY)  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## the measurements of bench/RESULTS.md
	$(BIN)/python -m bench.features
	$(BIN)/python -m bench.gate
	$(BIN)/python -m bench.release
	$(BIN)/python -m bench.training
	$(BIN)/python -m bench.scoring
	$(BIN)/python -m bench.serving
	$(BIN)/python -m bench.log
	$(BIN)/python -m bench.variants
	$(BIN)/python -m bench.gpu
	$(BIN)/python -m bench.quality
	$(BIN)/python -m bench.demo
	$(BIN)/python -m bench.monitoring

backtest: $(READY) ## retraining policies played over history: make backtest MODEL=flight_delay FIRST=2013-04-01 END=2013-12-30
	PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=300 PREFECT_SERVER_ANALYTICS_ENABLED=false $(BIN)/python -m flows.backtest $(MODEL) $(if $(FIRST),--first $(FIRST)) $(if $(END),--end $(END))

clean:           ## the environment and all embedded state
	rm -rf $(VENV) .evergreen reports
