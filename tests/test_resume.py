"""Runs that are cut short and go on, bit for bit."""

import contextlib
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_split
from processes import run_train, start, wait_for

import recipes
import train
from model import load_checkpoint
from plumbing import checkpoint as checkpoints
from plumbing import cli, files, resume

FLAGS = ["--dataset", "digits", "--batch-size", 100, "--seed", 3]  # 5 steps an epoch
CHECKPOINT = Path("checkpoint.pt")


def state():
    """Of the checkpoint, what the resumed run must have in common with the uninterrupted one."""
    _, checkpoint = load_checkpoint(CHECKPOINT)
    weights = {name: tensor.numpy().tobytes() for name, tensor in checkpoint.weights.items()}
    history = [{**entry, "seconds": 0} for entry in checkpoint.history]
    return {**vars(checkpoint), "weights": weights, "history": history}


@pytest.fixture
def cut(monkeypatch):
    """cut(step): Ctrl-C in that step of the next run."""

    def cut(at):
        step, steps = train.Adam.step, iter(range(at + 1))

        def interrupted(*args):
            if next(steps) == at:
                monkeypatch.setattr(train.Adam, "step", step)
                raise KeyboardInterrupt
            return step(*args)

        monkeypatch.setattr(train.Adam, "step", interrupted)

    return cut


@pytest.fixture
def unfinished(run, dataset, cut):
    """The bytes of the checkpoint of a run that was cut in the second of its four epochs."""
    cut(7)
    assert run(train.main, *FLAGS, "--epochs", 4)[0] == 130
    return CHECKPOINT.read_bytes()


@pytest.fixture
def refused(run):
    """refused(*flags): the sentence with which train.py refuses to resume, and changes nothing."""

    def refused(*flags):
        before = CHECKPOINT.exists() and CHECKPOINT.read_bytes()
        code, _, err = run(train.main, "--resume", *flags)
        assert code == 2 and err.count("\n") == 1
        assert before == (CHECKPOINT.exists() and CHECKPOINT.read_bytes())
        return err

    return refused


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_wherever_it_is_cut_it_ends_with_the_same_weights(run, dataset, cut, recipe, device):
    drawn = 50 if recipes.RECIPES[recipe].drawn else 0
    pool = ["--drawn", drawn, "--nothing", drawn]
    flags = [*FLAGS, "--recipe", recipe, "--epochs", 4, *pool, "--device", device]
    steps = (500 + 2 * drawn) // 100  # an epoch
    assert run(train.main, *flags)[0] == 0
    whole = state()
    for step in (6, 9, 10, 13, 19):
        CHECKPOINT.unlink()
        cut(step)
        code, _, err = run(train.main, *flags)
        assert code == 130 and f"{step // steps} of 4 epochs are saved" in err
        assert err.endswith("make train RESUME=1 CHECKPOINT=checkpoint.pt\n")
        code, out, err = run(train.main, "--resume", "--device", device)
        assert (code, err) == (0, "") and f"resuming    checkpoint.pt after {step // steps}" in out
        assert state() == whole


def test_a_resumed_run_may_be_cut_again(run, dataset, cut):
    flags = [*FLAGS, "--epochs", 4]
    run(train.main, *flags)
    whole = state()
    CHECKPOINT.unlink()
    cut(7)
    run(train.main, *flags)
    for step, done in ((2, 1), (8, 2), (0, 2)):  # in an epoch of its own before that is over, too
        cut(step)
        code, _, err = run(train.main, "--resume")
        assert code == 130 and f"{done} of 4 epochs are saved" in err
    assert run(train.main, "--resume")[0] == 0 and state() == whole


