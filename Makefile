# The two commands of the README; everything they need is made on the way.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train train-progan test test-windows clean

train: .venv/trainers  ## train on the built-in images; Ctrl+C, and the same command goes on
	@GANGUARD_COMMAND="make train$(if $(ARGS), ARGS='$(ARGS)')" $(BIN)/python gan.py $(ARGS)

train-progan: .venv/trainers  ## the progressive GAN on the built-in emoji, 4 to 32 px; goes on likewise
	@GANGUARD_COMMAND="make train-progan$(if $(ARGS), ARGS='$(ARGS)')" $(BIN)/python progan_local.py \
		--data-dir emoji --in-channels 32 --z-dim 64 --progressive-epochs 8,16,24,64 \
		--batch-sizes 16,16,16,16 --gradient-accumulation-steps 1 $(ARGS)

test: .venv/dev  ## linters, types, tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

WINDOWS_TESTS ?= tests/unit tests/exact tests/crash tests/cli
JOBS ?= 2
test-windows:  ## the tests in a Windows Python under Wine; hours, see docs/windows.md
	PYTHON=$(PYTHON) tests/windows/make_python.sh .windows
	PYTHONPATH='Z:$(subst /,\,$(CURDIR))\src' OMP_NUM_THREADS=1 .windows/winpy -m pytest \
		-rs --color no -p no:cacheprovider -p no:faulthandler -n $(JOBS) --dist worksteal --timeout 1500 $(WINDOWS_TESTS) $(ARGS)

.venv/trainers: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[trainers]'
	@touch $@

.venv/dev: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@ .venv/trainers

clean:  ## remove the environments; nothing that was trained
	rm -rf .venv .windows
