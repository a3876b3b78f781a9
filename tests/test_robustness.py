"""The table of robustness.py: its protocol, its numbers and its picture."""

import json
import re
from pathlib import Path
from statistics import mean, stdev
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import write_split
from PIL import Image

import data
import robustness
import train
from digits.pictures import enlarge
from model import evaluate, load_checkpoint


@pytest.fixture
def digits(drawn):
    return data.to_float(drawn[0])


def distort(cause, severity, images):
    return cause(images, severity, torch.Generator().manual_seed(0))


def test_the_rows_are_the_same_every_time(drawn):
    torch.manual_seed(1)
    first = list(robustness.rows(drawn[0][:50]))
    torch.manual_seed(2)
    second = list(robustness.rows(drawn[0][:50]))
    assert first[0][:2] == ("clean", "") and torch.equal(first[0][2], drawn[0][:50])
    assert len(first) == len({row[:2] for row in first}) == 1 + 4 * len(robustness.CAUSES)
    for (*names, images), (*again, same) in zip(first, second, strict=True):
        assert names == again and torch.equal(images, same)
        assert (images.dtype, images.shape) == (torch.uint8, (50, 28, 28))
    for row in first[1:]:
        assert not torch.equal(row[2], drawn[0][:50])


@pytest.mark.parametrize("cause", robustness.CAUSES)
def test_more_severe_is_further_from_clean(cause, digits):
    _, severities = robustness.CAUSES[cause]
    distance = {s: (distort(cause, s, digits) - digits).abs().mean().item() for s in severities}
    mildest_first = sorted(distance, key=lambda s: -s if cause is robustness.neighbour else s)
    if max(severities) < 2:  # factors: away from 1 on either side
        small, large = [s for s in severities if s < 1], [s for s in severities if s > 1]
        assert distance[small[0]] > distance[small[1]] and distance[large[0]] < distance[large[1]]
    else:
        assert sorted(distance, key=distance.get) == mildest_first


def test_rotation_and_slant_go_either_way(digits):
    signs = robustness.either_way(digits, 10, torch.Generator().manual_seed(0))
    assert set(signs.tolist()) == {-10.0, 10.0} and 200 < (signs > 0).sum() < 400


def test_an_occlusion_takes_ink_from_every_digit_and_adds_none(digits):
    for pixels in (6, 12):
        occluded = distort(robustness.occlusion, pixels, digits)
        gone = occluded != digits
        assert gone.any((1, 2, 3)).all() and (occluded[gone] == 0).all()
        assert gone.flatten(1).sum(1).max() <= torch.pi * (pixels / 2 + 1) ** 2


def test_a_line_and_a_neighbour_add_ink_and_take_none(digits):
    line = distort(robustness.stray_line, 12, digits)
    assert (line >= digits).all() and (line > digits).any((1, 2, 3)).double().mean() > 0.95
    added = distort(robustness.stray_line, 12, torch.zeros_like(digits)).sum((1, 2, 3))
    assert added.median() == pytest.approx(12 * 2, rel=0.1)  # length times thickness
    neighbour = distort(robustness.neighbour, 16, digits)
    assert (neighbour >= digits).all()
    assert torch.equal(neighbour[..., 13:15], digits[..., 13:15])  # only at the sides


def test_blank_and_full_images_are_distorted_too():
    for images in (torch.zeros(3, 28, 28), torch.full((3, 28, 28), 255)):
        for *_, distorted in robustness.rows(images.byte()):
            assert distorted.shape == (3, 28, 28)


@pytest.fixture
def two(run, dataset):
    for epochs, name in enumerate(("first.pt", "second one.pt"), start=2):
        flags = ("--dataset", "digits", "--epochs", epochs, "--checkpoint", name)
        assert run(train.main, *flags)[0] == 0
    return ["--checkpoint", "first.pt", "second one.pt"]


