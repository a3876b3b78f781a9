"""Local datasets in all the shapes in which people have them."""

import gzip
import io
import shutil
import tempfile
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pandas
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


def encode(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


# A folder of both splits, as some program leaves it.


def write_folders(folder, splits, mode="L", names=("train", "test")):
    """A picture file per image, in a folder per class."""
    for name, (images, labels) in zip(names, splits.values(), strict=False):
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / name / str(label) / f"test_{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).convert(mode).save(path)


def write_zip(path, folder):
    path.parent.mkdir(exist_ok=True)
    shutil.make_archive(str(path.with_suffix("")), "zip", folder)


def write_idx(folder, splits, dot="-", opened=open, end="", start=""):
    folder.mkdir(parents=True)
    for name, arrays in splits.items():
        prefix = start + {"train": "train", "test": "t10k"}[name]
        for kind, array in zip(("images", "labels"), arrays, strict=True):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            path = folder / f"{prefix}-{kind}{dot}idx{array.ndim}-ubyte{end}"
            with opened(path, "wb") as file:
                file.write(header + array.astype(np.uint8).tobytes())


def write_emnist(folder, splits):
    splits = {name: (images.swapaxes(1, 2), labels) for name, (images, labels) in splits.items()}
    write_idx(folder, splits, start="emnist-digits-", opened=gzip.open, end=".gz")


def write_npz(path, splits, names="x_{} y_{}"):
    arrays = {
        name.format(split): array
        for split, columns in splits.items()
        for name, array in zip(names.split(), columns, strict=True)
    }
    np.savez_compressed(path, **arrays)


def write_kmnist(folder, splits, save=np.savez):
    folder.mkdir(parents=True)
    for name, (images, labels) in splits.items():
        save(folder / f"kmnist-{name}-imgs", images)
        save(folder / f"kmnist-{name}-labels", labels)


def table(images, labels, **columns):
    """A pandas.DataFrame of columns, a label and 784 pixels."""
    pixels = {f"pixel{i}": column for i, column in enumerate(images.reshape(-1, 784).T)}
    return pandas.DataFrame(columns | {"label": labels} | pixels)


def write_csv(folder, splits, end="csv", change=lambda frame: frame, **settings):
    folder.mkdir(parents=True)
    for name, columns in splits.items():
        path = folder / f"mnist_{name}.{end}"
        change(table(*columns)).to_csv(path, **{"index": False} | settings)


def write_parquet(folder, splits, images, labels=list):
    """Files as pandas writes them, beside columns of other numbers and texts."""
    folder.mkdir(parents=True)
    for name, columns in splits.items():
        frame = {
            "id": range(1000, 1000 + len(columns[1])),
            "px": list(map(images, columns[0])),
            "split": name,
            "label": labels(columns[1]),
        }
        pandas.DataFrame(frame).to_parquet(folder / f"{name}.parquet")


def save_to_disk(path, splits, single=None):
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list("0123456789"))}
    )
    tables = {
        name: datasets.Dataset.from_dict({"image": list(images), "label": list(labels)}, features)
        for name, (images, labels) in splits.items()
    }
    (tables[single] if single else datasets.DatasetDict(tables)).save_to_disk(path)


def numbered(frame):
    return frame.set_axis([str(i) for i in range(785)], axis=1)


def last(frame):
    return frame[[*frame.columns[1:], "label"]].rename(columns={"label": "class"})


