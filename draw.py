"""Write a web page on which one draws and sees what a trained network reads."""

from plumbing import cli

if __name__ == "__main__":
    cli.set_up()
# isort: split
import base64
import json
from pathlib import Path

import data
from digits import candidates, scan
from model import TURNS, advice, load_checkpoint
from plumbing.files import check_writable, replacing

PAGE = Path(__file__).with_name("digits") / "page.html"
READING = "GAP", "SMALLEST", "LEAST", "RUN", "WIDE", "SURE", "LOW", "APART"  # of candidates.py


def fill_page(model, checkpoint):
    """The page, a string, with a network, an MLP and its Checkpoint, inside."""
    network = {
        "class_names": checkpoint.class_names,
        "frame": checkpoint.frame,
        "moments": model.moments,
        "threshold": checkpoint.settings["threshold"],
        "reading": {
            "TURNS": TURNS if checkpoint.class_names == data.DIGITS else [0],
            "THRESHOLD": scan.USUAL,
            **{name: getattr(candidates, name) for name in READING},
        },
        "about": f"The network reads {checkpoint.test_accuracy:.2%} of its {checkpoint.judged_by} "
        f"images right, after {checkpoint.epoch} epochs of recipe {checkpoint.settings['recipe']}.",
        "weights": [
            base64.b64encode(parameter.detach().numpy().astype("<f4").tobytes()).decode()
            for parameter in model.parameters()
        ],
    }
    # No "<", so that no class name can end the script element.
    content = json.dumps(network).replace("<", "\\u003c")
    return PAGE.read_text("utf-8").replace("NETWORK", content)


def parse_args():
    parser = cli.parser(__doc__)
    cli.add_checkpoint(parser)
    parser.add_argument(
        "--output",
        type=cli.path,
        default=Path("draw.html"),
        help="file of the page (default: %(default)s)",
    )
    return parser.parse_args()


def main():
    args = parse_args()
    model, checkpoint = load_checkpoint(args.checkpoint)
    check_writable(args.output)
    page = fill_page(model, checkpoint).encode()
    with replacing(args.output) as file:
        file.write(page)

    cli.show(
        checkpoint=f"{args.checkpoint}: {checkpoint.summary}",
        advice=advice(checkpoint),
        page=f"{args.output}, {len(page):,} bytes",
    )
    print(f"\nopen it in a browser: {args.output.resolve().as_uri()}")
    cli.print_json(args.json, output=str(args.output), bytes=len(page))


if __name__ == "__main__":
    cli.run(main)
