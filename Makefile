# Each target sets up .venv itself, once. PYTHON chooses the interpreter (3.10 or newer).
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
SOURCES := src scripts spaces tests docs
# accelerate gives a process one CPU thread unless told otherwise.
RUN = $(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
	--num_cpu_threads_per_process $(shell $(BIN)/python -c 'from hcm_hf.utils.process import count_cores; print(count_cores())')
DEMO_EPOCHS := 80
# ACDC is a folder or a .zip, ARGUMENTS what else scripts/reproduce.py takes: ARGUMENTS='--families vae dcgan'.
ACDC :=
MODELS := pretrained
RECIPE := paper
ARGUMENTS :=
PYTHONS := 3.10 3.11 3.12 3.13

.PHONY: demo space reproduce test test-matrix docs campaign style quality

# Pairs of a trained model that comes with the package; then synthetic patients to a scored DCGAN, to show how models
# are made. Every step keeps what is done: a second call goes on where the first one stopped.
demo: $(INSTALLED) demo/pairs demo/dataset
	@rm -rf demo/images demo/report
	$(RUN) scripts/train.py --dataset demo/dataset --output_dir demo/run --num_epochs $(DEMO_EPOCHS)
	$(BIN)/python scripts/generate.py --model demo/run --output_dir demo/images --num_images 200
	$(BIN)/python scripts/score.py --images demo/images --dataset demo/dataset --output_dir demo/report
	@echo
	@echo "hearts:     demo/pairs/groups.png (slices that a model trained on ACDC draws, with their walls in mm)"
	@echo "grid:       demo/report/grid.png (drawn patients above slices of the small model that was trained here)"
	@echo "loss curve: demo/run/losses.png"
	@echo "report:     demo/report/report.md"

demo/pairs: | $(INSTALLED)
	$(BIN)/python scripts/contrast_groups.py --output_dir $@

# The page in the browser, on the trained models; make space MODELS=runs for your own. Ctrl-C ends it.
space: $(INSTALLED)
	$(BIN)/python spaces/hcm-generator/app.py --models "$(MODELS)"

demo/cohort: | $(INSTALLED)
	$(BIN)/python scripts/write_phantom.py --output_dir $@ --num_patients_per_group 10

demo/dataset: | demo/cohort
	$(BIN)/python scripts/prepare_dataset.py --acdc demo/cohort --output_dir $@ --resolution 32

# The whole study: make reproduce ACDC=ACDC/database/training, or without ACDC on the synthetic cohort; goes on when
# called again. Other patients or settings than those of docs/results need ARGUMENTS='--output_dir results'.
reproduce: $(INSTALLED)
	$(BIN)/python scripts/reproduce.py $(if $(ACDC),--acdc "$(ACDC)") --recipe $(RECIPE) $(ARGUMENTS)

# One process a core, one thread each. The notebook of the documentation runs too.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --nbmake tests docs/tutorials

# The suite on each Python with the lowest and with the newest versions that setup.cfg allows: hours, and gigabytes in
# .matrix/. What passed is kept until the code changes. The versions of constraints.txt must be had on each Python, too. The variables
# UV_CONSTRAINT and UV_FIND_LINKS choose another build of torch.
MATRIX := $(foreach python,$(PYTHONS),$(python)-lowest-direct $(python)-highest)

test-matrix: $(PYTHONS:%=.matrix/%/resolved) $(MATRIX:%=.matrix/%/passed)

.matrix/%/resolved: $(INSTALLED) setup.cfg constraints.txt
	@mkdir -p $(@D)
	$(BIN)/uv pip compile --quiet --python-version $* --constraint constraints.txt --all-extras setup.cfg > $@.txt
	mv $@.txt $@

.matrix/%/passed: $(INSTALLED) setup.cfg $(shell find src tests -name "*.py")
	$(BIN)/uv venv --quiet --allow-existing --python $(firstword $(subst -, ,$*)) $(@D)
	$(BIN)/uv pip install --quiet --python $(@D) --resolution $(patsubst $(firstword $(subst -, ,$*))-%,%,$*) \
		--only-binary :all: --no-binary hcm_hf --editable '.[test]'
	OMP_NUM_THREADS=1 $(@D)/bin/python -m pytest --numprocesses auto --dist loadfile tests
	touch $@

# The documentation site, in site/.
docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python docs/pages.py README.md README.es.md
	$(BIN)/mkdocs build --strict

# Thousands of damaged files, full disks and kills, counted: make campaign ARGUMENTS='fuzz --tries 1000'; --help lists
# them. `disk` fills disks of its own where `unshare --map-root-user --mount make campaign ...` may mount them.
campaign: $(INSTALLED)
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m campaigns $(ARGUMENTS)

style: $(INSTALLED)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

quality: $(INSTALLED)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/lint-imports setup.cfg
	$(BIN)/mypy

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "hcm_hf needs Python 3.10 or newer; name one with make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
