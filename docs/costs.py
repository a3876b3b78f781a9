"""What a step of training costs, and what two of its peculiarities save.

In the folder of the project:

    .venv/bin/python -m docs.costs FOLDER      # with MNIST's parquet files
"""

import contextlib
import re
import statistics
import sys
import time
from dataclasses import replace

import torch
from torch.profiler import profile

import data
import recipes
import train
from model import MLP
from plumbing.optimizer import Adam

OPERATIONS = {  # of PyTorch, by what they are for
    "matrix products": "addmm|mm",
    "softmax and loss": "_log_softmax.*|nll_loss.*",
    "ReLU": "clamp_min_?|relu|threshold_backward",
    "Adam": "_fused_adam_.*|_foreach_.*",
    "bytes to floats, floats to bfloat16": "copy_|div_|_to_copy",
    "picking images": "index_select|index",
    "warp": "grid_sampler.*|affine_grid.*",
}


class TheirAdam:
    """torch.optim.Adam in place of our own."""

    def __init__(self, model, beta1, beta2):
        self.optimizer = torch.optim.Adam(model.parameters(), betas=(beta1, beta2), fused=True)
        self.zero_grad = self.optimizer.zero_grad

    def step(self, learning_rate):
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.step()


def epochs(split, settings, adam=Adam, products=train.fast_products):
    """Yield the seconds of each epoch of a run, endlessly."""
    model = MLP(settings.moments)
    settings = replace(settings, epochs=1000)
    losses = train.train(model, adam(model, settings.beta1, settings.beta2), split, settings)
    while True:
        train.fast_products, start = products, time.perf_counter()
        next(losses)
        yield time.perf_counter() - start


def shares(split, settings):
    """{what operations are for: their share of the time that all take in an epoch}."""
    run = epochs(split, settings)
    next(run)
    with profile() as watched:
        next(run)
    sums = dict.fromkeys([*OPERATIONS, "all else"], 0.0)
    for operation in watched.key_averages():
        name = operation.key.removeprefix("aten::")
        kinds = (kind for kind, names in OPERATIONS.items() if re.fullmatch(names, name))
        sums[next(kinds, "all else")] += operation.self_cpu_time_total
    return {kind: each / sum(sums.values()) for kind, each in sums.items()}


def main():
    split = data.load(sys.argv[1], "train")
    quick, accurate = recipes.QUICK, recipes.ACCURATE
    print(f"{'share of an epoch':36}  quick  accurate")
    for row in zip(*(shares(split, each).items() for each in (quick, accurate)), strict=True):
        (kind, first), (_, second) = row
        print(f"{kind:36} {first:6.1%} {second:9.1%}")
    runs = {
        "as it is": epochs(split, quick),
        "with torch.optim.Adam": epochs(split, quick, TheirAdam),
        "with products in float32": epochs(split, quick, products=contextlib.nullcontext),
    }
    seconds = {name: [] for name in runs}
    for _ in range(12):
        for name, run in runs.items():
            seconds[name].append(next(run))
    print(f"\n{'an epoch of quick':36}  seconds")
    for name, each in seconds.items():
        print(f"{name:36} {statistics.median(each[2:]):8.3f}")


if __name__ == "__main__":
    main()
