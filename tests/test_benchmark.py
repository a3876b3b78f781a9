"""The benchmark, and what it rests on: a loop that waits for nothing, in bounded memory."""

import itertools
import json
import math
import multiprocessing
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import benchmark
import data
import train
from model import MLP
from plumbing.optimizer import Adam
from recipes import RECIPES

QUICK, LIMIT = "train.py, recipe quick", "the matrix products alone"


class Transfers(TorchDispatchMode):
    """Counts the tensors that come to the device "meta"."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [t for t in args if torch.is_tensor(t)]
        if torch.is_tensor(result) and result.device.type == "meta" and tensors:
            self.count += all(t.device.type != "meta" for t in tensors)
        return result


@pytest.mark.parametrize("recipe", RECIPES)
def test_within_an_epoch_nothing_is_read_back_and_nothing_moves(recipe, monkeypatch):
    # The device "meta" computes shapes alone: whoever asks it for a number gets an error.
    drawn = 1000 if RECIPES[recipe].drawn else 0
    recipe = replace(RECIPES[recipe], drawn=drawn, nothing=drawn)
    step, rates, seen = Adam.step, [], []
    monkeypatch.setattr(Adam, "step", lambda self, rate: (step(self, rate), rates.append(rate)))
    for count in 1024, 1024, 4096:  # the first time, constants move
        pool = data.POOL * 2 * drawn
        images = torch.zeros(count + pool, 28, 28, dtype=torch.uint8)
        labels = torch.zeros(len(images), 10) if drawn else torch.zeros(len(images)).long()
        split = data.Split(images, labels, [], pool=pool).to("meta")
        model = MLP(recipe.moments).to("meta")
        optimizer = Adam(model, recipe.beta1, recipe.beta2)
        rates.clear()
        with Transfers() as transfers, pytest.raises(RuntimeError, match="item"):
            next(train.train(model, optimizer, split, recipe))
        # The loss is asked for after the last step.
        assert len(rates) == math.ceil((count + 2 * drawn) / recipe.batch_size)
        seen.append(transfers.count)
    assert 0 < seen[1] == seen[2]


def test_memory_grows_with_the_images_alone():
    (row,) = benchmark.call_apart(benchmark.grow, (60_000,), torch.device("cpu"))
    assert 47 <= row["megabytes"] < 2 * 47  # they take 47, and there is no copy of them


def test_on_a_gpu_its_own_memory_counts(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: (str(device), 7))
    assert benchmark.peak_memory(torch.device("cuda", 1)) == ("cuda:1", 7)
    assert benchmark.peak_memory(torch.device("cpu")) > 2**20


def test_each_run_is_counted_anew():
    first, never, third = [(1, 0.9), (2, 0.98), (3, 0.99)], [(1, 0.9), (2, 0.97)], [(1, 0.98)]
    history = [(epoch, 2.0, accuracy) for epoch, accuracy in first + never + third]
    all_three, one = benchmark.compare({QUICK: history, LIMIT: history[3:5]})
    facts = "runs", "arrived", "epochs_to_target", "seconds_to_target", "run_epochs", "run_seconds"
    assert [all_three[fact] for fact in facts] == [3, 2, 1.5, 3.0, 2, 4.0]
    assert all_three["run_accuracy"] == pytest.approx((0.99 + 0.97 + 0.98) / 3)
    assert [one[fact] for fact in facts] == [1, 0, None, None, 2, 4.0]


@pytest.fixture
def pictures(drawn, tmp_path):
    """(a parquet file of drawn digits, their Split)."""
    split = data.Split(*drawn, list("0123456789"))
    benchmark.write_pictures(split, tmp_path / "train.parquet")
    return tmp_path / "train.parquet", split


@pytest.mark.parametrize("name", benchmark.LOOPS)
def test_every_loop_trains(name, pictures, device):
    file, split = pictures
    loop = benchmark.LOOPS[name].function(file, split.to(device), split.to(device), device)
    epochs, accuracies = zip(*itertools.islice(loop, 4), strict=True)
    assert epochs == (1, 2, 3, 4)
    assert accuracies[-1]() == 0 if name == LIMIT else accuracies[-1]() > 0.3


def test_the_pictures_of_the_tutorials_are_the_images(pictures):
    file, split = pictures
    for dataset in benchmark.Pictures(file), benchmark.BatchedPictures(file):
        (images, labels), *_ = torch.utils.data.DataLoader(dataset, batch_size=600)
        assert torch.equal(images, data.to_float(split.images))
        assert torch.equal(labels, split.labels)


def test_the_tables(run, tmp_path, dataset, monkeypatch):
    settings = {"ROUNDS": 1, "PROCESS_ROUNDS": 1, "TARGET": 0.05}
    settings |= {"LOOPS": {name: benchmark.LOOPS[name] for name in (QUICK, LIMIT)}}
    settings |= {"GROWTH": (600, 1200), "new_process": lambda: ThreadPoolExecutor(1)}  # faster
    for name, value in settings.items():
        monkeypatch.setattr(benchmark, name, value)
    code, out, err = run(benchmark.main, "--dataset", "digits", "--device", "cpu", "--json")
    assert code == 0, err
    *shown, summary = out.splitlines()
    loops, processes, growth = (json.loads(summary)[k] for k in ("loops", "processes", "growth"))

    def assert_shown(name, number):
        assert any(name in line and number in line for line in shown)

    quick, limit = loops
    assert [row["loop"] for row in loops] == [QUICK, LIMIT]
    assert [(row["n"], row["runs"], row["arrived"]) for row in loops] == [(4, 1, 1), (4, 1, 0)]
    way = f"{quick['epochs_to_target']:g}, {quick['seconds_to_target']:.2f}"
    assert_shown(QUICK, f"  {way} (1 of 1)")
    assert_shown(QUICK, f"  4, {quick['run_seconds']:.2f}, {quick['run_accuracy']:.2%}")
    assert_shown(LIMIT, "  - (0 of 1)")
    for row in loops:
        assert row["times_quick"] == row["seconds"] / quick["seconds"] > 0
        assert row["share_of_limit"] == limit["seconds"] / row["seconds"]
        assert_shown(row["loop"], f"{row['seconds']:.3f}")
    assert [row["n"] for row in processes] == [1] * 6
    for row in processes:
        assert_shown(row["process"], f"{row['seconds']:.2f}")
    for row, count in zip(growth, (600, 1200), strict=True):
        assert row["images"] == count
        assert_shown(f"{count:,}", f"{row['megabytes']:.0f}")
    assert not list(tmp_path.glob("*.pt"))


def test_workers_start_as_they_do_in_any_script_and_a_process_that_ends_is_noticed():
    with benchmark.new_process() as process:
        method = process.submit(multiprocessing.get_start_method).result()
        assert method == multiprocessing.get_start_method()
        with pytest.raises(BrokenProcessPool):
            process.submit(os._exit, 3).result()


@pytest.mark.parametrize("error", [BrokenProcessPool(), subprocess.CalledProcessError(3, "x.py")])
def test_a_process_that_fails_is_a_sentence(run, dataset, monkeypatch, error):
    monkeypatch.setattr(benchmark, "run_loops", mock.Mock(side_effect=error))
    code, _, err = run(benchmark.main, "--dataset", "digits", "--device", "cpu")
    assert code == 1 and err.startswith("benchmark.py: ") and err.count("\n") == 1


def test_without_scikit_learn_there_is_a_sentence(run, monkeypatch):
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    code, _, err = run(benchmark.main)
    assert code == 2 and "scikit-learn" in err
