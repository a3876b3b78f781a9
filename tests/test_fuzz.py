"""Bad input by the thousand, with hypothesis: flags, checkpoints, caches, pictures and datasets.

Whatever it is, a script says one sentence or works, in bounded time and memory, and runs nothing
from a file; an error that cli.run() does not know fails the test. `make test` has 200 cases, the
same every time. For 20,000 others, which take some ten minutes on 2 cores:

    CASES=20000 .venv/bin/python -m pytest tests/test_fuzz.py --hypothesis-show-statistics
"""

import contextlib
import copy
import io
import json
import os
import pickle
import re
import resource
import shutil
import signal
import struct
import sys
import warnings
import zipfile
import zlib
from functools import cache
from itertools import islice, product
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from conftest import write_split
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

import analysis
import data
import draw as drawing
import predict
import recipes
import robustness
import train
from digits import synthetic
from model import MLP, load_checkpoint
from plumbing import checkpoint as checkpoints
from plumbing import cli, devices, files, resume, sources

CASES = int(os.environ.get("CASES", 200))
SECONDS = 20  # that a case may take; most take milliseconds
MEMORY = 200 * 2**10  # KiB that a case may add to the peak
CHECKPOINT = Path("checkpoint.pt")


def fuzz(share):
    """Call a test with the dataset and what draws the choices of a case, for its share of CASES.

    They are drawn in small pieces, in plain functions, because hypothesis keeps what it draws.
    """

    def decorate(test):
        def drawing_test(good, choices):
            restore(good)
            test(good, choices.draw)

        drawing_test.__name__ = test.__name__
        return settings(
            max_examples=int(share * CASES),
            derandomize="CASES" not in os.environ,
            deadline=None,  # bounded() has one
            suppress_health_check=[*HealthCheck],  # Every case cleans up the folder of its test.
        )(given(choices=st.data())(drawing_test))

    return decorate


# What must hold.


@pytest.fixture(autouse=True)
def limits():
    """A blow-up ends in a MemoryError before the machine has none left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (8 * 2**30, hard))
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"no end after {SECONDS} s"))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@contextlib.contextmanager
def bounded():
    """Time and memory have limits, nothing is run from a file, and no library warns."""
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.alarm(SECONDS)
    try:
        with (
            warnings.catch_warnings(record=True) as shown,
            mock.patch.object(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("it is run")),
        ):
            for category in (DeprecationWarning, PendingDeprecationWarning, ResourceWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        signal.alarm(0)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MEMORY
        assert not Path("ran").exists()
        assert not shown, shown[0]


def call(script, *flags):
    """The exit code of a script, as output() says."""
    return output(script, *flags)[0]


def output(script, *flags):
    """(exit code, standard output, standard error) of a script: the code is 0, or 1 or 2 and there
    is one sentence (of predict one for each file).
    """
    name = f"{script.__name__}.py"
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in range(2))
    code = 0
    with (
        bounded(),
        mock.patch.object(sys, "argv", [name, *map(str, flags)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.run(script.main)
        except SystemExit as end:
            code = end.code or 0
    out, err = (stream.flush() or stream.buffer.getvalue().decode() for stream in (out, err))
    assert code in (0, 1, 2)
    # Before it may stand which dataset is asked for, and where.
    sentences = rf"(getting .*\n)*({name}: \S.*\n){'+' if script is predict else ''}"
    assert "Traceback" not in err and (code == 0 or re.fullmatch(sentences, err)), err
    return code, out, err


# What is good, before it is damaged.


@pytest.fixture
def good(tmp_path, drawn, monkeypatch):
    """A dataset, its caches, a picture, a finished and an unfinished checkpoint; and a copy."""
    images, labels = drawn[0].numpy(), drawn[1].tolist()
    Image.fromarray(images[0]).save("digit.png")
    write_split(Path("digits/train.parquet"), list(images[:40]), labels[:40])
    write_split(Path("digits/test.parquet"), list(images[40:60]), labels[40:60])
    with monkeypatch.context() as patch:
        patch.setattr(resume, "SAVE_EVERY", -1)
        patch.setattr(checkpoints, "save", lambda _, c: SAVE(Path(f"{c.epoch}"), c))
        assert call(train, "--dataset", "digits", "--batch-size", 20, "--epochs", 2) == 0
    Path("1").rename("unfinished.pt")
    Path("2").rename(CHECKPOINT)
    # Settings from a checkpoint may ask for a billion epochs.
    monkeypatch.setattr(train, "train", lambda *args: islice(TRAIN(*args), 1))
    return Path(shutil.copytree(".", tmp_path.parent / f"{tmp_path.name}-good"))


TRAIN, SAVE = train.train, checkpoints.save


def restore(good):
    """Everything as it was, times of files included, by which caches are believed."""
    for path in Path().iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.copytree(good, ".", dirs_exist_ok=True)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Bytes.


def damaged(draw, content):
    """The bytes with some of them flipped, cut, zeroed, replaced, repeated or moved."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        if not content:
            break
        # Mostly near the ends, where headers and tables of contents are.
        size, near = len(content), min(len(content), 4096)
        ends = st.integers(0, near - 1) | st.integers(size - near, size - 1)
        start = draw(ends | st.integers(0, size - 1))
        stop = start + draw(st.integers(1, 8) | st.integers(1, size))
        block = bytes(content[start:stop])
        flipped = bytes([block[0] ^ 1 << draw(st.integers(0, 7))]) + block[1:]
        others = st.sampled_from([flipped, b"", bytes(len(block)), block]) | st.binary(max_size=8)
        content[start:stop] = draw(others)
        if draw(st.integers(0, 2)) == 0:
            to = draw(st.integers(0, len(content)))
            content[to:to] = block
    return bytes(content)