def test_the_table_compares_networks_on_the_same_images(run, two):
    code, out, err = run(robustness.main, *two, "--json")
    assert (code, err) == (0, "")
    summary = json.loads(out.splitlines()[-1])
    assert summary["checkpoints"] == two[1:] and summary["dataset"] == "digits"
    test = data.load("digits", "test")
    models = [load_checkpoint(Path(path))[0] for path in two[1:]]
    expected = [
        [evaluate(model, images, test.labels).accuracy for model in models]
        for *_, images in robustness.rows(test.images)
    ]
    assert [row["accuracies"] for row in summary["rows"]] == expected
    assert summary["means"] == pytest.approx(
        [mean(column) for column in zip(*expected[1:], strict=True)]
    )
    # Six causes are of the family that recipes train on, three are not.
    assert summary["means_seen"] == pytest.approx([mean(c) for c in columns(expected[1:25])])
    assert summary["means_unseen"] == pytest.approx([mean(c) for c in columns(expected[25:])])
    assert "first  second one" in out and "±" not in out
    means = [summary[f"means{kind}"] for kind in ("_seen", "_unseen", "")]
    shown = re.findall(r"([\d.]+)% +([\d.]+)%$", out, re.M)
    assert shown == [tuple(f"{100 * x:.2f}" for x in row) for row in [*expected, *means]]
    with Image.open("robustness.png") as picture:
        picture.load()
        assert picture.width < picture.height


def columns(rows):
    return zip(*rows, strict=True)


def test_networks_that_differ_in_their_seed_alone_share_a_column(run, dataset):
    names = ["net-0.pt", "net-1.pt", "other.pt", "net-2.pt"]
    for name, seed, epochs in zip(names, (0, 1, 0, 2), (2, 2, 3, 2), strict=True):
        flags = ("--epochs", epochs, "--seed", seed, "--checkpoint", name)
        assert run(train.main, "--dataset", "digits", *flags)[0] == 0
    code, out, err = run(robustness.main, "--checkpoint", *names, "--json")
    assert (code, err) == (0, "")
    assert "severity   net, 3 seeds   other\n" in out
    assert "\n±: the standard deviation of networks that differ in their seed alone\n" in out
    summary = json.loads(out.splitlines()[-1])
    rows = [row["accuracies"] for row in summary["rows"]]
    rows += [summary[f"means{kind}"] for kind in ("_seen", "_unseen", "")]
    shown = re.findall(r"([\d.]+)% ± ([\d.]+) +([\d.]+)%$", out, re.M)
    assert shown == [
        tuple(f"{100 * x:.2f}" for x in (mean((a, b, d)), stdev((a, b, d)), c))
        for a, b, c, d in rows
    ]


def grouped(names, *networks):
    """The groups of networks given by their seed, epochs, threads, dataset and epochs done."""
    checkpoints = [
        SimpleNamespace(
            seed=seed,
            settings={"recipe": "quick", "epochs": epochs, "threads": threads},
            dataset=dataset,
            epoch=done,
        )
        for seed, epochs, threads, dataset, done in networks
    ]
    return robustness.group(names.split(), checkpoints)


def test_what_else_networks_differ_in_keeps_them_apart():
    net = (0, 4, 1, "mnist", 4)
    assert grouped("a", net) == [("a", [0])]
    assert grouped("a0 a1", net, (1, 4, 2, "mnist", 4)) == [("a", [0, 1])]
    for other in (1, 5, 1, "mnist", 4), (1, 4, 1, "digits", 4), (1, 4, 1, "mnist", 3):
        assert grouped("a0 a1", net, other) == [("a0", [0]), ("a1", [1])]
    # The same seed twice is one run of that recipe, and another beside it.
    assert grouped("a b", net, net) == [("a", [0]), ("b", [1])]
    assert grouped("a0 a1 b0", net, (1, *net[1:]), net) == [("a", [0, 1]), ("b0", [2])]
    # What names begin with may say nothing, or the same of all.
    assert grouped("x/a 0/b", net, (1, *net[1:])) == [("x/a", [0, 1])]
    networks = [(seed, epochs, 1, "mnist", 4) for seed in (0, 1) for epochs in (4, 5)]
    names = "seed0/a.pt seed0/b.pt seed1/a.pt seed1/b.pt"
    assert grouped(names, *networks) == [("seed0/a.pt", [0, 2]), ("seed0/b.pt", [1, 3])]


