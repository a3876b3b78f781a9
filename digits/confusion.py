"""Which class was read as which: the confusion matrix, int64 [true, predicted], to look at."""

import torch
from PIL import Image, ImageDraw, ImageFont

from digits.pictures import BLUE, FONT, GAP, legible

CELL = 60  # pixels, of the picture
LARGEST = 10  # confusions to list


def labels(class_names):
    """What heads the rows and the columns of the matrix, in which names may be long."""
    numbers = [str(number) for number in range(10)]
    if max(map(len, class_names)) <= 5:
        return class_names, class_names
    names = zip(numbers, class_names, strict=True)
    return [f"{number} {name[:25]}" for number, name in names], numbers


def per_class(counts, class_names):
    """How each class is read, a dict; a share of nothing is None.

    The precision is the share of what is read as the class that is of it, the recall the share of
    what is of the class that is read as it, and f1 their harmonic mean.
    """

    def share(part, whole):
        return part / whole if whole else None

    sums = torch.stack([counts.sum(1), counts.sum(0), counts.diag()], 1).tolist()
    return [
        {
            "name": name,
            "images": images,
            "errors": images - right,
            "error_rate": share(images - right, images),
            "precision": share(right, predicted),
            "recall": share(right, images),
            "f1": share(2 * right, images + predicted),
        }
        for name, (images, predicted, right) in zip(class_names, sums, strict=True)
    ]


def report(counts, class_names):
    """Lines of text: how each class is read, the matrix, and its largest errors."""
    width = max(len("class"), *(len(name) for name in class_names))

    yield f"{'class':{width}}  images  errors  error rate  precision   recall       F1"
    for row in per_class(counts, class_names):
        name, images, errors, *shares = row.values()
        if row["f1"] is not None:  # There are images of it, or images are read as it.
            cells = ("-" if share is None else f"{share:.2%}" for share in shares)
            rate, precision, recall, f1 = cells
            yield (
                f"{name:{width}}  {images:6,}  {errors:6,}  {rate:>10}  {precision:>9}  "
                f"{recall:>7}  {f1:>7}"
            )

    rows, columns = labels(class_names)
    margin = max(map(len, rows))
    yield f"\n{'true':{margin}}  predicted"
    yield " ".join([" " * margin, *(f"{column:>6}" for column in columns)])
    for head, row in zip(rows, counts.tolist(), strict=True):
        yield " ".join([f"{head:{margin}}", *(f"{count or '.':>6}" for count in row)])

    wrong = counts - counts.diag().diag()
    largest = wrong.flatten().argsort(descending=True, stable=True)[:LARGEST].tolist()
    yield f"\n{'true':{width}}  {'predicted':{max(width, 9)}}  errors"
    for true, predicted in (divmod(place, 10) for place in largest):
        if errors := wrong[true, predicted].item():
            name, other = class_names[true], class_names[predicted]
            yield f"{name:{width}}  {other:{max(width, 9)}}  {errors:6,}"

    shown = zip(legible(class_names), class_names, strict=True)
    if legend := ", ".join(f"{word} is {name}" for word, name in shown if word != name):
        yield f"\nin the pictures, whose font lacks some letters, {legend}"


def draw(counts, class_names):
    """A picture of counts int64 [true, predicted].

    The more errors, the darker the blue; the diagonal is grey.
    """
    font = ImageFont.load_default(FONT)
    rows, columns = labels(legible(class_names))
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
