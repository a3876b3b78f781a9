# Type `make` for the list of targets.
#
# Settings are given after the target: make train DATASET=zalando-datasets/fashion_mnist EPOCHS=20
# DATASET, DEVICE, RECIPE, EPOCHS and SEED are the flags of the same names; ARGS holds any other
# flags; IMAGE names pictures, and one with a space takes quotes in quotes: IMAGE="'my 7.jpg' 8.png".
# CUDA=1 or CUDA=0 decides whether PyTorch comes with CUDA, which else takes a GPU to be seen; with
# PIP_ARGS pip installs, with these flags: of another index, say.

PYTHON     ?= python3
CHECKPOINT ?= checkpoint.pt

PY        := .venv/bin/python
# The value of a variable, as it was typed, as one word for the shell, which replaces a leading ~/.
quote      = $(subst '~/,~/','$(subst ','\'',$(value $(1)))')
flag       = $(if $(value $(2)),--$(1) $(call quote,$(2)))
checkpoint = $(call quote,CHECKPOINT)
dataset    = $(call flag,dataset,DATASET)
device     = $(call flag,device,DEVICE)
schedule   = $(call flag,recipe,RECIPE) $(call flag,epochs,EPOCHS) $(call flag,seed,SEED)
pictures   = index.html contact_sheet.png confusion_matrix.png learning_curve.png \
	[0-9]*_true-*_predicted-*_probability-*_index-*[0-9].png
run_train  = $(PY) train.py --checkpoint $(checkpoint) $(dataset) $(device) $(schedule)
pytest     = $(PY) -m pytest -q -n 2 --dist loadfile tests
# IMAGE is one name where there is such a file, or where the shell cannot split it; else it is several.
one_image  = $(shell { test -e $(call quote,IMAGE) || ! sh -nc 'set -- '$(call quote,IMAGE); } 2>&1 && echo yes)
image      = $(if $(filter yes,$(one_image)),$(call quote,IMAGE),$(value IMAGE))
# Where there is a checkpoint, train.py says whether it is of the settings that were typed. One that
# ARGS names is left alone.
train      = if test ! -e $(checkpoint); then \
	$(if $(value CHECKPOINT),echo no $(checkpoint): training first;) \
	$(run_train) $(if $(value RECIPE),,$(default_recipe)); \
	$(if $(strip $(schedule)),else $(run_train) --resume;) fi
trained    = $(if $(findstring --checkpoint,$(value ARGS)),,$(train))

# Only what is typed: elsewhere CUDA may be the name of a folder.
CUDA       =

# Modules of another Python, or of another project, do not belong into a run of this one.
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH
# With make -j, analysis needs the checkpoint of train beside it.
.NOTPARALLEL:
.PHONY: again help install train analysis predict draw robustness demo benchmark test test-all clean remove

help: ## this list
	@echo "The first of these that needs it sets up the Python environment."
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

install: .venv/installed ## set up .venv with PyTorch; half a minute plus the download, 1.5 GB, with CUDA 6 GB

train: .venv/installed ## train on MNIST and write checkpoint.pt; a minute or two, plus the download once
	$(run_train) $(ARGS)

analysis: .venv/installed ## show what checkpoint.pt gets wrong, and why; seconds
	@$(trained)
	$(PY) analysis.py --checkpoint $(checkpoint) $(dataset) $(device) $(ARGS)

# Without a checkpoint, these two train the recipe that reads what people write.
predict draw: default_recipe = --recipe everyday

predict: .venv/installed ## read a picture of a digit, IMAGE=photo.jpg, with checkpoint.pt; seconds
	@$(trained)
	$(PY) predict.py --checkpoint $(checkpoint) $(or $(image),$(error name a picture: make predict IMAGE=photo.jpg)) $(ARGS)

draw: .venv/installed ## write draw.html, on which one draws and checkpoint.pt reads; seconds
	@$(trained)
	$(PY) draw.py --checkpoint $(checkpoint) $(ARGS)

robustness: .venv/installed ## read distorted test images with checkpoint.pt; seconds
	@$(trained)
	$(PY) robustness.py --checkpoint $(checkpoint) $(dataset) $(device) $(ARGS)

# No scan is as clean as digits from our pen: with patches and strays they teach more about MNIST's.
demo: .venv/installed ## train and analysis on drawn digits, into demo/; seconds, no download
	$(PY) train.py --dataset synthetic --occlusion 0.3 --extra-writing 0.3 \
		--checkpoint demo/checkpoint.pt $(device) $(schedule)
	$(PY) analysis.py --checkpoint demo/checkpoint.pt --output demo/misclassified_samples $(device)

benchmark: .venv/installed-dev ## time training beside other ways to train; five minutes
	$(PY) benchmark.py $(dataset) $(device) $(ARGS)

test: .venv/installed-dev ## run the tests that need no data, browser or GPU; three minutes
	$(PY) -m ruff check .
	$(pytest) -m "not browser"

test-all: .venv/installed-dev ## run all tests, with DATASET=folder on the real MNIST too; ten minutes
	$(PY) -m ruff check .
	KILLS=30 CASES=1000 $(pytest)

clean: ## remove what the runs wrote: checkpoints, pictures, decoded data; an instant
	rm -rf .cache demo .hypothesis .pytest_cache .ruff_cache __pycache__ */__pycache__
	rm -rf .784-128-10-* misclassified_samples/.784-128-10-*
	rm -f draw.html robustness.png $(addprefix misclassified_samples/,$(pictures))
	@file=$(checkpoint); stem=$${file%.*}; end=.$${file##*.}; test -d "$$file" || rm -f -- "$$file" \
		"$$stem"-[0-9]"$$end" "$$stem"-[0-9][0-9]"$$end" "$$stem"-[0-9][0-9][0-9]"$$end"

remove: ## remove the Python environment; an instant
	rm -rf .venv

# The two markers are written last, so that a half-made environment is not taken for a whole one.
.venv/installed: requirements.txt $(shell test -x $(PY) || echo again) $(if $(CUDA),again)
	@$(call quote,PYTHON) -u plumbing/install.py requirements.txt $(PIP_ARGS)
	@touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	@$(call quote,PYTHON) -u plumbing/install.py requirements-dev.txt $(PIP_ARGS)
	@touch $@
