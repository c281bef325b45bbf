# Every target works from a fresh clone with Python 3.11 or later, pip and make; the environment is made in .venv.
# (a candidate is run, not only found: version managers leave launchers of versions that aren't there)
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   := demo-mosaic

.PHONY: demo test lint format clean accuracy realistic own-sky pulls shapes cubes closure bench fuzz fuzz-guided crash-test walk docs readme man dist oldest \
	scale vendor interop

demo: $(VENV)/installed
	$(BIN)/skymatch demo $(DEMO) --overwrite

test: $(VENV)/installed-test
	$(BIN)/pytest -n auto tests

# some minutes each: 20,000 damaged files; 2,000 kills at random moments, and every system call of every writer failing
fuzz: $(VENV)/installed-test
	$(BIN)/python -m tests.fuzz --cases 20000

# an hour of coverage-guided fuzzing of the reader, the undo cards and the store (Linux)
fuzz-guided: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet atheris
	$(BIN)/python -m tests.fuzz.guided --minutes 60

crash-test: $(VENV)/installed-test
	$(BIN)/python -m tests.crash.kill_at_random --kills 2000
	$(BIN)/python -m tests.crash.syscalls --all build/syscalls

# 5,000 steps of commands and other programs, against a model that knows every pixel
walk: $(VENV)/installed-test
	$(BIN)/python -m tests.crash.walk --steps 5000

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Long runs, beside the simulator and (PEERS=DIR) the peers: see the docstrings of benchmarks/*.py for options.
accuracy: $(VENV)/installed
	$(BIN)/python benchmarks/accuracy.py $(if $(PEERS),--peers $(PEERS)) $(ACCURACY)

# some fifty harder scenes: the table of docs/accuracy.md
realistic: $(VENV)/installed
	$(BIN)/python benchmarks/realistic.py $(REALISTIC)

own-sky: $(VENV)/installed
	$(BIN)/python benchmarks/realistic.py --own-sky $(REALISTIC)

# whether sky_err is true, over 224 mosaics
pulls: $(VENV)/installed
	$(BIN)/python benchmarks/pulls.py $(ACCURACY)

# skies of every degree, and cubes, beside their floors, wiimatch and Montage
shapes: $(VENV)/installed
	$(BIN)/python benchmarks/shapes.py $(if $(PEERS),--peers $(PEERS)) $(SHAPES)

cubes: $(VENV)/installed
	$(BIN)/python benchmarks/cubes.py $(if $(PEERS),--peers $(PEERS)) $(CUBES)

# how well loops close on real images: make closure IMAGES='m17/*.fits.gz'
closure: $(VENV)/installed
	$(BIN)/python benchmarks/closure.py $(IMAGES) $(if $(PEERS),--peers $(PEERS))

bench: $(VENV)/installed
	$(BIN)/python benchmarks/speed.py $(if $(PEERS),--peers $(PEERS)) $(BENCH)

format: $(VENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# every picture and every output on the pages is made by the commands on the pages, during this build
docs: $(VENV)/installed-docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --builder html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

# the picture and the terminal output on the first screen
readme: $(VENV)/installed-docs
	$(BIN)/python docs/firstscreen.py

man: $(VENV)/installed-docs
	$(BIN)/sphinx-build --fail-on-warning --quiet --builder man docs docs/_build/man
	@echo "read it with: man docs/_build/man/skymatch.1"

# the library for the report's map, at the versions of package-lock.json: what it needs stands before it
D3 := dispatch color ease timer interpolate selection drag transition zoom
VENDOR := skymatch_cli/report/vendor
vendor:
	npm ci --prefix $(VENDOR) --ignore-scripts --no-audit --no-fund
	cd $(VENDOR)/node_modules && { \
		echo '/*' && cat d3-zoom/LICENSE && echo && echo 'd3-ease:' && cat d3-ease/LICENSE && echo '*/' && \
		for part in $(D3); do cat d3-$$part/dist/d3-$$part.min.js && echo; done; } > ../d3-zoom.js

# the wheel is tried where nothing else is installed
dist: $(VENV)/installed-dist
	rm -rf dist build/bare
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv build/bare
	build/bare/bin/python -m pip install --quiet dist/*.whl
	cd build/bare && bin/skymatch demo mosaic

# the suite with the lower bounds of pyproject.toml, those of the extras too; they have wheels for 3.11
# (old packages warn of what newer ones will drop: no error here; boto3: the newest that this s3fs allows beside moto,
# or pip tries hundreds of them)
oldest: OLDEST := $(VENV)-oldest
oldest:
	python3.11 -m venv $(OLDEST)
	$(OLDEST)/bin/python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
		names = ('report', 'plot', 'regions', 'cluster', 'gwcs', 'remote'); \
		bounds = sum((p['optional-dependencies'][name] for name in names), p['dependencies']); \
		print(*(bound.replace('>=', '==') for bound in bounds), 'boto3<1.41.6', sep='\n')" > $(OLDEST)/oldest.txt
	$(OLDEST)/bin/python -m pip install --quiet --constraint $(OLDEST)/oldest.txt --editable '.[test]'
	$(OLDEST)/bin/pytest -n auto -W default::DeprecationWarning tests

scale: $(VENV)/installed-test
	$(BIN)/python benchmarks/scale.py $(SCALE)
	$(BIN)/python benchmarks/scale_solve.py

# hand in hand with the pipelines: their real packages, in an environment of their own (1.7 GB); SWarp, Montage and
# stilts are tried where they are installed. The seams of the mosaics go into the table of docs/pipelines.md.
interop: $(VENV)-interop/installed
	SKYMATCH_SEAMS=$(CURDIR)/docs/pipelines.md $(VENV)-interop/bin/python -m pytest -W default -rs \
		tests/interop tests/test_export.py tests/test_roman.py tests/test_gwcs.py

$(VENV)-interop/installed: pyproject.toml
	test -x $(VENV)-interop/bin/python || $(PYTHON) -m venv $(VENV)-interop
	$(VENV)-interop/bin/python -m pip install --quiet --editable '.[interop]'
	touch $@

$(VENV)/python:
	@test -n "$(PYTHON)" || { echo "skymatch needs Python 3.11 or later: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed: $(VENV)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

$(VENV)/installed-dist: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[dist]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-interop $(DEMO) build dist docs/_build docs/_generated .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
