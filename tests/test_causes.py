"""The experiment of docs/causes.py."""

import json

from conftest import save_network

import data
import robustness
from digits import traits
from docs import causes


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