@pytest.fixture
def threads(monkeypatch):
    """The number of threads that PyTorch uses, which stays the same after the test."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_a_resumed_run_takes_as_many_threads_as_before_or_as_told(
    run, dataset, cut, threads, monkeypatch
):
    def header(*flags):
        return run(train.main, *flags)[1].split("\n")[0]

    assert f"({threads} threads)" in header(*FLAGS, "--epochs", 1)
    more = threads + 2
    for processors, flags, used in (
        (more, [], more),
        (more, ["--threads", threads + 1], threads + 1),
        (threads, [], threads),  # a smaller machine
    ):
        monkeypatch.setattr(os, "cpu_count", lambda count=processors: count)
        cut(7)
        assert f"({more} threads)" in header(*FLAGS, "--epochs", 2, "--threads", more)
        torch.set_num_threads(threads)
        assert f"({used} threads)" in header("--resume", *flags)
        assert load_checkpoint(CHECKPOINT)[1].settings["threads"] == used


def test_in_the_first_epoch_nothing_is_saved(run, dataset, cut):
    CHECKPOINT.write_text("mine")
    cut(3)
    code, _, err = run(train.main, *FLAGS)
    assert code == 130 and "nothing is saved" in err and err.count("\n") == 1
    assert CHECKPOINT.read_text() == "mine"


def test_a_process_that_is_ended_can_go_on(run, dataset):
    flags = [*FLAGS, "--epochs", 120]
    assert run(train.main, *flags)[0] == 0
    whole = state()
    for end in (*cli.SIGNALS, signal.SIGKILL):
        for file in CHECKPOINT, Path("out"), Path("err"):
            file.unlink(missing_ok=True)
        process = start(run_train, *flags)
        wait_for(lambda: Path("out").exists() and "\n   20  " in Path("out").read_text(), process)
        os.kill(process.pid, end)
        if end != signal.SIGKILL:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, end)  # a second one loses nothing
        process.join(60)
        assert process.exitcode == (-end if end == signal.SIGKILL else 130)
        assert end == signal.SIGKILL or "make train RESUME=1" in Path("err").read_text()
        assert run(train.main, "--resume")[0] == 0
        assert state() == whole
    mine = {path.name for path in Path().iterdir() if not path.name.startswith(files.PREFIX)}
    assert mine == {".cache", "checkpoint.pt", "digits", "tmp", "out", "err"}


# A new run with the weights of another.


@pytest.fixture
def trained(run, dataset):
    """A trained network that takes moments out, as a Checkpoint; its file is start.pt."""
    flags = [*FLAGS, "--epochs", 3, "--moments", 2, "--checkpoint", "start.pt"]
    assert run(train.main, *flags)[0] == 0
    return load_checkpoint(Path("start.pt"))[1]


def test_a_run_starts_from_the_weights_of_another_and_says_so(run, trained, monkeypatch):
    frozen = ["--start", "start.pt", "--learning-rate", 1e-9]  # less than a weight's last bits
    code, out, err = run(train.main, *FLAGS, *frozen, "--epochs", 2)
    assert (code, err) == (0, "") and f"start       start.pt: {trained.summary}\n" in out
    _, checkpoint = load_checkpoint(CHECKPOINT)
    for name, tensor in trained.weights.items():
        assert torch.allclose(checkpoint.weights[name], tensor, atol=1e-6)
    # Of the start are its weights, and what these have learnt to see; the rest is of this run.
    settings = {**trained.settings, "epochs": 2, "learning_rate": 1e-9, "earlier_epochs": 3}
    assert checkpoint.settings == settings and checkpoint.settings["moments"] == 2
    assert "2 epochs of recipe accurate after 3 of another run" in checkpoint.summary

    # The epochs are counted on, and with them the distortions go on.
    seen = []
    batches = train.data.Batches
    monkeypatch.setattr(train.data, "Batches", lambda *a: seen.append(a[2]) or batches(*a))
    again = ["--start", CHECKPOINT, "--epochs", 2, "--checkpoint", "again.pt"]
    assert run(train.main, *FLAGS, *again)[0] == 0
    assert seen == [6, 7]
    assert load_checkpoint(Path("again.pt"))[1].settings["earlier_epochs"] == 5


def test_things_that_lie_otherwise_in_the_images_than_in_those_of_the_start(run, trained, drawn):
    flags = ["--start", "start.pt", "--epochs", 1, "--dataset"]
    assert "--save-input" not in run(train.main, *flags, "digits")[1]
    for split in ("train", "test"):
        small = [np.pad(image[::2, ::2], 7) for image in drawn[0].numpy()]
        write_split(Path("small") / f"{split}.parquet", small, drawn[1].tolist())
    code, out, _ = run(train.main, *flags, "small")
    assert code == 0 and "advice" in out and "--save-input" in out


def test_a_run_with_a_start_is_resumed_like_any_other(run, trained, cut):
    flags = [*FLAGS, "--start", "start.pt", "--epochs", 4]
    run(train.main, *flags)
    whole = state()
    CHECKPOINT.unlink()
    cut(12)
    assert run(train.main, *flags)[0] == 130
    Path("start.pt").unlink()  # its weights mattered before the first epoch that is saved
    assert run(train.main, "--resume")[0] == 0 and state() == whole


def test_each_seed_has_the_same_start(run, trained):
    flags = [*FLAGS[:4], "--start", "start.pt", "--epochs", 2]
    assert run(train.main, *flags, "--seeds", "3-4")[0] == 0
    assert run(train.main, *flags, "--seed", 4)[0] == 0
    each = [load_checkpoint(Path(f"checkpoint{end}.pt"))[1].weights for end in ("", "-4", "-3")]
    assert all(torch.equal(each[0][name], each[1][name]) for name in each[0])
    assert not torch.equal(each[0]["layers.1.weight"], each[2]["layers.1.weight"])


@pytest.mark.parametrize(
    "flags, named",
    [
        (["--resume"], "--resume"),
        (["--start", "none.pt"], "none.pt"),
        (["--moments", 0], "--moments 0"),
        (["--dataset", "others"], "a, b, c"),
        (["--checkpoint", "../{}/start.pt"], "--start start.pt"),
        (["--checkpoint", "start.pt", "--seeds", 2, "--start", "start-1.pt"], "start-1.pt"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(run, trained, drawn, flags, named):
    for split in ("train", "test"):
        rows = list(drawn[0].numpy()), drawn[1].tolist()
        write_split(Path("others") / f"{split}.parquet", *rows, names="abcdefghij")
    start = Path("start.pt").read_bytes()
    Path("start-1.pt").write_bytes(start)
    flags = [str(flag).format(Path.cwd().name) for flag in flags]
    code, _, err = run(train.main, *FLAGS[:2], "--start", "start.pt", *flags)
    assert code == 2 and named in err and err.count("\n") == 1
    assert not CHECKPOINT.exists()
    assert Path("start.pt").read_bytes() == Path("start-1.pt").read_bytes() == start


# What is refused, and leaves the checkpoint as it is.


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--epochs", 9], "--epochs 4, not --epochs 9"),
        (["--seed", 5, "--epochs", 9], "--epochs 4 --seed 3, not --epochs 9 --seed 5"),
        (["--recipe", "robust"], "--recipe accurate, not --recipe robust"),
        (["--batch-size", 50], "--batch-size 100, not --batch-size 50"),
        (["--rotation", 7], "--rotation 20, not --rotation 7.0"),
    ],
)
def test_other_settings_are_refused(run, unfinished, refused, flags, sentence):
    assert sentence in refused(*flags)
    run_on = ["--resume", "--seed", 3, "--recipe", "accurate", "--device", "cpu"]  # as they were
    assert run(train.main, *run_on)[0] == 0


def test_a_finished_run_says_so_and_changes_nothing(run, dataset, refused):
    assert str(CHECKPOINT) in refused()  # there is no run yet
    run(train.main, *FLAGS, "--epochs", 2)
    before = CHECKPOINT.read_bytes()
    code, out, err = run(train.main, "--resume", "--json")
    assert (code, err) == (0, "") and "2 epochs of recipe accurate" in out
    assert json.loads(out.splitlines()[-1])["epochs"] == 2
    assert "--epochs 2, not --epochs 3" in refused("--epochs", 3)
    assert CHECKPOINT.read_bytes() == before


@pytest.mark.parametrize(
    "name, value",
    [
        ("layers.1.weight.step", None),
        ("layers.3.bias.exp_avg", torch.zeros(9)),
        ("layers.1.bias.exp_avg", 5),
        ("layers.3.bias.exp_avg_sq", torch.full((10,), torch.nan)),
        ("layers.1.bias.step", torch.tensor(4.0)),
        ("layers.3.weight.exp_avg", ...),  # missing
    ],
)
def test_an_optimizer_that_does_not_fit_is_named(unfinished, refused, name, value):
    content = torch.load(CHECKPOINT, weights_only=True)
    content["optimizer"][name] = value
    if value is ...:
        del content["optimizer"][name]
    torch.save(content, CHECKPOINT)
    assert f"its {name} " in refused()


def test_another_dataset_of_the_same_name_is_refused(dataset, unfinished, refused, drawn):
    images, labels = list(drawn[0].numpy()), drawn[1].tolist()
    write_split(dataset / "train.parquet", images[:350], labels[:350])
    assert "350 images" in refused()
    for split in ("train", "test"):
        write_split(dataset / f"{split}.parquet", images[:500], labels[:500], names="abcdefghij")
    assert "list of classes" in refused()
    for split in ("train", "test"):
        write_split(dataset / f"{split}.parquet", [255 - x for x in images[:500]], labels[:500])
    assert "way of reading" in refused()
    write_split(dataset / "train.parquet", images[1:501], labels[1:501])
    assert "checksum" in refused()
    write_split(dataset / "train.parquet", images[:50], labels[:50])
    assert "batch size of 100 exceeds the 50 training images" in refused()


def test_a_dataset_that_was_moved_is_known_by_its_images(run, dataset, unfinished):
    dataset.rename("moved")
    code, out, err = run(train.main, "--resume", "--dataset", "moved")
    assert (code, err) == (0, "") and "resuming" in out
    assert load_checkpoint(CHECKPOINT)[1].dataset == "moved"


# When it is saved.


SAVE = checkpoints.save


@pytest.fixture
def saves(monkeypatch):
    """The epochs of the checkpoints that are saved, in a list."""
    epochs = []

    def save(path, checkpoint):
        epochs.append(checkpoint.epoch)
        SAVE(path, checkpoint)

    monkeypatch.setattr(checkpoints, "save", save)
    return epochs


def test_it_is_saved_every_few_seconds_and_at_the_end(run, dataset, saves, monkeypatch):
    run(train.main, *FLAGS, "--epochs", 10)
    assert saves == [10]  # fast epochs write no file each
    saves.clear()
    clock = iter(range(10**6))
    monkeypatch.setattr(resume.time, "perf_counter", lambda: next(clock))
    run(train.main, *FLAGS, "--epochs", 10)
    assert 3 <= len(saves) < 10 and saves[-1] == 10
    _, checkpoint = load_checkpoint(CHECKPOINT)
    assert checkpoint.optimizer == {}  # which only an unfinished run needs


def test_training_goes_on_when_it_cannot_be_saved_for_a_while(run, dataset, monkeypatch):
    monkeypatch.setattr(resume, "SAVE_EVERY", 0)

    def full(path, checkpoint):
        if checkpoint.epoch < 3:
            raise OSError("the disk is full")
        SAVE(path, checkpoint)

    monkeypatch.setattr(checkpoints, "save", full)
    code, _, err = run(train.main, *FLAGS, "--epochs", 3)
    assert code == 0 and err == "train.py: the disk is full; training goes on\n" * 2
    assert load_checkpoint(CHECKPOINT)[1].epoch == 3


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(run, dataset, monkeypatch):
    monkeypatch.setattr(resume, "SAVE_EVERY", 0)
    rates = iter([0.01] * 12 + [float("inf")] * 100)
    monkeypatch.setattr(train.recipes, "learning_rate", lambda *args: next(rates))
    code, _, err = run(train.main, *FLAGS, "--epochs", 6)
    assert code == 1 and "the loss of epoch 3 is nan" in err and "--learning-rate" in err
    assert load_checkpoint(CHECKPOINT)[1].epoch == 2


def test_files_have_the_permissions_of_the_umask(run, dataset):
    before = os.umask(0o027)
    try:
        run(train.main, *FLAGS, "--epochs", 1)
    finally:
        os.umask(before)
    for path in (CHECKPOINT, *Path(".cache").iterdir()):
        assert path.stat().st_mode & 0o777 == 0o640


def test_a_checkpoint_of_an_earlier_version_goes_on(run, dataset, cut):
    flags = [*FLAGS, "--epochs", 4, "--moments", 0]
    run(train.main, *flags)
    whole = state()
    cut(12)
    run(train.main, *flags)
    content = torch.load(CHECKPOINT, weights_only=True)
    content["recipe"] = content.pop("settings")  # as it was called at first
    # Which it did not have.
    for name in ("threads", "validation", "moments", "inverted", "earlier_epochs"):
        del content["recipe"][name]
    content["seed"] = content["recipe"].pop("seed")
    torch.save(content, CHECKPOINT)
    assert run(train.main, "--resume")[0] == 0
    assert state() == whole
