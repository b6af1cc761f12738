# Every target is one line of Python as well, for those without make: `make help` prints both.
VENV      ?= .venv
BIN       := $(VENV)/bin
STAMP     := $(VENV)/.installed
LATEST    := .venv-latest
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9]*.ipynb))
NBVAL     := --nbval --nbval-current-env --nbval-sanitize-with tools/nbval_sanitize.cfg --nbval-cell-timeout 300

# The tests' tensors are small: with a second thread in each product they take twice as long.
QUIET     := TQDM_DISABLE=1 OMP_NUM_THREADS=1

# Sums in another order and other approximations, as on a processor without AVX: what a stored output may not depend on.
# For torch, MKL, oneDNN, OpenBLAS and numpy, in this order; what a library does not know it passes over.
OLDER     := ATEN_CPU_CAPABILITY=default MKL_ENABLE_INSTRUCTIONS=SSE4_2 ONEDNN_MAX_CPU_ISA=SSE41 \
             OPENBLAS_CORETYPE=Nehalem NPY_DISABLE_CPU_FEATURES="X86_V3 X86_V4"

# Two files of tests at a time, one on each of two cores, in the order of tests/conftest.py: the slow ones first.
TWO       := -n 2 --dist loadfile --no-loadscope-reorder

# The first of these that is Python 3.11 or newer; `make run PYTHON=...` names another.
IS_RECENT := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON    ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
               "$$p" -c "$(IS_RECENT)" >/dev/null 2>&1 && { echo "$$p"; break; }; done)

