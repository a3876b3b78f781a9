"""Show how well trained networks read the test images once these are distorted, cause by cause."""

from plumbing import cli

if __name__ == "__main__":
    cli.set_up()
# isort: split
import math
import os
from collections import Counter
from pathlib import Path
from statistics import mean, stdev

import torch

import data
from digits import distort
from digits.pictures import contact_sheet, enlarge, title
from model import evaluate, load_with_test_split
from plumbing import devices
from plumbing.files import check_writable, replacing

SCALE = 4  # pixels of the picture per pixel of an image
CAPTIONED = 6  # networks, or groups of them, whose accuracies the picture tells

# The protocol. Each function distorts images float32 [N, 1, 28, 28] by one cause, as severely as
# told; what is random comes from the generator.


def either_way(images, value, generator):
    """The value or its opposite for each image, float32 [N]."""
    return value * (torch.randint(2, (len(images),), generator=generator) * 2.0 - 1)


def rotation(images, degrees, generator):
    return distort.warp(images, distort.affine(rotation=either_way(images, degrees, generator)))


def slant(images, degrees, generator):
    return distort.warp(images, distort.affine(slant=either_way(images, degrees, generator)))


def width(images, factor, generator):
    return distort.warp(images, distort.affine(width=factor).expand(len(images), 2, 3))


def height(images, factor, generator):
    return distort.warp(images, distort.affine(height=factor).expand(len(images), 2, 3))


def size(images, factor, generator):
    matrix = distort.affine(width=factor, height=factor)
    return distort.warp(images, matrix.expand(len(images), 2, 3))


def shift(images, pixels, generator):
    """In any direction."""
    angle = 2 * math.pi * torch.rand(len(images), generator=generator)
    matrices = distort.affine(right=pixels * angle.cos(), down=pixels * angle.sin())
    return distort.warp(images, matrices)


