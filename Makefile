# Two commands matter: `make audit` (the gallery, or your own subject) and `make test`. Both build .venv when needed.
#   make audit                                   audit every subject of the gallery
#   make audit SUBJECT=my_flow.py:factory        audit your own
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
CODE := iresnet_ref backends/iresnet_backends verification/iresnet_verify
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1

.PHONY: help mypy pyright audit gallery test test-adapters test-gpu test-thorough examples examples-full bench bench-compare docs lint tables clean
help:
	@echo 'make audit                            audit the gallery of real subjects; writes reports/'
	@echo 'make audit SUBJECT=file.py:factory    audit your own network; writes reports/'
	@echo 'make gallery                          audit layers of packages in .venv-adapters: docs/gallery.md'
	@echo 'make test                             lint, types and tests'
	@echo 'make test-adapters                    every adapter against its package, every finding again, in .venv-adapters'
	@echo 'make test-gpu                         parity, times and every law on the GPUs of this machine'
	@echo 'make test-gpu PYTHON_GPU=python3      the most important of it in 8 minutes, offline, with the frameworks of that interpreter'
	@echo 'make test-thorough                    the long searches as well'
	@echo "make examples                         the paper's tasks on real data, trained without autodiff; writes reports/examples/"
	@echo 'make examples-full                    the same over three seeds and with longer budgets: hours'
	@echo 'make bench                            speed beside what people use, as ratios; writes reports/bench/'
	@echo 'make bench-compare OLD=… NEW=…        the ratios of two such runs'
	@echo 'make docs                             the site: reports/site/index.html'
	@echo 'make lint                             ruff, mypy --strict and pyright'
	@echo 'make tables                           write docs/checks.md from the catalogue'
	@echo 'make clean                            remove .venv, reports and caches'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# A stamp is newer than pyproject.toml and constraints.txt exactly when what they ask for is installed.
$(VENV)/.installed-audit: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[torch,strict,verify,gallery]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[torch,jax,$(CUPY),strict,precision,verify,saving,campaign,parquet,gallery,examples,docs]' \
		clarabel pytest pytest-timeout pytest-xdist ruff mypy basedpyright
	@touch $@ $(VENV)/.installed-audit $(VENV)/.installed-examples $(VENV)/.installed-docs

ifdef SUBJECT
audit: $(VENV)/.installed-audit
	@mkdir -p reports
	$(BIN)/iresnet-verify audit '$(SUBJECT)' --html reports/subject.html --json reports/subject.json
else
audit: $(VENV)/.installed-audit
	$(BIN)/python examples/gallery.py
endif

