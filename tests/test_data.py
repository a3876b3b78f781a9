import os
import re
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from conftest import write_split

import data
from digits import synthetic
from plumbing import sources
from plumbing.cli import InputError
from recipes import Settings


def settings(batch_size, seed=0):
    return Settings(recipe="mine", epochs=1, batch_size=batch_size, learning_rate=0.01, seed=seed)


def test_to_float_is_torchvisions_to_tensor(drawn):
    from torchvision.transforms import ToTensor

    image = drawn[0][0]
    assert torch.equal(data.to_float(image[None])[0], ToTensor()(image.numpy()))


def test_an_epoch_holds_every_image_once_in_its_own_order():
    images = torch.arange(1000).remainder(251).byte().view(-1, 1, 1).expand(-1, 28, 28)
    labels = torch.arange(1000)  # stands for the index of the image

    def epoch(seed, number):
        batches = data.Batches(data.Split(images, labels, []), settings(64, seed), number)
        pairs = list(batches)
        assert len(pairs) == len(batches) == 16
        assert [len(y) for _, y in pairs] == [64] * 15 + [40]
        order = torch.cat([y for _, y in pairs])
        shown = torch.cat([x for x, _ in pairs])
        assert torch.equal(shown, data.to_float(images[order]))
        return order.tolist()

    orders = [epoch(seed, number) for seed in (0, 1, 2**32 - 1) for number in (1, 2, 3)]
    assert all(sorted(order) == list(range(1000)) for order in orders)
    assert len({tuple(order) for order in orders}) == 9
    assert epoch(1, 2) == orders[4]


def test_an_epoch_holds_every_image_and_other_drawn_digits_each_time():
    split = data.Split(torch.zeros(30, 28, 28).byte(), torch.full((30,), 77), data.DIGITS)
    pool = data.add_drawn(split, 20, 0, "mine")
    assert len(pool.images) == 30 + 20 * data.POOL and (pool.images[30:].amax((1, 2)) > 0).all()
    numbered = pool._replace(labels=torch.arange(len(pool.images)))
    seen = []
    for epoch in 1, 2:
        batches = data.Batches(numbered, settings(16), epoch)
        order = torch.cat([labels for _, labels in batches]).tolist()
        assert len(batches) == 4 and len(set(order)) == len(order) == pool.epoch == 50
        assert set(order) > set(range(30)) and sorted(order) != order
        seen.append(set(order) - set(range(30)))
    assert seen[0] != seen[1]


def test_where_images_are_of_no_digit_all_digits_are_as_probable():
    split = data.Split(torch.zeros(30, 28, 28).byte(), torch.arange(30) % 10, data.DIGITS)
    assert data.add_drawn(split, 5, 0, "mine").labels.dtype == torch.int64
    pool = data.add_drawn(split, 5, 7, "mine")
    digits = 30 + 5 * data.POOL
    assert pool.epoch == 42 and len(pool.images) == len(pool.labels) == digits + 7 * data.POOL
    assert torch.equal(pool.labels[:30], torch.eye(10).repeat(3, 1))
    assert (pool.labels[:digits].amax(1) == 1).all() and (pool.labels[digits:] == 0.1).all()
    ((images, labels),) = data.Batches(pool, settings(64), 1)
    assert labels.shape == (42, 10) and images.shape == (42, 1, 28, 28)


def test_half_of_the_drawn_digits_are_in_ways_of_mnists_writers():
    images, labels = synthetic.generate_pool(15)
    mnists = synthetic.generate(8, synthetic.POOL_SEEDS[0])
    others = synthetic.generate(7, synthetic.POOL_SEEDS[1], synthetic.OTHER_WAYS)
    assert torch.equal(images, torch.cat([mnists[0], others[0]]))
    assert torch.equal(labels, torch.cat([mnists[1], others[1]]))
    assert len(set(synthetic.POOL_SEEDS)) == 2


def test_drawn_digits_are_added_to_digits_alone():
    split = data.Split(torch.zeros(1, 28, 28).byte(), torch.zeros(1).long(), ["shirt"] * 10)
    assert data.add_drawn(split, 0, 0, "clothes") is split
    for counts in (1, 0), (0, 1):
        with pytest.raises(InputError, match="'clothes' is not of digits.*RECIPE=accurate"):
            data.add_drawn(split, *counts, "clothes")


