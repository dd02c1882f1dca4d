# make quickstart: train, evaluate and sample on the embedded images, and write a report; writes runs/quickstart.
# make test: run all tests. Like every target, it first installs the pinned requirements into .venv.
# make bench: compare the speed with PyTorch, which it installs; a quarter of an hour on two cores with no other work.
# make report: redraw the figures and tables of the studies, and write the numbers in their pages, from stored results.
# make faults: kill and preempt runs and fill their disk, and check that they resume; as root, it mounts a tmpfs.
# make lint: ruff and mypy.
# make notebook: execute notebooks/tutorial.py into build/notebooks/tutorial.ipynb; fails where a cell fails.
# make docs: the same, unless it is up to date; build the site from docs/ and studies/, and check its links; open
#   build/site/index.html.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

KILLS ?= 20

.PHONY: quickstart test bench report faults lint notebook docs

quickstart: $(VENV)/requirements.done
	$(BIN)/python train.py --config=configs/quickstart.py --workdir=runs/quickstart
	test runs/quickstart/report.html -nt runs/quickstart/summary.json || $(BIN)/python report.py --workdir=runs/quickstart

test: $(VENV)/requirements-dev.done
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest -m optimised

bench: $(VENV)/requirements-bench.done
	$(BIN)/python -m benchmarks.speed

report: $(VENV)/requirements.done
	$(BIN)/python -m studies.write_pages

faults: $(VENV)/requirements-dev.done
	$(BIN)/python tests/faults/full_disk.py
	$(BIN)/python tests/faults/cluster.py
	$(BIN)/python tests/faults/kills.py --kills=$(KILLS)

lint: $(VENV)/requirements-dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

NOTEBOOK := build/notebooks/tutorial

notebook: $(NOTEBOOK).md

$(NOTEBOOK).md: export PYTHONPATH := $(CURDIR)
$(NOTEBOOK).md: export TQDM_DISABLE := 1
$(NOTEBOOK).md: notebooks/tutorial.py $(VENV)/requirements-docs.done
	mkdir -p $(@D)
	$(BIN)/jupytext --quiet --to ipynb --output $(NOTEBOOK).ipynb $<
	$(BIN)/jupyter nbconvert --log-level WARN --execute --to notebook --inplace $(NOTEBOOK).ipynb
	$(BIN)/jupyter nbconvert --log-level WARN --CoalesceStreamsPreprocessor.enabled=True --to markdown $(NOTEBOOK).ipynb

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/requirements-docs.done $(NOTEBOOK).md
	$(BIN)/mkdocs build

$(VENV)/%.done: %.txt requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

$(VENV)/requirements-dev.done: requirements-dev.txt requirements.txt requirements-trackio.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-trackio.txt
	touch $@
