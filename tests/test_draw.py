"""The page of draw.py, in Chromium: its pixels, its arithmetic, and drawing on it.

Where there is no browser, all of it is skipped but the first tests:

    apt install chromium chromium-driver
"""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_network
from PIL import Image

import data
import draw
import predict
from digits import distort, scan, synthetic
from digits.frame import Frame
from model import MLP

PAGE = Path("draw.html")
WAYS = [line for line in synthetic.WAYS.split("\n") if line and line[0] != "#"]
HOSTILE = [
    "</script><script>document.title = 'run'</script>",
    "&amp;",
    "'\"`${1}\\",
    "\u2028é",
    "<b>",
]


def test_the_page_is_one_small_file_that_asks_for_nothing(run, network):
    save_network(network)
    code, out, err = run(draw.main, "--json")
    assert (code, err) == (0, "")
    page = PAGE.read_text()
    assert json.loads(out.splitlines()[-1]) == {"output": "draw.html", "bytes": len(page.encode())}
    assert f"open it in a browser: {PAGE.resolve().as_uri()}\n" in out
    assert len(page.encode()) < 10**6
    assert not re.search(r"https?:|//\w+\.|\bsrc=|\bhref=|@import|fetch\(|XMLHttp|import\(", page)
    assert "default-src 'none'" in page  # so that the browser sees to it as well


def test_without_a_checkpoint_and_where_it_cannot_be_written_nothing_is_lost(run, network):
    PAGE.write_text("mine")
    code, _, err = run(draw.main)
    assert code == 2 and "there is none, train first (make train)" in err
    save_network(network)
    for output in ("checkpoint.pt/page.html", "."):
        code, _, err = run(draw.main, "--output", output)
        assert code == 2 and "cannot be written" in err and err.count("\n") == 1
    assert PAGE.read_text() == "mine"


# In the browser.


browser = pytest.mark.browser


@pytest.fixture
def page(chromium, run, network):
    """The browser with the page of a network that reads drawn digits."""
    save_network(network)
    assert run(draw.main)[0] == 0
    chromium.get_log("browser")
    chromium.get(PAGE.resolve().as_uri())
    yield chromium
    assert chromium.get_log("browser") == []  # neither errors nor refused requests


def stroke(page, points, kind="mouse", lift=True):
    """Draw with a pointer of a kind through points [x, y] in units of the canvas's side."""
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    canvas = page.find_element("id", "drawing").rect
    builder = ActionBuilder(page, mouse=PointerInput(kind, kind), duration=0)
    for index, (x, y) in enumerate(points):
        builder.pointer_action.move_to_location(
            round(canvas["x"] + x * canvas["width"]), round(canvas["y"] + y * canvas["height"])
        )
        if index == 0:
            builder.pointer_action.pointer_down()
    if lift:
        builder.pointer_action.pointer_up()
    builder.perform()


def write(page, way, kind="mouse"):
    """Draw a digit in one of the WAYS of synthetic.py."""
    for control in way.split(":")[1].split("/"):
        control = torch.tensor([[float(v) for v in point.split(",")] for point in control.split()])
        curve = synthetic.spline(len(control)) @ control
        stroke(page, (0.18 + 0.032 * curve[::3]).tolist(), kind)


def text(page, name):
    return page.find_element("id", name).get_attribute("textContent")


def percentages(page):
    spans = page.find_elements("css selector", "#bars li > :last-child")
    return [span.text for span in spans]


def picture(page, name):
    """The pixels uint8 [H, W, 4] of a canvas of the page, as a PIL image."""
    url = page.execute_script("return document.getElementById(arguments[0]).toDataURL()", name)
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))


