"""Measures of constructed images, and causes named where the truth is known."""

import math

import pytest
import torch
from conftest import MNIST

import data
from digits import synthetic, traits
from digits.distort import PIXEL, affine, pen, warp
from plumbing import sources

CAUSES = {
    "slanted": "slant",
    "narrowed": "proportion",
    "wiped": "missing ink",
    "struck": "extra ink",
}


def bar(width, height, slant=0.0):
    """A bar uint8 [1, 28, 28] with a soft edge, leaning by degrees."""
    x = PIXEL + math.tan(math.radians(slant)) * PIXEL[:, None]
    ink = (width / 2 + 0.5 - x.abs()).clamp(0, 1) * (PIXEL.abs() < height / 2)[:, None]
    return to_bytes(ink[None, None])


def to_bytes(ink):
    return (255 * ink[:, 0]).round().to(torch.uint8)


def distort(images, cause, seed=0):
    """(images with one cause of mistakes, bool [N]: which of them it did distort)."""
    generator = torch.Generator().manual_seed(seed)
    ink = images[:, None].float() / 255
    area = ink.sum((1, 2, 3))
    count = len(images)

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    if cause == "slanted":
        changed = warp(ink, affine(slant=30 * uniform(-1, 1).sign()))
    elif cause == "narrowed":
        changed = warp(ink, affine(width=torch.full([count], 0.6)))
    elif cause == "wiped":  # a disc of 8 to 12 pixels across, on the ink
        at = torch.multinomial(ink.flatten(1), 1, generator=generator)
        x, y = PIXEL - PIXEL[at % 28], PIXEL - PIXEL[at // 28]
        outside = torch.hypot(x[:, None, :], y[:, :, None]) > uniform(4, 6, 1, 1)
        changed = ink * outside[:, None]
    else:  # a curved stroke of 10 to 16 pixels, 2 pixels thick, anywhere
        angle = uniform(0, 2 * math.pi, 1) + uniform(-1, 1, 1) * torch.linspace(-0.5, 0.5, 24)
        steps = torch.stack([angle.cos(), angle.sin()], 2) * uniform(10, 16, 1, 1) / 24
        ends = steps.cumsum(1)
        ends = (ends - ends.mean(1, keepdim=True) + uniform(-9, 9, 1, 2)).clamp(-13, 13)
        stroke = pen(ends[:, :-1], ends[:, 1:], torch.ones(count))
        changed = torch.maximum(ink, stroke)
        return to_bytes(changed), (changed - ink).sum((1, 2, 3)) > stroke.sum((1, 2, 3)) / 2
    hit = changed.sum((1, 2, 3)) <= 0.85 * area if cause == "wiped" else area >= 0
    return to_bytes(changed), hit


def share_named(cause, images, labels, references):
    """The share of the clean images it distorts for which a cause is named.

    Clean images show no trait, and their slant and proportion are in the middle half of their
    class: else the distortion may take a digit from one ordinary slant to another.
    """
    before = traits.compare(images, labels, *references)
    clean = (traits.outstanding(before) < 0) & ((before.shares[:, :2] - 0.5).abs() < 0.25).all(1)
    changed, distorted = distort(images, cause)
    chosen = clean & distorted
    assert chosen.sum() > 0.1 * len(images)
    named = traits.outstanding(traits.compare(changed[chosen], labels[chosen], *references))
    return (named == list(traits.TRAITS).index(CAUSES[cause])).float().mean().item()


@pytest.mark.parametrize("slant", [-35, -20, 0, 20, 35])
def test_slant_and_proportion_of_a_leaning_bar(slant):
    measures = traits.measure(bar(10, 16, slant))
    assert measures["slant"].item() == pytest.approx(slant, abs=1)
    assert measures["proportion"].item() == pytest.approx(10 / 16, rel=0.15)


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


def test_pieces_of_known_drawings():
    images = torch.zeros(5, 28, 28, dtype=torch.uint8)
    images[0, 5:8, 5:8] = images[0, 15:18, 15:18] = 255  # two dots
    images[1, 5:20, 5:20] = 255  # a ring
    images[1, 8:17, 8:17] = 0
    images[2, 3, 3:6] = images[2, 4, 6:9] = images[2, 20, 20:22] = 255  # a corner, and a speck
    images[3, 0, 0:4] = images[3, 0, 24:28] = images[3, 1, 0:4] = images[3, 27, 20:28] = 255
    assert traits.measure(images)["pieces"].tolist() == [2, 1, 1, 3, 0]


def test_pieces_are_those_of_a_flood_fill():
    generator = torch.Generator().manual_seed(0)
    density = torch.rand(60, 1, 1, generator=generator)
    images = (255 * (torch.rand(60, 28, 28, generator=generator) < density)).to(torch.uint8)
    for image, pieces in zip(images, traits.measure(images)["pieces"].tolist(), strict=True):
        left, sizes = {tuple(at) for at in image.nonzero().tolist()}, []
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
    same, restored = traits._forms(images, traits.measure(images), *target)
    assert torch.equal(to_bytes(same), images)
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
    "cause, share", [("slanted", 0.6), ("narrowed", 0.5), ("wiped", 0.9), ("struck", 0.6)]
)
def test_causes_are_named_on_drawn_digits(cause, share):
    references = synthetic.generate(2000, seed=3)
    assert share_named(cause, *synthetic.generate(1000, seed=4), references) >= share


@pytest.mark.skipif(not MNIST, reason="no folder with MNIST: make test DATASET=folder")
@pytest.mark.parametrize("cause", CAUSES)
def test_causes_are_named_on_mnist(cause, monkeypatch, tmp_path_factory):
    monkeypatch.setattr(sources, "CACHE", tmp_path_factory.getbasetemp() / "cache")
    images, labels, *_ = data.load(MNIST, "train")
    references = images[:50_000], labels[:50_000]
    assert share_named(cause, images[50_000:54_000], labels[50_000:54_000], references) >= 0.8


def test_images_and_classes_of_every_kind_give_finite_numbers(drawn):
    strange = torch.zeros(6, 28, 28, dtype=torch.uint8)
    strange[1] = 255
    strange[2, 3, 4] = 1
    strange[3, 27] = 255
    strange[4, :, 0] = 255
    strange[5, torch.arange(28), torch.arange(28)] = 255
    assert all(value.isfinite().all() for value in traits.measure(strange).values())

    images, labels = drawn
    few = labels.clone()
    few[(labels == 7).nonzero()[1:]] = 8  # one 7 is left, and no 6
    few[labels == 6] = 8
    for references in (
        (images, few),
        (strange[:1].expand(600, 28, 28), few),
        (images[:0], few[:0]),
    ):
        for label in range(10):
            own = torch.full([6], label)
            comparison = traits.compare(strange, own, *references)
            assert all(part.isfinite().all() for part in comparison)
            if label in (6, 7) or not len(references[0]):
                assert (traits.outstanding(comparison) == -1).all()
                assert traits.describe(comparison, 0) == "none"
    assert traits.describe(traits.compare(strange, own, images, few), 0).startswith("missing ink")
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
