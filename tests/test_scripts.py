"""The scripts through their command lines, from a dataset to pictures."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, write_split
from PIL import Image

import analysis
import data
import draw
import predict
import recipes
import robustness
import train
from model import MLP, evaluate, load_checkpoint
from plumbing.cli import InputError
from plumbing.optimizer import Adam


@pytest.fixture
def trained(run, dataset):
    assert run(train.main, "--dataset", "digits", "--epochs", 2)[0] == 0
    return dataset


def test_train_prints_a_header_a_line_per_epoch_and_a_summary(run, dataset):
    code, out, err = run(train.main, "--dataset", "digits", "--epochs", 3, "--seed", 7, "--json")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    headings = ["device", "dataset", "images", "network", "recipe", "distortion"]
    assert [line.split()[0] for line in lines[:6]] == headings
    assert lines[2:4] == [
        "images      500 training, 100 test",
        "network     784-128-10, 101,770 parameters",
    ]
    table = lines[lines.index("") + 1 :][:4]
    assert [line.split()[0] for line in table] == ["epoch", "1", "2", "3"]
    assert len({len(line) for line in table}) == 1
    summary = json.loads(lines[-1])
    assert lines[0].startswith(f"device      {summary['device']} (")
    model, checkpoint = load_checkpoint(dataset.parent / "checkpoint.pt")
    test = data.load("digits", "test")
    result = evaluate(model, test.images, test.labels)
    assert summary["errors"] == result.errors == checkpoint.history[-1]["errors"]
    assert summary["test_accuracy"] == result.accuracy == checkpoint.test_accuracy
    settings = recipes.RECIPES["accurate"]
    assert settings.batch_size > 500  # images
    settings = replace(settings, epochs=3, batch_size=500, seed=7, threads=torch.get_num_threads())
    assert checkpoint.settings == asdict(settings)
    assert (checkpoint.epoch, checkpoint.seed, checkpoint.dataset) == (3, 7, "digits")
    assert checkpoint.class_names == list("0123456789")


def test_the_seed_decides_weights_and_nothing_else_does(run, dataset):
    weights = []
    for seed, epochs in ((5, 2), (5, 2), (6, 2), (1, 1), (2, 1)):
        run(train.main, "--dataset", "digits", "--epochs", epochs, "--seed", seed)
        weights.append(load_checkpoint(Path("checkpoint.pt"))[1].weights)
    first, second, other, *of_one_step = weights
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    # In one step of all images their order plays no part: the first weights differ, too.
    one, two = of_one_step
    assert all((one[name] - two[name]).abs().mean() > 0.01 for name in one)


def test_the_seed_decides_the_order_of_the_images(dataset):
    split, losses = data.load("digits", "train"), []
    for seed in (1, 1, 2):
        settings = replace(recipes.RECIPES["quick"], epochs=1, batch_size=50, seed=seed)
        torch.manual_seed(0)
        model = MLP()
        losses.append([*train.train(model, Adam(model, 0.9, 0.999), split, settings)])
    assert losses[0] == losses[1] != losses[2]


def test_a_run_for_each_seed_is_the_run_of_that_seed(run, dataset):
    flags = "--dataset", "digits", "--epochs", 2, "--json"
    code, out, err = run(train.main, *flags, "--seeds", "3-5")
    assert (code, err) == (0, "")
    summary = json.loads(out.splitlines()[-1])
    accuracies = [run["test_accuracy"] for run in summary["runs"]]
    assert summary["test_accuracy"] == pytest.approx(np.mean(accuracies))
    assert summary["standard_deviation"] == pytest.approx(np.std(accuracies, ddof=1))
    lines = out.splitlines()
    table = lines[lines.index("") + 1 :][:4]
    assert [line.split()[0] for line in table] == ["seed", "3", "4", "5"]
    assert len({len(line) for line in table}) == 1 and "seeds 3 to 5" in out
    assert json.loads(run(train.main, *flags, "--seed", 4)[1].splitlines()[-1])
    (one, _), (other, checkpoint) = (
        load_checkpoint(Path(name)) for name in ("checkpoint.pt", "checkpoint-4.pt")
    )
    assert torch.equal(one.layers[1].weight, other.layers[1].weight)
    assert checkpoint.seed == 4 and checkpoint.test_accuracy == accuracies[1]
    assert run(train.main, *flags, "--seeds", 2)[0] == 0
    assert {path.name for path in Path().glob("checkpoint*")} == {
        *("checkpoint.pt", "checkpoint-0.pt", "checkpoint-1.pt"),
        *("checkpoint-3.pt", "checkpoint-4.pt", "checkpoint-5.pt"),
    }


def test_validation_images_are_not_trained_on_and_take_the_place_of_the_test_images(run, dataset):
    flags = "--dataset", "digits", "--epochs", 2
    code, out, _ = run(train.main, *flags, "--validation", 100, "--json")
    assert (
        code == 0 and "400 training, 100 validation\n" in out and "of the validation images" in out
    )
    model, checkpoint = load_checkpoint(Path("checkpoint.pt"))
    training = data.load("digits", "train")
    result = evaluate(model, training.images[400:], training.labels[400:])
    assert json.loads(out.splitlines()[-1])["errors"] == result.errors
    assert checkpoint.settings["validation"] == 100
    assert "on digits without its last 100 training images" in checkpoint.summary

    for script in analysis, robustness:
        code, out, _ = run(script.main)
        assert code == 0 and "100 validation images" in out
    assert run(train.main, *flags, "--checkpoint", "whole.pt")[0] == 0
    code, _, err = run(robustness.main, "--checkpoint", "checkpoint.pt", "whole.pt")
    assert code == 2 and "whole.pt is judged by other images than checkpoint.pt" in err
    assert "100 test images" in run(analysis.main, "--dataset", "digits/test.parquet")[1]

    # The same weights as of a dataset that ends there.
    rows = list(training.images[:400].numpy()), training.labels[:400].tolist()
    write_split(Path("fewer/train.parquet"), *rows)
    Path("fewer/test.parquet").write_bytes(Path("digits/test.parquet").read_bytes())
    run(train.main, "--dataset", "fewer", "--epochs", 2)
    fewer, _ = load_checkpoint(Path("checkpoint.pt"))
    assert torch.equal(model.layers[1].weight, fewer.layers[1].weight)
    code, _, err = run(train.main, *flags, "--validation", 500)
    assert code == 2 and "500 validation images leave none of the 500 training images" in err


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_nothing(run, trained):
    before = (trained.parent / "checkpoint.pt").read_bytes()
    code, _, err = run(train.main, "--dataset", "digits", "--learning-rate", "1e38")
    assert code == 1 and "try a lower --learning-rate" in err
    assert (trained.parent / "checkpoint.pt").read_bytes() == before


def test_a_checkpoint_goes_through_a_link_to_its_file(run, dataset):
    link = dataset.parent / "link.pt"
    link.symlink_to("real.pt")
    assert run(train.main, "--dataset", "digits", "--epochs", 1, "--checkpoint", link)[0] == 0
    assert link.is_symlink() and (dataset.parent / "real.pt").is_file()


def test_the_learning_rate_rises_to_the_highest_and_falls_to_zero():
    rates = [recipes.learning_rate(step, 1000, 0.5) for step in range(1000)]
    peak = rates.index(max(rates))
    assert max(rates) == 0.5 and 95 <= peak <= 105
    assert rates[0] == pytest.approx(0.5 / 100) and 0 < rates[-1] < 0.001
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)


def test_a_training_run_learns(run):
    code, out, _ = run(train.main, "--dataset", "synthetic", "--epochs", 3, "--json")
    assert code == 0 and json.loads(out.splitlines()[-1])["test_accuracy"] > 0.8


def test_without_mnist_it_trains_on_drawn_digits_and_says_so(run):
    code, out, err = run(train.main, "--epochs", 1, "--json")
    assert code == 0 and all(line.startswith("getting ylecun/mnist") for line in err.splitlines())
    *_, checkpoint, warning, summary = lines = out.splitlines()
    assert "drawn digits in place of MNIST: dataset 'ylecun/mnist': " in warning
    assert "Hugging Face Hub: cannot be reached" in warning and "DATASET=folder" in warning
    assert lines.count(warning) == 2
    assert lines.index(warning) < lines.index("") and checkpoint == "checkpoint  checkpoint.pt"
    assert lines[1] == "dataset     ylecun/mnist" and lines[2] == warning
    assert lines[3:5] == ["dataset     synthetic", "images      12,000 training, 2,000 test"]
    assert json.loads(summary)["dataset"] == "synthetic"
    assert run(analysis.main)[0] == 0  # on the digits that it was trained on


def test_drawn_digits_in_place_of_mnist_replace_no_other_network(run, trained):
    before = Path("checkpoint.pt").read_bytes()
    code, _, err = run(train.main, "--epochs", 1)
    assert code == 2 and "holds a run on digits, which is not to be lost: name the dataset" in err
    assert Path("checkpoint.pt").read_bytes() == before
    assert run(train.main, "--epochs", 1, "--checkpoint", "new.pt")[0] == 0
    assert run(train.main, "--epochs", 1, "--checkpoint", "new.pt")[0] == 0  # of drawn digits, too


def test_only_mnist_that_cannot_be_reached_is_replaced(run, monkeypatch):
    for flags in (["--dataset", ""], ["--dataset", data.MNIST]):  # named, so never replaced
        assert run(train.main, *flags, "--epochs", 1)[0] == 2

    def damaged(*args):
        raise InputError("its checksums are not the known ones")

    monkeypatch.setattr(data.sources, "load", damaged)
    code, _, err = run(train.main)
    assert (code, err) == (2, "train.py: its checksums are not the known ones\n")
    assert not Path("checkpoint.pt").exists()


def test_a_second_run_starts_fast_because_it_imports_little(trained):
    code = (
        "import sys, train, analysis; from plumbing import cli;"
        "sys.argv = ['train.py', '--dataset', 'digits', '--epochs', '1']; cli.run(train.main);"
        "sys.argv = ['analysis.py']; cli.run(analysis.main);"
        "print({'datasets', 'torchvision', 'torch._dynamo'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout.splitlines()[-1] == "set()", shown.stderr


# Bad input: one sentence on standard error, exit code 2, and nothing lost.


@pytest.mark.parametrize(
    "flags, sentence",
    [
        *((["--epochs", value], repr(value)) for value in ("0", "-3", "many")),
        (["--batch-size", "1.5"], "'1.5'"),
        (["--batch-size", "501"], "501 exceeds the 500 training images"),
        (["--batch-size", "521", "--drawn", "20"], "521 exceeds the 520 training images"),
        *((["--learning-rate", value], repr(value)) for value in ("nan", "-1", "inf")),
        (["--rotation", "181"], "'181' is not a number from 0 to 180"),
        (["--largest", "0.9"], "'0.9' is not a number from 1 to 10"),
        (["--occlusion", "nan"], "'nan'"),
        *((["--seeds", value], repr(value)) for value in ("1", "7-3", "9" * 20)),
        (["--seeds", "3", "--seed", "1"], "--seeds"),
        (["--seed", "-1"], "'-1' is not a whole number from 0 to 4294967295"),
        (["--recipe", "slow"], "'slow'"),
        *((["--device", name], f"--device {name}") for name in ("meta", "nonsense")),
        (["--dataset", "../nowhere"], "'../nowhere'"),
        *((["--checkpoint", name], name) for name in ("digits", "pipe", "x" * 300)),
        (["--checkpoint", "checkpoint.pt/c.pt"], "checkpoint.pt/c.pt"),
        (["--checkpoint", ".", "--seeds", "2"], "regular file"),
        *((["--checkpoint", "", *more], "--checkpoint") for more in ([], ["--seeds", "2"])),
        (["--turbo"], "--turbo"),
        pytest.param(
            ["--device", "cuda"],
            "--device cuda is not available",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is available"),
        ),
    ],
)
def test_bad_input_to_train(run, trained, flags, sentence):
    before = (trained.parent / "checkpoint.pt").read_bytes()
    os.mkfifo("pipe")
    code, out, err = run(train.main, "--dataset", "digits", *flags)
    assert code == 2 and sentence in err
    assert err.startswith("train.py: ") and err.count("\n") == 1
    assert (trained.parent / "checkpoint.pt").read_bytes() == before


def test_a_batch_may_be_as_large_as_an_epoch_with_its_drawn_digits(run, dataset):
    flags = "--dataset", "digits", "--epochs", 1, "--drawn", 20, "--batch-size", 520
    assert run(train.main, *flags)[0] == 0
    assert load_checkpoint(Path("checkpoint.pt"))[1].settings["batch_size"] == 520


def test_debug_shows_the_traceback_of_a_sentence():
    fail = "import sys; from plumbing import cli; cli.run(lambda: cli.path('~').mkdir())"
    for debug in "", "0", "1":
        shown = subprocess.run(
            [sys.executable, "-c", fail],
            env=os.environ | {"DEBUG": debug},
            capture_output=True,
            text=True,
        )
        lines = shown.stderr.splitlines()
        assert shown.returncode == 1 and lines[-1].startswith("-c: [Errno 17] File exists")
        assert (lines[0].startswith("Traceback"), len(lines) > 1) == (debug == "1",) * 2


def test_a_closed_pipe_ends_a_run_with_a_sentence(trained):
    command = [sys.executable, str(ROOT / "train.py"), "--dataset", "digits", "--epochs", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not process.stdout.readline().lstrip().startswith("1 "):
        pass
    process.stdout.close()
    assert process.wait(60) == 1
    assert " of 100000 epochs are saved, go on with: make train" in process.stderr.read()
    assert load_checkpoint(trained.parent / "checkpoint.pt")[1].settings["epochs"] == 100_000


def test_ctrl_c_while_pytorch_is_imported_shows_no_traceback():
    code = """from plumbing import cli
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here, by nohup
cli.set_up()
try:
    signal.raise_signal(signal.SIGINT)
