"""Every test runs in an empty folder of its own, and none reaches the Hugging Face Hub."""

import dataclasses
import os
import signal
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
HF_HOME = tempfile.TemporaryDirectory()  # removed at exit
os.environ["HF_HOME"] = HF_HOME.name
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # a port where nothing listens
MNIST = os.environ.pop("DATASET", None)  # a folder with MNIST, for test_mnist.py
MNIST = MNIST and str(Path(MNIST).resolve())

import datasets  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

import cli  # noqa: E402
import data  # noqa: E402
import recipes  # noqa: E402
import synthetic  # noqa: E402
import train  # noqa: E402
from model import MLP, save_checkpoint, snapshot  # noqa: E402

datasets.disable_progress_bars()  # of write_split, which are not the scripts' output


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(monkeypatch, capsys):
    """run(main, *flags): call a script's main as its command line does; (exit code, out, err)."""

    def run(main, *flags):
        monkeypatch.setattr(sys, "argv", [f"{main.__module__}.py", *map(str, flags)])
        code = 0
        handlers = {number: signal.getsignal(number) for number in cli.SIGNALS}
        try:
            cli.run(main)
        except SystemExit as exit:
            code = exit.code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return code, *capsys.readouterr()

    return run


def write_split(path, images, labels, image="picture", label="digit", names="0123456789"):
    """Write a parquet file as the Hub serves it: an Image and a ClassLabel column."""
    features = {image: datasets.Image(), label: datasets.ClassLabel(names=list(names))}
    columns = {image: images, label: labels}
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, datasets.Features(features)).to_parquet(path)


@pytest.fixture(scope="session")
def drawn():
    """images uint8 [600, 28, 28] and labels int64 [600] of drawn digits."""
    return synthetic.draw(600, seed=2)


@pytest.fixture
def dataset(tmp_path, drawn):
    """A local dataset of 500 + 100 drawn digits."""
    images, labels = drawn[0].numpy(), drawn[1].tolist()
    write_split(tmp_path / "digits" / "train.parquet", list(images[:500]), labels[:500])
    write_split(tmp_path / "digits" / "test.parquet", list(images[500:]), labels[500:])
    return tmp_path / "digits"


@pytest.fixture(scope="session")
def network():
    """An MLP that reads drawn digits."""
    torch.manual_seed(0)
    model, recipe = MLP(), dataclasses.replace(recipes.RECIPES["accurate"], epochs=20)
    split = data.Split(*synthetic.draw(12_000, seed=0), [])
    for _ in train.train(model, train.Adam(model.parameters(), recipe), split, recipe, seed=0):
        pass
    return model


def save_network(model, class_names="0123456789", path=Path("checkpoint.pt")):
    """Write a checkpoint with the weights of an MLP and invented circumstances."""
    facts = {"dataset": "digits", "class_names": list(class_names), "recipe": {"recipe": "quick"}}
    history = [{"epoch": 1, "errors": 5}]
    facts |= {"seed": 0, "epoch": 1, "history": history, "test_accuracy": 0.95, "optimizer": {}}
    save_checkpoint(path, snapshot(model, **facts))
