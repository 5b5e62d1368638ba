# make demo: from a bare checkout to a trained model that finds videos.   make test: the whole test-suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	$(BIN)/python examples/shape_stories.py

# A process for each core; the tests of one file stay together, and share what they have made. In the order of their
# names: what takes minutes alone comes early, beside the rest.
test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/types && mkdir -p build/types/hcmi
	for place in hcmi/*; do ln -s "$(CURDIR)/$$place" build/types/hcmi/; done
	for folder in modeling_hcmi processing train retrieval; do ln -s "$(CURDIR)/$$folder" build/types/hcmi/; done
	MYPYPATH=build/types $(BIN)/mypy -p hcmi

# torch goes first: with it installed, nothing that follows asks for another build of it.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit('hcmi needs Python 3.11 or newer; name one: make PYTHON=python3.12' if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) --quiet -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(INSTALL) --quiet -e ".[test]"
	touch $@

clean:
	rm -rf $(VENV) build runs *.egg-info