# The published packages, in an environment of their own. Those with pins or requirements that do not fit beside the CPU torch come alone.
ADAPTERS := .venv-adapters
ALONE := memcnn enflows flowcon UMNN deel-torchlip
$(ADAPTERS)/.installed: pyproject.toml constraints.txt
	test -x $(ADAPTERS)/bin/python || $(PYTHON) -m venv $(ADAPTERS)
	$(ADAPTERS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[torch,jax,strict,verify,gallery,adapters]' hypothesis pytest pytest-timeout
	$(ADAPTERS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps $(ALONE)
	@touch $@

gallery: $(ADAPTERS)/.installed
	$(ADAPTERS)/bin/python examples/gallery.py --published --budget quick

test-adapters: $(ADAPTERS)/.installed
	$(ADAPTERS)/bin/python -m pytest verification/tests/verify/adapters verification/tests/backends/test_from_jax.py \
		verification/tests/backends/test_published_modules.py verification/tests/backends/jax_layers/test_jax_interfaces.py \
		verification/tests/backends/jax_layers/test_equinox_and_flax.py --timeout=3600

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	@$(MAKE) --no-print-directory --jobs=2 mypy pyright

mypy:
	$(BIN)/mypy $(CODE) examples/gallery.py examples/declare.py examples/pictures.py verification/tests/support/typed_consumer.py

pyright:
	$(BIN)/basedpyright

tables: $(VENV)/.installed-audit
	$(BIN)/iresnet-verify checks --write docs/checks.md

test: lint
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal --timeout=300 -m 'not thorough'

test-thorough: lint
	HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest --numprocesses=2 --dist=worksteal --timeout=3600

$(VENV)/.installed-examples: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[torch,strict,verify,saving,gallery,examples]'
	@touch $@ $(VENV)/.installed-audit

# On a machine with a GPU: one page of parity and times, then every law on every device. CUPY=cupy13x for CUDA 13.
#   make test-gpu PYTHON_GPU=python3                     an interpreter with CUDA frameworks of its own: nothing is built or installed, and after
#                                                        GPU_SECONDS it ends; a new folder in reports/device/ is complete after each step
#   make test-gpu PYTHON_GPU=python3 DEVICE=torch:cpu    a rehearsal of that on the CPU
CUPY ?= cupy12x
GPU_SECONDS ?= 480
ifdef PYTHON_GPU
test-gpu:
	$(PYTHON_GPU) benchmarks/device_run.py $(DEVICE:%=--device %) --seconds $(GPU_SECONDS)
else
test-gpu: $(VENV)/.installed-test
	$(BIN)/iresnet-verify doctor --gpu --json reports/gpu.json
	IRESNET_GPU=1 $(BIN)/python -m pytest verification/tests -k 'cupy: or torch:cuda or torch:mps or jax:gpu' \
		--timeout=3600 --junit-xml=reports/gpu-laws.xml
endif

examples: $(VENV)/.installed-examples
	$(BIN)/python examples/paper/densities_2d.py
	$(BIN)/python examples/paper/reconstruction.py
	$(BIN)/python examples/paper/memory.py
	$(BIN)/python examples/paper/classification.py
	$(BIN)/python examples/paper/hybrid.py
	$(BIN)/python examples/paper/semi_supervised.py
	$(BIN)/python examples/paper/images.py digits
	$(BIN)/python examples/paper/images.py mnist
	$(BIN)/python examples/paper/images.py cifar10-small
	$(BIN)/python examples/paper/images.py cifar10 --cost
	$(BIN)/python examples/paper/images_bias.py
	$(BIN)/python examples/paper/misnormalised.py
	$(BIN)/iresnet-verify audit examples/paper/audited.py:models --budget quick --check-seconds 300 \
		--ignore density.integrates-to-one --html reports/examples/audit.html --json reports/examples/audit.json
	$(BIN)/iresnet-verify audit examples/paper/audited.py:models --budget thorough --check-seconds 300 \
		--select inverse.recovers-input,logdet.matches-determinant,density.integrates-to-one

# Finished runs are kept: an interrupted one continues. The models with more than 256 numbers are those that make examples left.
examples-full: $(VENV)/.installed-examples
	$(BIN)/python examples/paper/densities_2d.py --seeds 0,1,2 --seconds 20,300
	$(BIN)/python examples/paper/classification.py --seeds 3 --folder reports/examples/full
	$(BIN)/python examples/paper/semi_supervised.py --draws 10 --folder reports/examples/full
	$(BIN)/iresnet-verify audit examples/paper/audited.py:large_models --budget quick --check-seconds 600 \
		--html reports/examples/audit-large.html --json reports/examples/audit-large.json

# FrEIA and torchdeq need nothing but torch; without their own requirements nothing of ours is moved.
$(VENV)/.installed-bench: $(VENV)/.installed-test
	$(PIP) --no-deps FrEIA torchdeq
	@touch $@

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/suite run

bench-compare: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/suite compare $(OLD) $(NEW)

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[torch,verify,docs]'
	@touch $@

# Offline: no page asks another host for anything, and a warning (a link that leads nowhere, a name that is not found) is an error.
docs: $(VENV)/.installed-docs
	rm -rf reports/site
	$(BIN)/python -m sphinx --builder html --fresh-env --fail-on-warning --keep-going --quiet docs reports/site
	@echo 'written: reports/site/index.html'

clean:
	rm -rf $(VENV) $(ADAPTERS) reports build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage
	find . -name __pycache__ -prune -exec rm -rf {} +
