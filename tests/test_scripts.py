"""The scripts through their command lines, from a dataset to pictures."""

import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, python, write_split
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

CHECKPOINT = Path("checkpoint.pt")
DIGITS = "--dataset", "digits", "--epochs"


@pytest.fixture
def trained(run, dataset):
    assert run(train.main, *DIGITS, 2)[0] == 0
    return dataset


def first_weights(path=CHECKPOINT):
    return load_checkpoint(path)[0].layers[1].weight


def table(out):
    """The words of each line of the table that train.py prints, whose lines are of one length."""
    lines = out.split("\n\n")[1].splitlines()
    assert len({len(line) for line in lines}) == 1
    return [line.split() for line in lines]


def test_train_prints_a_header_a_line_per_epoch_and_a_summary(run, dataset):
    code, out, err = run(train.main, *DIGITS, 3, "--seed", 7, "--json")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    headings = ["device", "dataset", "images", "classes", "network", "recipe", "distortion"]
    assert [line.split()[0] for line in lines[:7]] == headings
    assert lines[2] == "images      500 training, 100 test" and "101,770 parameters" in lines[4]
    assert [words[0] for words in table(out)] == ["epoch", "1", "2", "3"]
    summary = json.loads(lines[-1])
    assert lines[0].startswith(f"device      {summary['device']} (")
    model, checkpoint = load_checkpoint(CHECKPOINT)
    test = data.load("digits", "test")
    result = evaluate(model, test.images, test.labels)
    assert summary["errors"] == result.errors == checkpoint.history[-1]["errors"]
    assert summary["history"] == checkpoint.history and len(checkpoint.history) == 3
    assert summary["test_accuracy"] == result.accuracy == checkpoint.test_accuracy
    settings = recipes.RECIPES["accurate"]
    assert settings.batch_size > 500  # images
    settings = replace(settings, epochs=3, batch_size=500, seed=7, threads=torch.get_num_threads())
    settings = replace(settings, checksum=data.load("digits", "train").checksum)
    assert checkpoint.settings == asdict(settings)
    assert (checkpoint.epoch, checkpoint.seed, checkpoint.dataset) == (3, 7, "digits")
    assert checkpoint.class_names == list("0123456789")


def test_the_seed_decides_the_first_weights_and_the_order_and_nothing_else_does(run, dataset):
    weights, losses = [], []
    split, settings = data.load("digits", "train"), recipes.RECIPES["quick"]
    for seed in (1, 1, 2):
        # In one step of all images their order plays no part.
        run(train.main, *DIGITS, 1, "--seed", seed)
        weights.append(first_weights())
        torch.manual_seed(0)
        model = MLP()
        settings = replace(settings, epochs=1, batch_size=50, seed=seed)
        losses.append([*train.train(model, Adam(model, 0.9, 0.999), split, settings)])
    assert torch.equal(weights[0], weights[1])
    assert (weights[0] - weights[2]).abs().mean() > 0.01
    assert losses[0] == losses[1] != losses[2]


def test_a_run_for_each_seed_is_the_run_of_that_seed(run, dataset):
    code, out, err = run(train.main, *DIGITS, 2, "--json", "--seeds", "3-5")
    assert (code, err) == (0, "")
    summary = json.loads(out.splitlines()[-1])
    accuracies = [run["test_accuracy"] for run in summary["runs"]]
    assert accuracies == [run["history"][1]["test_accuracy"] for run in summary["runs"]]
    assert summary["test_accuracy"] == pytest.approx(np.mean(accuracies))
    assert summary["standard_deviation"] == pytest.approx(np.std(accuracies, ddof=1))
    assert [words[0] for words in table(out)] == ["seed", "3", "4", "5"] and "seeds 3 to 5" in out
    assert run(train.main, *DIGITS, 2, "--seed", 4)[0] == 0
    assert torch.equal(first_weights(), first_weights(Path("checkpoint-4.pt")))
    _, checkpoint = load_checkpoint(Path("checkpoint-4.pt"))
    assert checkpoint.seed == 4 and checkpoint.test_accuracy == accuracies[1]
    assert run(train.main, *DIGITS, 2, "--seeds", 2)[0] == 0
    names = {"checkpoint.pt", *(f"checkpoint-{seed}.pt" for seed in (0, 1, 3, 4, 5))}
    assert {path.name for path in Path().glob("checkpoint*")} == names


