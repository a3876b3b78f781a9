# Type `make` for the list of targets. Settings follow the target: make train EPOCHS=20 DATASET=mnist
# Each flag of a script is one, --batch-size 64 as BATCH_SIZE=64, --json as JSON=1; ARGS holds flags as
# they are. IMAGE names pictures; one with a space takes quotes in quotes: IMAGE="'my 7.jpg' 8.png".
# CUDA=1 or CUDA=0 decides whether PyTorch comes with CUDA, which else takes a GPU to be seen; with
# PIP_ARGS pip installs, with these flags: of another index, say.

PYTHON     ?= python3
CHECKPOINT ?= checkpoint.pt
CUDA        = # what is typed: elsewhere it may be the name of a folder

# The settings of each target: the flags that its script's --help lists, and a few words.
machine  := DEVICE THREADS
recipe   := RECIPE EPOCHS BATCH_SIZE LEARNING_RATE BETA1 BETA2 DRAWN NOTHING MOMENTS ROTATION SLANT \
	SMALLEST LARGEST SHIFT OCCLUSION EXTRA_WRITING VALIDATION SEED
training := DATASET $(machine) $(recipe)
of_train      := CHECKPOINT ARGS $(training) SEEDS THINGS START RESUME JSON
of_analysis   := CHECKPOINT ARGS DATASET $(machine) COUNT TRUE PREDICTED OUTPUT JSON
of_predict    := CHECKPOINT ARGS IMAGE SAVE_INPUT OUTPUT JSON
of_draw       := CHECKPOINT ARGS OUTPUT JSON
of_robustness := CHECKPOINT ARGS DATASET $(machine) OUTPUT JSON
of_demo       := $(machine) $(recipe) COUNT TRUE PREDICTED JSON
of_benchmark  := ARGS DATASET $(machine) JSON
of_test       := DATASET DIGITS PAGES
of_clean      := CHECKPOINT
# These targets train first, unless ARGS names another checkpoint than make could train.
first    := $(if $(findstring --checkpoint,$(value ARGS)),,analysis predict draw robustness)

known    := PYTHON CUDA PIP_ARGS DEBUG $(if $(filter $(first),$(MAKECMDGOALS)),$(training)) \
	$(foreach goal,$(MAKECMDGOALS),$(of_$(goal:-all=)))
typed    := $(foreach v,$(.VARIABLES),$(if $(filter command,$(origin $(v))),$(v)))
unknown  := $(filter-out $(known),$(typed))
$(if $(unknown),$(error $(strip make $(MAKECMDGOALS)) knows no $(unknown), only $(sort $(known)); \
	what is for the environment stands before make))

