"""The table of robustness.py: its protocol, its numbers and its picture."""

import json
import re
from pathlib import Path
from statistics import mean, stdev
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import data
import robustness
import train
from digits import distort, pictures
from model import evaluate, load_checkpoint


@pytest.fixture
def digits(drawn):
    return data.to_float(drawn[0])


def apply(cause, severity, images):
    function, *_ = robustness.CAUSES[cause]
    return function(images, severity, torch.Generator().manual_seed(0))


def test_the_rows_are_the_same_every_time(drawn):
    clean = drawn[0][:50]
    first, second = (list(robustness.rows(clean)) for _ in range(2))
    assert first[0][:2] == ("clean", "") and torch.equal(first[0][2], clean)
    assert len(first) == len({row[:2] for row in first}) == 1 + 4 * len(robustness.CAUSES)
    for (*names, images), (*again, same) in zip(first, second, strict=True):
        assert names == again and torch.equal(images, same)
        assert (images.dtype, images.shape) == (torch.uint8, (50, 28, 28))
    assert not any(torch.equal(images, clean) for *_, images in first[1:])


@pytest.mark.parametrize("cause", robustness.CAUSES)
def test_more_severe_is_further_from_clean(cause, digits):
    _, unit, severities = robustness.CAUSES[cause]
    a, b, c, d = ((apply(cause, s, digits) - digits).abs().mean().item() for s in severities)
    # Factors are away from 1 on either side.
    assert a > b and c < d if unit == "times" else a < b < c < d


def test_a_side_is_as_often_the_one_as_the_other(digits):
    for cause in "rotation", "slant":
        found = apply(cause, 10, digits)
        left, right = (
            (distort.warp(digits, distort.affine(**{cause: side})) - found).abs().amax((1, 2, 3))
            for side in (-10, 10)
        )
        assert torch.minimum(left, right).max() < 1e-4 and 200 < (right < left).sum() < 400


@pytest.mark.parametrize("pixels", [6, 12])
def test_a_disc_takes_ink_from_every_digit_and_adds_none(digits, pixels):
    wiped = apply("occlusion", pixels, digits)
    gone = wiped != digits
    assert gone.any((1, 2, 3)).all() and (wiped[gone] == 0).all()
    assert gone.flatten(1).sum(1).max() <= torch.pi * (pixels / 2 + 1) ** 2


def test_a_line_and_a_neighbour_add_ink_and_take_none(digits):
    line = apply("stray line", 12, digits)
    assert (line >= digits).all() and (line > digits).any((1, 2, 3)).double().mean() > 0.95
    added = apply("stray line", 12, torch.zeros_like(digits)).sum((1, 2, 3))
    assert added.median() == pytest.approx(12 * 2, rel=0.1)  # length times thickness
    neighbour = apply("neighbour", 16, digits)
    assert (neighbour >= digits).all()
    assert torch.equal(neighbour[..., 13:15], digits[..., 13:15])  # only at the sides


def test_blank_and_full_images_are_distorted_too():
    for value in (0, 255):
        for *_, images in robustness.rows(torch.full((3, 28, 28), value).byte()):
            assert images.shape == (3, 28, 28)


@pytest.fixture
def networks(run, dataset):
    """The files of networks, of which the first, second and last differ in their seed alone."""
    names = ["net-0.pt", "net-1.pt", "other one.pt", "net-2.pt"]
    for name, seed, epochs in zip(names, (0, 1, 0, 2), (2, 2, 3, 2), strict=True):
        flags = ("--epochs", epochs, "--seed", seed, "--checkpoint", name)
        assert run(train.main, "--dataset", "digits", *flags)[0] == 0
    return names


def compare(run, names):
    """(summary, the table and what is below it, the accuracies in it as they are to be)."""
    code, out, err = run(robustness.main, "--checkpoint", *names, "--json")
    assert (code, err) == (0, "")
    test = data.load("digits", "test")
    models = [load_checkpoint(Path(name))[0] for name in names]
    expected = [
        [evaluate(model, images, test.labels).accuracy for model in models]
        for *_, images in robustness.rows(test.images)
    ]
    # Six causes are of the family that recipes train on, three are not.
    parts = expected[1:25], expected[25:], expected[1:]
    means = [[mean(column) for column in zip(*part, strict=True)] for part in parts]
    summary, table = json.loads(out.splitlines()[-1]), out[out.index("cause") :]
    assert [row["accuracies"] for row in summary["rows"]] == expected
    for key, of_rows in zip(("means_seen", "means_unseen", "means"), means, strict=True):
        assert summary[key] == pytest.approx(of_rows)
    return summary, table, expected + means


