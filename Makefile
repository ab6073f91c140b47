# make demo: install and run LPI on the embedded stream.  make test: install and run the checks.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo

# Huge pages for XLA's large buffers: a fifth faster on Linux CPUs, no effect elsewhere.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: demo test lint clean

demo: $(VENV)/installed
	$(BIN)/python -m lpi_jax.main --config=configs/scenes_lpi.py --workdir=$(DEMO)

test: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) *.egg-info
