"""Local datasets in all the shapes in which people have them."""

import gzip
import shutil
import tempfile
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from conftest import write_split
from PIL import Image

import analysis
import data
import train
from model import load_checkpoint
from plumbing import sources
from plumbing.cli import InputError

FEATURES = datasets.Features(
    {"image": datasets.Image(), "label": datasets.ClassLabel(names=list("0123456789"))}
)


@pytest.fixture
def splits(drawn):
    """{"train": (images, labels), "test": ...}, arrays of 60 and 30 digits."""
    images, labels = drawn[0].numpy(), drawn[1].numpy()
    return {"train": (images[:60], labels[:60]), "test": (images[60:90], labels[60:90])}


def check(dataset, splits):
    """Whether a dataset holds the splits, in whatever order."""
    for name, (images, labels) in splits.items():
        split = data.load(str(dataset), name)
        assert split.class_names == data.DIGITS and split.labels.dtype == torch.int64
        found, expected = (
            sorted(zip(map(bytes, pixels), numbers, strict=True))
            for pixels, numbers in (
                (split.images.numpy(), split.labels.tolist()),
                (images, labels.tolist()),
            )
        )
        assert found == expected


def write_folders(folder, splits, mode="L"):
    """A picture file per image, in a folder per class."""
    for name, (images, labels) in splits.items():
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / name / str(label) / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).convert(mode).save(path)


def write_zip(path, folder):
    path.parent.mkdir(exist_ok=True)
    shutil.make_archive(str(path.with_suffix("")), "zip", folder)


def write_idx(folder, splits, dot="-", opened=open, end=""):
    folder.mkdir(parents=True)
    for name, arrays in splits.items():
        prefix = {"train": "train", "test": "t10k"}[name]
        for kind, array in zip(("images", "labels"), arrays, strict=True):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            path = folder / f"{prefix}-{kind}{dot}idx{array.ndim}-ubyte{end}"
            with opened(path, "wb") as file:
                file.write(header + array.astype(np.uint8).tobytes())


def write_npz(path, splits):
    arrays = {f"x_{name}": images for name, (images, _) in splits.items()}
    arrays |= {f"y_{name}": labels.astype(np.uint8) for name, (_, labels) in splits.items()}
    np.savez_compressed(path, **arrays)


def write_csv(folder, splits, header=None, label=0):
    folder.mkdir(parents=True)
    for name, (images, labels) in splits.items():
        table = np.insert(images.reshape(-1, 784).astype(int), label, labels, 1)
        path = folder / f"mnist_{name}.csv"
        np.savetxt(path, table, "%d", ",", header=header or "", comments="")


def save_to_disk(path, splits, single=None):
    tables = {
        name: datasets.Dataset.from_dict(
            {"image": list(images), "label": labels.tolist()}, FEATURES
        )
        for name, (images, labels) in splits.items()
    }
    (tables[single] if single else datasets.DatasetDict(tables)).save_to_disk(path)