def test_class_names_are_kept_and_outputs_without_a_class_have_numbers(tmp_path):
    images = [np.full((28, 28), 7, np.uint8)] * 2
    write_split(tmp_path / "d" / "test.parquet", images, [0, 2], names=["Bag", "T-shirt/top", "é"])
    for _ in range(2):  # from the file, and from the cache
        assert data.load("d", "test").class_names == ["Bag", "T-shirt/top", "é"] + [
            f"output {i}" for i in range(3, 10)
        ]


def test_validation_images_are_drawn_from_each_class_and_always_the_same():
    labels = torch.arange(10).repeat_interleave(torch.arange(20, 120, 10))  # class by class
    chosen = data.hold_out(labels, 65, stratified=True)
    assert chosen.sum() == 65 and torch.equal(chosen, data.hold_out(labels, 65, stratified=True))
    shares = labels[chosen].bincount() / labels.bincount()
    assert (shares - 0.1).abs().max() <= 0.05
    assert data.hold_out(labels, 65, stratified=False).nonzero().min() == len(labels) - 65


@pytest.mark.parametrize(
    "names, digits",
    [
        (sorted(data.WORDS), [8, 5, 4, 9, 1, 7, 6, 3, 2, 0]),
        (["0 - zero", "1 - one", "2_two"], [0, 1, 2]),
        (["3", "7"], [3, 7]),
        ([3, 7], [3, 7]),
        (["digit 4", "Number5"], [4, 5]),
        (["0 T-shirt", "1 trouser"], None),
        (["one", "1"], None),
        (["10", "12"], None),
        (["Bag", "é"], None),
    ],
)
def test_names_that_stand_for_digits_are_taken_for_them(drawn, names, digits):
    rows = [i for i, label in enumerate(drawn[1][:200].tolist()) if label < len(names)]
    images, labels = drawn[0][rows], drawn[1][rows]
    write_split(Path("d/test.parquet"), list(images.numpy()), labels.tolist(), names=names)
    split, things = data.load("d", "test"), data.load("d", "test", things=True)
    names = [*map(str, names)]
    assert things.class_names[: len(names)] == names and torch.equal(things.labels, labels)
    assert split.class_names == (data.DIGITS if digits else things.class_names)
    assert torch.equal(split.labels, torch.tensor(digits)[labels] if digits else labels)
    assert ("digits" in split.classes) == bool(digits) and names[0] in things.classes


def test_numbers_are_digits_unless_they_are_called_things(drawn):
    np.savez("without.npz", x_test=drawn[0].numpy(), y_test=drawn[1].numpy())
    write_split(Path("with/test.parquet"), list(drawn[0].numpy()), drawn[1].tolist())
    for dataset in "without.npz", "with":
        assert data.load(dataset, "test").class_names == data.DIGITS
        assert data.load(dataset, "test", things=True).class_names[3] == "class 3"


# The cache.