def test_validation_images_are_not_trained_on_and_take_the_place_of_the_test_images(run, dataset):
    code, out, _ = run(train.main, *DIGITS, 2, "--validation", 100, "--json")
    assert code == 0 and "400 training, 100 validation\n" in out
    assert "of the validation images" in out
    model, checkpoint = load_checkpoint(CHECKPOINT)
    training = data.load("digits", "train")
    chosen = data.hold_out(training.labels, 100, stratified=True)
    result = evaluate(model, training.images[chosen], training.labels[chosen])
    assert json.loads(out.splitlines()[-1])["errors"] == result.errors
    assert checkpoint.settings["validation"] == 100
    assert "on digits without 100 validation images" in checkpoint.summary

    for script in analysis, robustness:
        code, out, _ = run(script.main)
        assert code == 0 and "100 validation images" in out
    assert run(train.main, *DIGITS, 2, "--checkpoint", "whole.pt")[0] == 0
    code, _, err = run(robustness.main, "--checkpoint", "checkpoint.pt", "whole.pt")
    assert code == 2 and "whole.pt is judged by other images than checkpoint.pt" in err
    assert "100 test images" in run(analysis.main, "--dataset", "digits/test.parquet")[1]

    # The same weights as of a dataset without them.
    rows = list(training.images[~chosen].numpy()), training.labels[~chosen].tolist()
    write_split(Path("fewer/train.parquet"), *rows)
    Path("fewer/test.parquet").write_bytes(Path("digits/test.parquet").read_bytes())
    run(train.main, "--dataset", "fewer", "--epochs", 2)
    assert torch.equal(model.layers[1].weight, first_weights())
    code, _, err = run(train.main, *DIGITS, 2, "--validation", 500)
    assert code == 2 and "500 validation images leave none of the 500 training images" in err


def test_a_dataset_without_test_images_holds_some_out_and_says_so(run, dataset):
    (dataset / "test.parquet").unlink()
    code, out, err = run(train.main, *DIGITS, 2)
    assert (code, err) == (0, "") and "429 training, 71 validation, for want of test images" in out
    settings = load_checkpoint(CHECKPOINT)[1].settings
    assert settings["validation"] == 71 and settings["stratified"] == 1
    for script in analysis, robustness:
        code, out, _ = run(script.main)
        assert code == 0 and "71 validation images" in out
    content = torch.load(CHECKPOINT, weights_only=True)
    content["settings"]["stratified"] = 0  # as of an earlier version
    torch.save(content, CHECKPOINT)
    code, _, err = run(analysis.main)
    assert code == 2 and str(CHECKPOINT) in err and err.count("\n") == 1


def test_a_split_for_validation_in_place_of_test_images_is_called_so(run, dataset):
    (dataset / "test.parquet").rename(dataset / "valid.parquet")
    code, out, err = run(train.main, *DIGITS, 2)
    assert (code, err) == (0, "") and "500 training, 100 validation\n" in out
    assert "100 validation images" in run(analysis.main)[1]
    assert run(draw.main)[0] == 0 and "of its validation images" in Path("draw.html").read_text()


def test_digits_that_are_things_are_trained_and_read_as_things(run, dataset):
    code, out, _ = run(train.main, *DIGITS, 2)
    assert code == 0 and out.count("taken for digits") == 1 and "moments 2" in out
    code, out, _ = run(train.main, *DIGITS, 2, "--things", "--drawn", 10)
    assert code == 2  # no drawn digits among things
    code, out, _ = run(train.main, *DIGITS, 2, "--things")
    assert code == 0 and "classes     class 0, class 1" in out and "moments 0" in out
    assert "moments 1" in run(train.main, *DIGITS, 2, "--things", "--moments", 1)[1]


def test_a_checkpoint_goes_through_a_link_to_its_file(run, dataset):
    Path("link.pt").symlink_to("real.pt")
    assert run(train.main, *DIGITS, 1, "--checkpoint", "link.pt")[0] == 0
    assert Path("link.pt").is_symlink() and Path("real.pt").is_file()


def test_the_learning_rate_rises_to_the_highest_and_falls_to_zero():
    rates = [recipes.learning_rate(step, 1000, 0.5) for step in range(1000)]
    peak = rates.index(max(rates))
    assert max(rates) == 0.5 and 95 <= peak <= 105
    assert rates[0] == pytest.approx(0.5 / 100) and 0 < rates[-1] < 0.001
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)