def percent(*shares):
    return tuple(f"{100 * share:.2f}" for share in shares)


def test_the_table_compares_networks_on_the_same_images(run, networks):
    names = networks[:3:2]
    summary, table, expected = compare(run, names)
    assert summary["checkpoints"] == names and summary["dataset"] == "digits"
    assert "net-0  other one" in table and "±" not in table
    shown = re.findall(r"([\d.]+)% +([\d.]+)%$", table, re.M)
    assert shown == [percent(*row) for row in expected]
    with Image.open("robustness.png") as picture:
        picture.load()
        assert picture.width < picture.height


def test_networks_that_differ_in_their_seed_alone_share_a_column(run, networks):
    _, table, expected = compare(run, networks)
    assert "severity   net, 3 seeds  other one\n" in table and "\n±: " in table
    shown = re.findall(r"([\d.]+)% ± ([\d.]+) +([\d.]+)%$", table, re.M)
    assert shown == [percent(mean((a, b, d)), stdev((a, b, d)), c) for a, b, c, d in expected]


def grouped(names, *networks):
    """The groups of networks given by their seed, epochs, threads, dataset and epochs done."""
    checkpoints = []
    for seed, epochs, threads, dataset, done in networks:
        settings = {"recipe": "quick", "epochs": epochs, "threads": threads}
        facts = {"seed": seed, "settings": settings, "dataset": dataset, "epoch": done}
        checkpoints.append(SimpleNamespace(**facts))
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


def test_the_picture_tells_the_accuracies_below_the_digits(monkeypatch, drawn):
    monkeypatch.setattr(pictures, "contact_sheet", lambda *sheet, columns: (*sheet, columns))
    monkeypatch.setattr(pictures, "enlarge", lambda image, scale: image)
    scores = iter([i / 1000 for i in range(9 * 37)])
    monkeypatch.setattr(robustness, "evaluate", lambda *_: SimpleNamespace(accuracy=next(scores)))
    groups = [("one", [0, 1]), *((f"net {place}", [place]) for place in range(2, 9))]
    test = data.Split(drawn[0][:20], drawn[1][:20], [])
    told = robustness.print_table(groups, [torch.nn.Identity()] * 9, test, "cpu")
    table, (tiles, captions, columns) = told
    assert len(table) == 37 and len(tiles) == len(captions) == 9 * columns == 9 * 6
    distorted = list(robustness.rows(test.images))
    for place, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        line, column = divmod(place, 6)
        if column == 0:
            assert caption.split() == "one net 2 net 3 net 4 net 5 net 6 and 2 more".split()
            continue
        row = 4 * line + column - 1 if column > 1 else 0  # the second is the clean one
        cause, severity, images = distorted[row]
        a, b, *others = table[row]["accuracies"][:7]
        shown = [f"{mean:.2%}" for mean in ((a + b) / 2, *others)]
        assert caption.split("\n") == [severity or cause, *shown] and torch.equal(tile, images[0])


def test_without_a_flag_it_reads_checkpoint_pt(run, dataset):
    code, _, err = run(robustness.main)
    assert code == 2 and "checkpoint.pt" in err and not Path("robustness.png").exists()
    run(train.main, "--dataset", "digits", "--epochs", 1)
    assert run(robustness.main, "--output", "folder/rows.png")[0] == 0
    assert Path("folder/rows.png").exists()


def test_networks_are_told_apart_by_as_much_of_their_paths_as_it_takes():
    def names(*paths):
        return robustness.tell_apart([Path(path) for path in paths])

    assert names("quick.pt", "run/robust.pt") == ["quick", "robust"]
    assert names("1/x/a.pt", "2/x/a.pt", "b.pt") == ["1/x/a.pt", "2/x/a.pt", "b.pt"]
    assert names("a.pt", "a.bin") == ["a.pt", "a.bin"]
    assert names("a.pt", "a.pt") == ["a", "a"]