def press(page, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    chain = ActionChains(page)
    for key in keys[:-1]:
        chain.key_down(key)
    chain.send_keys(keys[-1])
    for key in keys[:-1]:
        chain.key_up(key)
    chain.perform()


SEE = """return arguments[0].map(([pixels, height, width]) => {
  const image = fit(pixels, height, width);
  return [image, classify(preprocess(image))];
})"""


def compare(page, network, inks):
    """Assert that the page makes of inks uint8 [H, W] what scan.py and the network do."""
    images = np.stack([scan.fit(ink / 255) for ink in inks])
    with torch.inference_mode():
        expected = network(data.to_float(torch.from_numpy(images))).double().softmax(1).numpy()
    found = []
    for start in range(0, len(inks), 100):
        part = inks[start : start + 100]
        found += page.execute_script(SEE, [[ink.ravel().tolist(), *ink.shape] for ink in part])
    assert (np.array([image for image, _ in found]).reshape(-1, 28, 28) == images).all()
    probabilities = np.array([p for _, p in found])
    assert (probabilities.argmax(1) == expected.argmax(1)).all()
    assert np.abs(probabilities - expected).max() < 0.001


@browser
def test_fed_the_same_pixels_the_page_says_the_same(page, network):
    compare(page, network, list(synthetic.generate(1000, seed=4)[0].numpy()))
    generator, others = np.random.default_rng(0), []
    for image in synthetic.generate(100, seed=5)[0].numpy():
        size = generator.integers(5, 120, 2).tolist()
        ink = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
        others.append(np.pad(np.asarray(ink), generator.integers(0, 40, (2, 2))))
    others = [ink for ink in others if ink.any()]
    thin = [scan.fit(ink / 255) != scan.fit(ink / 255, digits=False) for ink in others]
    assert sum(changed.any() for changed in thin) > 20
    compare(page, network, others)


@browser
def test_the_page_takes_the_slant_out_where_the_network_does(chromium, run, network):
    upright = MLP(deslant=True)
    upright.load_state_dict(network.state_dict())
    save_network(upright)
    assert run(draw.main)[0] == 0
    chromium.get(PAGE.resolve().as_uri())
    stroke(chromium, [(0.35, 0.8), (0.65, 0.2)])
    seen = np.asarray(picture(chromium, "image"))[..., 0] / 255
    assert distort.measure_slant(torch.from_numpy(seen).float()[None, None])[0].abs() < 0.02
    picture(chromium, "drawing").save("drawn.png")
    assert run(predict.main, "drawn.png", "--save-input", "seen")[0] == 0
    saved = np.asarray(Image.open("seen/01_drawn_28x28.png")) / 255
    assert np.abs(saved - seen).max() < 1.5 / 255  # one rounds double, the other float32
    images = data.to_float(synthetic.generate(300, seed=6)[0])
    slants = torch.linspace(-50, 50, 300)
    leaning = distort.warp(images, distort.affine(slant=slants))
    leaning = list((255 * leaning).round().byte()[:, 0].numpy())
    compare(chromium, upright, leaning)
    with torch.inference_mode():
        seen = torch.from_numpy(np.stack([scan.fit(ink / 255) for ink in leaning]))
        as_they_are, put_upright = (net(data.to_float(seen)) for net in (network, upright))
    assert (as_they_are.argmax(1) != put_upright.argmax(1)).sum() > 10


@browser
def test_each_digit_drawn_is_read_and_predict_reads_the_same(page, run):
    for digit in "0123456789":
        page.find_element("id", "clear").click()
        write(page, next(way for way in WAYS if way.startswith(digit)))
        answer = text(page, "answer")
        assert answer == digit
        picture(page, "drawing").save("drawn.png")
        code, out, err = run(predict.main, "drawn.png", "--json", "--save-input", "seen")
        (one,) = json.loads(out.splitlines()[-1])["predictions"]
        assert one["prediction"] == answer
        assert [f"{100 * p:.1f}%" for p in one["probabilities"]] == percentages(page)
        seen = np.asarray(Image.open("seen/01_drawn_28x28.png"))
        assert (np.asarray(picture(page, "image"))[..., 0] == seen).all()


@browser
def test_the_bars_follow_the_stroke_and_the_answer_is_announced_at_its_end(page):
    assert text(page, "answer") == "…" and percentages(page) == [""] * 10
    stroke(page, [(0.5, 0.2), (0.5, 0.5), (0.49, 0.8)], lift=False)
    page.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert text(page, "answer") == "1" and text(page, "spoken") == ""
    shown = [float(percent[:-1]) for percent in percentages(page)]
    assert 99 < sum(shown) < 101
    widths = page.execute_script(
        "return [...document.querySelectorAll('li div div')].map(e => parseFloat(e.style.width))"
    )
    np.testing.assert_allclose(widths, shown, atol=0.06)
    stroke(page, [(0.49, 0.8)])
    assert re.fullmatch(r"1, [\d.]+%; then \d, [\d.]+%", text(page, "spoken"))
    assert page.find_element("id", "spoken").get_attribute("role") == "status"


@pytest.mark.parametrize("kind", ["touch", "pen"])
@browser
def test_a_finger_and_a_pen_draw_too(page, kind):
    write(page, WAYS[0], kind)
    assert text(page, "answer") == "0"


POINTER = """
const [type, x, y, settings] = arguments, drawing = document.getElementById("drawing");
const box = drawing.getBoundingClientRect();
drawing.setPointerCapture = () => {};  // of a pointer that is made up
drawing.dispatchEvent(new PointerEvent(type, {
  clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true, ...settings,
}));
return strokes.length;
"""


@browser
def test_a_stroke_ends_when_no_button_is_down_though_no_pointerup_came(page):
    mouse = {"pointerId": 1, "pointerType": "mouse", "button": 0, "buttons": 1}
    page.execute_script(POINTER, "pointerdown", 0.5, 0.2, mouse)
    page.execute_script(POINTER, "pointermove", 0.5, 0.8, mouse)
    assert text(page, "spoken") == ""
    page.execute_script(POINTER, "pointermove", 0.9, 0.9, mouse | {"buttons": 0})
    assert text(page, "answer") == "1" and text(page, "spoken").startswith("1, ")
    assert page.execute_script("return strokes[0].length") == 2
    assert page.execute_script(POINTER, "pointerdown", 0.2, 0.2, mouse) == 2  # and another begins


@browser
def test_a_pen_draws_although_a_palm_rests_on_the_glass(page):
    palm = {"pointerId": 7, "pointerType": "touch", "button": 0, "buttons": 1}
    pen = {"pointerId": 8, "pointerType": "pen", "button": 0, "buttons": 1}
    assert page.execute_script(POINTER, "pointerdown", 0.9, 0.9, palm) == 1
    assert page.execute_script(POINTER, "pointerdown", 0.5, 0.2, pen) == 1  # the palm's has gone
    page.execute_script(POINTER, "pointermove", 0.95, 0.95, palm)
    page.execute_script(POINTER, "pointermove", 0.5, 0.8, pen)
    page.execute_script(POINTER, "pointerup", 0.5, 0.8, pen | {"buttons": 0})
    assert text(page, "answer") == "1"
    assert page.execute_script(POINTER, "pointerdown", 0.8, 0.9, palm | {"pointerId": 9}) == 1


def test_without_javascript_the_page_says_so():
    assert re.search(r"<noscript>.*needs JavaScript.*</noscript>", draw.PAGE.read_text())


@browser
def test_undo_and_clear_by_button_and_by_key(page):
    from selenium.webdriver.common.keys import Keys

    undo, clear = (page.find_element("id", name) for name in ("undo", "clear"))
    blank = np.asarray(picture(page, "drawing"))
    assert not undo.is_enabled() and not clear.is_enabled()
    for remove in (undo.click, lambda: press(page, Keys.CONTROL, "z")):
        stroke(page, [(0.5, 0.2), (0.5, 0.8)])
        once = np.asarray(picture(page, "drawing"))
        stroke(page, [(0.2, 0.5), (0.8, 0.5)])
        remove()
        assert (np.asarray(picture(page, "drawing")) == once).all()
        remove()
        assert (np.asarray(picture(page, "drawing")) == blank).all()
        remove()  # nothing is left, and nothing happens
    for remove in (clear.click, lambda: press(page, Keys.ESCAPE)):
        stroke(page, [(0.5, 0.2), (0.5, 0.8)])
        stroke(page, [(0.6, 0.6)])  # a dot
        remove()
        assert (np.asarray(picture(page, "drawing")) == blank).all()
        assert text(page, "answer") == "…" and text(page, "spoken") == "blank"
        assert not np.asarray(picture(page, "image"))[..., :3].any()


@browser
def test_other_classes_show_their_names_and_run_nothing(chromium, run, network):
    names = [*HOSTILE, "T-shirt/top", "Trouser", "Ankle boot", "class 8", "class 9"]
    save_network(network, class_names=names)
    assert run(draw.main)[0] == 0
    chromium.get(PAGE.resolve().as_uri())
    labels = chromium.find_elements("css selector", "#bars li > :first-child")
    assert [label.get_attribute("textContent") for label in labels] == names
    assert text(chromium, "title").startswith("Draw one of these: ")
    assert chromium.title == "Draw for the 784-128-10 network"
    stroke(chromium, [(0.5, 0.2), (0.5, 0.8)])
    assert text(chromium, "answer") == names[1]


@browser
def test_a_network_of_other_things_sees_them_in_its_own_frame(chromium, run, network):
    names = ["T-shirt/top", *(f"class {n}" for n in range(1, 10))]
    save_network(network, class_names=names, frame={"side": 28, "centre": "box"})
    assert run(draw.main)[0] == 0
    chromium.get(PAGE.resolve().as_uri())
    ink = np.zeros((60, 80), np.uint8)
    ink[10:50, 20:49] = np.arange(29) * 8 + 20
    image = scan.fit(ink / 255, Frame(28, "box"), digits=False)
    ((found, _),) = chromium.execute_script(SEE, [[ink.ravel().tolist(), *ink.shape]])
    assert (np.array(found).reshape(28, 28) == image).all() and image[[0, 27]].any(1).all()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width, height", [(360, 640), (640, 360), (1000, 800)])
@browser
def test_it_is_readable_in_light_and_dark_on_a_phone_and_a_desktop(page, scheme, width, height):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    screen = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": width < 700}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        write(page, WAYS[0])
        assert text(page, "answer") == "0"
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        for name in ("drawing", "undo", "clear", "image", "answer"):  # without scrolling
            box = page.find_element("id", name).rect
            assert box["x"] + box["width"] <= width and box["y"] + box["height"] <= height
        for name in ("undo", "clear"):
            assert page.find_element("id", name).rect["height"] >= 44
        shot = Image.open(io.BytesIO(page.get_screenshot_as_png())).convert("L")
        assert (np.median(np.asarray(shot)) > 128) == (scheme == "light")
        for name, least in (("answer", 7), ("about", 4.5), ("keys", 4.5)):
            assert contrast(page, name) >= least  # WCAG 2.1, 1.4.3
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def contrast(page, name):
    """The contrast ratio of an element's text on the page."""
    return contrast_ratio(
        page.execute_script(
            "return [document.getElementById(arguments[0]), document.body].map(element => "
            "getComputedStyle(element)).map((style, i) => i ? style.backgroundColor : style.color)",
            name,
        )
    )


def contrast_ratio(colours):
    """The contrast ratio, as WCAG defines it, of two colours "rgb(r, g, b)"."""
    luminance = []
    for colour in colours:
        srgb = np.array([int(v) for v in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        luminance.append(linear @ [0.2126, 0.7152, 0.0722] + 0.05)
    return max(luminance) / min(luminance)
