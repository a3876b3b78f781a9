"""The picture of docs/own-digits.md: drawn digits on three kinds of paper, their ink, what is read.

Run it in the project's folder with the network of `make train RECIPE=everyday`:

    PYTHONPATH=.:tests .venv/bin/python docs/pages.py
"""

import functools
from pathlib import Path

import numpy as np
import paper as pages
from PIL import Image

import predict
from digits import paper, scan, synthetic
from model import load_checkpoint

WIDTH, HEIGHT = 340, 140  # pixels of a cell of the picture

model, checkpoint = load_checkpoint(Path("checkpoint.pt"))
judge = functools.partial(predict.judge, model)
images = synthetic.generate(200, seed=3)[0].numpy()
picture = Image.new("L", (3 * WIDTH, 3 * HEIGHT), 255)
file = Path("page.jpg")
for line, (kind, index) in enumerate([("squared", 3), ("table", 1), ("touching", 0)]):
    file.write_bytes(pages.page(images, index, kind)[0])
    reading = scan.read(file, judge=judge, threshold=checkpoint.settings["threshold"])
    print(kind, predict.predict(model, reading, checkpoint.class_names)["prediction"])
    ink, _ = next(paper.inks(scan.to_grey(scan.decode(file)[0]), *paper.PAGE))
    without = paper.without_rules(ink)
    ink = ink if without is None else without
    cells = (
        Image.open(file),
        Image.fromarray((255 * (1 - ink)).astype(np.uint8)),
        predict.picture_input(reading.lines).resize((56 * len(reading.lines[0]), 56), 0),
    )
    for column, cell in enumerate(cells):
        cell.thumbnail((WIDTH - 10, HEIGHT - 10))
        picture.paste(cell, (column * WIDTH, line * HEIGHT + (HEIGHT - cell.height) // 2))
file.unlink()
picture.save("docs/pages.png", optimize=True)