KINDS = {
    "pictures": (write_folders,),
    "grey pictures in colour": (write_folders, "RGB"),
    "pictures, Train and Test": (write_folders, "L", ("Train", "Test")),
    "pictures, trainingSet and testSet": (write_folders, "L", ("a/trainingSet", "a/testSet")),
    "saved": (save_to_disk,),
    "idx": (write_idx,),
    "idx with dots": (write_idx, "."),
    "idx, zipped": (write_idx, "-", gzip.open, ".gz"),
    "idx where torchvision has it": (lambda path, splits: write_idx(path / "MNIST/raw", splits),),
    "emnist": (write_emnist,),
    "kmnist": (write_kmnist,),
    "npy": (write_kmnist, np.save),
    "csv": (write_csv,),
    "csv, class last": (write_csv, "csv", last),
    "csv, numbers for names": (write_csv, "csv", numbered),
    "csv with an index": (write_csv, "csv", numbered, {"index": True}),
    "csv without a header": (write_csv, "CSV", numbered, {"header": False}),
    "csv without a header, class last": (write_csv, "csv", last, {"header": False}),
    "csv of floats": (write_csv, "csv", lambda t: t * 1.0, {"header": False, "float_format": "%e"}),
    "csv with semicolons": (write_csv, "csv", numbered, {"sep": ";"}),
    "csv, zipped": (write_csv, "csv.gz"),
    "tsv": (write_csv, "tsv", last, {"sep": "\t"}),
    "parquet with bytes": (write_parquet, encode),
    "parquet with structs": (
        write_parquet,
        lambda image: {"bytes": encode(image), "path": None},
        lambda labels: labels.astype(float),
    ),
    "parquet with lists": (write_parquet, list, lambda labels: labels.astype(str)),
    "parquet with long lists": (write_parquet, lambda image: image.ravel() * 1.0),
}


def write(kind, folder, splits):
    writer, *settings = KINDS[kind]
    named = settings.pop() if settings and isinstance(settings[-1], dict) else {}
    writer(folder, splits, *settings, **named)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_any_kind_is_read_and_so_is_a_zip_of_it(kind, splits):
    write(kind, Path("mine/digits"), splits)
    check("mine/digits", splits)
    Path("mine/__MACOSX").mkdir()
    Path("mine/.DS_Store").touch()
    for name, folder in (("flat.zip", "mine/digits"), ("deep_test.zip", "mine")):
        write_zip(Path("zipped") / name, folder)
        check(f"zipped/{name}", splits)


@pytest.mark.parametrize("names", ["x_{} y_{}", "{}_images {}_labels", "{}X {}Y"])
def test_an_npz_file_of_any_names(names, splits):
    write_npz("mnist.npz", splits, names)
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
    write_parquet(Path("tables"), splits, encode)
    paths = "zips/my_test.zip saved-test csv/mnist_test.csv pictures/test tables/test.parquet"
    for path in paths.split():
        check(path, {"test": splits["test"]})
        with pytest.raises(InputError, match=r"'train'.* test \(30 rows\)"):
            data.load(path, "train")
    save_to_disk("saved", splits, "train")
    check("saved", {"train": splits["train"]})


def test_a_name_counts_only_where_the_split_has_none(splits):
    write_folders(Path("test-pictures"), {"train": splits["train"]})
    check("test-pictures", {"train": splits["train"]})
    write_csv(Path("csv"), splits)
    Path("csv/mnist_train.csv").rename("csv/MNIST_Train.csv")
    Path("csv/mnist_test.csv").rename("csv/MNIST_TESTING.csv")
    shutil.copy("csv/MNIST_Train.csv", "csv/validation.csv")
    check("csv", splits)


def test_a_split_without_labels_is_not_needed_for_the_other(splits):
    write_csv(Path("kaggle"), splits)
    frame = pandas.read_csv("kaggle/mnist_test.csv").drop(columns="label")
    frame.to_csv("kaggle/mnist_test.csv", index=False)
    Path("kaggle/sample_submission.csv").write_text("ImageId,Label\n1,0\n")
    check("kaggle", {"train": splits["train"]})
    with pytest.raises(InputError, match="'test'.*label"):
        data.load("kaggle", "test")


def test_texts_are_of_the_same_classes_in_both_splits(splits):
    for name, texts in {"train": ["cat", "ant", "cat", "bee"], "test": ["cat", "bee"]}.items():
        frame = {"image": [encode(image) for image in splits[name][0][: len(texts)]], "is": texts}
        pandas.DataFrame(frame).to_parquet(f"{name}.parquet")
    shutil.copytree(".", "animals")
    train, test = (data.load("animals", name) for name in ("train", "test"))
    assert (train.labels.tolist(), test.labels.tolist()) == ([2, 0, 2, 1], [2, 1])
    assert train.class_names[:4] == test.class_names[:4] == ["ant", "bee", "cat", "output 3"]