PY        := .venv/bin/python
# The value of a variable, as it was typed, as one word for the shell, which replaces a leading ~/.
quote      = $(subst '~/,~/','$(subst ','\'',$(value $(1)))')
name       = --$(shell echo $(1) | tr A-Z_ a-z-)
flag       = $(name) $(quote)
# 1 is on, 0 is off, and a script refuses others, because its flag takes no value.
switch     = $(if $(filter-out 0,$(value $(1))),$(name)$(if $(filter-out 1,$(value $(1))),=$(quote)))
# Of the environment only five names count: others may be there for other ends.
given     := $(foreach v,$(typed) DATASET DEVICE RECIPE EPOCHS SEED,$(if $(value $(v)),$(v)))
options    = $(filter $(filter-out CHECKPOINT ARGS IMAGE,$(given)),$(1))
flags      = $(foreach v,$(options),$(call $(if $(filter THINGS RESUME JSON,$(v)),switch,flag),$(v)))
checkpoint = $(call quote,CHECKPOINT)
run_train  = $(PY) train.py --checkpoint $(checkpoint) $(call flags,$(training))
pytest     = $(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests
# IMAGE is one name where there is such a file, or where the shell cannot split it; else it is several.
one_image  = $(shell { test -e $(call quote,IMAGE) || ! sh -nc 'set -- '$(call quote,IMAGE); } 2>&1 && echo yes)
image      = $(if $(filter yes,$(one_image)),$(call quote,IMAGE),$(value IMAGE))
# Where there is a checkpoint, train.py judges what was typed that the target's script does not take.
judged     = $(strip $(call flags,$(filter-out $(machine) $(of_$@),$(training))))
trained    = $(if $(filter $(first),$@),if test ! -e $(checkpoint); then \
	$(if $(value CHECKPOINT),echo no $(checkpoint): training first;) \
	$(run_train) $(if $(value RECIPE),,$(default_recipe)); \
	$(if $(judged),else $(run_train) --resume;) fi)
pictures   = index.html contact_sheet.png confusion_matrix.png hidden_units.png learning_curve.png \
	[0-9]*_true-*_predicted-*_probability-*_index-*[0-9].png

# Modules of another Python, or of another project, do not belong into a run of this one.
unexport PYTHONPATH PYTHONHOME PYTHONSAFEPATH
# With make -j, analysis needs the checkpoint of train beside it.
.NOTPARALLEL:
.PHONY: again help install train analysis predict draw robustness demo benchmark test test-all clean remove

help: ## this list
	@echo "The first of these that needs it sets up the Python environment. Settings follow the target:"
	@echo "make train EPOCHS=20 BATCH_SIZE=128. Each flag is one: .venv/bin/python train.py --help"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

install: .venv/installed ## set up .venv with PyTorch; half a minute plus the download, 1.5 GB, with CUDA 6 GB
train: ## train on MNIST and write checkpoint.pt; a minute or two, plus the download once
analysis: ## show what checkpoint.pt gets wrong, and why; seconds
predict: ## read pictures of digits, IMAGE=photo.jpg or a folder, with checkpoint.pt; seconds
draw: ## write draw.html, on which one draws and checkpoint.pt reads; seconds
robustness: ## read distorted test images with checkpoint.pt; seconds

# Without a checkpoint, these two train the recipe that reads what people write.
predict draw: default_recipe = --recipe everyday
predict: images = $(or $(image),$(error name a picture: make predict IMAGE=photo.jpg))

train analysis predict draw robustness: .venv/installed
	@$(trained)
	$(PY) $@.py --checkpoint $(checkpoint) $(call flags,$(of_$@)) $(images) $(ARGS)

# No scan is as clean as digits from our pen: with patches and strays they teach more about MNIST's.
demo: .venv/installed ## train and analysis on drawn digits, into demo/; seconds, no download
	$(PY) train.py --dataset synthetic --occlusion 0.3 --extra-writing 0.3 \
		--checkpoint demo/checkpoint.pt $(call flags,$(machine) $(recipe))
	$(PY) analysis.py --checkpoint demo/checkpoint.pt --output demo/misclassified_samples \
		$(call flags,$(filter-out $(recipe),$(of_demo)))

benchmark: .venv/installed-dev ## time training beside other ways to train; five minutes
	$(PY) benchmark.py $(call flags,$(of_benchmark)) $(ARGS)

test: .venv/installed-dev ## run the tests that need no data, browser or GPU; two minutes
	$(PY) -m ruff check .
	$(pytest) -m "not browser"

test-all: .venv/installed-dev ## run all tests, with DATASET=folder on the real MNIST too; seven minutes
	$(PY) -m ruff check .
	KILLS=12 CASES=400 $(pytest)

clean: ## remove what the runs wrote: checkpoints, pictures, decoded data; an instant
	rm -rf .cache demo .hypothesis .pytest_cache .ruff_cache __pycache__ */__pycache__
	rm -rf .784-128-10-* misclassified_samples/.784-128-10-*
	rm -f draw.html robustness.png $(addprefix misclassified_samples/,$(pictures))
	@file=$(checkpoint); stem=$${file%.*}; end=.$${file##*.}; test -d "$$file" || rm -f -- "$$file" \
		"$$stem"-[0-9]"$$end" "$$stem"-[0-9][0-9]"$$end" "$$stem"-[0-9][0-9][0-9]"$$end"

remove: ## remove the Python environment; an instant
	rm -rf .venv

# An environment serves while its Python starts, and is of the minor version of the packages.
serves = v=`$(PY) -V` && set -- $$v && ls -d .venv/lib/python$${2%.*}*
.venv/installed: requirements.txt $(shell { $(serves); } >/dev/null 2>&1 || echo again) $(if $(CUDA),again)
.venv/installed-dev: requirements-dev.txt .venv/installed
# The two markers are written last, so that a half-made environment is not taken for a whole one.
.venv/installed .venv/installed-dev:
	@$(call quote,PYTHON) -u plumbing/install.py $< $(PIP_ARGS)
	@touch $@
