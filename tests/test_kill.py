"""Runs that are killed (kill -9) at random moments, and runs that work at the same time.

Two hundred kills: KILLS=201 .venv/bin/python -m pytest tests/test_kill.py
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from PIL import Image

import analysis
import data
import files
import train
from model import load_checkpoint

KILLS = int(os.environ.get("KILLS", 6))
CHECKPOINT = Path("checkpoint.pt")
TRAIN = "import cli, train; train.SAVE_EVERY = 0; print('ready', flush=True); cli.run(train.main)"
DECODE = "import data, datasets; print('ready', flush=True); data.load('digits', 'train')"
ANALYSE = """
import analysis, cli, sys
print("ready", flush=True)
while True:
    for checkpoint in ("one.pt", "two.pt"):
        sys.argv = ["analysis.py", "--checkpoint", checkpoint]
        cli.run(analysis.main)
"""


def start(code, *flags):
    """A process that has done its imports; its temporary files go to the folder tmp."""
    Path("tmp").mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, flags)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": "tmp"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def kill(seconds, code, *flags, after=None):
    """Start a process and kill it in some seconds after its imports, or after a file is there."""
    process = start(code, *flags)
    while after and not after.exists():
        assert process.poll() is None
    time.sleep(random.uniform(0, seconds))
    process.kill()
    process.communicate()


def leftovers():
    return [path for path in Path().rglob(f"{files.PREFIX}*")]


def test_killed_in_training_it_goes_on_to_the_same_weights(run, dataset):
    epochs = 100 * KILLS
    flags = ["--dataset", "digits", "--batch-size", 100, "--epochs", epochs]
    assert run(train.main, *flags)[0] == 0
    whole, checkpoint = load_checkpoint(CHECKPOINT)
    CHECKPOINT.unlink()
    done = 0
    for _ in range(KILLS // 3):
        kill(0.5, TRAIN, *(["--resume"] if done else flags), after=CHECKPOINT)
        before, done = done, load_checkpoint(CHECKPOINT)[1].epoch
        assert before <= done
        assert len(leftovers()) <= 1
    assert 0 < done < epochs
    assert run(train.main, "--resume")[0] == 0
    assert leftovers() == []
    weights = load_checkpoint(CHECKPOINT)[1].weights
    assert all(torch.equal(weights[name], tensor) for name, tensor in checkpoint.weights.items())


def test_killed_in_decoding_it_leaves_a_whole_cache_or_none(dataset, drawn):
    for _ in range(KILLS // 3):
        kill(0.4, DECODE)
        assert len(leftovers()) <= 2  # of one run: in tmp, and beside the cache
        for path in Path(".cache").glob("*.npz"):
            _, fingerprint = data._identify("digits")
            assert torch.equal(data._read_cache(path, fingerprint).images, drawn[0][:500])
            path.unlink()
    start(DECODE).communicate()
    assert leftovers() == []


def test_killed_in_the_analysis_it_leaves_whole_pictures(run, dataset):
    for seed, path in enumerate(("one.pt", "two.pt")):
        flags = ("--dataset", "digits", "--epochs", 2, "--seed", seed, "--checkpoint", path)
        assert run(train.main, *flags)[0] == 0
    for _ in range(KILLS // 3):
        kill(1, ANALYSE)
        for path in Path("misclassified_samples").glob("*.png"):
            with Image.open(path) as picture:
                picture.load()
        assert len(leftovers()) <= 1
    time.sleep(1)  # what is younger may be in use
    assert run(analysis.main, "--checkpoint", "one.pt")[0] == 0
    assert leftovers() == [] and len(list(Path("misclassified_samples").iterdir())) == 11


# Several at once.


def test_two_trainings_save_to_one_path_and_every_reader_sees_whole_files(run, dataset):
    flags = ["--dataset", "digits", "--epochs", 10**6]
    both = [start(TRAIN, *flags, "--seed", seed) for seed in (0, 1)]
    while not CHECKPOINT.exists():
        time.sleep(0.01)
    seen, end = set(), time.monotonic() + 60
    while len(seen) < 20 or {seed for seed, _ in seen} != {0, 1}:
        _, checkpoint = load_checkpoint(CHECKPOINT)
        seen.add((checkpoint.seed, checkpoint.epoch))
        assert time.monotonic() < end
    assert run(analysis.main)[0] == 0
    for process in both:
        process.terminate()
        process.communicate()
        assert process.returncode == 130
    assert leftovers() == []


def test_first_runs_decode_one_dataset_at_the_same_time(dataset, drawn):
    together = [start(DECODE) for _ in range(3)]
    for process in together:
        process.communicate()
        assert process.returncode == 0
    (path,) = Path(".cache").iterdir()
    assert torch.equal(data.load("digits", "train").images, drawn[0][:500])
    assert leftovers() == []


# Files of a run that was killed, and of one that lives.


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_only_what_nobody_holds_is_removed(make, monkeypatch):
    with files._temporary(Path(), make) as in_use:
        dead = Path(f"{files.PREFIX}dead")
        make(dead)
        other = Path("not-ours")
        make(other)
        monkeypatch.setattr(files.time, "time", lambda: dead.stat().st_ctime + 0.5)
        files._remove_leftovers(Path())
        assert dead.exists()  # it might be another run's that is about to lock it
        monkeypatch.setattr(files.time, "time", lambda: dead.stat().st_ctime + 2)
        with files.replacing(Path("result")) as file:
            file.write(b"x")
        assert not dead.exists() and other.exists() and in_use.exists()
    assert not in_use.exists()