def rezipped(draw, content):
    """A zip file with a member damaged, renamed, missing or doubled, its checksums right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    index = draw(st.integers(0, len(members) - 1))
    name, member = members[index]
    bad = (name, damaged(draw, member))
    others = [[bad], [bad], [], [(name[:-1], member)], [members[index], (name, member[:-1])]]
    members[index : index + 1] = draw(st.sampled_from(others))
    kind = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", kind, compresslevel=1) as archive:
        warnings.simplefilter("ignore")  # about the doubled name
        for name, member in members:
            archive.writestr(name, member)
    return file.getvalue()


class Code:
    """Unpickled, it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


class Large:
    """Unpickled, it takes memory."""

    def __reduce__(self):
        return bytearray, (2**30,)


# Flags.

NUMBERS = st.sampled_from(
    "0 1 2 -1 +1 1_0 1e3 0x10 1e-320 1e308 1e999 nan inf -inf Infinity 4294967295 4294967296 ٣ ① ½ "
    "9999999999 1.5 .5 1. , 1,5".split()
    + ["", " 1 ", "1\n", "9" * 5000]
)
WORDS = st.text(st.characters(exclude_characters="/\0"), max_size=8).filter(lambda t: t != "..")
PATHS = st.sampled_from(
    "digits digits/test.parquet digits/none checkpoint.pt checkpoint.pt/x unfinished.pt . new "
    "new/er digit.png /dev/null /dev/full /proc/self/mem /proc/none/x nobody/nothing synthetic "
    "\udcff \udcff/\udcfe %s {} $HOME ~".split()
    + ["x" * 300, "é" * 200, "a\x1b[2Jb"]
)
PARSER = cli.parser("")
devices.add_flags(PARSER)
recipes.add_flags(PARSER)
VALUES_OF = {action.option_strings[-1]: NUMBERS for action in PARSER._actions} | {
    "--device": st.sampled_from("auto cpu cpu cuda cuda:9 mps meta".split()),
    "--recipe": st.sampled_from("quick accurate robust best".split()),
    **dict.fromkeys(["--dataset", "--checkpoint", "--output", "--save-input"], PATHS | WORDS),
    **dict.fromkeys(["--count", "--true", "--predicted"], NUMBERS | WORDS),
}
FEW = {predict: ["--checkpoint", "--save-input", "--output"], drawing: ["--checkpoint", "--output"]}
SWITCHES = "--json --resume --help -h --".split()


