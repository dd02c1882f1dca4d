# make quickstart: trains, evaluates and samples on the embedded images, into runs/quickstart.
# make test: the whole test suite. Both make .venv first, from the pinned requirements.
# make bench: speed side by side with PyTorch, which it installs; about nine minutes on two cores.
# make faults: kills, preempts and starves runs, which have to go on as if nothing had been; as root, it mounts a tmpfs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

KILLS ?= 20

.PHONY: quickstart test bench faults lint

quickstart: $(VENV)/requirements.done
	$(BIN)/python train.py --config=configs/quickstart.py --workdir=runs/quickstart

test: $(VENV)/requirements-dev.done
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest -m optimised

bench: $(VENV)/requirements-bench.done
	$(BIN)/python -m benchmarks.speed

faults: $(VENV)/requirements-dev.done
	$(BIN)/python tests/faults/full_disk.py
	$(BIN)/python tests/faults/cluster.py
	$(BIN)/python tests/faults/kills.py --kills=$(KILLS)

lint: $(VENV)/requirements-dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/%.done: %.txt requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@