except BaseException:  # as some libraries do
    pass"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (130, "interrupted\n")
    start = 'from plumbing import cli\n\nif __name__ == "__main__":\n    cli.set_up()\n'
    for script in ROOT.glob("*.py"):
        if "cli.run(main)" in (text := script.read_text()):
            before, set_up, _ = text.partition(start)
            assert set_up and "import" not in before  # before the long imports


def test_a_closed_standard_output_and_one_without_unicode(trained):
    for shell in (">&-", "2>&-", "| cat"):
        shown = subprocess.run(
            f"'{sys.executable}' '{ROOT}/analysis.py' {shell}",
            shell=True,
            env=os.environ | {"PYTHONIOENCODING": "ascii"},
            capture_output=True,
            text=True,
        )
        assert (shown.returncode, shown.stderr) == (0, "")


def test_a_tilde_is_the_home_folder_in_every_flag_that_names_a_file(run, dataset, monkeypatch):
    home = dataset.parent / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (home / "digits").symlink_to(dataset)
    image = data.load("digits", "test").images[0].numpy()
    Image.fromarray(image).save(home / "7.png")
    checkpoint = "--checkpoint", "~/c.pt"
    for main, *flags in (
        (train.main, "--dataset", "~/digits", "--epochs", 2),
        (analysis.main, "--dataset", "~/digits", "--output", "~/out"),
        (robustness.main, "--output", "~/r.png"),
        (draw.main, "--output", "~/d.html"),
        (predict.main, "~/7.png", "--save-input", "~/seen"),
    ):
        assert run(main, *checkpoint, *flags)[0] == 0
    written = {path.name for path in home.iterdir()}
    assert written == {"digits", "7.png", "c.pt", "out", "r.png", "d.html", "seen"}
    assert not Path("~").exists()


def test_a_file_that_is_mounted_by_itself_is_refused_before_training(run, dataset, monkeypatch):
    def other_mount(*paths):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    Path("checkpoint.pt").write_text("mine")
    monkeypatch.setattr(os, "link", other_mount)
    code, out, err = run(train.main, "--dataset", "digits")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "checkpoint.pt cannot be written: it is mounted by itself; mount its folder" in err
    assert Path("checkpoint.pt").read_text() == "mine"


def test_a_file_system_without_links_is_no_hindrance(run, dataset, monkeypatch):
    def no_links(*paths):
        raise OSError(errno.EPERM, "Operation not permitted")

    Path("checkpoint.pt").write_text("mine")
    monkeypatch.setattr(os, "link", no_links)
    assert run(train.main, "--dataset", "digits", "--epochs", 1)[0] == 0