def flag(draw, names):
    """A flag, mostly with a value of its kind, sometimes with any or none."""
    name = draw(st.sampled_from(names))
    value = draw(VALUES_OF[name])
    if draw(st.integers(0, 9)) == 0:
        value = draw(NUMBERS | PATHS | WORDS)
    name = name[: draw(st.integers(5, 99))]  # argparse takes a beginning for the whole
    forms = [[name, value]] * 5 + [[f"{name}={value}"]] * 5 + [[name], [value]]
    return draw(st.sampled_from(forms) | st.sampled_from(SWITCHES).map(lambda name: [name]))


@fuzz(0.15)
def test_flags(good, draw):
    script = draw(st.sampled_from([train, train, analysis, robustness, predict, drawing]))
    names = FEW.get(script, list(VALUES_OF))
    flags = sum((flag(draw, names) for _ in range(draw(st.integers(0, 4)))), [])
    first = [] if script in FEW else ["--dataset=digits"]
    pictures = st.lists(st.just("digit.png") | PATHS, min_size=1, max_size=3)
    last = {train: ["--epochs", 1], predict: draw(pictures)}.get(script, [])
    code = call(script, *first, *flags, *last)
    if code:
        assert contents(Path()).items() >= contents(good).items()


# Checkpoints.

LIKE_A_WEIGHT = [
    *(torch.zeros(128, 784, dtype=getattr(torch, kind)) for kind in "float64 int8 cfloat".split()),
    torch.zeros(128, 784, dtype=torch.float8_e4m3fn),
    *(torch.full((128, 784), value) for value in (torch.nan, 1e38)),
    torch.zeros(128, 784).to_sparse(),
    torch.zeros(128, 784, device="meta"),
    torch.zeros(1).expand(128, 784),
    torch.zeros(2**18)[: 128 * 784].view(128, 784),
    torch.zeros(784, 128).t(),
    torch.zeros(128, 784, requires_grad=True),
]
SCALARS = torch.tensor(2.0), torch.tensor(torch.inf)
TENSORS = [*LIKE_A_WEIGHT, *SCALARS, torch.zeros(3), torch.zeros(1).expand(2**40)]


def laughs():
    """Lists that are small in a file, and without end when they are printed."""
    nested = ["ha"]
    for _ in range(40):
        nested = [nested, nested]
    return nested


ODD = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    st.sampled_from(
        [-1, 2**31, 2**63, 10**12, 10**600, "a\x1b[2Jb\n", "\0", "\ud800", "x" * 10**5]
    ),
    st.sampled_from([Code(), Large()]),
    # Made anew for each case, because altered() may alter them in turn.
    st.sampled_from([laughs, list, dict, lambda: [[]], lambda: {"epoch": 1}]).map(lambda f: f()),
    st.sampled_from(TENSORS),
)


def altered(draw, state):
    """Nested dicts and lists with values replaced, missing or added."""
    state = copy.deepcopy(state, {id(t): t for t in TENSORS})
    for _ in range(draw(st.integers(1, 2))):
        inner = state
        while True:
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            key = draw(st.sampled_from(keys))
            if not isinstance(inner[key], (dict, list)) or not inner[key] or draw(st.booleans()):
                break
            inner = inner[key]
        same = [st.from_type(type(inner[key]))] if type(inner[key]) in (int, float, str) else []
        inner[key] = draw(st.one_of(*same, ODD))
        if draw(st.integers(0, 9)) == 0:
            del inner[key]
    return state


def saved(state, zipped=True):
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@cache
def read(path):
    return path.read_bytes(), torch.load(path, weights_only=True)


def checkpoint(draw, content, state):
    """The bytes of a checkpoint, of which those of a good one and what is in it are given."""
    make = draw(st.integers(0, 5))
    if make == 0:
        return damaged(draw, content)
    if make == 1:
        return rezipped(draw, content)
    if make == 2:
        return damaged(draw, saved(altered(draw, state), zipped=False))  # as PyTorch once did
    if make == 3:
        return draw(st.binary()) or pickle.dumps(draw(ODD))
    return saved(altered(draw, state))


