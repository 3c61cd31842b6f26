# Two commands set everything up: `make run` and `make test`. The rest serves development.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CAMERA ?= demo
ARGS ?=
INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python --constraints constraints.txt

.PHONY: run test setup lint format clean

run: $(VENV)/.installed-run
	$(BIN)/fer-edge fetch-detector
	$(BIN)/fer-edge --camera $(CAMERA) $(ARGS)

test: $(VENV)/.installed-all
	$(BIN)/python -m pytest $(ARGS)

setup: $(VENV)/.installed-all

lint: $(VENV)/.installed-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'

$(VENV)/.installed-run: pyproject.toml constraints.txt | $(BIN)/uv
	$(INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.installed-all: pyproject.toml constraints.txt | $(BIN)/uv
	$(INSTALL) --editable '.[demo,fleet,trainer,quantize,dev]'
	@touch $@ $(VENV)/.installed-run

clean:
	rm -rf $(VENV)
