# Type `make` for the list of targets.
#
# Settings are given after the target: make train DATASET=zalando-datasets/fashion_mnist EPOCHS=20
# DATASET, DEVICE, RECIPE, EPOCHS and SEED are the flags of the same names; ARGS holds any other
# flags; IMAGE names pictures, and one with a space takes quotes in quotes: IMAGE="'my 7.jpg' 8.png".
# PIP_ARGS goes to pip, to choose another build of PyTorch than the default one.

PYTHON     ?= python3
CHECKPOINT ?= checkpoint.pt

PY       := .venv/bin/python
dataset   = $(if $(DATASET),--dataset "$(DATASET)")
device    = $(if $(DEVICE),--device "$(DEVICE)")
schedule  = $(if $(RECIPE),--recipe "$(RECIPE)") $(if $(EPOCHS),--epochs "$(EPOCHS)") \
            $(if $(SEED),--seed "$(SEED)")
run_train = $(PY) train.py --checkpoint "$(CHECKPOINT)" $(dataset) $(device) $(schedule)
pytest    = $(PY) -m pytest -q -n 2 --dist loadfile tests
trained   = test -e "$(CHECKPOINT)" || { echo 'no "$(CHECKPOINT)": training first'; $(run_train); }

.PHONY: broken help install train analysis predict draw robustness demo benchmark test test-all clean remove

help: ## this list
	@echo "The first of these that needs it sets up the Python environment."
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

install: .venv/installed ## set up .venv with PyTorch; 6 GB, a few minutes

train: .venv/installed ## train on MNIST and write checkpoint.pt; a minute or two, plus the download once
	$(run_train) $(ARGS)

analysis: .venv/installed ## show what checkpoint.pt gets wrong, and why; seconds
	@$(trained)
	$(PY) analysis.py --checkpoint "$(CHECKPOINT)" $(dataset) $(device) $(ARGS)

# Without a checkpoint, these two train the recipe that reads what people write.
predict draw: RECIPE ?= everyday

predict: .venv/installed ## read a picture of a digit, IMAGE=photo.jpg, with checkpoint.pt; seconds
	@$(trained)
	$(PY) predict.py --checkpoint "$(CHECKPOINT)" $(or $(IMAGE),$(error name a picture: make predict IMAGE=photo.jpg)) $(ARGS)

draw: .venv/installed ## write draw.html, on which one draws and checkpoint.pt reads; seconds
	@$(trained)
	$(PY) draw.py --checkpoint "$(CHECKPOINT)" $(ARGS)

robustness: .venv/installed ## read distorted test images with checkpoint.pt; seconds
	$(PY) robustness.py --checkpoint "$(CHECKPOINT)" $(dataset) $(device) $(ARGS)

# No scan is as clean as digits from our pen: with patches and strays they teach more about MNIST's.
demo: .venv/installed ## train and analysis on drawn digits, into demo/; seconds, no download
	$(PY) train.py --dataset synthetic --occlusion 0.3 --extra-writing 0.3 \
		--checkpoint demo/checkpoint.pt $(device) $(schedule)
	$(PY) analysis.py --checkpoint demo/checkpoint.pt --output demo/misclassified_samples $(device)

benchmark: .venv/installed-dev ## time training beside other ways to train; five minutes
	$(PY) benchmark.py $(dataset) $(device) $(ARGS)

test: .venv/installed-dev ## run the tests that need no data, browser or GPU; two minutes
	$(PY) -m ruff check .
	$(pytest) -m "not browser"

test-all: .venv/installed-dev ## run all tests, with DATASET=folder on the real MNIST too; seven minutes
	$(PY) -m ruff check .
	KILLS=30 CASES=1000 $(pytest)

clean: ## remove what the runs wrote: checkpoint, pictures, decoded data; an instant
	rm -rf .cache demo .hypothesis .pytest_cache .ruff_cache __pycache__ */__pycache__
	rm -rf .784-128-10-* misclassified_samples/.784-128-10-*
	rm -f "$(CHECKPOINT)" draw.html robustness.png misclassified_samples/contact_sheet.png
	rm -f misclassified_samples/[0-9]*_true-*_predicted-*_probability-*_index-*[0-9].png

remove: ## remove the Python environment; an instant
	rm -rf .venv

# The two markers are written last, so that a half-made environment is not taken for a whole one. An
# environment whose Python is gone (it was upgraded, say) is made anew.
.venv/installed: requirements.txt $(shell test -x $(PY) || echo broken)
	@"$(PYTHON)" -c 'import sys; sys.exit("Python 3.10 or later is needed, this is " + sys.version.split()[0] \
		+ ": name another one with PYTHON=..." if sys.version_info < (3, 10) else 0)'
	@test -x $(PY) || rm -rf .venv
	"$(PYTHON)" -m venv .venv >/dev/null 2>&1 || "$(PYTHON)" -m venv --without-pip .venv
	@$(call pip_install,requirements.txt)
	@touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	@$(call pip_install,requirements-dev.txt)
	@touch $@

# Debian's Python without the package python3-venv makes environments without a pip of their own.
pip_install = \
	if $(PY) -m pip --version >/dev/null 2>&1; then pip="$(PY) -m pip"; \
	elif "$(PYTHON)" -m pip --version >/dev/null 2>&1; then pip="$(PYTHON) -m pip --python $(PY)"; \
	else echo "$(PYTHON) has no pip: install it first (Debian, Ubuntu: apt install python3-venv)" >&2; \
		exit 1; fi; \
	echo "installing the packages of $(1)"; \
	$$pip install $(PIP_ARGS) -r $(1)
