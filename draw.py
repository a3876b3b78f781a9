"""Write a web page on which one draws and sees what a trained network reads."""

import cli  # first: it spares the traceback where Ctrl-C falls into the other imports

# isort: split
import base64
import json
from pathlib import Path

from files import check_writable, replacing
from model import load_checkpoint

PAGE = Path(__file__).with_name("page.html")


def fill_page(model, checkpoint):
    """The page, a string, with a network, an MLP and its Checkpoint, inside."""
    network = {
        "class_names": checkpoint.class_names,
        "about": f"The network reads {checkpoint.test_accuracy:.2%} of its test images right, "
        f"after {checkpoint.epoch} epochs of recipe {checkpoint.recipe['recipe']}.",
        "weights": [
            base64.b64encode(parameter.detach().numpy().astype("<f4").tobytes()).decode()
            for parameter in model.parameters()
        ],
    }
    # No "<", so that no class name can end the script element.
    content = json.dumps(network).replace("<", "\\u003c")
    return PAGE.read_text("utf-8").replace("NETWORK", content)


def parse_args():
    parser = cli.parser(__doc__, reads_dataset=False)
    parser.add_argument(
        "--output",
        type=Path,
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

    print(f"checkpoint  {args.checkpoint}: {checkpoint.summary}")
    print(f"page        {args.output}, {len(page):,} bytes")
    print(f"\nopen it in a browser: {args.output.resolve().as_uri()}")
    if args.json:
        print(json.dumps({"output": str(args.output), "bytes": len(page)}))


if __name__ == "__main__":
    cli.run(main)
