# `make` alone lists the targets. VENV and PYTHON may be set: make test VENV=/elsewhere PYTHON=python3.12
.DEFAULT_GOAL := help
.PHONY: help demo test slow portable kills lint zoo

VENV ?= .venv
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3.14 python3,$(if $(shell $(name) --version 2>&1 | grep '^Python 3'),$(name))))
EXTRAS ?= dev,data,search
BIN := $(VENV)/bin
READY := $(VENV)/.installed

help:  ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: $(READY)  ## draw stories with the shipped weights: demo/index.html
	$(BIN)/storydalle demo

test: $(READY)  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" -n auto --maxprocesses=4 --dist worksteal

slow: $(READY)  ## run the tests that take long: full widths, every recipe, many kills
	$(BIN)/python -m pytest -q -m slow

portable: $(READY)  ## run the tests as other processors would, and with other seeds; a table of what fell
	$(BIN)/python -m tests.portable

kills: $(READY)  ## kill commands a hundred times, go on, and compare with what nobody killed
	$(BIN)/python -m tests.kills
	$(BIN)/python -m tests.sweep_kills --kills 50 --launches 20

lint: $(READY)  ## ruff, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy storydalle examples

zoo: $(READY)  ## train the shipped weights from nothing
	$(BIN)/storydalle train experiment=toon/image_tokenizer
	$(BIN)/storydalle train experiment=toon/image_decoder
	$(BIN)/storydalle train experiment=toon/text_to_image
	$(BIN)/storydalle train experiment=toon/story_dalle
	$(BIN)/storydalle train experiment=toon/storyganc
	$(BIN)/storydalle train experiment=toon/clip
	$(BIN)/python -m storydalle.commands.fill_zoo
	$(BIN)/storydalle evaluate model=story_dalle diagnose=100 readme='[README.md,experiments/story_dalle/README.md]' card=true
	$(BIN)/storydalle evaluate model=storyganc card=true

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found: install one, or set PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11: set PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@
