# Two commands do all the set-up on a fresh clone: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS := --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: demo test check test-all docs clean

demo: $(VENV)/.installed  ## train on the embedded pictures and draw new ones
	$(BIN)/bonsaigan train demo:bonsai --minutes 5 --run demo --resume
	$(BIN)/bonsaigan generate demo

test: $(VENV)/.installed-test  ## the quick tests
	$(BIN)/python -m pytest $(WORKERS)

check: $(VENV)/.installed-test  ## what CI runs: format, lint, types, quick tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest $(WORKERS)

test-all: $(VENV)/.installed-test  ## the slow tests as well
	$(BIN)/python -m pytest -m ''

docs: $(VENV)/.installed-docs  ## the documentation site, into build/site
	$(BIN)/mkdocs build --strict

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) dist build