def test_folders_of_some_digits_are_of_these(splits):
    keep = np.isin(splits["train"][1], (3, 7))
    some = {"train": tuple(array[keep] for array in splits["train"])}
    write_folders(Path("pictures"), some)
    check("pictures", some)


def test_unpacked_idx_files_count_where_both_are(splits):
    write_idx(Path("raw"), splits)
    for name in ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"):
        Path("raw", name).write_bytes(b"damaged")
    assert sources.load("raw", "train").images.flags.writeable  # or else PyTorch warns of it
    check("raw", splits)


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
    assert len(str(error.value)) < 500
    assert not sources.CACHE.exists()


def test_a_stray_picture_is_named(splits):
    write_folders(Path("pictures"), splits)
    shutil.copy(next(Path().rglob("*.png")), "pictures/test/stray.png")
    refused("pictures", "test/stray.png")
    refused("pictures/test/stray.png", "stray.png")
    Path("pictures/test/stray.png").unlink()
    check("pictures", splits)


def test_a_damaged_picture_is_named(splits):
    write_folders(Path("pictures"), splits)
    picture = next(Path("pictures/train").rglob("*.png"))
    picture.write_bytes(picture.read_bytes()[:50])
    refused("pictures", str(picture))


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
        (lambda table: table[:, 1:], "one of labels"),
        (lambda table: table[:, :5], "28 x 28 images"),
        (lambda table: np.pad(table, ((0, 0), (0, 3000))), "28 x 28 images"),
        (lambda table: np.where(table == table.max(), 256, table), "0 to 255"),
        (lambda table: table - 0.5, "0 to 255"),
        (lambda table: table + 4, "row [0-9]+: .*1[0-3], not 0 to 9"),
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
    refused("csv", "train.csv is not the only")
    write_idx(Path("idx"), {"train": splits["train"]})
    write_npz("idx/train.npz", splits)
    refused("idx", "train-images-idx3-ubyte, train.npz x_train")


IMAGES = np.zeros((2, 28, 28), np.uint8)


@pytest.mark.parametrize(
    "arrays, sentence",
    [
        ({"x": [1], "y": [1]}, "npz x .*npz y"),
        ({"x_train": np.zeros((2, 32, 32), np.uint8), "y_train": [0, 1]}, "2 x 32 x 32"),
        ({"x_train": IMAGES + 0.5, "y_train": [0, 1]}, "0 to 255"),
        ({"x_train": IMAGES > 0, "y_train": [0, 1]}, "2 x 28 x 28 bool"),
        ({"x_train": IMAGES, "y_train": [0]}, "2 images, and 1 labels"),
        ({"x_train": IMAGES, "y_train": 3}, "2 images, and 1 labels"),
        ({"x_train": IMAGES, "y_train": np.eye(2)}, "2 x 2 float"),
        ({"x_train": IMAGES, "y_train": [0, 0.5]}, "row 1: .*0.5"),
        ({"x_train": IMAGES, "y_train": [0, 1j]}, "2 complex"),
        ({"x_train": IMAGES}, "npz x_train"),
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
    write_csv(Path("csv"), splits, "csv.gz")
    csv = Path("csv/mnist_train.csv.gz")
    for path in (Path("idx/train-images-idx3-ubyte"), Path("mnist.npz"), Path("zips/it.zip"), csv):
        content = path.read_bytes()
        for damaged in (b"", b"text", content[:-9], content[: len(content) // 2]):
            path.write_bytes(damaged)
            refused(path, "cannot be read|no file of a known kind")
    path = Path("half/t10k-images-idx3-ubyte")
    write_idx(path.parent, splits)
    path.with_name("t10k-labels-idx1-ubyte").unlink()
    for dataset in (path.parent, path):
        refused(dataset, "images-idx3-ubyte.*label", "test")


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
        assert code == 0 and ("60 training, 30 test, dark on light: turned around\n" in out) == (
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
        earlier = {name: arrays[name] for name in arrays if name != "inverted"}
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