# `make run TORCH=cpu` takes the small wheel of torch: the usual one for Linux carries gigabytes of CUDA.
TORCH     ?=
TORCH_CPU := $(if $(filter cpu,$(TORCH)),--extra-index-url https://download.pytorch.org/whl/cpu)

# A foreign PYTHONPATH would shadow the environment; a foreign backend would swallow the notebooks' figures.
unexport PYTHONPATH MPLBACKEND

.PHONY: help run test test-latest test-older test-llamacpp unit lint lab e2e notebooks student html model bench wheel-test clean

help: ## list the targets | python -m llama_core --help
	@echo 'Each target sets up $(VENV) first if it is needed. Without make: python -m venv .venv, activate it, then'
	@echo "    python -m pip install -c constraints.txt -e '.[dev]'"
	@echo
	@awk -F ':.*## | [|] ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n  %-18s %s\n", $$1, $$2, "", $$3 }' Makefile

run: $(STAMP) ## run the gates, then tell a story with the model that ships with the package | python -m llama_core check, python -m llama_core generate --model stories --prompt "One day"
	$(BIN)/llama-core check --fast
	$(BIN)/llama-core generate --model stories --prompt "One day"

test: lint ## lint, then every test, notebooks included | python -m pytest (and the line of lint)
	$(QUIET) $(BIN)/python -m pytest $(TWO) tests
	$(if $(NOTEBOOKS),TQDM_DISABLE=1 $(BIN)/python -m pytest $(NBVAL) notebooks)

test-latest: ## the tests on the newest versions allowed, outputs not compared | python -m pytest --nbval-lax tests notebooks
	@test -x $(LATEST)/bin/pip || "$(PYTHON)" -m venv $(LATEST)
	grep '^torch==' constraints.txt > $(LATEST)/torch.txt
	$(LATEST)/bin/python -m pip install -q --upgrade --upgrade-strategy eager -c $(LATEST)/torch.txt $(TORCH_CPU) -e '.[dev]'
	$(QUIET) $(LATEST)/bin/python -m pytest $(TWO) -o addopts="-ra --strict-markers" tests
	$(if $(NOTEBOOKS),$(QUIET) $(LATEST)/bin/python -m pytest -o addopts="-ra --strict-markers" --nbval-lax --nbval-current-env notebooks)

test-older: $(STAMP) ## the notebooks, strictly, with one thread and the arithmetic of an older processor | python -m pytest (and the options of nbval)
	$(QUIET) $(OLDER) $(BIN)/python -m pytest $(NBVAL) $(NOTEBOOKS)

test-llamacpp: $(STAMP) ## hold llama.cpp to golden traces; compiles it first, which takes minutes | pip install -c constraints.txt -e '.[llamacpp]' && python -m pytest tests/traces/test_trace_of_llama_cpp.py tests/weights/test_gguf_vocabulary.py
	@$(BIN)/python -c 'import llama_cpp' 2>/dev/null || { echo 'Compiling llama.cpp: minutes without a word ...'; \
	    CMAKE_ARGS="-DLLAVA_BUILD=OFF $$CMAKE_ARGS" $(BIN)/python -m pip install -q -c constraints.txt -e '.[llamacpp]'; }
	$(QUIET) $(BIN)/python -m pytest tests/traces/test_trace_of_llama_cpp.py tests/weights/test_gguf_vocabulary.py

unit: $(STAMP) ## the quick tests alone | python -m pytest -m "not slow"
	$(QUIET) $(BIN)/python -m pytest $(TWO) -m "not slow"

lint: $(STAMP) ## format, lint and types | python -m ruff check . && python -m ruff format --check . && python -m mypy
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

lab: $(STAMP) ## open JupyterLab at the first notebook | python -m jupyterlab notebooks/00_foundation.ipynb
	$(BIN)/python -m jupyterlab notebooks/00_foundation.ipynb

e2e: $(STAMP) ## use a notebook in JupyterLab in a real browser (needs Chromium) | python tools/lab_e2e.py notebooks/03_attention.ipynb
	@$(BIN)/python -c 'import playwright' 2>/dev/null || $(BIN)/python -m pip install -q -c constraints.txt -e '.[e2e]'
	$(BIN)/python tools/lab_e2e.py notebooks/03_attention.ipynb

notebooks: $(STAMP) ## execute the notebooks anew, store their outputs, record time and memory | python tools/run_notebooks.py --record benchmarks/results/notebooks.json notebooks/*.ipynb && python tools/readme_figures.py
	$(BIN)/python tools/run_notebooks.py --record benchmarks/results/notebooks.json $(NOTEBOOKS)
	$(BIN)/python tools/readme_figures.py

student: $(STAMP) ## write the notebooks without solutions to build/student | python tools/student.py notebooks/*.ipynb
	$(BIN)/python tools/student.py $(NOTEBOOKS)

html: $(STAMP) ## write the notebooks and the public names as pages to build/html | python tools/html_pages.py notebooks/*.ipynb
	$(BIN)/python tools/html_pages.py $(NOTEBOOKS)

model: $(STAMP) ## train the embedded model anew, with its measurements | python -m llama_core.stories.train
	$(BIN)/python -m llama_core.stories.train

bench: $(STAMP) ## speed beside transformers, as ratios of one run; how long the gates take; what traces cost | python benchmarks/run.py && python benchmarks/gates.py && python benchmarks/traces.py
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/gates.py
	$(BIN)/python benchmarks/traces.py

wheel-test: $(STAMP) ## build the wheel and use it outside the checkout | python tools/wheel_test.py
	$(BIN)/python tools/wheel_test.py

clean: ## delete the environment, caches and builds | git clean -fdX
	rm -rf $(VENV) $(LATEST) build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/pip || "$(PYTHON)" -c "$(IS_RECENT)" 2>/dev/null || { echo 'This project needs Python 3.11 or newer, and none was found. Install one, or name it: make run PYTHON=/path/to/python3.11' >&2; exit 1; }
	@test -x $(BIN)/pip || "$(PYTHON)" -m venv $(VENV) || { echo 'No environment could be made. On Debian and Ubuntu this needs the package python3-venv.' >&2; exit 1; }
	$(BIN)/python -m pip install -q -c constraints.txt $(TORCH_CPU) -e '.[dev]'
	touch $@
