"""analysis.py through its command line: what it prints, its pictures and its page."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_split
from PIL import Image
from test_gallery import read_content

import analysis
import data
import train
from digits import pictures, traits
from model import evaluate, load_checkpoint, occlusion_sensitivity

FOLDER = Path("misclassified_samples")
SHEET = "contact_sheet.png"
OF_THE_RUN = {"index.html", "confusion_matrix.png", "hidden_units.png", "learning_curve.png"}


@pytest.fixture
def trained(run, dataset):
    assert run(train.main, "--dataset", "digits", "--epochs", 2)[0] == 0
    return dataset


def analyse(run, *flags):
    """(the summary, what is printed) of a run of analysis.py."""
    code, out, err = run(analysis.main, *flags, "--json")
    assert (code, err) == (0, "")
    return json.loads(out.splitlines()[-1]), out


def judge():
    """(model, training Split, test Split, logits [N, 10]) of checkpoint.pt."""
    model, checkpoint = load_checkpoint(Path("checkpoint.pt"))
    training, test = (data.load(checkpoint.dataset, split) for split in ("train", "test"))
    return model, training, test, evaluate(model, test.images, test.labels).logits.double()


def pictured():
    return sorted(path.name for path in FOLDER.glob("[0-9]*.png"))


def test_the_pictures_are_the_most_confident_mistakes_with_their_traits(run, trained):
    summary, out = analyse(run)
    _, training, test, logits = judge()
    probabilities = logits.softmax(1)
    wrong = (logits.argmax(1) != test.labels).nonzero().flatten().tolist()
    assert summary["errors"] == len(wrong) > 10
    wrong.sort(key=lambda i: (-probabilities[i].max().item(), i))
    comparison = traits.compare(test.images, test.labels, training.images, training.labels)
    facts = zip(pictured(), summary["worst"], wrong[:10], strict=True)
    for rank, (name, mistake, index) in enumerate(facts, start=1):
        row, trait = probabilities[index], traits.describe(comparison, index)
        assert (mistake["index"], mistake["trait"]) == (index, trait)
        assert f"{FOLDER / name}  {trait}\n" in out
        assert name == (
            f"{rank:02}_true-{test.labels[index]}_predicted-{row.argmax()}"
            f"_probability-{row.max():.4f}_index-{index}.png"
        )
        with Image.open(FOLDER / name) as picture:
            assert picture.size == (280, 280)
            assert np.array_equal(np.asarray(picture)[5::10, 5::10], test.images[index])
    assert len({mistake["trait"] for mistake in summary["worst"]}) > 1
    for name in "contact_sheet", "confusion_matrix", "hidden_units", "learning_curve":
        with Image.open(FOLDER / f"{name}.png") as picture:
            picture.load()


def test_the_report_counts_every_image(run, trained):
    summary, out = analyse(run)
    _, training, test, logits = judge()
    p, (low, high) = summary["test_accuracy"], summary["interval"]
    assert summary["standard_error"] == pytest.approx((p * (1 - p) / 100) ** 0.5)
    assert f"{p:.2%} (95 % interval {low:.2%} to {high:.2%}), {summary['errors']} errors\n" in out

    expected = np.zeros((10, 10), int)
    np.add.at(expected, (test.labels, logits.argmax(1)), 1)
    assert summary["confusion"] == expected.tolist()
    totals, errors = expected.sum(1), expected.sum(1) - expected.diagonal()
    right, read = expected.diagonal(), expected.sum(0)
    with np.errstate(invalid="ignore"):  # The precision of a class that is never read is undefined.
        shares = np.stack(
            [errors / totals, right / read, right / totals, 2 * right / (totals + read)], 1
        )
    facts = np.column_stack([range(10), totals, errors, shares])
    told = [list(row.values()) for row in summary["classes"]]
    np.testing.assert_allclose(np.array(told, float), facts)
    shown = re.findall(r"^(\d) +(\d+) +(\d+)" + r" +([\d.]+%|-)" * 4 + "$", out, re.M)
    shown = [[cell.replace("-", "nan").rstrip("%") for cell in row] for row in shown]
    facts[:, 3:] *= 100
    np.testing.assert_allclose(np.array(shown, float), facts, atol=0.0051)
    head, *rows = out[out.index("true  predicted\n") :].splitlines()[1:12]
    shown = np.array([row.replace(".", "0").split() for row in rows], int)
    assert np.array_equal(shown, np.column_stack([range(10), expected]))
    assert head.split() == list("0123456789") and len({len(line) for line in (head, *rows)}) == 1
    np.fill_diagonal(expected, 0)
    largest = [map(int, row) for row in re.findall(r"^(\d) +(\d) +(\d+)$", out, re.M)]
    counts = [count for true, read, count in largest if expected[true, read] == count]
    assert counts == sorted(expected.flat)[::-1][:10]

    comparison = traits.compare(test.images, test.labels, training.images, training.labels)
    for row in traits.frequencies(comparison, logits.argmax(1) != test.labels):
        shown = re.search(rf"^{row.trait} +([\d.]+)% +([\d.]+)% +([-\d.]+)% +([\d.]+)", out, re.M)
        excess = row.mistakes - row.correct
        expected = 100 * row.mistakes, 100 * row.correct, 100 * excess, row.ratio
        assert [float(x) for x in shown.groups()] == pytest.approx(expected, abs=0.06)


def test_the_page_holds_what_the_analysis_knows(run, trained):
    summary, out = analyse(run, "--count", 1000)
    assert out.splitlines()[-2] == str(FOLDER / "index.html")
    content, images = read_content((FOLDER / "index.html").read_text())
    model, training, test, logits = judge()
    assert f"{summary['test_accuracy']:.2%} of the 100 test images of digits" in content["about"]
    assert content["class_names"] == test.class_names
    assert content["confusion"] == summary["confusion"]
    weight, bias, *_ = (parameter.detach().numpy() for parameter in model.parameters())
    hidden, known = (
        np.maximum(
            0, model.preprocess(data.to_float(split.images)).flatten(1).numpy() @ weight.T + bias
        )
        for split in (test, training)
    )
    for found, mistake, row in zip(content["mistakes"], summary["worst"], images, strict=True):
        index = mistake["index"]
        assert (found["index"], found["trait"]) == (index, mistake["trait"])
        assert test.class_names[found["true"]] == mistake["true"]
        assert test.class_names[found["predicted"]] == mistake["predicted"]
        np.testing.assert_allclose(found["probabilities"], logits[index].softmax(0), atol=0.5001e-4)
        distances = np.linalg.norm(known - hidden[index], axis=1)
        alike = [other["index"] for other in found["alike"]]
        np.testing.assert_allclose(distances[alike], np.sort(distances)[:3], rtol=1e-4)
        assert [other["label"] for other in found["alike"]] == training.labels[alike].tolist()
        assert np.array_equal(row, torch.cat([test.images[index, None], training.images[alike]]))
        sensitivity = np.frombuffer(base64.b64decode(found["sensitivity"]), np.uint8)
        classes = (torch.tensor([found[name]]) for name in ("predicted", "true"))
        falls = occlusion_sensitivity(model, test.images[index, None], *classes).flatten().numpy()
        np.testing.assert_allclose(sensitivity, 128 + 127 * falls / np.abs(falls).max(), atol=0.51)


def test_a_file_of_test_images_alone_has_neither_traits_nor_alike_images(run, trained):
    for moments in (0, 2):
        run(train.main, "--dataset", "digits", "--epochs", 2, "--moments", moments)
        summary, out = analyse(run, "--dataset", "digits/test.parquet")
        assert "no traits, for want of training images" in out and len(pictured()) == 10
        assert {mistake["trait"] for mistake in summary["worst"]} == {"unknown"}
        content, images = read_content((FOLDER / "index.html").read_text())
        assert images.shape[1] == 1 and len(images) == len(content["mistakes"]) > 0
        assert all(mistake["alike"] == [] for mistake in content["mistakes"])


def test_as_many_mistakes_as_one_wants_of_one_confusion(run, trained):
    def worst(count, **classes):
        flags = [word for name, value in classes.items() for word in (f"--{name}", value)]
        summary, out = analyse(run, "--count", count, *flags)
        indices = [int(re.findall(r"\d+", name)[-1]) for name in pictured()]
        assert indices == [mistake["index"] for mistake in summary["worst"]]
        said = {"true": "of {}", "predicted": "read as {}"}
        assert (
            " ".join(["mistakes", *(said[name].format(classes[name]) for name in classes)]) in out
        )
        return summary["worst"]

    everything = worst(1000)
    assert len(everything) > 25 and worst(3) == everything[:3]
    true, predicted = everything[0]["true"], everything[0]["predicted"]
    for classes in {"true": true}, {"predicted": predicted}, {"true": true, "predicted": predicted}:
        assert worst(1000, **classes) == [m for m in everything if m.items() >= classes.items()]
    assert worst(10, true=true, predicted=true) == []
    assert {path.name for path in FOLDER.iterdir()} == OF_THE_RUN


@pytest.mark.parametrize("validation, word", [(0, "test"), (100, "validation")])
def test_the_learning_curve_is_of_the_run(run, dataset, monkeypatch, validation, word):
    run(train.main, "--dataset", "digits", "--epochs", 2, "--validation", validation)
    _, checkpoint = load_checkpoint(Path("checkpoint.pt"))
    monkeypatch.setattr(pictures, "learning_curve", lambda *told: told)
    for done in (2, 1):  # of two epochs
        checkpoint.history = checkpoint.history[:done]
        losses, accuracies, rates, highest, judged_by = analysis.draw_learning_curve(checkpoint)
        told = zip(losses, accuracies, strict=True)
        assert [*told] == [(entry["loss"], entry["test_accuracy"]) for entry in checkpoint.history]
        assert highest == checkpoint.settings["learning_rate"] and judged_by == word
        epoch, rate = max(rates, key=lambda point: point[1])
        assert rate == highest and epoch == pytest.approx(0.2, abs=0.01)  # a tenth of two epochs
        assert rates[0][1] == pytest.approx(0, abs=highest / 100)
        # A run that is cut after one of two epochs is at 5 / 9 of the highest rate.
        assert rates[-1] == (done, pytest.approx(0 if done == 2 else highest * 5 / 9))


def test_a_second_run_replaces_its_own_pictures_and_touches_nothing_else(run, trained):
    analyse(run)
    first = pictured()
    mine = {"me.png", "notes.txt", f"{first[0]} copy.png"}
    for name in mine:
        (FOLDER / name).write_text("mine")
    run(train.main, "--dataset", "digits", "--epochs", 1, "--seed", 3)
    analyse(run)
    second = set(pictured()) - mine
    assert len(second) == 10 and second != set(first)
    assert {path.name for path in FOLDER.iterdir()} == second | mine | OF_THE_RUN | {SHEET}
    assert all((FOLDER / name).read_text() == "mine" for name in mine)


def test_fewer_mistakes_than_ten_and_none(run, dataset, drawn):
    # A network that has learnt the test images by heart, but for three labels that are wrong.
    images, labels = list(drawn[0][:100].numpy()), drawn[1][:100].tolist()
    write_split(dataset / "train.parquet", images, labels)
    for wrong in (3, 0):
        shifted = [(label + (i < wrong)) % 10 for i, label in enumerate(labels)]
        write_split(dataset / "test.parquet", images, shifted)
        run(train.main, "--dataset", "digits", "--epochs", 60, "--batch-size", 100)
        analyse(run)
        assert len(pictured()) == wrong
    assert {path.name for path in FOLDER.iterdir()} == OF_THE_RUN


def test_class_names_of_any_kind(run, tmp_path, drawn):
    names = ["T-shirt/top", "../up", "", "é", "お", "a b", "x" * 300, "火" * 100, "8", "9"]
    for split in ("train", "test"):
        path = tmp_path / f"d/{split}.parquet"
        write_split(path, list(drawn[0].numpy()), drawn[1].tolist(), names=names)
    run(train.main, "--dataset", "d", "--epochs", 1)
    _, out = analyse(run)
    assert len(pictured()) == 10
    head, *rows = out[out.index("predicted\n") :].splitlines()[1:12]
    assert max(map(len, rows)) < 100 and head.split() == list("0123456789")
    assert rows[0].startswith("0 T-shirt/top") and rows[6].startswith(f"6 {'x' * 25} ")
    assert "class 3 is é, class 4 is お, class 7 is 火" in out
    analyse(run, "--true", "class 2", "--predicted", "お")


@pytest.mark.parametrize(
    "flags, named",
    [
        ("--checkpoint none.pt", "checkpoint none.pt"),
        ("--checkpoint digits/test.parquet", "checkpoint digits/test.parquet"),
        ("--output checkpoint.pt", "checkpoint.pt/"),
        ("--output checkpoint.pt/folder", "checkpoint.pt/folder"),
        ("--output site", "site/index.html"),
        ("--dataset fashion", "Bag"),
        ("--count 0", "--count"),
        ("--true 10", "--true '10'"),
        ("--predicted four", "--predicted 'four'"),
    ],
)
def test_bad_input_leaves_what_is_there(run, trained, flags, named):
    write_split(Path("fashion/test.parquet"), [np.zeros((28, 28), np.uint8)], [0], names=["Bag"])
    kept = [
        FOLDER / "01_true-1_predicted-2_probability-1.0000_index-3.png",
        Path("site/index.html"),
    ]
    for path in kept:
        path.parent.mkdir()
        path.write_text("not of this run")
    code, _, err = run(analysis.main, *flags.split())
    assert code == 2 and named in err
    assert err.startswith("analysis.py: ") and err.count("\n") == 1
    assert all(path.read_text() == "not of this run" for path in kept)
