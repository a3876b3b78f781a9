"""Pictures of what is counted and measured: the confusion matrix and line charts."""

import numpy as np
import pytest
import torch

from digits import confusion, pictures

WHITE, BLUE = (255, 255, 255), pictures.BLUE


def test_errors_are_the_bluer_the_more_there_are_and_the_diagonal_is_grey():
    counts = torch.zeros(10, 10, dtype=torch.int64)
    counts[range(10), range(10)] = 1000
    counts[4, 9], counts[9, 4] = 20, 10
    picture = confusion.draw(counts, list("0123456789"))
    cell = confusion.CELL
    left, top = (side - 10 * cell - pictures.GAP for side in picture.size)

    def colour(true, predicted):  # near the corner of a cell, away from the number
        return picture.getpixel((left + predicted * cell + 5, top + true * cell + 5))

    assert colour(4, 9) == BLUE and colour(0, 1) == colour(9, 0) == WHITE
    assert all(b < half < 255 for b, half in zip(BLUE, colour(9, 4), strict=True))
    (grey,) = {colour(i, i) for i in range(10)}
    assert len(set(grey)) == 1 and 150 < grey[0] < 250
    # Every cell has its number: some pixel is of another colour than the corner.
    for true in range(10):
        for predicted in range(10):
            x, y = left + predicted * cell, top + true * cell
            inside = picture.crop((x + 5, y + 5, x + cell - 5, y + cell - 5))
            assert len(inside.getcolors(10_000)) > 1


def test_precision_recall_and_f1_of_a_class_and_what_is_undefined():
    counts = torch.zeros(10, 10, dtype=torch.int64)
    counts[0, 0], counts[0, 1], counts[1, 0], counts[2, 3] = 6, 2, 4, 5
    rows = confusion.per_class(counts, list("abcdefghij"))
    assert rows[0] == {
        **{"name": "a", "images": 8, "errors": 2, "error_rate": 2 / 8},
        **{"precision": 6 / 10, "recall": 6 / 8, "f1": 2 / (10 / 6 + 8 / 6)},
    }
    shares = [list(row.values())[3:] for row in rows[1:5]]
    assert shares == [[1, 0, 0, 0], [1, None, 0, 0], [None, 0, None, 0], [None] * 4]
    head, *lines, matrix = [*confusion.report(counts, list("abcdefghij"))][:6]
    assert [line[0] for line in lines] == list("abcd") and {len(head)} == {*map(len, lines)}
    assert matrix.startswith("\ntrue")
    assert lines[0].split()[1:] == ["8", "2", "25.00%", "60.00%", "75.00%", "66.67%"]
    assert lines[2].split()[1:] == ["5", "5", "100.00%", "-", "0.00%", "0.00%"]


def test_names_that_the_font_lacks_are_drawn_as_numbers_and_told_in_words():
    counts = torch.ones(10, 10, dtype=torch.int64)
    names = ["é", "あ", *"23456789"]
    drawn, expected = confusion.draw(counts, names), ["class 0", "class 1", *"23456789"]
    assert drawn.tobytes() == confusion.draw(counts, expected).tobytes()
    assert "class 0 is é, class 1 is あ" in [*confusion.report(counts, names)][-1]
    assert not any("class 0" in line for line in confusion.report(counts, list("0123456789")))


def test_a_matrix_without_errors_and_one_with_long_names():
    counts = 10**6 * torch.eye(10, dtype=torch.int64)
    names = list("0123456789")
    short, long = (confusion.draw(counts, names[:9] + [name]) for name in ("9", "x" * 300))
    assert short.height == long.height and short.width + 100 < long.width < 2 * short.width
    odd = pictures.legible([*names[:8], "é", "7\n", "x" * 300, "o'clock", "12°"])
    assert odd == [*names[:8], "class 8", "class 9", "x" * 300, "o'clock", "12°"]
    assert pictures.legible(names) == names and confusion.labels(names) == (names, names)
    assert confusion.labels(names[:9] + ["x" * 300])[0][9] == f"9 {'x' * 25}"


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.02, [0, 0.005, 0.01, 0.015, 0.02]),
        (89.2, 100, [85, 90, 95, 100]),
        (99, 100, [99, 99.2, 99.4, 99.6, 99.8, 100]),
        (0, 100_000, [0, 20_000, 40_000, 60_000, 80_000, 100_000]),
    ],
)
def test_ticks_are_round_numbers(low, high, expected):
    assert pictures.ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize("low, high", [(0, 0), (0, 5e-324), (0, 1e-9), (0, 1e39), (100, 100)])
def test_ticks_hold_all_there_is_to_show(low, high):
    first, *_, last = marks = pictures.ticks(low, high)
    assert 2 <= len(marks) <= 7 and first <= low <= high <= last and first < last


def test_a_line_goes_through_its_points():
    points = [(1, 0.9), (2, 0.1), (4, 0.5)]
    width, height = pictures.CHART
    left, top, right, bottom = pictures.MARGIN

    def blue(points, x, y):  # around a place of the chart, whose axes end at 4 and 1
        picture = np.asarray(pictures.line_chart("title", points, (0, 1), "epoch"))
        across = round(left + x / 4 * (width - left - right))
        down = round(height - bottom - y * (height - top - bottom))
        around = picture[max(0, down - 2) : down + 3, across - 2 : across + 3]
        return (around == BLUE).all(-1).any()

    for x, y in [*points, (1.5, 0.5), (3, 0.3)]:
        assert blue(points, x, y)
    for x, y in [(1, 0.1), (2, 0.9), (3, 0.5)]:
        assert not blue(points, x, y)
    assert blue([(4, 0.5)], 4, 0.5)  # a run of one epoch has one point, and no line


def test_hidden_units_are_orange_for_and_blue_against_and_in_the_order_of_their_votes():
    weights, votes = torch.zeros(3, 784), torch.zeros(10, 3)
    weights[0, 0], weights[0, 783], weights[1, 28], weights[2, 5] = 2, -1, -0.1, 3
    votes[7, 0] = votes[2, 1] = votes[2, 2] = 1
    votes[3, 0] = votes[9, 1] = votes[4, 2] = -1
    sheet = pictures.hidden_units(weights, votes, list("0123456789")).convert("RGB")
    side = 28 * pictures.UNIT
    tiles = [
        np.asarray(sheet)[pictures.GAP :, pictures.GAP + n * (side + pictures.GAP) :][:side, :side]
        for n in range(3)
    ]
    seven, four, nine = (tiles[n][1 :: pictures.UNIT, 1 :: pictures.UNIT] for n in (2, 0, 1))
    for tile, place, colour in (
        (seven, (0, 0), pictures.ORANGE),
        (seven, (27, 27), [(255 + shade) / 2 for shade in BLUE]),  # half of its largest weight
        (nine, (1, 0), BLUE),
        (four, (0, 5), pictures.ORANGE),
    ):
        assert np.abs(tile[place] - np.array(colour)).max() <= 1
        assert (tile == 255).all(-1).sum() == 784 - (2 if tile is seven else 1)


def test_a_learning_curve_is_three_charts_below_one_another():
    curve = pictures.learning_curve([0.5, 0.1], [0.9, 0.95], [(0, 0), (2, 0.02)], 0.02, "test")
    width, height = pictures.CHART
    assert curve.size == (width, 3 * height)
    points = [(1, 90), (2, 95)]
    title = "test accuracy in %, 95.00 after the last epoch"
    middle = pictures.line_chart(title, points, (90, 100), "epoch")
    assert curve.crop((0, height, width, 2 * height)).tobytes() == middle.tobytes()
