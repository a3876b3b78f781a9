"""Show what a trained network gets wrong on the test images and why, and picture the worst."""

from plumbing import cli

if __name__ == "__main__":
    cli.set_up()
# isort: split
import math
import re
from typing import NamedTuple

import torch

import data
from digits import gallery, traits
from digits.pictures import contact_sheet, enlarge
from model import activations, evaluate, load_with_test_split
from plumbing import devices
from plumbing.files import check_writable, replacing

WORST = 10  # mistakes to picture
CONFUSIONS = 10  # pairs of classes to list
SCALE = 10  # pixels of a picture per pixel of its image
CONTACT_SHEET = "contact_sheet.png"
PAGE = "index.html"  # of all mistakes
PICTURE = re.compile(
    rf"\d+_true-.*_predicted-.*_probability-[01]\.\d{{4}}_index-\d+\.png|{re.escape(CONTACT_SHEET)}"
)


class Mistake(NamedTuple):
    """A test image that the network takes for another class than its own."""

    index: int
    true: str  # class names
    predicted: str
    probability: float  # that the network gives the predicted class
    trait: str = "unknown"  # what is unusual about it

    def file_name(self, rank):
        true, predicted = (re.sub(r"\W+", "-", name)[:20] for name in (self.true, self.predicted))
        return (
            f"{rank:02}_true-{true}_predicted-{predicted}"
            f"_probability-{self.probability:.4f}_index-{self.index}.png"
        )

    def caption(self, rank):
        trait = self.trait.replace(", ", ",\n")
        return (
            f"{rank}. true {self.true[:25]}\nread as {self.predicted[:25]}\n"
            f"probability {self.probability:.4f}, image {self.index}\ntrait: {trait}"
        )


def find_mistakes(logits, labels, class_names):
    """All mistakes, the most confident first, ties by index; logits [N, 10], labels int64 [N]."""
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


def count_confusions(logits, labels):
    """How many images of each true class are read as each class, int64 [10, 10]."""
    return torch.bincount(labels * 10 + logits.argmax(1), minlength=100).view(10, 10)


