# make demo, make test: everything they need is installed into .venv; a second call installs nothing.
# Settings: PYTHON=/path/to/python3.12  VENV=elsewhere  OUT=folder for the demo's pictures
# On Linux, PyPI's torch brings CUDA, some gigabytes. Without a GPU, take the wheels for CPUs alone:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

VENV ?= .venv
OUT ?= demo_output
TORCH_INDEX ?=
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check --no-input --quiet --retries 5
BIN = $(VENV)/bin
MADE = $(VENV)/.made
USER_STAMP = $(VENV)/.installed
TEST_STAMP = $(VENV)/.installed-for-tests
SOURCES = $(shell find allpet_physics allpet_gen -type f -not -name '*.pyc')
INSTALL = $(PIP) install -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)")
export PIP_PROGRESS_BAR = off

.PHONY: help demo test lint docs notebooks bench clean
.DELETE_ON_ERROR:

help:
	@echo "make demo       a picture of the whole chain, in $(OUT)"
	@echo "make test       ruff and pytest, with every optional package"
	@echo "make lint       ruff alone"
	@echo "make docs       the documentation as a site, in docs/_build/html"
	@echo "make notebooks  run the notebooks"
	@echo "make bench      speed against other projectors, into docs/benchmarks.md (some minutes, on a quiet machine)"
	@echo "make clean      remove .venv, demo_output and caches"

# Where the tests' environment exists it runs the source tree itself, so the demo needs no installation of its own.
demo: $(if $(wildcard $(TEST_STAMP)),$(TEST_STAMP),$(USER_STAMP))
	@$(BIN)/allpet demo --out "$(OUT)" --overwrite

# Files of tests run side by side, each of them in one process, for what a file sets up is shared within it.
test: lint
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(TEST_STAMP)
	@$(BIN)/ruff check .

docs: $(TEST_STAMP)
	@$(BIN)/python -m sphinx -W --keep-going -n -q -b html -d docs/_build/doctrees docs docs/_build/html
	@echo "open docs/_build/html/index.html"

notebooks: $(TEST_STAMP)
	@$(BIN)/python -m pytest tests/test_notebooks.py

# LIBPARALLELPROJ=/path/to/libparallelproj.so measures that library too.
bench: $(TEST_STAMP)
	@$(BIN)/python benchmarks/run_all.py $(if $(LIBPARALLELPROJ),--libparallelproj "$(LIBPARALLELPROJ)")

$(USER_STAMP): $(SOURCES) pyproject.toml constraints.txt | $(MADE)
	@echo "installing allpet into $(VENV) (some minutes the first time) ..."
	@$(INSTALL) ".[gen]"
	@touch $@

$(TEST_STAMP): pyproject.toml constraints.txt | $(MADE)
	@echo "installing allpet with its optional and test packages into $(VENV) (some minutes the first time) ..."
	@$(INSTALL) -e ".[test,all]"
	@touch $@

# The first interpreter that really runs and is new enough; a name on the PATH may be a shim for nothing.
$(MADE):
	@for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python); do \
	  if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	    echo "making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv "$(VENV)" && touch $@ && exit 0; \
	    echo "error: $$python cannot make a virtual environment; install its venv package (Debian, Ubuntu:" \
	      "apt install python3-venv), or name another one: make PYTHON=/path/to/python3.12" >&2; exit 1; \
	  fi; \
	done; \
	echo "error: no Python 3.11, 3.12 or 3.13 was found$(if $(PYTHON), as $(PYTHON)); install one (https://www.python.org/downloads/)," \
	  "or name it: make PYTHON=/path/to/python3.12" >&2; exit 1

clean:
	rm -rf .venv demo_output build dist docs/_build docs/made .pytest_cache .ruff_cache .hypothesis
	find allpet_physics allpet_gen tests -name __pycache__ -type d -prune -exec rm -rf {} +