def test_without_mnist_it_learns_from_drawn_digits_and_says_so(run):
    code, out, err = run(train.main, "--epochs", 3, "--json")
    assert code == 0 and all(line.startswith("getting ylecun/mnist") for line in err.splitlines())
    *_, checkpoint, warning, summary = lines = out.splitlines()
    assert "drawn digits in place of MNIST: dataset 'ylecun/mnist': " in warning
    assert "Hugging Face Hub: cannot be reached" in warning and "DATASET=folder" in warning
    assert lines[1:5] == [
        *("dataset     ylecun/mnist", warning, "dataset     synthetic"),
        "images      12,000 training, 2,000 test",
    ]
    assert checkpoint == "checkpoint  checkpoint.pt"
    assert json.loads(summary)["dataset"] == "synthetic"
    assert json.loads(summary)["test_accuracy"] > 0.8
    assert run(analysis.main)[0] == 0  # on the digits that it was trained on


def test_drawn_digits_in_place_of_mnist_replace_no_other_network(run, trained):
    before = CHECKPOINT.read_bytes()
    code, _, err = run(train.main, "--epochs", 1)
    assert code == 2 and "checkpoint.pt holds a run on digits" in err
    assert CHECKPOINT.read_bytes() == before
    for _ in range(2):  # a file that is new, and one of drawn digits
        assert run(train.main, "--epochs", 1, "--checkpoint", "new.pt")[0] == 0


def test_only_mnist_that_cannot_be_reached_is_replaced(run, monkeypatch):
    for flags in (["--dataset", ""], ["--dataset", data.MNIST]):  # named, so never replaced
        assert run(train.main, *flags, "--epochs", 1)[0] == 2

    def damaged(*args):
        raise InputError("its checksums are not the known ones")

    monkeypatch.setattr(data.sources, "load", damaged)
    code, _, err = run(train.main)
    assert (code, err) == (2, "train.py: its checksums are not the known ones\n")
    assert not CHECKPOINT.exists()


def test_a_second_run_starts_fast_because_it_imports_little(trained):
    code, out, err = python(
        "import sys, train, analysis; from plumbing import cli;"
        "sys.argv = ['train.py', '--dataset', 'digits', '--epochs', '1']; cli.run(train.main);"
        "sys.argv = ['analysis.py']; cli.run(analysis.main);"
        "print({'datasets', 'torchvision', 'torch._dynamo'} & set(sys.modules))"
    )
    assert (code, out.splitlines()[-1]) == (0, "set()"), err


# Bad input: one sentence on standard error, exit code 2, and nothing lost.


@pytest.mark.parametrize(
    "flags, named",
    [
        *((["--epochs", value], repr(value)) for value in ("0", "-3", "many")),
        (["--batch-size", "1.5"], "'1.5'"),
        (["--batch-size", "501"], "501"),
        (["--batch-size", "521", "--drawn", "20"], "520 training images"),
        *((["--learning-rate", value], repr(value)) for value in ("nan", "-1", "inf")),
        (["--rotation", "181"], "'181'"),
        (["--largest", "0.9"], "from 1 to 10"),
        (["--occlusion", "nan"], "'nan'"),
        *((["--seeds", value], repr(value)) for value in ("1", "7-3", "x", "9" * 20)),
        (["--seeds", "3", "--seed", "1"], "--seeds"),
        (["--seed", "-1"], "from 0 to 4294967295"),
        (["--recipe", "slow"], "'slow'"),
        *((["--device", name], f"--device {name}") for name in ("meta", "nonsense")),
        (["--dataset", "../nowhere"], "'../nowhere'"),
        *((["--checkpoint", name], name) for name in ("digits", "pipe", "x" * 300)),
        (["--checkpoint", "checkpoint.pt/c.pt"], "checkpoint.pt/c.pt"),
        (["--checkpoint", ".", "--seeds", "2"], "regular file"),
        (["--checkpoint", "", "--seeds", "2"], "--checkpoint"),
        *(([flag, "1"], flag) for flag in ("--turbo", "--epoch")),
        pytest.param(
            ["--device", "cuda"],
            "--device cuda is not available",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is available"),
        ),
    ],
)
def test_bad_input_to_train(run, trained, flags, named):
    before = CHECKPOINT.read_bytes()
    os.mkfifo("pipe")
    code, out, err = run(train.main, "--dataset", "digits", *flags)
    assert code == 2 and named in err
    assert err.startswith("train.py: ") and err.count("\n") == 1
    assert CHECKPOINT.read_bytes() == before