def occlusion(images, pixels, generator):
    """A disc is wiped out, its middle in the ink and its diameter given."""
    ink = images.flatten(1) + 1e-9  # where an image is blank, any pixel may be the middle
    middle = ink.multinomial(1, generator=generator)[..., None]
    x, y = distort.PIXEL[middle % 28], distort.PIXEL[middle // 28]
    inside = (distort.PIXEL - x) ** 2 + (distort.PIXEL[:, None] - y) ** 2 < (pixels / 2) ** 2
    return images * ~inside[:, None]


def stray_line(images, pixels, generator):
    """A straight line 2 pixels thick and of the given length, anywhere and in any direction."""
    middle = 20 * torch.rand(len(images), 1, 2, generator=generator) - 10
    angle = math.pi * torch.rand(len(images), 1, generator=generator)
    along = torch.linspace(-pixels / 2, pixels / 2, 2 * pixels + 1)
    points = middle + torch.stack([angle.cos() * along, angle.sin() * along], -1)
    line = distort.pen(points[:, :-1], points[:, 1:], torch.ones(len(images)))
    return images.maximum(line)


def neighbour(images, pixels, generator):
    """Another image of the set to the left or right, as far from middle to middle as given."""
    others = images[torch.randperm(len(images), generator=generator)]
    matrices = distort.affine(right=either_way(images, pixels, generator))
    return images.maximum(distort.warp(others, matrices))


# A function: its unit, severities. The recipes distort by the first ones, too, in other measures.
SEEN = {
    rotation: ("degrees", (10, 20, 30, 40)),
    slant: ("degrees", (10, 20, 30, 40)),
    width: ("times", (0.5, 0.7, 1.2, 1.4)),
    height: ("times", (0.5, 0.7, 1.2, 1.4)),
    size: ("times", (0.5, 0.7, 1.2, 1.4)),
    shift: ("px", (1, 2, 3, 4)),
}
UNSEEN = {
    occlusion: ("px", (6, 8, 10, 12)),
    stray_line: ("px", (8, 12, 16, 20)),
    neighbour: ("px", (20, 18, 16, 14)),
}
CAUSES = SEEN | UNSEEN
ABOUT_MEANS = """
seen: rotation to shift, by which all recipes but quick distort what they train on
unseen: occlusion to neighbour; what robust trains on are patches and strokes of other shapes"""
ABOUT_SEEDS = "±: the standard deviation of networks that differ in their seed alone"


def name_of(cause):
    return cause.__name__.replace("_", " ")


def rows(images):
    """Yield (cause, severity with its unit, distorted images) for every row of the table.

    Images are uint8 [N, 28, 28] on the CPU, before and after: the same on every machine.
    """
    yield "clean", "", images
    for distortion, (unit, severities) in CAUSES.items():
        for severity in severities:
            generator = torch.Generator().manual_seed(0)
            distorted = distortion(data.to_float(images), severity, generator)
            yield name_of(distortion), f"{severity} {unit}", (255 * distorted).round().byte()[:, 0]


def parse_args():
    parser = cli.parser(__doc__)
    cli.add_dataset(parser)
    cli.add_checkpoint(
        parser, nargs="+", default=[Path("checkpoint.pt")], help="files of trained networks"
    )
    devices.add_flags(parser)
    parser.add_argument(
        "--output",
        type=cli.path,
        default="robustness.png",
        help="picture of one digit in every row of the table (default: %(default)s)",
    )
    return parser.parse_args()


def load_networks(paths, dataset=None):
    """(models, their Checkpoints, the test data.Split, its name) of networks of one dataset."""
    models, checkpoints = [], []
    for path in paths:
        model, checkpoint, test = load_with_test_split(path, dataset)
        dataset = dataset or checkpoint.dataset  # of the first, and the same for all
        models.append(model)
        checkpoints.append(checkpoint)
        if len({checkpoint.validation(dataset) for checkpoint in checkpoints}) > 1:
            raise cli.InputError(
                f"checkpoint {path} is judged by other images than {paths[0]}: see --validation"
            )
    return models, checkpoints, test, dataset


def tell_apart(paths):
    """The stems of files, or as much of the ends of their paths as it takes to tell them apart."""
    names, count = [path.stem for path in paths], 0
    while len(set(names)) < len(set(paths)):
        count += 1
        names = ["/".join(path.parts[-count:]) for path in paths]
    return names


def group(names, checkpoints):
    """[(name, positions of its networks)]: networks that differ in their seed alone are together.

    names tell the networks apart. That of several is what theirs begin with, if that tells enough.
    """
    groups, times = {}, Counter()
    for position, checkpoint in enumerate(checkpoints):
        settings = checkpoint.settings | {"threads": None}  # which decides the last bits only
        facts = frozenset(settings.items()), checkpoint.dataset, checkpoint.epoch
        times[facts, checkpoint.seed] += 1  # The same seed again adds nothing to a mean.
        groups.setdefault((facts, times[facts, checkpoint.seed]), []).append(position)
    members = [[names[position] for position in positions] for positions in groups.values()]
    titles = [
        os.path.commonprefix(several).rstrip("0123456789-_. /") if several[1:] else several[0]
        for several in members
    ]
    if len(set(titles)) < len(titles) or "" in titles:
        titles = [first for first, *_ in members]
    return list(zip(titles, groups.values(), strict=True))


def print_row(groups, cause, severity, accuracies=None):
    """Print a row of the table, of the accuracies of all networks, or the one that heads it."""
    row = f"{cause:10}  {severity:>10}"
    for name, positions in groups:
        several = len(positions) > 1
        cell = head = f"{name}, {len(positions)} seeds" if several else name
        if accuracies:
            of_group = [accuracies[position] for position in positions]
            cell = f"{mean(of_group):.2%}" + (f" ± {100 * stdev(of_group):.2f}" if several else "")
        row += f"  {cell:>{max(len(head), 13 if several else 6)}}"
    print(row, flush=True)


def print_table(groups, models, test, device):
    """Print a row per cause and severity; (the rows as dicts, a picture of them all)."""
    models = [model.to(device) for model in models]
    labels = test.labels.to(device)
    table, distorted = [], []
    print_row(groups, "cause", "severity")
    for cause, severity, images in rows(test.images):
        here = images.to(device)
        accuracies = [evaluate(model, here, labels).accuracy for model in models]
        print_row(groups, cause, severity, accuracies)
        table.append({"cause": cause, "severity": severity, "accuracies": accuracies})
        distorted.append(images[0])
    return table, picture_rows(groups, table, distorted)


def picture_rows(groups, table, images):
    """A picture of one digit, uint8 [28, 28], in each row of the table.

    A line of it is a cause: its name, the digit as it is, and four times distorted. Below are the
    accuracies of the first CAPTIONED groups.
    """
    shown, more = groups[:CAPTIONED], len(groups) - CAPTIONED
    names = ["", *(name[-14:] for name, _ in shown), *[f"and {more} more"] * (more > 0)]

    def tile(row, image):
        means = (mean(row["accuracies"][p] for p in positions) for _, positions in shown)
        lines = [row["severity"] or row["cause"], *(f"{accuracy:.2%}" for accuracy in means)]
        return enlarge(image, SCALE), "\n".join(lines)

    clean, *distorted = map(tile, table, images)
    tiles = []
    for start in range(0, len(distorted), 4):  # severities of a cause
        head = title(table[1 + start]["cause"], SCALE), "\n".join(names)
        tiles += [head, clean, *distorted[start : start + 4]]
    return contact_sheet(*zip(*tiles, strict=True), columns=6)


def average(table, causes):
    """The mean accuracy of each network over the rows of the causes."""
    names = [name_of(cause) for cause in causes]
    chosen = (row["accuracies"] for row in table if row["cause"] in names)
    return [mean(column) for column in zip(*chosen, strict=True)]


def main():
    args = parse_args()
    device = devices.choose(args.device, args.threads)
    models, checkpoints, test, dataset = load_networks(args.checkpoint, args.dataset)
    check_writable(args.output)

    cli.show(device=devices.describe(device))
    for path, checkpoint in zip(args.checkpoint, checkpoints, strict=True):
        cli.show(checkpoint=f"{path}: {checkpoint.summary}")
    kind = "validation" if checkpoints[0].validation(dataset) else "test"
    cli.show(dataset=f"{dataset}: {len(test.labels):,} {kind} images")
    print()
    groups = group(tell_apart(args.checkpoint), checkpoints)
    table, sheet = print_table(groups, models, test, device)
    means = {
        "seen": average(table, SEEN),
        "unseen": average(table, UNSEEN),
        "distorted": average(table, CAUSES),
    }
    for severity, accuracies in means.items():
        print_row(groups, "mean", severity, accuracies)
    print(ABOUT_MEANS)
    if len(groups) < len(models):
        print(ABOUT_SEEDS)

    with replacing(args.output) as file:
        sheet.save(file, "png")
    print(f"\n{args.output} shows each of them on the first test image")
    cli.print_json(
        args.json,
        dataset=dataset,
        checkpoints=[str(path) for path in args.checkpoint],
        rows=table,
        means=means["distorted"],
        means_seen=means["seen"],
        means_unseen=means["unseen"],
        picture=str(args.output),
    )


if __name__ == "__main__":
    cli.run(main)
