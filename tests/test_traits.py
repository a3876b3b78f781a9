"""Measures of constructed images, and causes named where the truth is known."""

import math

import pytest
import torch
from conftest import MNIST

import data
import robustness
from digits import synthetic, traits
from digits.distort import PIXEL
from plumbing import sources

# By the cause in robustness.py: how severe, the pixels it changes at least, the trait it leaves.
CAUSES = {
    "slant": (30, 0, "slant"),
    "width": (0.6, 0, "proportion"),
    "occlusion": (10, 15, "missing ink"),
    "stray line": (14, 14, "extra ink"),
}


def bar(width, height, slant=0.0):
    """A bar uint8 [1, 28, 28] with a soft edge, leaning by degrees."""
    x = PIXEL + math.tan(math.radians(slant)) * PIXEL[:, None]
    ink = (width / 2 + 0.5 - x.abs()).clamp(0, 1) * (PIXEL.abs() < height / 2)[:, None]
    return to_bytes(ink[None, None])


def to_bytes(ink):
    return (255 * ink[:, 0]).round().to(torch.uint8)


def share_named(cause, images, labels, *references):
    """The share of the clean images for which a cause is named, once they are distorted by it.

    Clean images show no trait, and their slant and proportion are in the middle half of their
    class: else the distortion may take a digit from one ordinary slant to another.
    """
    severity, least, trait = CAUSES[cause]
    before = traits.compare(images, labels, *references)
    clean = (traits.outstanding(before) < 0) & ((before.shares[:, :2] - 0.5).abs() < 0.25).all(1)
    changed = robustness.distorted(images, cause, severity)
    chosen = clean & ((changed.float() - images).abs().sum((1, 2)) >= 255 * least)
    assert chosen.sum() > 0.1 * len(images)
    after = traits.compare(changed[chosen], labels[chosen], *references)
    return (traits.outstanding(after) == list(traits.TRAITS).index(trait)).float().mean().item()


def test_slant_and_proportion_of_leaning_bars():
    slants = [-35, -20, 0, 20, 35]
    measures = traits.measure(torch.cat([bar(10, 16, slant) for slant in slants]))
    assert measures["slant"].tolist() == pytest.approx(slants, abs=1)
    assert measures["proportion"].tolist() == pytest.approx([10 / 16] * 5, rel=0.15)


@pytest.mark.parametrize("width, height", [(6, 16), (16, 6), (4, 20), (28, 28), (20, 2)])
def test_measures_of_a_rectangle(width, height):
    measures = traits.measure(bar(width, height))
    assert measures["slant"].item() == pytest.approx(0, abs=0.01)
    assert measures["proportion"].item() == pytest.approx(width / height, rel=0.01)
    assert measures["thickness"].item() == pytest.approx(min(width, height), rel=0.05)
    assert measures["ink"].item() == pytest.approx(width * height, rel=0.01)
    assert measures["pieces"].item() == 1


def test_thickness_of_a_ring():
    distance = torch.hypot(PIXEL, PIXEL[:, None])
    for thickness in (2, 3, 4):
        ring = (thickness / 2 + 0.5 - (distance - 8).abs()).clamp(0, 1)[None, None]
        measured = traits.measure(to_bytes(ring))["thickness"].item()
        assert measured == pytest.approx(thickness, rel=0.15)


def test_pieces_are_those_of_a_flood_fill():
    """Of what is more ink than paper, over corners, too; two pixels are a speck and no piece."""
    generator = torch.Generator().manual_seed(0)
    shade = torch.rand(60, 28, 28, generator=generator)
    images = to_bytes((shade ** torch.linspace(0, 40, 60)[:, None, None])[:, None])  # some sparse
    for image, pieces in zip(images, traits.measure(images)["pieces"].tolist(), strict=True):
        left, sizes = {tuple(at) for at in (image > 127).nonzero().tolist()}, []
        while left:
            reached = [left.pop()]
            for y, x in reached:
                around = {(y + v, x + u) for v in (-1, 0, 1) for u in (-1, 0, 1)} & left
                left -= around
                reached += around
            sizes.append(len(reached))
        assert pieces == sum(size > 2 for size in sizes)


def test_the_usual_slant_and_proportion_can_be_given_to_any_image():
    images = torch.cat([bar(6, 16, 20), bar(10, 16, -15), bar(6, 18)])
    target = torch.tensor(10.0), torch.tensor(0.5)
    restored = traits.reshape(images, traits.measure(images), *target)
    measures = traits.measure(to_bytes(restored))
    assert measures["slant"].tolist() == pytest.approx([10] * 3, abs=1)
    assert measures["proportion"].tolist() == pytest.approx([0.5] * 3, rel=0.15)


def test_an_image_is_compared_with_its_class_alone():
    leans = [(slant + i / 10, 2 + i * 37 % 100 / 25) for slant in (-30, 20) for i in range(100)]
    references = torch.cat([bar(width, 20, slant) for slant, width in leans])
    labels = torch.arange(2).repeat_interleave(100)
    images = torch.cat([bar(4, 20, slant) for slant in (25, 25, 40, 5)])
    comparison = traits.compare(images, torch.tensor([0, 1, 1, 1]), references, labels)
    assert [traits.describe(comparison, index) for index in range(4)] == [
        "slant +25 degrees, more than 99% of its class",
        "none",
        "slant +40 degrees, more than 99% of its class",
        "slant +5 degrees, less than 99% of its class",
    ]
    assert comparison.shares[1, 0].item() == pytest.approx(0.5, abs=0.03)


