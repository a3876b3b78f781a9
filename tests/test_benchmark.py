"""The benchmark, and what it rests on: a loop that waits for nothing, in bounded memory."""

import itertools
import json
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import benchmark
import data
import train
from model import MLP
from plumbing.optimizer import Adam
from recipes import RECIPES


class Transfers(TorchDispatchMode):
    """Counts the tensors that come to a device."""

    def __init__(self, device):
        super().__init__()
        self.device, self.count = device, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [t for t in args if torch.is_tensor(t)]
        if torch.is_tensor(result) and result.device.type == self.device and tensors:
            self.count += all(t.device.type != self.device for t in tensors)
        return result


@pytest.mark.parametrize("recipe", RECIPES)
def test_within_an_epoch_nothing_is_read_back_and_nothing_moves(recipe):
    # The device "meta" computes shapes alone: whoever asks it for a number gets an error.
    steps, transfers = [], []
    drawn = RECIPES[recipe].drawn
    for count in 1024, 1024, 4096:  # the first time, constants move
        count += data.POOL * drawn
        images, labels = torch.zeros(count, 28, 28, dtype=torch.uint8), torch.zeros(count).long()
        model = MLP(RECIPES[recipe].deslant).to("meta")
        split = data.Split(images, labels, []).to("meta")
        rates = []
        optimizer = Adam(model, RECIPES[recipe].beta1, RECIPES[recipe].beta2)
        optimizer.step = lambda rate, step=optimizer.step, rates=rates: (
            step(rate),
            rates.append(rate),
        )
        with Transfers("meta") as mode, pytest.raises(RuntimeError, match="item"):
            next(train.train(model, optimizer, split, RECIPES[recipe], seed=0))
        steps.append(len(rates))
        transfers.append(mode.count)
    expected = [math.ceil((count + drawn) / 512) for count in (1024, 4096)]
    assert steps[1:] == expected  # the loss is asked for after the last step
    assert 0 < transfers[1] == transfers[2]


def test_memory_grows_with_the_images_alone():
    for count in 60_000, 240_000:
        call = f"import benchmark; benchmark.grow({count}, 'cpu')"
        output = benchmark.run_process("-c", call, folder=".")[1]
        _, _, megabytes = json.loads(output)
        assert 784 * count / 1e6 <= megabytes <= 784 * count / 1e6 + 200


def test_on_a_gpu_its_own_memory_counts(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: (str(device), 7))
    assert benchmark.peak_memory(torch.device("cuda", 1)) == ("cuda:1", 7)
    assert benchmark.peak_memory(torch.device("cpu")) > 2**20


def test_the_way_to_the_target_is_counted_anew_in_each_run():
    def arrivals(*accuracies):
        return [*benchmark.arrivals([(epoch, 1.0, accuracy) for epoch, accuracy in accuracies])]

    first, never, third = [(1, 0.9), (2, 0.98), (3, 0.99)], [(1, 0.9), (2, 0.97)], [(1, 0.98)]
    assert arrivals(*first, *never, *third) == [(2, 2.0), (1, 1.0)]
    assert arrivals(*never) == []


@pytest.mark.parametrize("name", benchmark.LOOPS)
def test_every_loop_trains(name, drawn, tmp_path, device):
    split = data.Split(*drawn, list("0123456789"))
    benchmark.write_table(split, tmp_path / "images" / "train.parquet")
    table = benchmark.open_table(tmp_path / "images")
    loop = benchmark.LOOPS[name](table, split.to(device), split.to(device), device)
    epochs, accuracies = zip(*itertools.islice(loop, 4), strict=True)
    assert epochs == (1, 2, 3, 4)
    assert accuracies[-1]() == 0 if name == "the matrix products alone" else accuracies[-1]() > 0.3


def test_the_tables(run, tmp_path, dataset, monkeypatch):
    names = ["train.py, recipe quick", "the matrix products alone"]
    monkeypatch.setattr(benchmark, "LOOPS", {name: benchmark.LOOPS[name] for name in names})
    monkeypatch.setattr(benchmark, "GROWTH", (600, 1200))
    numbers = {"ROUNDS": 2, "EPOCHS": 2, "PROCESS_ROUNDS": 1, "TARGET": 0.05}
    for name, number in numbers.items():
        monkeypatch.setattr(benchmark, name, number)
    code, out, err = run(benchmark.main, "--dataset", "digits", "--device", "cpu", "--json")
    assert code == 0, err
    *shown, summary = out.splitlines()
    summary = json.loads(summary)
    loops, processes, growth = (summary[key] for key in ("loops", "processes", "growth"))
    assert [row["loop"] for row in loops] == names
    quick, limit = loops
    assert [(row["n"], row["runs"], row["arrived"]) for row in loops] == [(4, 1, 1), (4, 1, 0)]
    assert f"{quick['epochs_to_target']:g}, {quick['seconds_to_target']:.2f} (1 of 1)" in out
    assert "  - (0 of 1)" in out
    for row in loops:
        assert row["seconds"] > 0
        assert row["times_quick"] == row["seconds"] / quick["seconds"]
        assert row["share_of_limit"] == limit["seconds"] / row["seconds"]
        assert any(row["loop"] in line and f"{row['seconds']:.3f}" in line for line in shown)
    for row in processes:
        assert any(row["process"] in line and f"{row['seconds']:.2f}" in line for line in shown)
    assert [row["images"] for row in growth] == [600, 1200]
    assert [row["n"] for row in processes] == [1] * len(processes)
    assert any("first run" in row["process"] for row in processes)
    assert not list(tmp_path.glob("*.pt"))


def test_the_pictures_of_the_tutorials_are_the_images(drawn, tmp_path):
    split = data.Split(*drawn, list("0123456789"))
    benchmark.write_table(split, tmp_path / "images" / "train.parquet")
    table = benchmark.open_table(tmp_path / "images")
    for dataset in benchmark.Pictures(table), benchmark.BatchedPictures(table):
        (images, labels), *_ = torch.utils.data.DataLoader(dataset, batch_size=600)
        assert torch.equal(images, data.to_float(split.images))
        assert torch.equal(labels, split.labels)


def test_without_scikit_learn_there_is_a_sentence(run, monkeypatch):
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    assert run(benchmark.main) == (
        2,
        "",
        "benchmark.py: scikit-learn is missing, `make benchmark` installs it\n",
    )
