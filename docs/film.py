"""Record docs/page.gif: the page of draw.py, drawn on in Chromium in ways of digits/ways.txt.

In the folder of the project:

    make draw && .venv/bin/python -m docs.film
"""

import io
import shutil
from pathlib import Path

import torch
from PIL import Image
from selenium import webdriver

from digits import synthetic

SIZE = 860, 500  # pixels
SCENES = [  # what is written, from left to right: starts of lines of ways.txt
    ["2 small loop", "9 ", "4 ", "6 "],
    ["m:"],
]
STEP = 9  # points of a curve between two pictures
QUICK, LONG = 90, 2500  # milliseconds that a picture is seen


def strokes(way, x):
    """The strokes of a way whose box begins at x, each points [x, y] in heights of the canvas."""
    for control in synthetic.parse(synthetic.FILE, way)[0]:
        yield ((synthetic.spline(len(control)) @ control) * 0.3 + torch.tensor([x, 0.5])).tolist()


def main():
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
    for flag in "headless=new", "no-sandbox", "disable-gpu", "hide-scrollbars":
        options.add_argument(f"--{flag}")
    frames, times = [], []
    with webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver"))) as page:
        width, height = SIZE
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        page.get(Path("draw.html").resolve().as_uri())

        def point(kind, x, y):
            canvas = page.find_element("id", "drawing").rect
            x, y = (canvas[side] + canvas["height"] * n for side, n in (("x", x), ("y", y)))
            event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
            event["buttons"] = int(kind != "mouseReleased")
            page.execute_cdp_cmd("Input.dispatchMouseEvent", event)

        def show(milliseconds):
            shot = Image.open(io.BytesIO(page.get_screenshot_as_png())).convert("RGB")
            frames.append(shot)
            times.append(milliseconds)

        for scene in SCENES:
            page.find_element("tag name", "body").send_keys("\ue00c")  # Escape: blank paper
            for number, way in enumerate(scene):
                middle = 1 + 0.46 * (number - (len(scene) - 1) / 2)
                for points in strokes(way, middle):
                    point("mousePressed", *points[0])
                    for index, place in enumerate(points[1:], start=1):
                        point("mouseMoved", *place)
                        if index % STEP == 0:
                            show(QUICK)
                    point("mouseReleased", *points[-1])
                    show(QUICK)
                show(5 * QUICK)
            times[-1] = LONG
    palette = frames[-1].quantize(24)  # one for all, so that what stays costs nothing
    first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    first.save("docs/page.gif", save_all=True, append_images=others, duration=times, loop=0)


if __name__ == "__main__":
    main()
