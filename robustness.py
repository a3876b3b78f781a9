"""Show how well trained networks read the test images once these are distorted, cause by cause."""

from plumbing import cli

if __name__ == "__main__":
    cli.set_up()
# isort: split
import os
from collections import Counter
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import torch

import data
from digits import distort, pictures
from model import evaluate, load_with_test_split
from plumbing import devices
from plumbing.files import check_writable, replacing

CAPTIONED = 6  # networks, or groups of them, whose accuracies the picture tells
# The protocol: how images are distorted, in what unit, how severely. All recipes but quick distort
# what they train on by the first ones, too, in other measures.
SEEN = {
    "rotation": (partial(distort.to_either_side, "rotation"), "degrees", (10, 20, 30, 40)),
    "slant": (partial(distort.to_either_side, "slant"), "degrees", (10, 20, 30, 40)),
    "width": (partial(distort.stretch, ["width"]), "times", (0.5, 0.7, 1.2, 1.4)),
    "height": (partial(distort.stretch, ["height"]), "times", (0.5, 0.7, 1.2, 1.4)),
    "size": (partial(distort.stretch, ["width", "height"]), "times", (0.5, 0.7, 1.2, 1.4)),
    "shift": (distort.move, "px", (1, 2, 3, 4)),
}
UNSEEN = {
    "occlusion": (distort.wipe_disc, "px", (6, 8, 10, 12)),
    "stray line": (distort.add_line, "px", (8, 12, 16, 20)),
    "neighbour": (distort.add_neighbour, "px", (20, 18, 16, 14)),
}
CAUSES = SEEN | UNSEEN
ABOUT_MEANS = """
seen: rotation to shift, by which all recipes but quick distort what they train on
unseen: occlusion to neighbour; what robust trains on are patches and strokes of other shapes"""


def distorted(images, cause, severity):
    """Images uint8 [N, 28, 28] on the CPU, before and after: the same on every machine."""
    function, *_ = CAUSES[cause]
    generator = torch.Generator().manual_seed(0)
    return (255 * function(data.to_float(images), severity, generator)).round().byte()[:, 0]


def rows(images):
    """Yield (cause, severity with its unit, distorted images) for every row of the table."""
    yield "clean", "", images
    for cause, (_, unit, severities) in CAUSES.items():
        for severity in severities:
            yield cause, f"{severity} {unit}", distorted(images, cause, severity)


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
        if checkpoint.validation(dataset) != checkpoints[0].validation(dataset):
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
        settings = checkpoint.settings | {"seed": 0, "threads": 0}  # threads: the last bits only
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
    """Print a row of the table, or without accuracies its head; the mean accuracy per group."""
    row, means = f"{cause:10}  {severity:>10}", []
    for name, positions in groups:
        several = len(positions) > 1
        cell = head = f"{name}, {len(positions)} seeds" if several else name
        if accuracies:
            of_group = [accuracies[position] for position in positions]
            means.append(mean(of_group))
            cell = f"{means[-1]:.2%}" + (f" ± {100 * stdev(of_group):.2f}" if several else "")
        row += f"  {cell:>{max(len(head), 13 if several else 6)}}"
    print(row, flush=True)
    return means


def print_table(groups, models, test, device):
    """Print a row per cause and severity; (the rows, dicts, and a picture of the first image)."""
    models, labels = [model.to(device) for model in models], test.labels.to(device)
    table, tiles = [], []
    print_row(groups, "cause", "severity")
    for cause, severity, images in rows(test.images):
        here = images.to(device)
        accuracies = [evaluate(model, here, labels).accuracy for model in models]
        means = print_row(groups, cause, severity, accuracies)[:CAPTIONED]
        table.append({"cause": cause, "severity": severity, "accuracies": accuracies})
        tiles.append((cause, images[0], [severity or cause, *(f"{mean:.2%}" for mean in means)]))
    names = [name[-14:] for name, _ in groups[:CAPTIONED]]
    if len(groups) > len(names):
        names.append(f"and {len(groups) - len(names)} more")
    return table, pictures.distortions(names, tiles)


def main():
    args = parse_args()
    device = devices.choose(args.device, args.threads)
    models, checkpoints, test, dataset = load_networks(args.checkpoint, args.dataset)
    check_writable(args.output)

    cli.show(device=devices.describe(device))
    for path, checkpoint in zip(args.checkpoint, checkpoints, strict=True):
        cli.show(checkpoint=f"{path}: {checkpoint.summary}")
    cli.show(dataset=f"{dataset}: {len(test.labels):,} {test.name} images")
    print()
    groups = group(tell_apart(args.checkpoint), checkpoints)
    table, picture = print_table(groups, models, test, device)
    means = {}
    for name, causes in ("seen", SEEN), ("unseen", UNSEEN), ("distorted", CAUSES):
        chosen = (row["accuracies"] for row in table if row["cause"] in causes)
        means[name] = [mean(column) for column in zip(*chosen, strict=True)]  # of each network
        print_row(groups, "mean", name, means[name])
    print(ABOUT_MEANS)
    if len(groups) < len(models):
        print("±: the standard deviation of networks that differ in their seed alone")

    with replacing(args.output) as file:
        picture.save(file, "png")
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
