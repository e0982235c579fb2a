# Two targets are the whole set-up: `make demo` and `make test`. Each makes .venv first if it is missing or outdated.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint requirements clean

demo: $(STAMP)
	$(BIN)/ampere demo

# Two processes, for a quarter of the time is waiting for others to start. The same examples of the property tests each
# time: a commit passes or it does not. `pytest` alone is one process, and looks for new examples.
test: $(STAMP) lint
	$(BIN)/pytest --hypothesis-profile=ci --numprocesses 2 --no-loadscope-reorder

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(STAMP): requirements/cpu.txt pyproject.toml tools/setup.sh
	PYTHON=$(PYTHON) sh tools/setup.sh $(VENV)
	touch $(STAMP)

# Pin the requirements anew; no address of a registry is written.
requirements: $(STAMP)
	sh tools/pin.sh $(BIN)/uv

clean:
	rm -rf $(VENV) demo
