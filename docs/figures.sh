#!/bin/sh
# Print all that README.md and docs/ quote of MNIST, into figures/; two to three hours on two cores:
#     DATASET=mnist sh docs/figures.sh
# DIGITS=folder adds the pictures of strangers, PAGES=folder those of pages. One line is one table or example, in their order.
set -eux
figures() { make train ARGS="--seeds $2 $4" RECIPE="$1" CHECKPOINT="figures/$3.pt"; }

# README.md, and docs/why-it-errs.md: the recipes, and what each part of them brings
figures quick 5 quick ""
figures accurate 5 short "--epochs 15"
figures accurate 5 accurate ""
figures robust 2 robust ""
figures everyday 3 everyday ""
figures accurate 2 plain "--moments 0"
figures quick 5 quick-slant "--moments 1"
figures quick 5 quick-moments "--moments 2"
# As they were before moments were taken out; the flags that come last count.
accurate="--moments 0 --learning-rate 0.01 --epochs 100"
robust="--moments 0 --learning-rate 0.01 --epochs 200"
figures accurate 5 accurate-plain "$accurate"
figures accurate 5 accurate-slant "$accurate --moments 1"
figures accurate 3 none "$accurate --rotation 0 --slant 0 --smallest 1 --largest 1 --shift 0"
figures accurate 3 no-rotation "$accurate --rotation 0"
figures accurate 3 no-slant "$accurate --slant 0"
figures accurate 3 no-size "$accurate --smallest 1 --largest 1"
figures accurate 3 no-shift "$accurate --shift 0"
figures robust 5 robust-plain "$robust"
figures robust 5 robust-slant "$robust --moments 1"
figures robust 2 no-patches "$robust --occlusion 0"
figures robust 2 no-strokes "$robust --extra-writing 0"
figures robust 2 neither "$robust --occlusion 0 --extra-writing 0"
make robustness ARGS="--checkpoint figures/*.pt"

# docs/why-it-errs.md: traits of the mistakes, traits changed and undone, drawn digits alone
for recipe in quick accurate robust; do
	make analysis CHECKPOINT="figures/$recipe-0.pt" ARGS="--output figures/$recipe"
	cp "figures/$recipe-0.pt" "figures/$recipe.pt"
	.venv/bin/python docs/causes.py --dataset "$DATASET" --checkpoint "figures/$recipe-0.pt"
done
make train DATASET=synthetic CHECKPOINT=figures/drawn.pt \
	ARGS="--occlusion 0.3 --extra-writing 0.3 --seeds 5"
make train DATASET=synthetic CHECKPOINT=figures/drawn-robust.pt RECIPE=robust ARGS="--seeds 5"
for network in figures/drawn-[0-4].pt figures/drawn-robust-[0-4].pt; do
	make analysis CHECKPOINT="$network" ARGS="--output figures/drawn"
done

# Pictures of README.md and docs/, and docs/how-it-learns.md, docs/settings.md
cp figures/quick/hidden_units.png docs/units-quick.png
cp figures/robust/hidden_units.png docs/units-robust.png
cp figures/accurate/learning_curve.png docs/learning_curve.png
.venv/bin/python -m docs.resistance figures/quick.pt figures/accurate.pt figures/robust.pt
cp figures/everyday-0.pt checkpoint.pt
make draw && .venv/bin/python -m docs.film
PYTHONPATH=.:tests .venv/bin/python docs/pages.py
.venv/bin/python -m docs.costs "$DATASET"
.venv/bin/python -m docs.settings > docs/settings.md

# docs/own-digits.md, docs/speed.md, docs/reliability.md
make test
.venv/bin/python -m pytest -qs tests/test_mnist.py
make benchmark
KILLS=201 .venv/bin/python -m pytest tests/test_kill.py
CASES=20000 .venv/bin/python -m pytest tests/test_fuzz.py
