import torch

from digits import synthetic


def test_a_seed_decides_the_drawing_and_nothing_else_does(drawn):
    state = torch.get_rng_state()
    torch.rand(3)
    again = synthetic.generate(600, seed=2)
    assert torch.equal(drawn[0], again[0]) and torch.equal(drawn[1], again[1])
    assert not torch.equal(synthetic.generate(600, seed=3)[0], drawn[0])
    torch.set_rng_state(state)
    synthetic.generate(20, seed=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_way_of_writing_stands_twice():
    ways = [line for line in (synthetic.WAYS + synthetic.OTHER_WAYS).split("\n") if ":" in line]
    names, strokes = (set(column) for column in zip(*(way.split(":") for way in ways), strict=True))
    assert len(names) == len(strokes) == len(ways) == 156


def test_images_and_labels_are_those_of_a_dataset(drawn):
    images, labels = drawn
    assert (images.dtype, images.shape) == (torch.uint8, (600, 28, 28))
    assert (labels.dtype, labels.shape) == (torch.int64, (600,))
    assert labels.bincount().tolist() == [60] * 10
    assert labels[:20].tolist() != sorted(labels[:20].tolist())
    for count in (1, 7, 13):
        images, labels = synthetic.generate(count, seed=0)
        assert len(images) == len(labels) == count


def test_digits_fit_a_box_of_20_pixels_centred_by_mass_in_dark_strokes_with_a_soft_edge(drawn):
    ink = drawn[0].double() / 255
    for axis in (1, 2):
        inked = (ink.amax(axis) > 0.5).int()  # rows or columns with ink
        first, last = inked.argmax(1), 27 - inked.flip(1).argmax(1)
        assert (last - first + 1).max() <= 21
        mass = (ink.sum(axis) @ torch.arange(28.0).double()) / ink.sum((1, 2))
        assert (mass - 14).abs().max() <= 1
    assert (ink.amax((1, 2)) == 1).double().mean() > 0.9
    share = (ink > 0).double().mean((1, 2))
    assert 0.01 < share.min() and share.max() < 0.6
    assert 0.02 < ((ink > 0) & (ink < 1)).double().mean() < 0.2


def test_a_spline_passes_through_its_control_points():
    control = torch.tensor([[0.0, 0], [1, 2], [3, 1], [4, 4]])
    curve = synthetic.spline(4) @ control
    for point in control:
        assert (curve - point).norm(dim=1).min() < 1e-6
    straight = synthetic.spline(3) @ torch.tensor([[0.0, 0], [1, 1], [2, 2]])
    torch.testing.assert_close(straight[:, 0], straight[:, 1])
    assert (straight.diff(dim=0) >= -1e-6).all()
