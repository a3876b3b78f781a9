"""Pictures of images of 28 x 28 pixels, and of what is counted and measured on them."""

import math

from PIL import Image, ImageDraw, ImageFont

GAP = 16  # pixels around the pictures of a contact sheet
FONT = 17  # pixels
CELL = 60  # pixels, of the confusion matrix
BLUE = (8, 48, 107)  # dark: told from white and grey by people of any colour vision
CHART = 760, 220  # pixels, with the margins
MARGIN = 84, 44, 72, 30  # pixels: left, top, right, bottom
FINE = 2  # lines are drawn so many times larger and then reduced, because Pillow's have hard edges


def enlarge(image, scale):
    """A picture of an image uint8 [28, 28] with hard-edged pixels."""
    picture = Image.fromarray(image.numpy())
    return picture.resize((28 * scale, 28 * scale), Image.Resampling.NEAREST)


def title(text, scale):
    """A picture, of the size that enlarge() makes, of a few words instead of an image."""
    picture = Image.new("L", (28 * scale, 28 * scale), "white")
    pen = ImageDraw.Draw(picture)
    pen.text((0, 14 * scale), text, "black", ImageFont.load_default(5 * scale), "lm")
    return picture


def contact_sheet(pictures, captions, columns):
    """One picture of many of one size, each with its caption (lines of text) below it."""
    font = ImageFont.load_default(FONT)
    across, down = pictures[0].size
    lines = max(caption.count("\n") + 1 for caption in captions)
    width, height = across + GAP, down + GAP + lines * (FONT + 4)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("L", (columns * width + GAP, rows * height + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for position, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = GAP + position % columns * width
        top = GAP + position // columns * height
        sheet.paste(picture, (left, top))
        pen.multiline_text((left, top + down + GAP // 4), caption, "black", font)
    return sheet


def confusion_matrix(counts, rows, columns):
    """A picture of counts int64 [true, predicted] with the labels of its rows and columns.

    The more errors, the darker the blue; the diagonal is grey.
    """
    font = ImageFont.load_default(FONT)
    left, top = GAP + max(60, *(int(font.getlength(row)) + GAP for row in rows)), 2 * CELL
    picture = Image.new("RGB", (left + 10 * CELL + GAP, top + 10 * CELL + GAP), "white")
    pen = ImageDraw.Draw(picture)
    pen.text((left, CELL / 2), "predicted", "black", font, "lm")
    pen.text((GAP, top - CELL / 2), "true", "black", font, "lm")
    most = max(1, (counts - counts.diag().diag()).max().item())
    for true, numbers in enumerate(counts.tolist()):
        y = top + true * CELL
        pen.text((left - GAP, y + CELL / 2), rows[true], "black", font, "rm")
        pen.text((left + (true + 0.5) * CELL, top - CELL / 2), columns[true], "black", font, "mm")
        for predicted, count in enumerate(numbers):
            x, share = left + predicted * CELL, count / most
            cell = tuple(round(255 + share * (dark - 255)) for dark in BLUE)
            ink = "white" if share > 0.65 else "black" if count else "darkgrey"
            if true == predicted:
                cell, ink = "lightgrey", "black"
            pen.rectangle((x, y, x + CELL, y + CELL), cell, "grey")
            pen.text((x + CELL / 2, y + CELL / 2), str(count), ink, font, "mm")
    return picture


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


def stack(pictures):
    """Pictures of one size below one another."""
    width, height = pictures[0].size
    whole = Image.new("RGB", (width, len(pictures) * height))
    for number, picture in enumerate(pictures):
        whole.paste(picture, (0, number * height))
    return whole
