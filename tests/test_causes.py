"""The experiments of docs/, and a picture."""

import json
import sys
from pathlib import Path

import pytest
from conftest import save_network
from PIL import Image

import data
import recipes
import robustness
from digits import traits
from docs import causes, costs, resistance


def test_flips_only_grow_and_begin_with_few(network):
    split = data.load("synthetic", "test")
    images, labels = split.images[:500], split.labels[:500]
    shares = causes.flips(network, images, labels, "slant", (5, 30, 60, 5))
    assert 0 <= shares[0] < shares[1] < shares[2] == shares[3] <= 1


def test_a_slant_that_was_added_is_undone(network):
    test, training = data.load("synthetic", "test"), data.load("synthetic", "train")
    leaning = robustness.distorted(test.images, "slant", 30)
    own, slant, proportion = causes.usual(leaning, test.labels, training.images, training.labels)
    upright = traits.measure((255 * traits.reshape(leaning, own, slant, proportion)).byte()[:, 0])
    assert (upright["slant"] - slant).abs().median() < 1
    assert (upright["proportion"] / proportion).log().abs().median() < 0.03
    after = {}
    for what, right in causes.undo(network, leaning, test.labels, training):
        after.setdefault(what, right.double().mean().item())
    before = after["the other way"]  # of the first, which is the slant
    assert after["slant"] > before + 0.2 and after["both"] > before + 0.2


def test_it_prints_what_it_found(run, network):
    save_network(network, dataset="synthetic")
    code, out, err = run(causes.main, "--json")
    assert (code, err) == (0, "")
    summary = json.loads(out.splitlines()[-1])
    assert summary["flipped"].keys() == causes.SEVERITIES.keys()
    names = [row[0] for row in summary["undone"]]
    assert names == ["slant", "the other way", "proportion", "the other way", "both"] + names[1:2]
    assert f"  {summary['flipped']['slant'][-1]:6.1%}\n" in out


def test_the_shares_of_an_epoch_add_up_and_products_have_the_largest():
    shares = costs.shares(data.load("synthetic", "train"), recipes.QUICK)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["matrix products"] == max(shares.values()) and shares["Adam"] > 0


def test_one_digit_is_pictured_as_three_networks_read_it(network, monkeypatch):
    Path("docs").mkdir()
    names = ["quick.pt", "accurate.pt", "robust.pt"]
    for name in names:
        save_network(network, Path(name))
    monkeypatch.setattr(sys, "argv", ["resistance.py", *names])
    read = []
    monkeypatch.setattr(resistance, "write", lambda *told: read.append(told[-2:]))
    resistance.main()
    clean = [one for row in range(len(resistance.ROWS)) for one in read[21 * row : 21 * row + 3]]
    assert len(read) == 21 * len(resistance.ROWS)  # of three networks, six severities and none
    assert clean == [(Path(name).stem, resistance.DIGIT) for name in names] * len(resistance.ROWS)
    with Image.open("docs/resistance.png") as picture:
        assert picture.size[0] > 7 * 28 * 4
