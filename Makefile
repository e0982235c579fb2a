# Two targets are the whole set-up: `make demo` and `make test`. Each creates .venv first if it is
# missing or outdated. `make fast` is the loop while you work.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_VENV := .venv-docs
DOCS_STAMP := $(DOCS_VENV)/.installed
# Two processes, since much of the time is waiting for other processes to start. The same examples
# of the property tests each time, so that a commit passes or fails for good.
PYTEST := $(BIN)/pytest --hypothesis-profile=ci --numprocesses 2 --no-loadscope-reorder

# Many containers set it. Each process of a test run would then compile our sources again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test fast nightly lint docs requirements clean

# The whole way on a generated catalog, from pages and clips to a search page.
demo: $(STAMP)
	$(BIN)/ampere demo

# Everything that a commit must pass. The limit is ten minutes on two cores after the installation.
test: $(STAMP) lint docs
	$(PYTEST) -m "not nightly"

# The pure tests: no Ray, no vLLM, no process that takes long to start. The limit is three minutes.
fast: $(STAMP)
	$(PYTEST) -m "not ray and not e2e and not slow and not nightly" --timeout 20

# All tests, the longest included.
nightly: $(STAMP)
	$(PYTEST)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/codespell

# The documentation site, in site/; a warning is an error.
docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --quiet

$(STAMP): requirements/cpu.txt pyproject.toml tools/setup.sh
	PYTHON=$(PYTHON) sh tools/setup.sh $(VENV)
	touch $(STAMP)

# An environment of its own: the site is built from the sources, without importing them.
$(DOCS_STAMP): requirements/docs.txt $(STAMP)
	$(PYTHON) -m venv $(DOCS_VENV)
	$(BIN)/uv pip install --quiet --python $(DOCS_VENV)/bin/python --no-deps \
		--requirement requirements/docs.txt
	touch $(DOCS_STAMP)

# Pin the requirements again; no address of a registry is written.
requirements: $(STAMP)
	sh tools/pin.sh $(BIN)/uv

clean:
	rm -rf $(VENV) $(DOCS_VENV) demo site
