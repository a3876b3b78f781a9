"""On the real MNIST, and on digits of strangers: make test-all DATASET=folder DIGITS=folder."""

import csv
import functools
import hashlib
import json
import re
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MNIST, PAGES, ROOT, STRANGERS, save_network, train_network
from paper import KINDS, in_place, on_paper, page, plain, read_picture, row
from PIL import Image

import analysis
import data
import predict
import recipes
import robustness
import train
from docs import causes
from model import evaluate, load_checkpoint
from plumbing import sources

pytestmark = pytest.mark.skipif(not MNIST, reason="no folder with MNIST: make test DATASET=folder")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    """One cache for all tests, so that the images are decoded once."""
    monkeypatch.setattr(sources, "CACHE", tmp_path_factory.getbasetemp() / "cache")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # of the processes that read_pictures() starts


@functools.cache
def trained(dataset, recipe, **settings):
    """A network trained by a recipe, some of its settings replaced."""
    settings = replace(recipes.RECIPES[recipe], **settings)
    split = data.load(dataset, "train")
    split = data.add_drawn(split, settings.drawn, settings.nothing, dataset)
    return train_network(split, settings)


def accuracy(model, images=None):
    """In percent, on the test set; its images may be given distorted."""
    test = data.load(MNIST, "test")
    return 100 * evaluate(model, test.images if images is None else images, test.labels).accuracy


@pytest.mark.parametrize("split, count", [("train", 60_000), ("test", 10_000)])
def test_the_decoded_bytes_have_the_known_checksums(split, count):
    images, labels, class_names, inverted, *_ = data.load(MNIST, split)
    assert images.shape == (count, 28, 28) and class_names == data.DIGITS and not inverted
    assert data.KNOWN_MNIST.checksums[split] == (
        hashlib.sha256(images.numpy().tobytes()).hexdigest(),
        hashlib.sha256(labels.byte().numpy().tobytes()).hexdigest(),
    )


def test_the_recipes_are_as_accurate_as_they_were():
    assert statistics.mean(accuracy(trained(MNIST, "quick", seed=n)) for n in range(5)) >= 98
    # The means of seeds are 99.18 and 99.10; these are one each, and a standard deviation is 0.07.
    assert accuracy(trained(MNIST, "accurate")) >= 99
    assert accuracy(trained(MNIST, "everyday")) >= 98.9


def test_the_robust_recipe_makes_a_third_of_the_errors_on_distorted_digits():
    # The whole recipe takes minutes; a part of it is enough to show this.
    networks = [trained(MNIST, "quick", seed=0), trained(MNIST, "robust", epochs=15)]
    rows = list(robustness.rows(data.load(MNIST, "test").images))[1:]
    quick, robust = (statistics.mean(accuracy(net, row[2]) for row in rows) for net in networks)
    assert 100 - robust <= (100 - quick) / 3
    assert accuracy(networks[1]) >= 98


def rows(text, columns):
    """{first words: numbers} of the lines of a table, with so many percentages or numbers each."""
    number = r" +(-?[\d.]+)%?" * columns
    return {
        name: [float(value) for value in values]
        for name, *values in re.findall(rf"^ *([a-z][a-z ]*?){number}", text, re.M)
    }


def test_the_docs_say_what_is_printed(run):
    """Of quick, seed 0: other CPUs and versions add in another order, so not to the last digit."""
    docs = (ROOT / "docs" / "why-it-errs.md").read_text()
    assert run(train.main, "--dataset", MNIST, "--recipe", "quick")[0] == 0
    traits_table = rows(run(analysis.main)[1], columns=4)
    undone = rows(run(causes.main)[1].split("read right with")[1], columns=2)
    for printed, quoted, tolerance in (
        (traits_table, rows(docs.split("## What happens")[0], columns=4), 8),
        (undone, rows(docs.split("read right with")[1].split("So a change")[0], columns=2), 10),
    ):
        assert printed.keys() == quoted.keys() and len(printed) >= 4
        for name in printed:
            assert printed[name] == pytest.approx(quoted[name], abs=tolerance, rel=0.35)


def test_drawn_digits_carry_over():
    wear = {"occlusion": 0.3, "extra_writing": 0.3}  # as in make demo
    assert accuracy(trained("synthetic", "accurate", **wear)) >= 97.3


def test_the_ten_pictures_are_misread_and_in_order(run):
    assert run(train.main, "--dataset", MNIST, "--recipe", "quick", "--epochs", 2)[0] == 0
    assert run(analysis.main)[0] == 0
    model, _ = load_checkpoint(Path("checkpoint.pt"))
    test = data.load(MNIST, "test")
    probabilities = evaluate(model, test.images, test.labels).logits.double().softmax(1)
    confidence, predictions = probabilities.max(1)
    confidence = torch.where(predictions != test.labels, confidence, 0)

    shown = []
    for path in sorted(Path("misclassified_samples").glob("[0-9]*.png")):
        rank, true, predicted, _, index = re.findall(r"[\d.]+", path.stem)
        with Image.open(path) as picture:
            pixels = np.asarray(picture)[5::10, 5::10]
        assert (pixels == test.images[int(index)].numpy()).all()
        facts = len(shown) + 1, test.labels[int(index)].item(), predictions[int(index)].item()
        assert (int(rank), int(true), int(predicted)) == facts
        shown.append(confidence[int(index)].item())
    assert len(shown) == 10 and shown == confidence.sort(descending=True).values[:10].tolist()


