# Two targets are the whole set-up: `make demo` and `make test`. Each makes .venv first if it is missing or outdated.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-demo test-rest lint requirements clean

demo: $(STAMP)
	$(BIN)/ampere demo

test: $(STAMP) lint
	$(MAKE) --jobs 2 --keep-going --output-sync test-demo test-rest

# All that looks at the demo takes half of the time; the rest runs beside it.
test-demo:
	$(BIN)/pytest -m demo

test-rest:
	$(BIN)/pytest -m "not demo"

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