def use(path):
    """Load a checkpoint, and run everything that takes one."""
    try:
        with bounded():
            model, checkpoint = load_checkpoint(path)
    except cli.InputError as error:
        assert str(error).startswith(f"checkpoint {path}: ")
        return
    assert isinstance(model, MLP) and isinstance(checkpoint, checkpoints.Checkpoint)
    before = path.read_bytes()
    call(analysis, "--checkpoint", path, "--dataset", "digits")
    call(analysis, "--checkpoint", path, "--json")
    assert call(predict, "--checkpoint", path, "--json", "digit.png") == 0
    assert call(drawing, "--checkpoint", path, "--json") == 0
    if call(train, "--checkpoint", path, "--resume", "--json"):
        assert path.read_bytes() == before


@fuzz(0.3)
def test_checkpoints(good, draw):
    base = draw(st.sampled_from(["checkpoint.pt", "unfinished.pt"]))
    CHECKPOINT.write_bytes(checkpoint(draw, *read(good / base)))
    use(CHECKPOINT)


# Caches.


def check(split):
    images, labels, names, *_ = split
    assert images.dtype == torch.uint8 and images.shape[1:] == (28, 28)
    assert labels.dtype == torch.int64 and labels.shape == images.shape[:1]
    assert 0 <= labels.min() and labels.max() <= 9
    assert len(names) == 10 and {type(name) for name in names} == {str}


ARRAYS = [
    *(np.zeros((20, 28, 28), kind) for kind in ("f4", ">u2")),
    *(np.zeros(shape, np.uint8) for shape in ((20, 27, 28), (19, 28, 28), (0, 28, 28))),
    *(np.zeros(20, kind) for kind in ("i4", "c8", "M8[s]")),
    *(np.full(20, label) for label in (10, -1)),
    np.array("digits"),
    np.array(["x"] * 9),
    np.array([Code()] * 10, object),
]


