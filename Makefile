# make demo   faces in a photo, in an environment of its own (runtime only, no torch)
# make test   all quick tests, in an environment with everything
PYTHON ?= python3
DEMO := .venv-demo
DEV := .venv
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-slow lint clean

demo: $(DEMO)/installed
	$(DEMO)/bin/python -m facemtl predict examples/astronaut.png --out out/astronaut.png

test: $(DEV)/installed
	$(DEV)/bin/python -m pytest -m "not slow" -n 2 --dist worksteal

test-slow: $(DEV)/installed
	$(DEV)/bin/python -m pytest -m slow

lint: $(DEV)/installed
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .

clean:
	rm -rf $(DEMO) $(DEV) build dist out *.egg-info .pytest_cache .ruff_cache .hypothesis

$(DEMO)/installed: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python $(PIP) --editable .
	touch $@

$(DEV)/installed: pyproject.toml
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python $(PIP) --editable '.[dev]'
	touch $@
