# Two commands do all the set-up on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# One thread per process: two threads of one process spin against each other on a busy machine.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: test-ray quickstart test test-browser lint format rehearsal
.DELETE_ON_ERROR:

quickstart: $(VENV)/.installed  ## train the main job on the embedded mini model and look at the pictures
	$(RUN) train_network.py --config_file configs/quickstart.toml

# A model of yours in place of random weights: make rehearsal REHEARSE="--sdxl models/sdxl_base.safetensors --only sdxl"
rehearsal: $(VENV)/.installed-dev  ## every shipped config on full-size models: 12 GB of disk, 12 GB of memory, half an hour
	$(RUN) -m tests.rehearsal $(REHEARSE)

test: lint  ## everything that CI checks
	$(RUN) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

test-browser: $(VENV)/.installed-dev  ## pages in a real browser; wants chromium: apt-get install chromium
	$(RUN) -m pytest tests/browser -m browser

test-ray: $(VENV)/.installed-dev  ## the engine on Ray: 200 MB more, a minute
	$(INSTALL) --requirement requirements-ray.txt
	TEST_RAY=1 $(RUN) -m pytest tests/library/batch/test_on_ray.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(RUN)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11 to 3.13 is needed, and $(PYTHON) is " + sys.version.split()[0] + "; give another one: make PYTHON=python3.12 quickstart")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: requirements.txt constraints.txt | $(VENV)/.created
	@echo "Installing what requirements.txt lists (once; a few minutes)"
	$(INSTALL) --requirement requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(INSTALL) --requirement requirements-dev.txt
	touch $@
