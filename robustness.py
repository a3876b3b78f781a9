"""Show how well trained networks read the test images once these are distorted, cause by cause."""

from plumbing import cli

if __name__ == "__main__":
    cli.set_up()
# isort: split
import math
from pathlib import Path
from statistics import mean

import torch

import data
from digits import distort
from digits.pictures import contact_sheet, enlarge
from model import evaluate, load_with_test_split
from plumbing import devices
from plumbing.files import check_writable, replacing

SCALE = 6  # pixels of the picture per pixel of an image

# The protocol. Each function distorts images float32 [N, 1, 28, 28] by one cause, as severely as
# told; what is random comes from the generator. No recipe trains on these patches and lines.


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


CAUSES = {  # function: unit, severities
    rotation: ("degrees", (10, 20, 30, 40)),
    slant: ("degrees", (10, 20, 30, 40)),
    width: ("times", (0.5, 0.7, 1.2, 1.4)),
    height: ("times", (0.5, 0.7, 1.2, 1.4)),
    size: ("times", (0.5, 0.7, 1.2, 1.4)),
    shift: ("px", (1, 2, 3, 4)),
    occlusion: ("px", (6, 8, 10, 12)),
    stray_line: ("px", (8, 12, 16, 20)),
    neighbour: ("px", (20, 18, 16, 14)),
}


def rows(images):
    """Yield (cause, severity with its unit, distorted images) for every row of the table.

    Images are uint8 [N, 28, 28] on the CPU, before and after: the same on every machine.
    """
    yield "clean", "", images
    for distortion, (unit, severities) in CAUSES.items():
        cause = distortion.__name__.replace("_", " ")
        for severity in severities:
            generator = torch.Generator().manual_seed(0)
            distorted = distortion(data.to_float(images), severity, generator)
            yield cause, f"{severity} {unit}", (255 * distorted).round().byte()[:, 0]


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
    """(models, summaries of them, the test data.Split, its name) of networks of one dataset."""
    models, summaries = [], []
    for path in paths:
        model, checkpoint, test = load_with_test_split(path, dataset)
        dataset = dataset or checkpoint.dataset  # of the first, and the same for all
        models.append(model)
        summaries.append(f"{path}: {checkpoint.summary}")
    return models, summaries, test, dataset


def tell_apart(paths):
    """The stems of files, or as much of the ends of their paths as it takes to tell them apart."""
    names, count = [path.stem for path in paths], 0
    while len(set(names)) < len(set(paths)):
        count += 1
        names = ["/".join(path.parts[-count:]) for path in paths]
    return names


def print_row(names, cause, severity, cells):
    columns = zip(names, cells, strict=True)
    columns = "".join(f"  {cell:>{max(len(name), 6)}}" for name, cell in columns)
    print(f"{cause:10}  {severity:>10}{columns}", flush=True)


def print_table(names, models, test, device):
    """Print a row per cause and severity; (the rows as dicts, a picture of the distorted ones)."""
    models = [model.to(device) for model in models]
    labels = test.labels.to(device)
    table, pictures, captions = [], [], []
    print_row(names, "cause", "severity", names)
    for cause, severity, images in rows(test.images):
        here = images.to(device)
        accuracies = [evaluate(model, here, labels).accuracy for model in models]
        print_row(names, cause, severity, [f"{accuracy:.2%}" for accuracy in accuracies])
        table.append({"cause": cause, "severity": severity, "accuracies": accuracies})
        if severity:
            pictures.append(enlarge(images[0], SCALE))
            captions.append(f"{cause}\n{severity}")
    return table, contact_sheet(pictures, captions, columns=4)


def main():
    args = parse_args()
    device = devices.choose(args.device, args.threads)
    models, summaries, test, dataset = load_networks(args.checkpoint, args.dataset)
    check_writable(args.output)

    cli.show(device=devices.describe(device))
    for summary in summaries:
        cli.show(checkpoint=summary)
    cli.show(dataset=f"{dataset}: {len(test.labels):,} test images")
    print()
    names = tell_apart(args.checkpoint)
    table, sheet = print_table(names, models, test, device)
    distorted = (row["accuracies"] for row in table if row["severity"])
    means = [mean(column) for column in zip(*distorted, strict=True)]
    print_row(names, "mean", "distorted", [f"{accuracy:.2%}" for accuracy in means])

    with replacing(args.output) as file:
        sheet.save(file, "png")
    print(f"\n{args.output} shows each of them on the first test image")
    cli.print_json(
        args.json,
        dataset=dataset,
        checkpoints=[str(path) for path in args.checkpoint],
        rows=table,
        means=means,
        picture=str(args.output),
    )


if __name__ == "__main__":
    cli.run(main)