PIXELS = ",".join(f"pixel{i}" for i in range(784))
KINDS = {
    "pictures": lambda path, splits: write_folders(path, splits),
    "grey pictures in colour": lambda path, splits: write_folders(path, splits, "RGB"),
    "saved": save_to_disk,
    "idx": write_idx,
    "idx with dots": lambda path, splits: write_idx(path, splits, dot="."),
    "idx, zipped": lambda path, splits: write_idx(path, splits, opened=gzip.open, end=".gz"),
    "idx where torchvision has it": lambda path, splits: write_idx(path / "MNIST/raw", splits),
    "csv": write_csv,
    "csv with a header": lambda path, splits: write_csv(path, splits, f"label,{PIXELS}"),
    "csv, class last": lambda path, splits: write_csv(path, splits, f'{PIXELS},"class"', 784),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_either_kind_is_read_and_so_is_a_zip_of_it(kind, splits):
    KINDS[kind](Path("mine/digits"), splits)
    check("mine/digits", splits)
    Path("mine/__MACOSX").mkdir()
    Path("mine/.DS_Store").touch()
    for name, folder in (("flat.zip", "mine/digits"), ("deep_test.zip", "mine")):
        write_zip(Path("zipped") / name, folder)
        check(f"zipped/{name}", splits)


def test_an_npz_file_as_keras_has_it(splits):
    write_npz("mnist.npz", splits)
    check("mnist.npz", splits)


def test_a_folder_of_zip_files(splits):
    write_folders(Path("pictures"), splits)
    for name in splits:
        write_zip(Path(f"zips/{name}.zip"), f"pictures/{name}")
    check("zips", splits)


def test_what_holds_one_split_holds_that_of_its_name(splits):
    write_folders(Path("pictures"), splits)
    write_zip(Path("zips/my_test.zip"), "pictures/test")
    save_to_disk("saved-test", splits, "test")
    write_csv(Path("csv"), splits)
    for path in ("zips/my_test.zip", "saved-test", "csv/mnist_test.csv", "pictures/test"):
        check(path, {"test": splits["test"]})
        with pytest.raises(InputError, match=r"'train': missing .* has test \(30 rows\)"):
            data.load(path, "train")
    save_to_disk("saved", splits, "train")
    check("saved", {"train": splits["train"]})


def test_unpacked_idx_files_count_where_both_are(splits):
    write_idx(Path("raw"), splits)
    for name in ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"):
        Path("raw", name).write_bytes(b"damaged")
    assert sources.load("raw", "train").images.flags.writeable  # or else PyTorch warns of it
    check("raw", splits)


def test_half_of_idx_files_is_refused(splits):
    write_idx(Path("raw"), splits)
    refused("raw/t10k-images-idx3-ubyte", "its labels are in another file, so name the folder of")
    Path("raw/t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x05cut")
    refused("raw", "t10k-images-idx3-ubyte is cut short or damaged, get it once more")


def test_what_other_programs_leave_in_folders_is_passed_over(splits):
    write_folders(Path("pictures"), splits)
    for folder in (".", "train", "train/0", "__MACOSX/train/0"):
        Path("pictures", folder).mkdir(parents=True, exist_ok=True)
        for name in ("Thumbs.db", ".DS_Store", "README.txt", "._0.png"):
            Path("pictures", folder, name).write_bytes(b"no picture")
    check("pictures", splits)
    write_zip(Path("zipped/it.zip"), "pictures")
    check("zipped/it.zip", splits)


# What cannot be read.


def refused(dataset, sentence, split="train"):
    with pytest.raises(InputError, match=sentence) as error:
        data.load(str(dataset), split)
    assert len(str(error.value)) < 300
    assert not sources.CACHE.exists()


def test_a_stray_picture_is_named(splits):
    write_folders(Path("pictures"), splits)
    shutil.copy(next(Path().rglob("*.png")), "pictures/test")
    (stray,) = Path("pictures/test").glob("*.png")
    refused("pictures", rf"test.{stray.name} does not lie in a folder of its class")
    stray.unlink()
    check("pictures", splits)


def test_pointers_of_git_lfs_are_named(splits):
    write_folders(Path("pictures"), splits)
    write_split(Path("tables/train.parquet"), *map(list, splits["train"]))
    for path in (Path("tables/train.parquet"), next(Path("pictures").rglob("*.png"))):
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n")
        refused(path.parts[0], rf"{path.name} is a pointer of git-lfs .*`git lfs pull`")
    refused("tables/train.parquet", "is a pointer of git-lfs")


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda table: table[:, 1:], "has 784 columns, where 784 of pixels and one called label"),
        (lambda table: table[:, :5], "needs exactly one Image column"),
        (
            lambda table: np.where(table == table.max(), 256, table),
            "other values than whole numbers from 0 to 255",
        ),
        (lambda table: table - 0.5, "other values than whole numbers from 0 to 255"),
        (lambda table: table + 4, "row [0-9]+: the label is 1[0-3], not 0 to 9"),
        (lambda table: np.pad(table, ((0, 0), (0, 3000))), "needs exactly one Image column"),
    ],
)
def test_tables_of_something_else(change, sentence, splits):
    images, labels = splits["train"]
    table = np.column_stack([labels, images.reshape(-1, 784) // 2])
    np.savetxt("train.csv", change(table), "%g", ",")
    refused("train.csv", sentence)


def test_files_of_an_unknown_kind():
    for path in (Path("file.mat"), Path("folder/file.mat"), Path("folder/file.pkl.gz")):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        refused(path, r"no file of a known kind.*train-images-idx3-ubyte.gz")
    refused("folder", "no file of a known kind")


def test_two_tables_of_a_split(splits):
    write_csv(Path("csv"), splits)
    shutil.copy("csv/mnist_train.csv", "csv/train.csv")
    refused("csv", "train.csv is not the only file of train images")


@pytest.mark.parametrize(
    "arrays, sentence",
    [
        ({"x": [1], "y": [1]}, "its arrays are x, y, where x_train"),
        ({"x_train": np.zeros((2, 28, 28)), "y_train": [0, 1]}, r"\(2, 28, 28\) of float64"),
        ({"x_train": np.zeros((2, 32, 32), np.uint8), "y_train": [0, 1]}, r"\(2, 32, 32\)"),
        ({"x_train": np.zeros((2, 28, 28), np.uint8), "y_train": [0]}, r"labels \(1,\)"),
        ({"x_train": np.zeros((2, 28, 28), np.uint8), "y_train": np.eye(2)}, r"labels \(2, 2\)"),
        ({"x_train": np.zeros((2, 28, 28), np.uint8), "y_train": 3}, r"labels \(\)"),
        ({"x_train": np.zeros((2, 28, 28), np.uint8), "y_train": [0, 0.5]}, "the label is 0.5"),
        ({"x_train": np.zeros((2, 28, 28), np.uint8)}, "y_train"),
        ({"x_train": np.array([print]), "y_train": [0]}, "allow_pickle=False"),
    ],
)
def test_npz_files_of_something_else(arrays, sentence):
    np.savez("mnist.npz", **arrays)
    refused("mnist.npz", sentence)


def test_damaged_files(splits):
    write_idx(Path("idx"), splits)
    write_npz("mnist.npz", splits)
    write_zip(Path("zips/it.zip"), "idx")
    for path in (Path("idx/train-images-idx3-ubyte"), Path("mnist.npz"), Path("zips/it.zip")):
        content = path.read_bytes()
        for damaged in (b"", b"text", content[:-9], content[: len(content) // 2]):
            path.write_bytes(damaged)
            refused(path, "cannot be read")
    write_idx(Path("no labels"), {"train": splits["train"]})
    Path("no labels/train-labels-idx1-ubyte").unlink()
    refused("no labels", "No such file.*train-labels-idx1-ubyte")


def test_a_zip_file_writes_nothing_outside_of_its_folder(splits, monkeypatch):
    Path("tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", "tmp")
    write_folders(Path("pictures"), splits)
    with zipfile.ZipFile("evil.zip", "w") as archive:
        archive.write(next(Path().rglob("*.png")), "../../evil.png")
    before = set(Path().rglob("*"))
    refused("evil.zip", "no file of a known kind")
    assert set(Path().rglob("*")) == before


# Dark ink on white.


def negative(splits):
    return {name: (255 - images, labels) for name, (images, labels) in splits.items()}


@pytest.mark.parametrize("write", [write_folders, write_idx, save_to_disk])
def test_dark_on_light_is_turned_around_and_said(write, splits, run):
    write(Path("digits"), splits)
    write(Path("scans"), negative(splits))
    check("scans", splits)
    frames = []
    for name in ("digits", "scans"):
        code, out, _ = run(train.main, "--dataset", name, "--epochs", 1)
        assert code == 0 and ("60 training, 30 test, dark on light: inverted\n" in out) == (
            name == "scans"
        )
        frames.append(load_checkpoint(Path("checkpoint.pt"))[1].frame)
    assert frames[0] == frames[1]
    assert data.load("scans", "test").turned and not data.load("digits", "test").turned


def test_the_training_images_decide_for_both_splits(splits):
    write_npz("mnist.npz", negative({"train": splits["train"]}) | {"test": splits["test"]})
    test = data.load("mnist.npz", "test")  # first, as the analysis does
    assert test.turned and (test.images.numpy() == 255 - splits["test"][0]).all()


def test_a_file_of_test_images_decides_for_itself(splits, run):
    write_csv(Path("csv"), negative(splits))
    check("csv/mnist_test.csv", {"test": splits["test"]})
    assert run(train.main, "--dataset", "csv", "--epochs", 1)[0] == 0
    code, out, _ = run(analysis.main, "--dataset", "csv/mnist_test.csv")
    assert code == 0 and "want of training images" in out


def test_light_things_that_touch_the_border_are_no_paper(splits):
    images = np.zeros((60, 28, 28), np.uint8)
    images[:, :, 4:24] = 250  # 40 of the 108 pixels at the border
    for thing, turned in ((images, False), (255 - images, True)):
        np.savez(f"{turned}.npz", x_train=thing, y_train=splits["train"][1])
        split = data.load(f"{turned}.npz", "train")
        assert split.turned == turned and (split.images.numpy() == images).all()


def test_a_cache_of_an_earlier_version_is_made_anew(splits):
    write_npz("mnist.npz", negative(splits))
    data.load("mnist.npz", "test")
    (path,) = sources.CACHE.glob("*-test.npz")
    with np.load(path) as arrays:
        earlier = {name: arrays[name] for name in arrays if name != "turned"}
    np.savez(path, **earlier | {"images": 255 - earlier["images"]})
    check("mnist.npz", splits)


NAMES = ["a [da*ta] (1)", '{it\'s} "mine"', "$HOME `x`", "one::two", "~", "-x", "%41#?&;,é"]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_may_have_any_name(dataset, drawn, name):
    folder, file = Path(name), Path(f"{name} test.parquet")
    dataset.rename(folder)
    shutil.copy(folder / "test.parquet", file)
    for source in folder, file:
        assert torch.equal(data.load(str(source), "test").images, drawn[0][500:])
    (folder / "test.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="cannot be read"):
        data.load(str(folder), "test")


def test_a_name_counts_only_where_the_split_has_none(splits):
    all_classes = {"train": (splits["train"][0], np.arange(60) % 10)}
    write_folders(Path("test-pictures"), all_classes)
    check("test-pictures", all_classes)
    write_csv(Path("csv"), splits)
    Path("csv/mnist_train.csv").rename("csv/MNIST_Train.csv")
    Path("csv/mnist_test.csv").rename("csv/MNIST_Testing.csv")
    shutil.copy("csv/MNIST_Train.csv", "csv/validation.csv")
    check("csv", splits)


def test_links_are_followed_and_what_is_behind_them_is_watched(splits):
    write_idx(Path("real"), splits)
    Path("dataset").mkdir()
    Path("dataset/raw").symlink_to(Path("real").resolve())
    check("dataset", splits)
    changed = {name: (images, 9 - labels) for name, (images, labels) in splits.items()}
    shutil.rmtree("real")
    write_idx(Path("real"), changed)
    check("dataset", changed)
    write_folders(Path("elsewhere"), splits)
    Path("pictures").mkdir()
    for name in splits:
        Path("pictures", name).symlink_to(Path("elsewhere", name).resolve())
    check("pictures", splits)


def test_a_table_without_a_header_may_have_its_labels_last(splits):
    images, labels = splits["train"]
    table = np.column_stack([images.reshape(-1, 784), labels])
    np.savetxt("train.csv", table, "%d", ",")
    check("train.csv", {"train": splits["train"]})


def test_labels_may_be_plain_numbers(splits):
    images, labels = splits["train"]
    features = datasets.Features({"x": datasets.Image(), "y": datasets.Value("int64")})
    columns = {"x": list(images), "y": labels.tolist()}
    datasets.Dataset.from_dict(columns, features).to_parquet("train.parquet")
    check("train.parquet", {"train": splits["train"]})


def test_networks_of_dark_digits_that_were_not_turned_around_are_refused(splits, run):
    turned = {name: (255 - images, labels) for name, (images, labels) in splits.items()}
    write_idx(Path("dark"), turned)
    flags = "--dataset", "dark", "--epochs", 1
    assert run(train.main, *flags)[0] == 0 and run(analysis.main)[0] == 0
    content = torch.load("checkpoint.pt", weights_only=True)
    del content["settings"]["turned"]  # as of an earlier version
    torch.save(content, "checkpoint.pt")
    code, _, err = run(analysis.main)
    assert code == 2 and "dark digits on light paper as they are: train anew" in err
