"""Draw docs/resistance.png: one digit, changed more and more, and what three networks read.

In the folder of the project:

    .venv/bin/python -m docs.resistance quick.pt accurate.pt robust.pt
"""

import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

import data
import robustness
from digits import pictures, synthetic
from model import load_checkpoint

ROWS = [  # as in make robustness, and how severely
    ("rotation", (10, 20, 30, 40, 50, 60)),
    ("slant", (10, 20, 30, 40, 50, 60)),
    ("width", (0.8, 0.7, 0.6, 0.5, 0.4, 0.3)),
    ("occlusion", (4, 6, 8, 10, 12, 14)),
    ("stray line", (6, 10, 14, 18, 22, 26)),
]
DIGIT = 4  # the first of those that are drawn with seed 0
LINE = 20  # pixels, of text


def write(pen, x, y, name, read):
    """What a network reads, in blue where that is right and in orange where not."""
    colour, mark = (pictures.BLUE, "") if read == DIGIT else (pictures.ORANGE, " wrong")
    pen.text((x, y), f"{name} {read}{mark}", colour, ImageFont.load_default(15))


def main():
    names = [Path(path).stem for path in sys.argv[1:]]
    models = [load_checkpoint(Path(path))[0] for path in sys.argv[1:]]
    drawn, labels = synthetic.generate(10, seed=0)
    position = labels.tolist().index(DIGIT)
    image = drawn[position : position + 1]
    side, step = 28 * pictures.SMALL, 28 * pictures.SMALL + pictures.GAP
    height = step + LINE * (1 + len(models))
    sheet = Image.new("RGB", (7 * step + pictures.GAP, len(ROWS) * height + pictures.GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (cause, severities) in enumerate(ROWS):
        unit = robustness.CAUSES[cause][1]
        for column, severity in enumerate((None, *severities)):
            seen = image if severity is None else robustness.distorted(image, cause, severity)
            x, y = pictures.GAP + column * step, pictures.GAP + row * height
            sheet.paste(pictures.enlarge(seen[0], pictures.SMALL), (x, y))
            title = cause if severity is None else f"{severity} {unit}"
            pen.text((x, y + side + 2), title, "black", ImageFont.load_default(15))
            for line, (name, model) in enumerate(zip(names, models, strict=True), start=1):
                with torch.inference_mode():
                    read = model(data.to_float(seen)).argmax().item()
                write(pen, x, y + side + 2 + LINE * line, name, read)
    sheet.quantize(64).save("docs/resistance.png", optimize=True)


if __name__ == "__main__":
    main()
