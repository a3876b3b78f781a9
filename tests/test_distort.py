"""Each distortion against an independent construction."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import data
from digits import distort
from recipes import Settings

ROUNDING = 1e-5  # of a warp by nothing; a step of a byte is 4e-3


def measure(images):
    """Mass, mean x, mean y, and the central second moments xx, xy, yy of float [N, 1, 28, 28]."""
    x = torch.arange(28.0).double() - 13.5
    image = images[:, 0].double()
    mass = image.sum((1, 2))
    mean_x, mean_y = image.sum(1) @ x / mass, image.sum(2) @ x / mass
    dx, dy = x[None] - mean_x[:, None], x[None] - mean_y[:, None]
    xx, yy = (image.sum(1) * dx**2).sum(1) / mass, (image.sum(2) * dy**2).sum(1) / mass
    xy = torch.einsum("nyx,ny,nx->n", image, dy, dx) / mass
    return mass, mean_x, mean_y, xx, xy, yy


def bar(width=3, height=15):
    """An upright bar in the middle, [1, 1, 28, 28], with soft edges."""
    ink = [(size / 2 + 0.5 - distort.PIXEL.abs()).clamp(0, 1) for size in (width, height)]
    return (ink[1][:, None] * ink[0])[None, None]


def settings(**values):
    """Settings that distort nothing but as told."""
    return Settings(recipe="mine", epochs=1, learning_rate=0.01, **{"batch_size": 64} | values)


WARPS = settings(rotation=20, slant=20, smallest=0.8, largest=1.25, shift=2)


@pytest.fixture
def digits(drawn):
    return data.to_float(drawn[0])


def slant(images):
    """Radians [N] by which the ink leans to the right, as distort.py measures it."""
    return distort.measure_slant(distort.measure_moments(images)[1]).atan()


def warp(images, **parameters):
    return distort.warp(images, distort.affine(**parameters).expand(len(images), 2, 3))


def test_the_identity_changes_nothing(digits):
    assert (warp(digits) - digits).abs().max() <= ROUNDING


@pytest.mark.parametrize("degrees", [-40.0, -15.0, 0.0, 10.0, 30.0])
def test_a_slanted_bar_leans_by_the_angle_is_measured_and_put_upright(degrees):
    leaning = warp(bar(), slant=degrees)
    top, bottom = leaning[0, 0, [8, 19]] @ distort.PIXEL
    assert np.sign(round((top - bottom).item(), 3)) == np.sign(degrees)
    *_, xy, yy = measure(leaning)
    # Of a sheared upright bar: mean x at height y is -tan(angle) y, y down.
    assert math.degrees(math.atan(-xy / yy)) == pytest.approx(degrees, abs=0.3)
    assert slant(leaning).rad2deg().item() == pytest.approx(degrees, abs=0.3)
    mass, x, y, xx, xy, yy = measure(
        distort.take_out_moments(warp(leaning, right=3, down=-4), level=1)
    )
    assert xy / yy == pytest.approx(0, abs=0.01) and mass == pytest.approx(measure(bar())[0], 1e-3)
    assert (x, y) == (pytest.approx(3, abs=0.02), pytest.approx(-4, abs=0.02))
    assert xx == pytest.approx(measure(bar())[3], abs=0.5)  # as narrow, but for interpolation


def test_a_slant_beyond_45_degrees_is_taken_out_in_part():
    left = slant(distort.take_out_moments(warp(bar(3, 9), slant=60.0), level=1)).tan()
    assert left.item() == pytest.approx(math.tan(math.radians(60)) - 1, abs=0.1)


def test_each_image_is_put_upright_by_itself(digits):
    upright = distort.take_out_moments(digits, level=1)
    before, after = (slant(images).tan().abs().mean() for images in (digits, upright))
    assert before > 5 * after
    torch.testing.assert_close(distort.take_out_moments(digits[7:8], level=1), upright[7:8])


@pytest.mark.parametrize("width, height, degrees", [(8, 18, 0), (12, 12, 20), (20, 9, -30)])
def test_half_of_width_and_height_is_taken_out(width, height, degrees):
    image = warp(bar(width, height), slant=float(degrees), right=1.0)
    before, after = (measure(each) for each in (image, distort.take_out_moments(image, level=2)))
    assert after[1] == pytest.approx(before[1], abs=0.02)  # The middle stays.
    *_, xx, xy, yy = before
    for now, earlier, usual in (
        (after[3], xx - xy**2 / yy, distort.WIDTH),
        (after[5], yy, distort.HEIGHT),
    ):
        expected = math.sqrt(math.sqrt(earlier) * usual)  # the geometric mean of both deviations
        assert math.sqrt(now) == pytest.approx(expected, rel=0.02)


def test_width_and_height_change_by_a_factor_of_two_at_most():
    tiny, large = torch.eye(2) * 0.1, torch.eye(2) * 1e4
    matrices = distort.uprighting(torch.zeros(2, 2), torch.stack([tiny, large]), level=2)
    assert torch.equal(matrices[..., :2], torch.stack([torch.eye(2) / 2, torch.eye(2) * 2]))


@pytest.mark.parametrize("level", [1, 2])
def test_one_warp_distorts_and_takes_the_moments_out(digits, level):
    generator, told = torch.Generator().manual_seed(3), replace(WARPS, moments=level)
    matrices = distort.draw(600, told, generator)["matrices"]
    own = distort.measure_moments(digits)
    (both,) = distort.distortions(600, 600, told, generator.manual_seed(3), moments=own)
    twice = distort.take_out_moments(distort.warp(digits, matrices), level)
    for one, other in zip(measure(both(digits)), measure(twice), strict=True):
        assert (one - other).abs().median() < 0.05 * other.abs().median() + 0.05
    assert (both(digits) - twice).abs().mean() < 0.25 * (digits - twice).abs().mean()


def test_two_warps_are_one_of_their_product():
    first, second = distort.affine(20.0, 10.0, 0.8, 1.3, 2.0, -1.0), distort.affine(-5.0, width=1.1)
    bottom = torch.tensor([[[0.0, 0.0, 1.0]]])
    squares = [torch.cat([each, bottom], 1) for each in (first, second)]
    torch.testing.assert_close(distort.compose(first, second), (squares[0] @ squares[1])[:, :2])


def test_a_blank_image_and_a_flat_line_stay_as_they_are():
    images = torch.zeros(2, 1, 28, 28)
    images[1, 0, 13, 5:22] = 1
    assert (distort.take_out_moments(images, level=1) - images).abs().max() <= ROUNDING


@pytest.mark.parametrize("degrees", [20.0, 80.0])
def test_rotation_agrees_with_pillow(digits, degrees):
    rotated = warp(digits[:50], rotation=degrees)
    for image, ours in zip(digits[:50, 0].numpy(), rotated[:, 0].numpy(), strict=True):
        theirs = Image.fromarray(image).rotate(-degrees, Image.Resampling.BILINEAR)
        # Pillow reads no neighbour across the edge of the image, which MNIST's margin leaves empty.
        assert np.abs(np.asarray(theirs) - ours)[1:-1, 1:-1].max() < 1e-3


def test_stretching_moves_the_edges_by_the_factors():
    _, _, _, xx, _, yy = measure(bar(8, 8))
    _, _, _, wide, _, high = measure(warp(bar(8, 8), width=1.5, height=0.5))
    assert (wide / xx).sqrt() == pytest.approx(1.5, rel=0.02)
    assert (high / yy).sqrt() == pytest.approx(0.5, rel=0.08)  # interpolation blurs small things


def test_a_shift_by_whole_pixels_copies_them(digits):
    moved = warp(digits, right=3.0, down=-2.0)
    assert (moved[:, :, :-2, 3:] - digits[:, :, 2:, :-3]).abs().max() <= ROUNDING
    assert max(moved[:, :, -2:].max(), moved[:, :, :, :3].max()) <= ROUNDING


def test_the_order_is_stretch_slant_turn_shift():
    def from_result_to_image(**parameters):
        return np.vstack([distort.affine(**parameters)[0].double().numpy(), [0, 0, 1]])

    stretch, shift = {"width": 0.8, "height": 1.1}, {"right": 2.0, "down": 1.0}
    steps = stretch, {"slant": 15.0}, {"rotation": 25.0}, shift
    one_by_one = np.linalg.multi_dot([from_result_to_image(**step) for step in steps])
    together = from_result_to_image(**stretch, slant=15.0, rotation=25.0, **shift)
    assert np.abs(one_by_one - together).max() < 1e-5


def test_each_image_has_its_own_parameters(digits):
    angles = torch.linspace(-40, 40, 20)
    turned = distort.warp(digits[:20], distort.affine(rotation=angles, width=1 + angles / 100))
    for image, angle, result in zip(digits, angles, turned, strict=False):
        alone = warp(image[None], rotation=angle, width=1 + angle / 100)
        torch.testing.assert_close(result, alone[0], rtol=0, atol=1e-5)


def test_a_patch_is_wiped_out_and_nothing_else():
    images = torch.rand(3, 1, 28, 28) + 1
    low = torch.tensor([[-3.5, -1.0], [-20.0, -20.0], [1.0, 1.0]])  # x, y
    high = torch.tensor([[2.0, 4.0], [-10.0, 20.0], [1.2, 9.0]])
    wiped = distort.occlude(images, low, high)
    for n, row, column in np.ndindex(3, 28, 28):
        place = torch.tensor([column, row]) - 13.5
        inside = (low[n] < place).all() and (place < high[n]).all()
        assert wiped[n, 0, row, column] == (0 if inside else images[n, 0, row, column])
    assert (wiped == 0).sum((1, 2, 3)).tolist() == [25, 4 * 28, 0]


def test_a_pen_inks_what_is_nearer_to_its_line_than_its_radius():
    first, last = np.array([-8.0, -6.0]), np.array([7.0, 5.0])
    points = torch.from_numpy(np.linspace(first, last, 31, dtype=np.float32))[None]
    along = (last - first) / np.linalg.norm(last - first)
    across = np.array([-along[1], along[0]])
    for radius in (0.8, 1.5, 3.0):
        ink = distort.pen(points[:, :-1], points[:, 1:], torch.tensor([radius]))
        assert ink.shape == (1, 1, 28, 28)
        for row, column in np.ndindex(28, 28):
            place = np.array([column, row]) - 13.5
            behind = max((first - place) @ along, (place - last) @ along)  # an end of the line
            if behind < -2:
                expected = np.clip(radius - abs(place @ across) + 0.5, 0, 1)
                assert ink[0, 0, row, column] == pytest.approx(expected, abs=0.15)
            elif behind > radius + 1:
                assert ink[0, 0, row, column] == 0


def test_a_curve_starts_ends_and_bends_where_its_control_points_say():
    control = torch.tensor([[[0.0, 0], [4, 8], [8, 0]]])
    start, end = distort.bend(control)
    assert start.shape == end.shape == (1, 12, 2)
    assert torch.equal(start[0, 0], control[0, 0]) and torch.equal(end[0, -1], control[0, 2])
    assert torch.equal(start[:, 1:], end[:, :-1])
    torch.testing.assert_close(start[0, 6], torch.tensor([4.0, 4.0]))  # Bezier: half the height


STRONG = settings(
    rotation=30, slant=25, smallest=0.6, largest=1.4, shift=3, occlusion=0.4, extra_writing=0.25
)


def epoch(split, told, number=1):
    """The images and the labels of an epoch."""
    return map(torch.cat, zip(*data.Batches(data.Split(*split, []), told, number), strict=True))


@pytest.mark.parametrize(
    "name, read",
    {  # from the matrices, where there is nothing else in them
        "rotation": lambda m: torch.atan2(-m[:, 1, 0], m[:, 1, 1]).rad2deg(),
        "slant": lambda m: m[:, 0, 1].atan().rad2deg(),
        "shift": lambda m: -m[:, 0, 2],
        "smallest": lambda m: -m[:, 0, 0].log(),
        "largest": lambda m: -m[:, 1, 1].log(),
    }.items(),
)
def test_parameters_stay_within_their_limits_and_fill_them(name, read):
    value = getattr(STRONG, name)
    drawn = read(distort.draw(20_000, settings(**{name: value}), torch.Generator())["matrices"])
    limit = math.log(value) if "est" in name else value
    low, high = sorted([0 if "est" in name else -limit, limit])
    reach = 0.05 * (high - low)
    assert low <= drawn.min() < low + reach and high - reach < drawn.max() <= high
    assert drawn.abs().median() < 0.3 * max(high, -low)  # most are light


def test_a_share_of_the_images_is_occluded_and_another_written_on(digits):
    images = digits[:80]
    parameters = distort.draw(80, STRONG, torch.Generator().manual_seed(3))
    before = images.clone()
    distorted = distort.distorted(images, STRONG, **parameters)
    assert torch.equal(images, before)
    warped = distort.warp(images, parameters["matrices"])
    less = (distorted < warped).any((1, 2, 3))
    more = (distorted > warped).any((1, 2, 3))
    assert less[:32].sum() > 20 and not less[32:].any()
    assert more[60:].sum() > 15 and not more[:60].any()
    assert distorted.min() >= 0 and distorted.max() <= 1


def test_only_what_a_recipe_has_is_drawn():
    assert distort.draw(9, settings(), torch.Generator()) == {}
    few = distort.draw(9, WARPS, torch.Generator())
    assert list(few) == ["matrices"]
    for share in {"occlusion": 0.1}, {"extra_writing": 0.1}:
        more = distort.draw(9, replace(WARPS, **share), torch.Generator())
        assert torch.equal(more["matrices"], few["matrices"])
        assert {"patches", "strokes", "radius"} < set(more)


def test_what_is_drawn_in_blocks_is_drawn_for_each_image_once(digits, monkeypatch):
    monkeypatch.setattr(distort, "BLOCK", 150)  # two batches, then two more, then one
    draws, draw = [], distort.draw
    monkeypatch.setattr(distort, "draw", lambda *args: draws.append(draw(*args)) or draws[-1])
    found = distort.distortions(270, 60, settings(shift=3), torch.Generator().manual_seed(3))
    shown = [each(digits[: 60 if i < 4 else 30]) for i, each in enumerate(found)]
    assert [len(each["matrices"]) for each in draws] == [120, 120, 30] and len(shown) == 5
    matrices = torch.cat([each["matrices"] for each in draws])
    for i, images in enumerate(shown):
        expected = distort.warp(digits[: len(images)], matrices[60 * i :][: len(images)])
        assert torch.equal(images, expected)


def test_every_device_distorts_as_the_cpu_does(digits, device):
    parameters = distort.draw(600, STRONG, torch.Generator().manual_seed(3))
    there = {name: tensor.to(device) for name, tensor in parameters.items()}
    expected = distort.distorted(digits, STRONG, **parameters)
    found = distort.distorted(digits.to(device), STRONG, **there).cpu()
    assert (found - expected).abs().mean() < 1e-5


def test_a_seed_and_an_epoch_decide_the_distortions(drawn):
    images, labels = epoch(drawn, STRONG)
    assert torch.equal(next(epoch(drawn, STRONG)), images)
    others = (replace(STRONG, seed=1), 1), (STRONG, 2), (settings(rotation=30), 1)
    assert not any(torch.equal(next(epoch(drawn, *other)), images) for other in others)
    _, order = epoch(drawn, settings())  # distorted or not, it is the same
    assert torch.equal(order, labels)