def print_report(logits, labels, class_names):
    """Print the errors per class and the most frequent confusions."""
    confusion = count_confusions(logits, labels)
    width = max(len("class"), *(len(name) for name in class_names))

    print(f"\n{'class':{width}}  images  errors  error rate")
    for index, name in enumerate(class_names):
        images = confusion[index].sum().item()
        errors = images - confusion[index, index].item()
        if images:
            print(f"{name:{width}}  {images:6,}  {errors:6,}  {errors / images:10.2%}")

    confusion.fill_diagonal_(0)
    frequent = confusion.flatten().argsort(descending=True, stable=True)[:CONFUSIONS]
    print(f"\n{'true':{width}}  {'predicted':{max(width, 9)}}  errors")
    for true, predicted in zip((frequent // 10).tolist(), (frequent % 10).tolist(), strict=True):
        if errors := confusion[true, predicted].item():
            name, other = class_names[true], class_names[predicted]
            print(f"{name:{width}}  {other:{max(width, 9)}}  {errors:6,}")


def load_training(dataset):
    """The training data.Split, or None where there is none; print that there is none."""
    try:
        return data.load(dataset, "train")
    except cli.InputError as error:  # A single file has test images alone.
        print(f"\nno traits, for want of training images to compare with: {error}")


def find_traits(mistakes, test, training, wrong):
    """The mistakes with traits; print how often each is seen among all of wrong, bool [N]."""
    comparison = traits.compare(test.images, test.labels, training.images, training.labels)
    print(f"\n{'trait':14}  mistakes  correct  ratio  95 % interval")
    for row in traits.frequencies(comparison, wrong):
        print(
            f"{row.trait:14}  {row.mistakes:8.1%}  {row.correct:7.1%}  {row.ratio:5.2f}  "
            f"{row.low:.2f} to {row.high:.2f}"
        )
    return [m._replace(trait=traits.describe(comparison, m.index)) for m in mistakes]


def write_pictures(folder, mistakes, images):
    """Write a picture of each mistake and one of them all; the names of the files.

    Those that an earlier run left are removed.
    """
    ranked = list(enumerate(mistakes, start=1))
    pictures = {m.file_name(rank): enlarge(images[m.index], SCALE) for rank, m in ranked}
    if mistakes:
        captions = [mistake.caption(rank) for rank, mistake in ranked]
        pictures[CONTACT_SHEET] = contact_sheet(list(pictures.values()), captions, columns=5)
    for name, picture in pictures.items():
        with replacing(folder / name) as file:
            picture.save(file, "png")
    for path in folder.iterdir():
        if path.name not in pictures and PICTURE.fullmatch(path.name):
            path.unlink()
    return list(pictures)


def check_page(path):
    """InputError if the page could not be written later, or would replace another's page."""
    check_writable(path)
    if path.exists() and gallery.TITLE not in path.read_text("utf-8", errors="replace"):
        raise cli.InputError(f"{path} is not from an earlier analysis: choose another --output")


def write_page(path, about, mistakes, model, logits, test, training):
    """Write the page of the mistakes; training, a data.Split, is None where there is none."""
    mistakes = mistakes[: gallery.MOST]
    indices = torch.tensor([mistake.index for mistake in mistakes], dtype=torch.int64)
    images, alike = test.images[indices, None], torch.empty(len(mistakes), 0, dtype=torch.int64)
    if training:
        alike = gallery.nearest(
            activations(model.cpu(), test.images[indices]), activations(model, training.images)
        )
        images = torch.cat([images, training.images[alike]], 1)
    rows = [
        {
            "index": mistake.index,
            "true": test.labels[mistake.index].item(),
            "predicted": logits[mistake.index].argmax().item(),
            "probabilities": logits[mistake.index].double().softmax(0).round(decimals=4).tolist(),
            "trait": mistake.trait,
            "alike": [{"index": k, "label": training.labels[k].item()} for k in others],
        }
        for mistake, others in zip(mistakes, alike.tolist(), strict=True)
    ]
    confusion = count_confusions(logits, test.labels)
    page = gallery.fill_page(about, test.class_names, confusion, rows, images)
    with replacing(path) as file:
        file.write(page.encode())


def print_pictures(folder, names, mistakes):
    print("\nthe most confident mistakes:" if mistakes else "\nno mistakes, so no pictures")
    for name, mistake in zip(names, mistakes, strict=False):
        print(f"{folder / name}  {mistake.trait}")
    if mistakes:
        print(folder / CONTACT_SHEET)
    if 0 < len(mistakes) < WORST:
        print(f"these are all: there are fewer than {WORST} mistakes")


def parse_args():
    parser = cli.parser(__doc__)
    cli.add_dataset(parser)
    cli.add_checkpoint(parser)
    devices.add_flags(parser)
    parser.add_argument(
        "--output",
        type=cli.path,
        default="misclassified_samples",
        help="folder of the pictures (default: %(default)s)",
    )
    return parser.parse_args()


def main():
    args = parse_args()
    device = devices.choose(args.device, args.threads)
    model, checkpoint, test = load_with_test_split(args.checkpoint, args.dataset)
    dataset = args.dataset or checkpoint.dataset
    check_writable(args.output / CONTACT_SHEET)
    check_page(args.output / PAGE)

    result = evaluate(model.to(device), test.images.to(device), test.labels.to(device))
    standard_error = math.sqrt(result.accuracy * (1 - result.accuracy) / len(test.labels))
    logits = result.logits.cpu()
    cli.show(
        device=devices.describe(device),
        checkpoint=f"{args.checkpoint}: {checkpoint.summary}",
        dataset=f"{dataset}: {len(test.labels):,} test images",
        accuracy=f"{result.accuracy:.2%} with a standard error of {standard_error:.2%}, "
        f"{result.errors:,} errors",
    )
    print_report(logits, test.labels, test.class_names)
    mistakes = find_mistakes(logits, test.labels, test.class_names)
    training = load_training(dataset)
    if training:
        wrong = logits.argmax(1) != test.labels
        mistakes = find_traits(mistakes, test, training, wrong)
    worst = mistakes[:WORST]
    names = write_pictures(args.output, worst, test.images)
    about = (
        f"The network reads {result.accuracy:.2%} of the {len(test.labels):,} test images of "
        f"{dataset} right, after {checkpoint.epoch} epochs of recipe "
        f"{checkpoint.settings['recipe']}."
    )
    write_page(args.output / PAGE, about, mistakes, model, logits, test, training)
    print_pictures(args.output, names, worst)
    print(args.output / PAGE)
    cli.print_json(
        args.json,
        test_accuracy=result.accuracy,
        standard_error=standard_error,
        errors=result.errors,
        images=len(test.labels),
        worst=[mistake._asdict() for mistake in worst],
        output=str(args.output),
    )


if __name__ == "__main__":
    cli.run(main)
