"""Runs that are killed (kill -9) at random moments, and runs that work at the same time.

Two hundred kills: KILLS=201 .venv/bin/python -m pytest tests/test_kill.py
"""

import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import analyse_for_ever, decode, run_train, start, wait_for

import analysis
import data
import train
from model import load_checkpoint
from plumbing import files

KILLS = int(os.environ.get("KILLS", 6)) // 3  # of each of three kinds of work
CHECKPOINT = Path("checkpoint.pt")


def kill(seconds, work, *flags, after):
    """Start a process and kill it within some seconds after something else than now is the case."""
    before = after()
    process = start(work, *flags)
    wait_for(lambda: after() != before, process)
    time.sleep(random.uniform(0, seconds))
    process.kill()
    process.join()


def leftovers():
    return [path for path in Path().rglob(f"{files.PREFIX}*")]


def let_two_days_pass(paths):
    for path in paths:
        os.utime(path, (time.time() - 2 * 86400,) * 2)


def times(folder, names):
    """When some files were written."""
    return {path.name: path.stat().st_mtime_ns for path in Path(folder).glob(names)}


def test_killed_in_training_it_goes_on_to_the_same_weights(run, dataset):
    epochs = 60 * KILLS
    flags = ["--dataset", "digits", "--batch-size", 100, "--epochs", epochs]
    assert run(train.main, *flags)[0] == 0
    _, checkpoint = load_checkpoint(CHECKPOINT)
    CHECKPOINT.unlink()
    done = 0
    for kills in range(1, KILLS + 1):
        kill(0.1, run_train, *flags, after=lambda: times(".", CHECKPOINT.name))
        previous, done = done, load_checkpoint(CHECKPOINT)[1].epoch
        assert previous < done < epochs and len(leftovers()) <= kills
        flags = ["--resume"]
    let_two_days_pass(leftovers())
    assert run(train.main, "--resume")[0] == 0
    assert leftovers() == []
    weights = load_checkpoint(CHECKPOINT)[1].weights
    assert all(torch.equal(weights[name], tensor) for name, tensor in checkpoint.weights.items())


def test_killed_in_decoding_it_leaves_a_whole_cache_or_none(dataset, drawn):
    for kills in range(1, KILLS + 1):
        before = len(leftovers())
        kill(0.3, decode, after=lambda: len(leftovers()))
        caches = list(Path(".cache").glob("*.npz"))
        assert before < len(leftovers()) + len(caches) <= before + 2
        for path in caches:
            images = torch.from_numpy(np.load(path)["images"])
            assert torch.equal(images, drawn[0][500:] if "test" in path.name else drawn[0][:500])
            path.unlink()
        assert len(leftovers()) <= 2 * kills  # in tmp, and beside the cache
    let_two_days_pass(leftovers())
    start(decode).join()
    assert leftovers() == []


def test_killed_in_the_analysis_it_leaves_whole_pictures(run, dataset):
    for seed, path in enumerate(("one.pt", "two.pt")):
        flags = ("--dataset", "digits", "--epochs", 2, "--seed", seed, "--checkpoint", path)
        assert run(train.main, *flags)[0] == 0
    folder = Path("misclassified_samples")
    for kills in range(1, KILLS + 1):
        kill(0.3, analyse_for_ever, after=lambda: times(folder, "0*.png"))
        for path in folder.glob("*.png"):
            with Image.open(path) as picture:
                picture.load()
        if (folder / "index.html").exists():
            assert (folder / "index.html").read_text().endswith("</html>\n")
        assert len(leftovers()) <= kills
    let_two_days_pass(leftovers())
    assert run(analysis.main, "--checkpoint", "one.pt")[0] == 0
    assert leftovers() == [] and len(list(folder.iterdir())) == 15


# Several at once.


def test_two_trainings_save_to_one_path_and_every_reader_sees_whole_files(run, dataset):
    flags = ["--dataset", "digits", "--epochs", 10**6]
    both = [start(run_train, *flags, "--seed", seed) for seed in (0, 1)]
    wait_for(CHECKPOINT.exists)
    seen = set()

    def both_were_seen():
        _, checkpoint = load_checkpoint(CHECKPOINT)
        seen.add((checkpoint.seed, checkpoint.epoch))
        return len(seen) >= 20 and {seed for seed, _ in seen} == {0, 1}

    wait_for(both_were_seen)
    assert run(analysis.main)[0] == 0
    for process in both:
        process.terminate()
        process.join()
        assert process.exitcode == 130
    assert leftovers() == []


def test_first_runs_decode_one_dataset_at_the_same_time(dataset, drawn):
    together = [start(decode) for _ in range(3)]
    for process in together:
        process.join()
        assert process.exitcode == 0
    assert len(list(Path(".cache").iterdir())) == 2
    for split, images in ("train", drawn[0][:500]), ("test", drawn[0][500:]):
        assert torch.equal(data.load("digits", split).images, images)
    assert leftovers() == []


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_only_what_is_ours_and_old_is_removed(make):
    ours, other, young = (Path(name) for name in (f"{files.PREFIX}1", "other", f"{files.PREFIX}2"))
    for path in (ours, other, young):
        make(path)
    let_two_days_pass([ours, other])  # The young one may be another run's.
    with files.replacing(Path("result")) as file:
        file.write(b"x")
    assert not ours.exists() and other.exists() and young.exists()
