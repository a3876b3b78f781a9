"""Change traits of digits, and see where a network's answer changes with them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from plumbing import cli

if __name__ == "__main__":
    cli.set_up()
# isort: split
import torch

import data
import robustness
from digits import traits
from model import evaluate, load_with_test_split

SEVERITIES = {  # of causes of robustness.py, from none to much
    "slant": range(5, 65, 5),
    "rotation": range(5, 65, 5),
    "width": (0.9, 0.8, 0.7, 0.6, 0.5, 0.4),
    "height": (0.9, 0.8, 0.7, 0.6, 0.5, 0.4),
    "occlusion": range(2, 17, 2),
    "stray line": range(4, 29, 4),
}


def reads(model, images, labels):
    """Whether a model reads each of images uint8 [N, 28, 28] right, bool [N]."""
    return evaluate(model, images, labels).logits.argmax(1) == labels


def flips(model, images, labels, cause, severities):
    """The share of images that are misread at some severity up to each, as a list of floats.

    The images are uint8 [N, 28, 28]; the sides and places of a change stay while it grows.
    """
    flipped = torch.zeros(len(images), dtype=bool)
    shares = []
    for severity in severities:
        flipped |= ~reads(model, robustness.distorted(images, cause, severity), labels)
        shares.append(flipped.double().mean().item())
    return shares


def usual(images, labels, references, reference_labels):
    """The measures of images, and the median slant and proportion of their classes, each [N]."""
    own = traits.measure(images)
    slant, proportion = torch.empty(len(images)), torch.empty(len(images))
    for label in labels.unique():
        known = traits.measure(references[reference_labels == label])
        slant[labels == label] = known["slant"].median()
        proportion[labels == label] = known["proportion"].median()
    return own, slant, proportion


def undo(model, images, labels, training):
    """Yield (what is undone, whether each image is read right then, bool [N]).

    After each, as its control, the same change in the other direction.
    """
    own, slant, proportion = usual(images, labels, training.images, training.labels)
    for name, new_slant, new_proportion in (
        ("slant", slant, own["proportion"]),
        ("proportion", own["slant"], proportion),
        ("both", slant, proportion),
    ):
        opposite = 2 * own["slant"] - new_slant, own["proportion"] ** 2 / new_proportion
        for what, values in ((name, (new_slant, new_proportion)), ("the other way", opposite)):
            changed = (255 * traits.reshape(images, own, *values)).round().byte()[:, 0]
            yield what, reads(model, changed, labels)


def main():
    parser = cli.parser(__doc__)
    cli.add_dataset(parser)
    cli.add_checkpoint(parser)
    args = parser.parse_args()
    model, checkpoint, test = load_with_test_split(args.checkpoint, args.dataset)
    dataset = args.dataset or checkpoint.dataset
    training = data.load(dataset, "train", checkpoint.validation(dataset))
    right = reads(model, test.images, test.labels)
    comparison = traits.compare(test.images, test.labels, training.images, training.labels)
    ordinary = right & (traits.outstanding(comparison) < 0)
    cli.show(checkpoint=f"{args.checkpoint}: {checkpoint.summary}")

    print(f"\nmisread at last, of {ordinary.sum():,} images that are read right and show no trait:")
    images, labels = test.images[ordinary], test.labels[ordinary]
    flipped = {}
    for cause, severities in SEVERITIES.items():
        _, unit, _ = robustness.CAUSES[cause]
        flipped[cause] = flips(model, images, labels, cause, severities)
        print(f"{cause:10}  {unit:7}" + "".join(f"  {severity:>6}" for severity in severities))
        print(" " * 19 + "".join(f"  {share:6.1%}" for share in flipped[cause]), flush=True)

    print(f"\nread right with a usual trait, of {(~right).sum():,} mistakes and of the others:")
    undone = []
    for what, after in undo(model, test.images, test.labels, training):
        shares = [after[chosen].double().mean().item() for chosen in (~right, right)]
        undone.append([what, *shares])
        print(f"{what:14}  {shares[0]:6.1%}  {shares[1]:6.1%}", flush=True)
    cli.print_json(args.json, flipped=flipped, undone=undone)


if __name__ == "__main__":
    cli.run(main)