def header(shape, kind):
    """An array's file that declares a shape and holds 8 bytes."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": kind, "fortran_order": False, "shape": shape}
    )
    return file.getvalue() + bytes(8)


def replaced(draw, content):
    """The cache with one of its arrays replaced."""
    arrays = dict(np.load(io.BytesIO(content)))
    name = draw(st.sampled_from(list(arrays)))
    file = io.BytesIO()
    if draw(st.booleans()):
        np.savez(file, **arrays | {name: draw(st.sampled_from(ARRAYS))})
    else:
        del arrays[name]
        np.savez(file, **arrays)
        size = draw(st.sampled_from([2**20, 2**29, 2**40, 2**62, 2**70, -1]))
        with zipfile.ZipFile(file, "a") as archive:
            kind = draw(st.sampled_from(["|u1", "<i8", "|O"]))
            archive.writestr(f"{name}.npy", header((size,), kind))
    return file.getvalue()


BLOCKS = [  # what stands in the place of a file and is none
    *(Path.mkdir, lambda path: [path.mkdir(), (path / "x").touch()], os.mkfifo),
    *(lambda path: path.symlink_to(path.name), lambda path: path.symlink_to("none/none")),
    lambda path: path.symlink_to("/dev/zero"),
]


@fuzz(0.15)
def test_caches(good, draw):
    expected = data.load("digits", "test")
    (path,) = sources.CACHE.glob("*-test.npz")
    content = path.read_bytes()
    make = draw(st.sampled_from([damaged, rezipped, replaced, replaced, *BLOCKS]))
    path.unlink()
    if make in BLOCKS:
        make(path)
    else:
        path.write_bytes(make(draw, content))
    with bounded():
        split = data.load("digits", "test")
    check(split)
    if make != rezipped:  # with checksums that are right, other pixels may be believed
        assert all(map(torch.equal, split[:2], expected[:2])) and split[2:] == expected[2:]


@pytest.mark.parametrize("name", ["data.pkl", "data/0", "images.npy", "fingerprint.npy"])
def test_a_small_file_that_is_large_when_unpacked(good, name):
    (path,) = [CHECKPOINT] if "data" in name else sources.CACHE.glob("*-test.npz")
    content = path.read_bytes()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as archive,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as other,
    ):
        for member in archive.namelist():
            if not member.endswith(name):
                other.writestr(member, archive.read(member))
                continue
            with other.open(member, "w") as file:  # a thousandth of its size
                file.write(header((2**28,), "|u1"))
                for _ in range(2**8):
                    file.write(bytes(2**20))
    use(CHECKPOINT)


# Images.


def chunk(kind, content):
    """A chunk of a PNG file, its checksum right."""
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(draw):
    """A PNG file whose parts do not fit together."""
    sizes = st.sampled_from([28] * 12 + [0, 1, 29, 10_000, 2**31 - 1, 2**32 - 1])
    depth = draw(st.sampled_from([8, 8, 8, 1, 2, 4, 16, 0, 255]))
    colour = draw(st.sampled_from([0, 0, 0, 0, 2, 3, 4, 6, 1]))
    size = draw(sizes), draw(sizes)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, draw(st.integers(0, 2))))
    ]
    for _ in range(draw(st.integers(0, 2))):
        kind = draw(st.sampled_from(b"tRNS PLTE acTL fcTL fdAT iCCP zTXt iTXt eXIf gAMA".split()))
        large = b"x\0\0" + zlib.compress(bytes(2**22))
        chunks.append((kind, draw(st.binary(max_size=30)) or large))
    rows = bytes(draw(st.sampled_from([28 * 29] * 8 + [0, 1, 28, 2**14, 2**22])))
    chunks.append((b"IDAT", zlib.compress(rows)))
    if draw(st.integers(0, 9)) == 0:
        chunks.reverse()
    chunks.append((b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks)


def save(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def encoded(grey, kinds):
    """Files of a grey image in some formats, in all modes: on its side, too, animated, without
    paper, compressed.
    """
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = [(grey.convert(mode), {}) for mode in MODES] + [
        (grey, {"exif": exif}),
        (grey, {"save_all": True, "append_images": [grey.rotate(90)]}),
        (grey, {"compression": "tiff_lzw"}),
        (grey.convert("P"), {"transparency": 0}),
    ]
    for kind, (picture, options) in product(kinds, pictures):
        with contextlib.suppress(OSError, ValueError, KeyError):  # not in this format
            yield save(picture, kind, **options)


MODES = "1 L P LA RGB RGBA CMYK YCbCr I;16 I F".split()
READ = (*files.PICTURE_FORMATS, "AVIF")
OTHERS = "DDS EPS ICO JPEG2000 PCX PDF PPM SGI SPIDER TGA".split()
DIGIT = Image.fromarray(synthetic.generate(1, seed=2)[0][0].numpy())
ENCODED = [*encoded(DIGIT, (*READ, *OTHERS))]
DIGITS = [*encoded(DIGIT.resize((90, 112)), READ)]
PNG = save(DIGIT, "PNG")


def image(draw):
    if draw(st.booleans()):
        return png(draw)
    return damaged(draw, draw(st.sampled_from(ENCODED)))


NUMBERS_OF = {"F": [0, 1, -1, 1e-40, 3e38, np.nan, np.inf], "I": [0, 1, -1, 2**31 - 1, -(2**31)]}


def noise(draw):
    """A file of random pixels, mostly few, in few colours."""
    mode = draw(st.sampled_from("L RGB LA RGBA CMYK I F".split()))
    sides = st.integers(1, 40) | st.sampled_from([1, 2, 3, 513, 3000])
    shape = draw(sides), draw(sides), len(Image.new(mode, (1, 1)).getbands())
    colours = draw(st.lists(st.sampled_from(NUMBERS_OF.get(mode, range(256))), min_size=1))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    pixels = rng.choice(np.array(colours, {"F": "f4", "I": "i4"}.get(mode, "u1")), shape)
    pixels[rng.random(shape[:2]) < draw(st.sampled_from([0, 0.5, 0.95]))] = colours[0]
    return save(Image.fromarray(pixels.squeeze(2) if shape[2] == 1 else pixels, mode), "TIFF")


def test_whole_pictures(good):
    for index, content in enumerate(DIGITS):
        Path(f"{index}.picture").write_bytes(content)
    assert call(predict, *Path().glob("*.picture")) == 0


@fuzz(0.15)
def test_pictures(good, draw):
    make = draw(st.sampled_from([noise, image, damaged, damaged]))
    digit = [draw(st.sampled_from(DIGITS))] if make is damaged else []
    Path("x").write_bytes(make(draw, *digit))
    code, out, err = output(predict, "x", "digit.png", "--json")
    assert code in (0, 2), err
    read = [prediction["path"] for prediction in json.loads(out.splitlines()[-1])["predictions"]]
    assert read == (["digit.png"] if code else ["x", "digit.png"])
    assert re.fullmatch(r"predict.py: x: \S.*[^:]\n" if code else "", err), err


@pytest.mark.parametrize("size", [(13_000, 13_000), (1, 16_000_000)])
def test_a_small_picture_that_is_large_when_unpacked(good, size):
    Image.new("1", size).save("large.png")
    call(predict, "large.png")


# Datasets.

IMAGE, LABEL = {"_type": "Image"}, {"_type": "ClassLabel", "names": list("0123456789")}
FEATURES = [
    *(IMAGE, LABEL, IMAGE | {"decode": False}, [LABEL], {"x": LABEL}, {}, None),
    *({"_type": "ClassLabel"}, {"_type": "ClassLabel", "names": [1, 2, None]}),
    *({"_type": "Value", "dtype": "int64"}, {"_type": "List", "feature": LABEL}),
    *({"_type": "Array2D", "shape": [28, 28], "dtype": "uint8"}, {"_type": "Code"}),
]
LABELS = st.sampled_from([0, 1, 9, 10, -1, 2**40, None, 1.0, 0.5, True, "0", "x", b"0", [1]])


def picture(draw):
    paths = st.sampled_from([None, "x.png", "digits", "/dev/zero", "pipe"])
    return {"bytes": draw(st.sampled_from([image(draw), b"", None])), "path": draw(paths)}


def parquet(x, y, features=(), **others):
    """A parquet file as `datasets` writes it: columns, and what they are said to be."""
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    x = pyarrow.array(x, kind if isinstance(x[0], dict) else None) if x else x
    said = {"x": IMAGE, "y": LABEL} | dict(features)
    metadata = {"huggingface": json.dumps({"info": {"features": said}})}
    file = io.BytesIO()
    table = pyarrow.table({"x": x, "y": y} | others).replace_schema_metadata(metadata)
    pyarrow.parquet.write_table(table, file)
    return file.getvalue()


PICTURES, THREE = [{"bytes": PNG, "path": None}] * 3, [0, 1, 2]


def table(draw):
    """A parquet file of which one part does not fit the others."""
    name = draw(st.sampled_from("xyz"))
    match draw(st.sampled_from("picture labels names features column size".split())):
        case "picture":
            return parquet([*PICTURES[:2], picture(draw)], THREE)
        case "labels":
            return parquet(PICTURES, [draw(LABELS)] * 3)
        case "names":
            names = draw(st.lists(st.text(max_size=30), min_size=3, max_size=11))
            return parquet(PICTURES, THREE, {"y": LABEL | {"names": names}})
        case "features":
            return parquet(PICTURES, THREE, {name: draw(st.sampled_from(FEATURES))})
        case "column":
            return parquet(**{"x": PICTURES, "y": THREE} | {name: [draw(LABELS)] * 3})
        case "size":
            size = draw(st.integers(0, 2))
            return parquet(PICTURES[:size], THREE[:size])


def replace_dataset(content):
    for split in ("train", "test"):
        Path(f"digits/{split}.parquet").write_bytes(content)


def test_a_whole_table(good):
    replace_dataset(parquet(PICTURES, THREE))
    images, labels, *_ = data.load("digits", "train")
    assert (images.numpy() == np.asarray(DIGIT)).all() and labels.tolist() == THREE


@fuzz(0.2)
def test_images(good, draw):
    replace_dataset(parquet([{"bytes": image(draw), "path": None}], [1]))
    with bounded(), contextlib.suppress(cli.InputError):
        check(data.load("digits", "train"))


@fuzz(0.05)
def test_datasets(good, draw):
    content = table(draw)
    if draw(st.integers(0, 2)) == 0:
        content = damaged(draw, content)
    replace_dataset(content)
    os.mkfifo("pipe")
    if call(train, "--dataset", "digits", "--epochs", 1) == 0:
        check(data.load("digits", "train"))
        assert call(analysis) == 0