def test_drawn_digits_rarely_show_a_trait_and_whatever_else_is_compared(drawn):
    references = synthetic.generate(2000, seed=3)
    comparison = traits.compare(*drawn, *references)
    shown = (comparison.scores > 1).float().mean(0)
    sides = torch.tensor([1 if name in traits.ONE_SIDED else 2 for name in traits.TRAITS])
    assert (shown < 1.8 * traits.TAIL * sides).all()
    assert (shown[:6] > 0.5 * traits.TAIL * sides[:6]).all()  # hardly any is in pieces
    some = traits.compare(drawn[0][:50], drawn[1][:50], *references)
    assert torch.allclose(some.values, comparison.values[:50], atol=1e-3)
    assert torch.equal(traits.outstanding(some), traits.outstanding(comparison)[:50])


# Drawn digits vary more than written ones, in slant and proportion above all.
@pytest.mark.parametrize(
    "cause, share", [("slant", 0.6), ("width", 0.5), ("occlusion", 0.9), ("stray line", 0.6)]
)
def test_causes_are_named_on_drawn_digits(cause, share):
    references = synthetic.generate(2000, seed=3)
    assert share_named(cause, *synthetic.generate(1000, seed=4), *references) >= share


@pytest.mark.skipif(not MNIST, reason="no folder with MNIST: make test DATASET=folder")
@pytest.mark.parametrize("cause", CAUSES)
def test_causes_are_named_on_mnist(cause, monkeypatch, tmp_path_factory):
    monkeypatch.setattr(sources, "CACHE", tmp_path_factory.getbasetemp() / "cache")
    images, labels = (part[:54_000].split(50_000) for part in data.load(MNIST, "train")[:2])
    assert share_named(cause, images[1], labels[1], images[0], labels[0]) >= 0.8


def test_images_and_classes_of_every_kind_give_finite_numbers(drawn):
    strange = torch.zeros(6, 28, 28, dtype=torch.uint8)
    strange[2, 3, 4] = 1
    strange[1] = strange[3, 27] = strange[4, :, 0] = strange[5, range(28), range(28)] = 255
    assert all(value.isfinite().all() for value in traits.measure(strange).values())

    images, labels = drawn
    few = labels.clone()
    few[(labels == 7).nonzero()[1:]] = 8  # one 7 is left, and no 6
    few[labels == 6] = 8
    for known in (images, strange[:1].expand(600, 28, 28), images[:0]):
        for label in range(10):
            comparison = traits.compare(strange, torch.full([6], label), known, few[: len(known)])
            assert all(part.isfinite().all() for part in comparison)
            if label in (6, 7) or not len(known):
                assert {traits.describe(comparison, index) for index in range(6)} == {"none"}
    blank = traits.compare(strange, torch.full([6], 9), images, few)
    assert traits.describe(blank, 0).startswith("missing ink")
    assert len(traits.compare(images[:0], labels[:0], images, labels).scores) == 0


def test_the_most_extreme_trait_stands_out_but_never_ink_or_pieces():
    scores = torch.tensor([[0.5, 0.9, 1, 0, 0, 3, 3], [1.1, 0, 1.3, 1.2, 0, 9, 9]])
    comparison = traits.Comparison(torch.zeros(2, 7), torch.zeros(2, 7), scores)
    assert traits.outstanding(comparison).tolist() == [-1, 2]
    assert traits.describe(comparison, 1) == "thickness 0.0 px, less than 99% of its class"


def test_frequencies_of_known_scores():
    scores = torch.zeros(10, 7)
    scores[:3, 0] = 2  # of which images 0 and 1 are mistakes
    scores[4, 6] = 1.5
    scores[6:, 0] = 0.9
    wrong = torch.tensor([True, True] + 2 * [False] + [True, True] + 4 * [False])
    rows = traits.frequencies(traits.Comparison(scores, scores, scores), wrong)
    assert [row.trait for row in rows] == [*traits.TRAITS, "one stands out"]
    assert rows[7][1:3] == rows[0][1:3]  # ink and pieces never do
    assert rows[0][1:] == (2 / 4, 1 / 6, *traits.ratio_interval(2, 4, 1, 6, 1 - 0.05 / 8))
    assert rows[6][1:] == (1 / 4, 0, *traits.ratio_interval(1, 4, 0, 6, 1 - 0.05 / 8))
    for none_or_all in (wrong & False, wrong | True):
        for row in traits.frequencies(traits.Comparison(scores, scores, scores), none_or_all):
            assert all(map(math.isfinite, row[1:])) and 0 < row.low < row.ratio < row.high


def test_the_interval_of_a_ratio_is_that_of_worked_examples():
    # The Physicians' Health Study: heart attacks with placebo and with aspirin; the ratio and its
    # interval are those of A. Agresti, "An Introduction to Categorical Data Analysis", 2.2.3.
    ratio, low, high = traits.ratio_interval(189, 11_034, 104, 11_037)
    assert (ratio, low, high) == pytest.approx((1.82, 1.43, 2.30), abs=0.01)
    # By hand: a standard error of sqrt(1/30 - 1/40 + 1/20 - 1/50) = 0.1958 of the logarithm.
    assert traits.ratio_interval(30, 40, 20, 50) == pytest.approx((1.875, 1.2774, 2.7521), abs=1e-3)
    ratio, low, high = traits.ratio_interval(5, 5, 7, 7)
    assert 0 < low < ratio < high < math.inf
    ratio, low, high = traits.ratio_interval(0, 20, 30, 100)
    assert 0 < low < ratio == (0.5 / 21) / (30.5 / 101) < high < math.inf
