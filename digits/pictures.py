"""Pictures of images of 28 x 28 pixels, and of a training run."""

import math
from itertools import groupby
from operator import itemgetter

import torch
from PIL import Image, ImageDraw, ImageFont

SMALL = 4  # pixels per pixel of an image, where there are many
UNIT = 3  # and where there are more than a hundred
GAP = 16  # pixels around the pictures of a contact sheet
FONT = 17  # pixels
BLUE = (8, 48, 107)  # dark: told from white and grey by people of any colour vision
ORANGE = (179, 88, 6)  # and from this, too
CHART = 760, 220  # pixels, with the margins
MARGIN = 84, 44, 72, 30  # pixels: left, top, right, bottom
FINE = 2  # how many times larger lines are drawn, then reduced: Pillow's have hard edges


def enlarge(image, scale):
    """A picture of an image uint8 [28, 28], or [28, 28, 3] in colour, with hard-edged pixels."""
    picture = Image.fromarray(image.numpy())
    return picture.resize((28 * scale, 28 * scale), Image.Resampling.NEAREST)


def legible(class_names):
    """Class names for a picture: "class 3" in place of one with a character that the font lacks."""
    font = ImageFont.load_default(FONT)

    def glyph(character):
        mask = font.getmask(character)
        return mask.size, bytes(mask)

    missing = glyph("\U0010ffff")  # This is no character, so it is drawn as all that are lacking.
    return [
        f"class {number}" if missing in map(glyph, name) else name
        for number, name in enumerate(class_names)
    ]


def title(text, scale):
    """A picture, of the size that enlarge() makes, of a few words instead of an image."""
    picture = Image.new("L", (28 * scale, 28 * scale), "white")
    pen = ImageDraw.Draw(picture)
    pen.text((0, 14 * scale), text, "black", ImageFont.load_default(5 * scale), "lm")
    return picture


def distortions(names, rows):
    """A picture with a line per cause: its name, and an image as it is and distorted.

    names: what the lines of text below each image are about.
    rows: (cause, image uint8 [28, 28], lines of text), first of the image as it is, then four of
        each cause.
    """

    def tile(cause, image, lines):
        return enlarge(image, SMALL), "\n".join(lines)

    clean, tiles = tile(*rows[0]), []
    for cause, distorted in groupby(rows[1:], key=itemgetter(0)):
        head = title(cause, SMALL), "\n".join(["", *names])
        tiles += [head, clean, *(tile(*row) for row in distorted)]
    return contact_sheet(*zip(*tiles, strict=True), columns=6)


def contact_sheet(pictures, captions, columns):
    """One picture of many of one size, each with its caption (lines of text) below it."""
    font = ImageFont.load_default(FONT)
    across, down = pictures[0].size
    lines = max(caption.count("\n") + 1 for caption in captions)
    width, height = across + GAP, down + GAP + lines * (FONT + 4)
    rows = -(-len(pictures) // columns)
    size = columns * width + GAP, rows * height + GAP
    sheet = Image.new(pictures[0].mode, size, "white")
    pen = ImageDraw.Draw(sheet)
    for position, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = GAP + position % columns * width
        top = GAP + position // columns * height
        sheet.paste(picture, (left, top))
        pen.multiline_text((left, top + down + GAP // 4), caption, "black", font)
    return sheet


def hidden_units(weights, votes, class_names):
    """A picture of the weights of hidden units, float32 [H, 784], each as an image.

    Ink where they are orange makes a unit active, where they are blue it keeps it from that; the
    darker, the more, in shares of its largest weight. Below stand the classes that it votes most
    for and against, by votes, float32 [10, H], in which order they come, too.
    """
    names = [name[:9] for name in legible(class_names)]
    first, last = votes.argmax(0), votes.argmin(0)
    order = (10 * first + last).argsort(stable=True).tolist()
    shares = (weights / weights.abs().amax(1, keepdim=True)).view(-1, 28, 28, 1)
    shares = shares.round(decimals=1)  # few colours make a small file
    colours = torch.where(shares > 0, torch.tensor(ORANGE), torch.tensor(BLUE))
    images = (255 + shares.abs() * (colours - 255)).round().byte()
    tiles = [enlarge(images[unit], UNIT) for unit in order]
    captions = [f"{names[first[unit]]}\nnot {names[last[unit]]}" for unit in order]
    return contact_sheet(tiles, captions, columns=16).quantize(256)


def ticks(low, high):
    """Some five round numbers at equal distances, from low or below it to high or above it."""
    high = max(high, low + 1e-9)  # where they are the same
    step = (high - low) / 5
    power = 10 ** math.floor(math.log10(step))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor > 0.999 * step)
    return [i * step for i in range(math.floor(low / step), math.ceil(high / step) + 1)]


def line_chart(title, points, limits, unit):
    """A picture of a line through points (x, y), x from 0 on and counted in a unit.

    limits are the lowest and highest y to show at least.
    """
    font = ImageFont.load_default(FINE * FONT)
    width, height, left, top, right, bottom = (FINE * pixels for pixels in CHART + MARGIN)
    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    marks, last = ticks(*limits), points[-1][0]
    low, high = marks[0], marks[-1]

    def place(x, y):
        along, up = x / last, (y - low) / (high - low)
        return left + along * (width - left - right), height - bottom - up * (height - top - bottom)

    pen.text((left, top / 2), title, "black", font, "lm")
    for mark in marks:
        x, y = place(0, mark)
        pen.line([x, y, *place(last, mark)], "lightgrey", FINE)
        pen.text((x - FINE * 8, y), f"{mark:g}", "black", font, "rm")
    for mark in ticks(0, last):
        if mark <= last and mark == round(mark):
            x, y = place(mark, low)
            pen.line([x, y, x, y + FINE * 5], "black", FINE)
            pen.text((x, y + FINE * 8), f"{mark:.0f}", "black", font, "mt")
    pen.line([place(0, high), place(0, low), place(last, low)], "black", FINE)
    pen.text((width - right + FINE * GAP, height - bottom), unit, "black", font, "lm")
    pen.line([place(*point) for point in points], BLUE, 2 * FINE, "curve")
    if len(points) <= 30:
        for x, y in (place(*point) for point in points):
            pen.ellipse([x - FINE * 4, y - FINE * 4, x + FINE * 4, y + FINE * 4], BLUE)
    return picture.reduce(FINE)


def learning_curve(losses, accuracies, rates, highest, judged_by):
    """A picture of a training run: its loss, accuracy and learning rate, one below the other.

    losses and accuracies: of every epoch; the accuracies from 0 to 1.
    rates: (epochs passed, learning rate) at many moments of the run; highest: of all rates.
    judged_by: the images that the accuracies are of, "test" or "validation".
    """
    losses = list(enumerate(losses, start=1))
    accuracies = [(epoch, 100 * share) for epoch, share in enumerate(accuracies, start=1)]
    (_, loss), (_, accuracy) = losses[-1], accuracies[-1]
    most, least = max(y for _, y in losses), min(99, *(y for _, y in accuracies))
    judged = f"{judged_by} accuracy in %, {accuracy:.2f} after the last epoch"
    charts = [
        (f"training loss in nats, {loss:.4f} in the last epoch", losses, (0, most)),
        (judged, accuracies, (least, 100)),
        (f"learning rate, {highest:g} at its highest", rates, (0, highest)),
    ]
    width, height = CHART
    picture = Image.new("RGB", (width, len(charts) * height))
    for place, (heading, points, limits) in enumerate(charts):
        picture.paste(line_chart(heading, points, limits, "epoch"), (0, place * height))
    return picture
