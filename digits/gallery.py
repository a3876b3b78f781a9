"""A page of mistakes, to look through in a browser: one file that asks for nothing else."""

import base64
import io
import json
from pathlib import Path

import torch
from PIL import Image

PAGE = Path(__file__).with_name("mistakes.html")
TITLE = "<title>Mistakes of the 784-128-10 network</title>"  # by which a page is known
MOST = 400  # mistakes on a page: whatever is in their images, it stays below 2 MB
ALIKE = 3  # training images beside a mistake
BLOCK = 100  # images that are compared with all training images at once


def nearest(activations, references):
    """The ALIKE references float32 [N, D] that are nearest to each of activations float32 [M, D].

    Their indices, int64 [M, ALIKE], by Euclidean distance, the nearest first.
    """
    halves = (references**2).sum(1) / 2
    return torch.cat(
        [
            (block @ references.T - halves).topk(min(ALIKE, len(references))).indices
            for block in activations.split(BLOCK)
        ]
    )


def fill_page(about, class_names, confusion, mistakes, images):
    """The page, a string, with the mistakes in the order that they come in.

    about: a sentence on the network.
    class_names: ten strings.
    confusion: int64 [10, 10], how many images of a true class, the row, were read as another.
    mistakes: M dicts, each with the index of the image, its true and predicted class, the ten
        probabilities, the trait in words ("none", or "unknown"), and the index and label of each
        of K training images that are alike.
    images: uint8 [M, 1 + K, 28, 28], of each mistake and of those that are alike.
    """
    sprite = io.BytesIO()
    if mistakes:
        rows = images.transpose(1, 2).reshape(28 * len(images), -1)
        Image.fromarray(rows.numpy()).save(sprite, "png", optimize=True)
    content = {
        "about": about,
        "class_names": class_names,
        "confusion": confusion.tolist(),
        "mistakes": mistakes,
        "sprite": base64.b64encode(sprite.getvalue()).decode(),
    }
    # No "<", so that no class name can end the script element.
    text = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    return PAGE.read_text("utf-8").replace("CONTENT", text)
