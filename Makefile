# On a fresh machine: `make demo`, then `make test`. Needs Python 3.11 or later and nothing else.
PYTHON ?= python3
BIN    := .venv/bin
STAMP  := .venv/.installed

.PHONY: demo test test-slow lint format types ci clean

demo: $(STAMP)  ## generate molecules, spoken digits and clips with the checkpoints that ship
	$(BIN)/multidiff generate molecules --num-samples 16 --seed 0 --out out/demo
	$(BIN)/multidiff generate audio "seven, spoken by theo" --num-samples 4 --seed 0 --out out/demo-audio
	$(BIN)/multidiff generate video "a 3 moving left and a 7 bouncing up and down" --num-samples 4 --seed 0 --out out/demo-video

test: $(STAMP)  ## the default tests
	$(BIN)/python -m pytest -q -n 2

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)
	$(BIN)/mypy

ci:  ## what .ci/run does: everything, in a fresh environment
	bash .ci/run

clean:
	rm -rf .venv build dist out

# Made once, and again when pyproject.toml changes; the stamp is written last, so a broken install is repeated.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[all,dev]"
	touch $@