def read_pictures(make, images):
    """What the accurate recipe reads, int64 [N], in the files that make(image, index) gives; or -1.

    In processes of their own, because there are thousands of pictures.
    """
    model = trained(MNIST, "accurate")
    read = functools.partial(read_picture, make, model=model)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        seen = list(pool.map(read, images.numpy(), range(len(images)), chunksize=50))
    seen = torch.from_numpy(np.stack(seen))
    return model(data.to_float(seen)).argmax(1).where(seen.amax((1, 2)) > 0, -1)


def read_with_everyday(run, names):
    """{path: what predict.py reads there} of the pictures that it can read."""
    save_network(trained(MNIST, "everyday"), threshold=recipes.THRESHOLD)
    _, out, _ = run(predict.main, "--json", *names)
    predictions = json.loads(out.splitlines()[-1])["predictions"]
    return {one["path"]: one["prediction"] for one in predictions}


# Three networks read 94 % and 78 to 81 % of 300: three standard deviations of 100 less.
@pytest.mark.parametrize("gaps, least", [((2, 9), 0.87), ((0, 1), 0.67)])
def test_rows_of_digits_are_read(run, gaps, least):
    split, words = data.load(MNIST, "train"), {}
    for index in range(100):
        picture, chosen = row(split.images.numpy(), index, gaps)
        picture.save(f"{index}.png")
        words[f"{index}.png"] = "".join(map(str, split.labels[chosen].tolist()))
    right = len(read_with_everyday(run, words).items() & words.items())
    print(f"rows of two to ten digits, gaps from {gaps[0]}: all digits right in {right} of 100")
    assert right >= 100 * least


def test_pages_of_all_kinds_are_read(run):
    split, truths = data.load(MNIST, "train"), {}
    for kind in KINDS:
        for index in range(1 if kind == "sheet" else 10):
            file, chosen = page(split.images.numpy(), index, kind)
            path = f"{kind}-{index}.jpg"
            Path(path).write_bytes(file)
            truths[path] = "".join(map(str, split.labels[chosen].tolist()))
    read, shares = read_with_everyday(run, truths), []
    for kind in KINDS:
        paths = [path for path in truths if path.startswith(kind)]
        digits = sum(len(truths[path]) for path in paths)
        placed = sum(in_place(truths[path], read[path].replace(" ", "")) for path in paths)
        print(f"{kind}: {placed} of {digits} digits in place")
        shares.append(placed / digits)
    assert statistics.mean(shares) >= 0.96 and min(shares) >= 0.9


@pytest.mark.skipif(not PAGES, reason="no folder with pages of digits: PAGES=folder")
def test_pages_of_a_folder_are_read(run):
    """PAGES is a folder with tables labels*.csv: a path, in a folder per kind, and the digits."""
    truths = {}
    for table in sorted(Path(PAGES).glob("labels*.csv")):
        with open(table, newline="") as file:
            truths |= {str(Path(PAGES) / one["path"]): one["truth"] for one in csv.DictReader(file)}
    read, whole = read_with_everyday(run, truths), {}
    for path, truth in truths.items():
        answer = "".join(filter(str.isdigit, read.get(path, "")))
        whole.setdefault(Path(path).parent.name, []).append(answer == truth)
    for kind, marks in whole.items():
        print(f"{kind}: {sum(marks)} of {len(marks)} read whole")
    count = sum(sum(marks) for marks in whole.values())
    assert count >= 0.7 * len(truths)


def test_predict_reads_an_image_of_mnist_as_the_network_does():
    images = data.load(MNIST, "test").images[::2]
    direct = trained(MNIST, "accurate")(data.to_float(images)).argmax(1)
    same = (read_pictures(plain, images) == direct).sum().item()
    print(f"as the network reads them: {same} of 5,000")
    assert same >= 4975


def test_on_paper_at_most_one_point_of_accuracy_is_lost():
    test = data.load(MNIST, "test")
    chosen = np.random.default_rng(0).permutation(10_000)[:500]
    images, labels = test.images[chosen], test.labels[chosen]
    direct = trained(MNIST, "accurate")(data.to_float(images)).argmax(1)
    found = read_pictures(on_paper, images)
    right = [(predictions == labels).sum().item() for predictions in (direct, found)]
    print(f"read right, of 500: {right[0]}, and on paper {right[1]}")
    assert right[1] >= right[0] - 5


@pytest.mark.skipif(not STRANGERS, reason="no folder with digits of strangers: DIGITS=folder")
def test_digits_of_strangers_are_read(run):
    """DIGITS is a folder with labels.csv, which has a path, in a folder per kind, and a label."""
    with open(Path(STRANGERS) / "labels.csv", newline="") as file:
        labels = {str(Path(STRANGERS) / row["path"]): row["label"] for row in csv.DictReader(file)}
    found, right = read_with_everyday(run, labels), {}
    for path, label in labels.items():
        kind = Path(path).relative_to(STRANGERS).parts[0]
        right.setdefault(kind, []).append(found.get(path) == label)
    shares = {kind: statistics.mean(marks) for kind, marks in right.items()}
    print(", ".join(f"{kind}: {share:.1%} of {len(right[kind])}" for kind, share in shares.items()))
    least = {"photo": 0.93, "drawing": 0.96, "canvas": 0.97, "made": 0.9}
    if shares.keys() == least.keys():  # else it is another folder, and only counted
        assert all(shares[kind] >= least[kind] for kind in shares)
