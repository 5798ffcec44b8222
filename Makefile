PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VERSIONS := "$(addprefix metadata.language_info.,version codemirror_mode file_extension mimetype \
	nbconvert_exporter pygments_lexer)"

.PHONY: demo test check docs notebooks notebook-outputs bench wheel clean

# Hugging Face's hub is not asked: all that these targets need is installed.
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = true

demo: $(VENV)/.demo
	$(BIN)/gpurerank demo

# Two at a time, a file as a whole: most of a test's time is loading, which one core does.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo the site begins at build/site/index.html

NBMAKE := $(BIN)/python -m pytest --nbmake --nbmake-timeout=600 --timeout=900 notebooks

notebooks: $(VENV)/.dev
	$(NBMAKE)

# What is committed: the outputs of a fresh run, without times and versions.
notebook-outputs: $(VENV)/.dev
	$(NBMAKE) --overwrite
	$(BIN)/nbstripout --keep-output --keep-count --extra-keys $(VERSIONS) notebooks/*.ipynb

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks latency --output docs/benchmarks
	$(BIN)/python -m benchmarks concurrency --output docs/benchmarks

wheel: $(VENV)/.dev
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) build dist

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[chroma]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/.demo