def test_the_second_load_neither_decodes_nor_imports_datasets(dataset, drawn):
    data.load(str(dataset), "test")
    code = (
        "import sys, data; split = data.load('digits', 'test');"
        "print(len(split.images), {'datasets', 'torchvision', 'PIL'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout == "100 set()\n", shown.stderr


def test_a_source_of_another_size_or_time_is_decoded_again(dataset, drawn, monkeypatch):
    path = dataset / "test.parquet"
    data.load(str(dataset), "test")
    before = path.stat()
    write_split(path, list(drawn[0][:50].numpy()), drawn[1][:50].tolist())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert torch.equal(data.load(str(dataset), "test").images, drawn[0][:50])
    os.utime(path, (0, 0))
    monkeypatch.setattr(sources, "_decode", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        data.load(str(dataset), "test")


def test_folders_of_the_same_name_have_caches_of_their_own(dataset, drawn, tmp_path):
    write_split(tmp_path / "other/digits/test.parquet", [drawn[0][0].numpy()], [1])
    for _ in range(2):
        assert len(data.load("digits", "test").images) == 100
        assert len(data.load("other/digits", "test").images) == 1
    assert len(list(sources.CACHE.glob("*-test.npz"))) == 2


def test_a_damaged_cache_is_made_anew(dataset, drawn, monkeypatch):
    data.load(str(dataset), "test")
    (path,) = sources.CACHE.glob("*-test.npz")
    path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(data.load(str(dataset), "test").images, drawn[0][500:])
    monkeypatch.setattr(sources, "_decode", None)  # would fail if it had not been mended
    data.load(str(dataset), "test")


def test_without_a_writable_cache_the_data_is_there_all_the_same(dataset, drawn, capsys):
    sources.CACHE.write_text("a file where the folder should be")
    assert torch.equal(data.load(str(dataset), "test").images, drawn[0][500:])
    assert "the next run will decode" in capsys.readouterr().err


# Bad input.

GREY = np.zeros((28, 28), np.uint8)
RED = np.full((28, 28, 3), (255, 0, 0), np.uint8)
CLEAR = np.zeros((28, 28, 4), np.uint8)
IMAGE = datasets.Image()
LABEL = datasets.ClassLabel(names=list("0123456789"))
PNG = datasets.Image().encode_example(GREY)["bytes"]
NUMBER = datasets.Value("int64")


@pytest.mark.parametrize(
    "columns, features, sentence",
    [
        ({"y": [1]}, [LABEL], "images (found: none)"),
        ({"x": [GREY]}, [IMAGE], "label (found: none)"),
        ({"x": [GREY], "a": [1], "b": [1]}, [IMAGE, NUMBER, NUMBER], "(found: a, b)"),
        ({"x": [GREY], "z": [GREY], "y": [1]}, [IMAGE, IMAGE, LABEL], "(found: x, z)"),
        ({"x": [GREY], "y": [1]}, [IMAGE, datasets.ClassLabel(num_classes=11)], "11 classes"),
        ({"x": [GREY], "y": [10]}, [IMAGE, NUMBER], "row 0: the label is 10"),
        ({"x": [GREY] * 2, "y": [1, -1]}, [IMAGE, LABEL], "row 1: the label is -1"),
        ({"x": [GREY] * 2, "y": [1, None]}, [IMAGE, LABEL], "row 1: the label is"),
        ({"x": [GREY], "y": [None]}, [IMAGE, datasets.Value("string")], "label (found: none)"),
        ({"x": [], "y": []}, [IMAGE, LABEL], "corresponds to no data"),
        ({"x": [None], "y": [1]}, [IMAGE, LABEL], "row 0: not a usable image: there is none"),
        *(
            ({"x": [pixels], "y": [1]}, [IMAGE, LABEL], f"row 0: not a usable image: {what}")
            for pixels, what in (
                (GREY[:20], "28 x 20"),
                (RED, "28 x 28 RGB"),
                (CLEAR, "28 x 28 RGBA"),
                (GREY.astype("u2"), "28 x 28 I;16"),
            )
        ),
        *(
            ({"x": [{"bytes": content, "path": None}], "y": [1]}, [IMAGE, LABEL], "row 0")
            for content in (b"", b"no image", PNG[:40], PNG[:-20], PNG[:50] + b"\0" + PNG[51:])
        ),
    ],
)
def test_a_dataset_that_cannot_be_used_gets_a_sentence(columns, features, sentence):
    Path("d").mkdir()
    features = datasets.Features(dict(zip(columns, features, strict=True)))
    datasets.Dataset.from_dict(columns, features).to_parquet("d/test.parquet")
    with pytest.raises(InputError, match=re.escape(sentence)):
        data.load("d", "test")
    assert not sources.CACHE.exists()


@pytest.mark.parametrize("name", ["../nowhere", "a/b/c", "", "empty", "garbage", "x" * 300])
def test_what_is_no_dataset_gets_a_sentence(name):
    Path("empty").mkdir()
    Path("garbage").mkdir()
    Path("garbage/test.parquet").write_bytes(b"garbage")
    with pytest.raises(InputError, match=f"^dataset {name!r}: "):
        data.load(name, "test")
