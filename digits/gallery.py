"""The mistakes of a network, to look at: a picture of each, a sheet of many, and a page of all."""

import base64
import io
import json
import re
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from digits.pictures import contact_sheet, enlarge, legible

SCALE = 10  # pixels of a picture per pixel of its image
ON_SHEET = 100  # pictures on a contact sheet: with more it could hardly be looked at
CONTACT_SHEET = "contact_sheet.png"
PICTURE = re.compile(  # the names of all that picture_mistakes() makes
    rf"\d+_true-.*_predicted-.*_probability-[01]\.\d{{4}}_index-\d+\.png|{re.escape(CONTACT_SHEET)}"
)
PAGE = "index.html"
TEMPLATE = Path(__file__).with_name("mistakes.html")  # of the page
TITLE = "<title>Mistakes of the 784-128-10 network</title>"  # by which a page is known
MOST = 400  # mistakes on a page: whatever is in their images, it stays below 2 MB
ALIKE = 3  # training images beside a mistake
BLOCK = 100  # mistakes that are compared with all training images at once: it bounds the memory


class Mistake(NamedTuple):
    """An image that a network takes for another class than its own."""

    index: int
    true: str  # class names
    predicted: str
    probability: float  # that the network gives the predicted class
    trait: str = "unknown"  # what is unusual about it

    def file_name(self, rank, digits):
        true, predicted = (re.sub(r"\W+", "-", name)[:20] for name in (self.true, self.predicted))
        return (
            f"{rank:0{digits}}_true-{true}_predicted-{predicted}"
            f"_probability-{self.probability:.4f}_index-{self.index}.png"
        )

    def caption(self, rank, shown):
        """Lines of text; `shown` is {class name: what stands for it in a picture}."""
        trait = self.trait.replace(", ", ",\n")
        return (
            f"{rank}. true {shown[self.true][:25]}\nread as {shown[self.predicted][:25]}\n"
            f"probability {self.probability:.4f}, image {self.index}\ntrait: {trait}"
        )


def find_mistakes(logits, labels, class_names):
    """All Mistakes, the most confident first, ties by index; logits [N, 10], labels int64 [N]."""
    predictions = logits.argmax(1)
    # In float32 the probabilities of many confident mistakes would be rounded to exactly 1.
    probabilities = logits.double().softmax(1).amax(1)
    wrong = (predictions != labels).nonzero().flatten()
    order = probabilities[wrong].argsort(descending=True, stable=True)
    return [
        Mistake(
            index,
            class_names[labels[index]],
            class_names[predictions[index]],
            probabilities[index].item(),
        )
        for index in wrong[order].tolist()
    ]


def choose(mistakes, count, true=None, predicted=None):
    """The first `count` mistakes of one class that are taken for another; None is any class."""
    chosen = [m for m in mistakes if true in (None, m.true) and predicted in (None, m.predicted)]
    return chosen[:count]


def picture_mistakes(mistakes, images, class_names):
    """{file name: picture} of each mistake, and of the first ON_SHEET of them on one sheet.

    images: uint8 [N, 28, 28], in which the indices of the mistakes count.
    """
    digits = max(2, len(str(len(mistakes))))
    ranked = list(enumerate(mistakes, start=1))
    pictures = {m.file_name(rank, digits): enlarge(images[m.index], SCALE) for rank, m in ranked}
    if mistakes:
        shown = dict(zip(class_names, legible(class_names), strict=True))
        captions = [mistake.caption(rank, shown) for rank, mistake in ranked[:ON_SHEET]]
        shown = list(pictures.values())[:ON_SHEET]
        pictures[CONTACT_SHEET] = contact_sheet(shown, captions, 5 if len(shown) <= 25 else 10)
    return pictures


def nearest(activations, references):
    """The ALIKE references float32 [N, D] that are nearest to each of activations float32 [M, D].

    Their indices, int64 [M, ALIKE], by Euclidean distance, the nearest first.
    """
    halves, count = (references**2).sum(1) / 2, min(ALIKE, len(references))
    blocks = activations.split(BLOCK)
    return torch.cat([(block @ references.T - halves).topk(count).indices for block in blocks])


def page_rows(mistakes, labels, logits, alike, alike_labels, sensitivity):
    """What fill_page() says of each mistake, a dict.

    labels int64 [N] and logits float32 [N, 10] are of all images in which the indices count; alike,
    int64 [M, K], are the indices of training images, and alike_labels, int64 [M, K], their labels;
    sensitivity, float32 [M, 14, 14], is what occlusion_sensitivity() in model.py finds.
    """
    shares = sensitivity / sensitivity.abs().amax((1, 2), keepdim=True).clamp(min=1e-9)
    codes = (128 + 127 * shares).round().byte().numpy()
    return [
        {
            "index": mistake.index,
            "true": labels[mistake.index].item(),
            "predicted": logits[mistake.index].argmax().item(),
            "probabilities": logits[mistake.index].double().softmax(0).round(decimals=4).tolist(),
            "trait": mistake.trait,
            "alike": [{"index": k, "label": label} for k, label in zip(*others, strict=True)],
            "sensitivity": base64.b64encode(code.tobytes()).decode(),
        }
        for mistake, code, *others in zip(
            mistakes, codes, alike.tolist(), alike_labels.tolist(), strict=True
        )
    ]


def fill_page(about, class_names, confusion, mistakes, images):
    """The page, a string, with the mistakes in the order that they come in.

    It is one file, to look through in a browser, that asks for nothing else.

    about: a sentence on the network.
    class_names: ten strings.
    confusion: int64 [10, 10], how many images of a true class, the row, were read as another.
    mistakes: M dicts, each with the index of the image, its true and predicted class, the ten
        probabilities, the trait in words ("none", or "unknown"), the index and label of each of K
        training images that are alike, and the sensitivity, bytes [14 * 14] in base64: above 128
        where ink speaks for the predicted class, below where it speaks for the true one.
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
    return TEMPLATE.read_text("utf-8").replace("CONTENT", text)