def test_the_picture_tells_the_accuracies_below_the_digits(drawn, monkeypatch):
    images = drawn[0][:20]
    distorted = list(robustness.rows(images))
    table = [
        {"cause": cause, "severity": severity, "accuracies": [0.5 + row / 100, 0.25, *[0] * 7]}
        for row, (cause, severity, _) in enumerate(distorted)
    ]
    monkeypatch.setattr(robustness, "contact_sheet", lambda *sheet, columns: (*sheet, columns))
    groups = [("one", [0, 1]), *((f"net {place}", [place]) for place in range(2, 9))]
    pictures, captions, columns = robustness.picture_rows(
        groups, table, [row[2][0] for row in distorted]
    )
    assert len(pictures) == len(captions) == 9 * columns == 9 * 6
    names = ["", "one", "net 2", "net 3", "net 4", "net 5", "net 6", "and 2 more"]
    for line, cause in enumerate(robustness.CAUSES):
        title, clean, *others = captions[6 * line : 6 * line + 6]
        assert title.split("\n") == names
        assert clean.split("\n") == ["clean", "37.50%", *["0.00%"] * 5]
        assert np.array_equal(pictures[6 * line + 1], enlarge(images[0], robustness.SCALE))
        unit, severities = robustness.CAUSES[cause]
        for place, (caption, severity) in enumerate(zip(others, severities, strict=True)):
            row = 1 + 4 * line + place
            shown = f"{(0.75 + row / 100) / 2:.2%}"
            assert caption.split("\n") == [f"{severity} {unit}", shown, *["0.00%"] * 5]
            expected = enlarge(distorted[row][2][0], robustness.SCALE)
            assert np.array_equal(pictures[6 * line + 2 + place], expected)


def test_without_a_flag_it_reads_checkpoint_pt(run, dataset):
    code, _, err = run(robustness.main)
    assert code == 2 and "checkpoint checkpoint.pt: there is none, train first" in err
    assert not Path("robustness.png").exists()
    run(train.main, "--dataset", "digits", "--epochs", 1)
    assert run(robustness.main, "--output", "folder/rows.png")[0] == 0
    assert Path("folder/rows.png").exists()


def test_networks_of_other_classes_are_not_compared(run, two, drawn, dataset):
    names = [f"letter {i}" for i in "abcdefghij"]
    for split in ("train", "test"):
        write_split(
            dataset.parent / f"letters/{split}.parquet",
            list(drawn[0].numpy()),
            drawn[1].tolist(),
            names=names,
        )
    run(train.main, "--dataset", "letters", "--epochs", 1, "--checkpoint", "letters.pt")
    code, _, err = run(robustness.main, *two, "letters.pt")
    assert code == 2 and "was trained on letter a" in err and err.count("\n") == 1


def test_networks_are_told_apart_by_as_much_of_their_paths_as_it_takes():
    def names(*paths):
        return robustness.tell_apart([Path(path) for path in paths])

    assert names("quick.pt", "run/robust.pt") == ["quick", "robust"]
    assert names("one/a.pt", "two/a.pt") == ["one/a.pt", "two/a.pt"]
    assert names("1/x/a.pt", "2/x/a.pt", "b.pt") == ["1/x/a.pt", "2/x/a.pt", "b.pt"]
    assert names("a.pt", "a.bin") == ["a.pt", "a.bin"]
    assert names("a.pt", "a.pt") == ["a", "a"]
