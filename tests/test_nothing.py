import torch

from digits import distort, nothing, synthetic


def test_a_seed_decides_the_images_and_nothing_else_does():
    state = torch.get_rng_state()
    images = nothing.generate(203)
    assert (images.dtype, images.shape) == (torch.uint8, (203, 28, 28))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(nothing.generate(203), images)
    assert not torch.equal(nothing.generate(203, seed=5), images)


def test_they_lie_in_images_as_digits_do():
    for ink in nothing.generate(400)[:, None].double().div(255).split(100):  # kind by kind
        assert ink.amax((1, 2, 3)).min() > 0.5
        middle, _ = distort.measure_moments(ink.float())
        assert middle.abs().mean() < 1 and middle.abs().max() < 4
        for axes in (1, 2), (1, 3):
            low, high = nothing.extent(ink.amax(axes))
            assert (high - low).median() >= 12 and (high - low).max() <= 24


def test_fitting_gives_ink_twenty_pixels_and_the_middle():
    ink = torch.zeros(2, 1, 28, 28)
    ink[0, 0, 3:13, 5:9] = ink[1, 0, 20:24, 2:26] = 1
    fitted = nothing.fit(ink)
    middle, _ = distort.measure_moments(fitted)
    torch.testing.assert_close(middle, torch.zeros(2, 2), atol=0.02, rtol=0)
    areas = [20 * 8, 20 * 20 / 6]
    torch.testing.assert_close(fitted.sum((1, 2, 3)), torch.tensor(areas), atol=8, rtol=0)


def test_a_part_is_neither_a_bar_nor_a_ring_nor_nearly_a_whole_digit():
    digits, labels = synthetic.generate(nothing.BLOCK, seed=1)
    ink = digits[:, None].float() / 255
    parts = nothing.cut(ink, labels, torch.Generator().manual_seed(0))
    assert nothing.BLOCK / 8 < len(parts) < nothing.BLOCK / 2
    bars = ink[labels == 1]
    variances = [
        torch.linalg.eigvalsh(distort.measure_moments(each)[1])[:, 0] for each in (parts, bars)
    ]
    assert variances[0].min() > 2 and variances[1].median() < 2


def test_signs_are_none_of_the_ways_to_write_a_digit():
    names = [line.split(":")[0] for line in synthetic.SIGNS.split("\n") if ":" in line]
    names += [line.split(":")[0] for line in synthetic.BOXES.split("\n") if ":" in line]
    assert len(names) == len(set(names)) == len(nothing.SIGNS) + len(nothing.BOXES)
    assert not any(name[0].isdigit() for name in names)
    for strokes in nothing.SIGNS + nothing.BOXES:
        assert all(stroke.abs().max() <= 1 and len(stroke) > 1 for stroke in strokes)