@pytest.mark.parametrize("script", [train, analysis, predict, draw, robustness])
def test_an_empty_name_of_a_checkpoint_is_refused_by_every_script(run, script):
    code, out, err = run(script.main, "--checkpoint", "")
    assert (code, out) == (2, "") and "--checkpoint" in err and err.count("\n") == 1


def test_a_batch_may_be_as_large_as_an_epoch_with_its_drawn_digits(run, dataset):
    assert run(train.main, *DIGITS, 1, "--drawn", 20, "--batch-size", 520)[0] == 0
    assert load_checkpoint(CHECKPOINT)[1].settings["batch_size"] == 520


def test_debug_shows_the_traceback_of_a_sentence():
    fail = "from plumbing import cli; cli.run(lambda: cli.path('~').mkdir())"
    for debug in "", "0", "1":
        code, _, err = python(fail, DEBUG=debug)
        *traceback, sentence = err.splitlines()
        assert code == 1 and sentence.startswith("-c: [Errno 17] File exists")
        assert (debug == "1") == bool(traceback) == err.startswith("Traceback")


def test_a_closed_pipe_ends_a_run_with_a_sentence(trained):
    command = [sys.executable, str(ROOT / "train.py"), *DIGITS, "100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not process.stdout.readline().lstrip().startswith("1 "):
        pass
    process.stdout.close()
    assert process.wait(60) == 1
    assert " of 100000 epochs are saved, go on with: make train" in process.stderr.read()
    assert load_checkpoint(CHECKPOINT)[1].settings["epochs"] == 100_000


def test_ctrl_c_while_pytorch_is_imported_shows_no_traceback():
    code = """from plumbing import cli
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here, by nohup
cli.set_up()
try:
    signal.raise_signal(signal.SIGINT)
except BaseException:  # as some libraries do
    pass"""
    assert python(code) == (130, "", "interrupted\n")
    start = r"^from plumbing import cli\n\nif __name__ .*:.*\n    cli\.set_up\(\)\n"
    for script in ROOT.glob("*.py"):
        if "cli.run(main)" in (text := script.read_text()):
            before, *after = re.split(start, text, flags=re.M)
            assert after and "import" not in before, script  # before the long imports


def test_a_python_that_is_too_old_is_told_of_it_whatever_packages_it_has():
    code, out, err = python(
        "import sys; from plumbing import cli; sys.version_info = (3, 9, 2); cli.set_up()"
    )
    assert (code, out) == (2, "") and "3.10" in err and err.count("\n") == 1


@pytest.mark.parametrize("shell", [">&-", "2>&-", "| cat"])
def test_a_closed_stream_and_one_without_unicode(trained, shell):
    command = f"PYTHONIOENCODING=ascii '{sys.executable}' '{ROOT}/analysis.py' {shell}"
    shown = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")


def test_a_tilde_is_the_home_folder_in_every_flag_that_names_a_file(run, dataset, monkeypatch):
    home = dataset.parent / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (home / "digits").symlink_to(dataset)
    Image.fromarray(data.load("digits", "test").images[0].numpy()).save(home / "7.png")
    for main, *flags in (
        (train.main, "--dataset", "~/digits", "--epochs", 2),
        (analysis.main, "--dataset", "~/digits", "--output", "~/out"),
        (robustness.main, "--output", "~/r.png"),
        (draw.main, "--output", "~/d.html"),
        (predict.main, "~/7.png", "--save-input", "~/seen"),
    ):
        assert run(main, "--checkpoint", "~/c.pt", *flags)[0] == 0
    written = {path.name for path in home.iterdir()}
    assert written == {"digits", "7.png", "c.pt", "out", "r.png", "d.html", "seen"}
    assert not Path("~").exists()


@pytest.mark.parametrize("problem, refused", [(errno.EXDEV, True), (errno.EPERM, False)])
def test_a_file_that_is_mounted_by_itself_is_refused_and_one_where_no_links_are_is_not(
    run, dataset, monkeypatch, problem, refused
):
    def link(*paths):
        raise OSError(problem, os.strerror(problem))

    CHECKPOINT.write_text("mine")
    monkeypatch.setattr(os, "link", link)
    code, out, err = run(train.main, *DIGITS, 1)
    if refused:  # before training
        assert (code, out) == (2, "") and err.count("\n") == 1
        assert "checkpoint.pt cannot be written: it is mounted by itself" in err
        assert CHECKPOINT.read_text() == "mine"
    else:
        assert (code, err) == (0, "") and load_checkpoint(CHECKPOINT)
