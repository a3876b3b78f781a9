"""Local datasets in all the shapes in which people have them."""

import gzip
import io
import shutil
import tempfile
import zipfile
from functools import partial
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


# Writers of a split as some program leaves it; `path` is of a folder and the split's name.


def write_pictures(path, images, labels, mode="L", end="png"):
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = path / str(label) / f"test_{index}.{end}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert(mode).save(file)


def write_idx(path, images, labels, dot="-", opened=open, end=""):
    start = path.with_name(path.name.replace("test", "t10k"))
    for kind, array in (("images", images), ("labels", labels)):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        with opened(f"{start}-{kind}{dot}idx{array.ndim}-ubyte{end}", "wb") as file:
            file.write(header + array.astype(np.uint8).tobytes())


def write_emnist(path, images, labels):
    path = path.with_name(f"emnist-digits-{path.name}")
    write_idx(path, images.swapaxes(1, 2), labels, opened=gzip.open, end=".gz")


def write_qmnist(path, images, labels):
    """With labels of eight numbers, of which the first counts."""
    write_idx(path.with_name(f"qmnist-{path.name}"), images, labels)
    (file,) = path.parent.glob(f"*{path.name.replace('test', 't10k')}-labels*")
    table = np.column_stack([labels, *np.arange(7 * len(labels)).reshape(7, -1)]).astype(">i4")
    header = bytes([0, 0, 12, 2]) + np.array(table.shape, ">u4").tobytes()
    file.with_name(f"qmnist-{path.name}-labels-idx2-int").write_bytes(header + table.tobytes())
    file.unlink()


def write_kmnist(path, images, labels):
    np.savez(f"{path}-imgs", images)
    np.savez(f"{path}-labels", labels)


def write_npy(path, images, labels):
    np.save(f"{path}-X", images.reshape(-1, 784) * 1.0)
    np.save(f"{path}-y", labels)


def write_csv(path, images, labels, end="csv", names=None, last=False, **settings):
    pixels = {f"pixel{i}": column for i, column in enumerate(images.reshape(-1, 784).T)}
    columns = pixels | {"class": labels} if last else {"label": labels} | pixels
    frame = pandas.DataFrame(columns)
    frame = frame if names is None else frame.set_axis(names, axis=1)
    frame.to_csv(f"{path}.{end}", **{"index": False} | settings)


def write_emnist_csv(path, images, labels):
    path = path.with_name(f"emnist-digits-{path.name}")
    write_csv(path, images.swapaxes(1, 2), labels, header=False)


def write_parquet(path, images, labels):
    """As pandas writes it, beside columns of other numbers, dates and texts."""
    count = len(labels)
    others = {"id": range(99, 99 + count), "day": pandas.Timestamp(0), "split": "x"}
    pandas.DataFrame(others | {"px": images, "label": labels}).to_parquet(f"{path}.parquet")


def encode(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def save_to_disk(path, splits, single=None):
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list("0123456789"))}
    )
    tables = {
        name: datasets.Dataset.from_dict({"image": list(images), "label": list(labels)}, features)
        for name, (images, labels) in splits.items()
    }
    (tables[single] if single else datasets.DatasetDict(tables)).save_to_disk(path)


NUMBERS = list(map(str, range(785)))
KINDS = {
    "pictures": write_pictures,
    "grey pictures in colour": partial(write_pictures, mode="RGB"),
    "pictures, pgm": partial(write_pictures, end="pgm"),
    "pictures, Train": lambda path, *columns: write_pictures(
        path.with_name(path.name.title()), *columns
    ),
    "pictures, trainingSet": lambda path, *columns: write_pictures(
        path.with_name(path.name.replace("train", "training") + "Set"), *columns
    ),
    "idx": write_idx,
    "idx with dots": partial(write_idx, dot="."),
    "idx, zipped": partial(write_idx, opened=gzip.open, end=".gz"),
    "emnist": write_emnist,
    "emnist, csv": write_emnist_csv,
    "qmnist": write_qmnist,
    "kmnist": write_kmnist,
    "npy": write_npy,
    "csv": write_csv,
    "csv, class last": partial(write_csv, last=True),
    "csv, numbers for names": partial(write_csv, names=NUMBERS),
    "csv with an index": partial(write_csv, names=NUMBERS, index=True),
    "csv without a header": partial(write_csv, end="CSV", header=False),
    "csv without a header, class last": partial(write_csv, last=True, header=False),
    "csv of floats": lambda path, images, labels: write_csv(
        path, images, labels * 1.0, header=False, float_format="%.1e"
    ),
    "csv with semicolons": partial(write_csv, sep=";"),
    "csv, zipped": partial(write_csv, end="csv.gz"),
    "tsv": partial(write_csv, end="tsv", sep="\t"),
    "parquet with bytes": lambda path, images, labels: write_parquet(
        path, list(map(encode, images)), labels
    ),
    "parquet, trainingSet": lambda path, images, labels: write_parquet(
        path.with_name(path.name.replace("train", "training") + "Set"),
        list(map(encode, images)),
        pandas.Categorical(labels.astype(str)),
    ),
    "parquet with structs": lambda path, images, labels: write_parquet(
        path, [{"bytes": encode(image), "path": None} for image in images], labels * 1.0
    ),
    "parquet with lists": lambda path, images, labels: write_parquet(
        path, list(map(list, images)), labels.astype(str)
    ),
}


def write(kind, folder, splits):
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, columns in splits.items():
        KINDS[kind](Path(folder, name), *columns)


def write_npz(path, splits, names="x_{} y_{}"):
    arrays = {
        name.format(split): array
        for split, columns in splits.items()
        for name, array in zip(names.split(), columns, strict=True)
    }
    np.savez_compressed(path, **arrays)


def write_zip(path, folder):
    path.parent.mkdir(exist_ok=True)
    shutil.make_archive(str(path.with_suffix("")), "zip", folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_any_kind_is_read_and_so_is_a_zip_of_it(kind, splits):
    write(kind, "mine/digits", splits)
    check("mine", splits)
    for name, folder in (("flat.zip", "mine/digits"), ("deep_test.zip", "mine")):
        write_zip(Path("zipped") / name, folder)
        check(f"zipped/{name}", splits)


@pytest.mark.parametrize("names", ["x_{} y_{}", "{}_images {}_labels", "{}X {}Y"])
def test_an_npz_file_of_any_names(names, splits):
    write_npz("mnist.npz", splits, names)
    check("mnist.npz", splits)


def test_a_folder_of_zip_files(splits):
    write("pictures", "pictures", splits)
    for name in splits:
        write_zip(Path(f"zips/{name}.zip"), f"pictures/{name}")
    check("zips", splits)


def test_what_holds_one_split_holds_that_of_its_name(splits):
    write("pictures", "pictures", splits)
    write_zip(Path("zips/my_test.zip"), "pictures/test")
    save_to_disk("saved-test", splits, "test")
    write("csv", "csv", splits)
    write("parquet with bytes", "tables", splits)
    paths = "zips/my_test.zip saved-test csv/test.csv pictures/test tables/test.parquet"
    for path in paths.split():
        check(path, {"test": splits["test"]})
        with pytest.raises(InputError, match="'train': missing"):
            data.load(path, "train")
    save_to_disk("saved", splits, "train")
    check("saved", {"train": splits["train"]})
    save_to_disk("both/saved", splits)
    check("both", splits)


def test_a_name_counts_only_where_the_split_has_none(splits):
    write("pictures", "test-pictures", {"train": splits["train"]})
    check("test-pictures", {"train": splits["train"]})
    write("csv", "csv", splits)
    Path("csv/train.csv").rename("csv/MNIST_Train.csv")
    Path("csv/test.csv").rename("csv/MNIST_TESTING.csv")
    shutil.copy("csv/MNIST_Train.csv", "csv/validation.csv")
    check("csv", splits)


@pytest.mark.parametrize("kind", ["csv", "pictures", "parquet with bytes"])
def test_validation_stands_in_for_a_test_split_that_is_missing(kind, splits):
    write(kind, "mine", {"train": splits["train"], "valid": splits["test"]})
    check("mine", splits)
    assert [sources.load("mine", name).name for name in splits] == ["train", "validation"]


def test_that_a_split_is_missing_is_kept_too(splits, monkeypatch):
    write("csv", "csv", {"train": splits["train"]})
    assert len(sources.load("csv", "train").images) == 60
    monkeypatch.delattr(sources.tables, "open_splits")
    with pytest.raises(sources.MissingSplit, match="'csv'.*'test'"):
        sources.load("csv", "test")


SCALES = {
    "bytes": lambda images: (images > 127).astype(np.uint8),
    "booleans": lambda images: images > 127,
    "floats": lambda images: images / np.float32(255),
    "halves": lambda images: (images / 255).astype(np.float16),
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", ["npy", "csv", "parquet with lists"])
def test_pixels_from_0_to_1_are_scaled(kind, scale, splits):
    small, whole = {}, {}
    for name, (images, labels) in splits.items():
        small[name] = SCALES[scale](images), labels
        whole[name] = np.rint(small[name][0] * 255.0).astype(np.uint8), labels
    write(kind, "mine", small)
    check("mine", whole)
    assert all(sources.load("mine", name).scaled for name in splits)


def test_the_training_images_decide_what_is_scaled(splits):
    images, labels = splits["train"]
    write_npz("mine", {"train": (images, labels), "test": (images > 127, labels)})
    test = sources.load("mine.npz", "test")
    assert not test.scaled and test.images.max() == 1
    write_npz("mine", {"train": (images > 127, labels), "test": (images, labels)})
    with pytest.raises(InputError, match="'test'.*0 to 255"):
        sources.load("mine.npz", "test")


@pytest.mark.parametrize("without", [["label"], [], "id"])
def test_a_split_without_labels_is_not_needed_for_the_other(without, splits):
    write("csv", "kaggle", splits)
    frame = pandas.read_csv("kaggle/test.csv").assign(label=None)
    if without == "id":
        frame = frame.rename(columns={"label": "id"}).assign(id=range(len(frame)))
    else:
        frame = frame.drop(columns=without)
    frame.to_csv("kaggle/test.csv", index=False)
    Path("kaggle/sample_submission.csv").write_text("ImageId,Label\n1,0\n")
    check("kaggle", {"train": splits["train"]})
    with pytest.raises(sources.MissingSplit, match="'test'.*label"):
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
    write("pictures", "pictures", some)
    check("pictures", some)


def test_unpacked_idx_files_count_where_both_are(splits):
    write("idx", "raw", splits)
    for name in ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"):
        Path("raw", name).write_bytes(b"damaged")
    assert sources.load("raw", "train").images.flags.writeable  # or else PyTorch warns of it
    check("raw", splits)


def test_what_other_programs_leave_in_folders_is_passed_over(splits):
    write("pictures", "pictures", splits)
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


def test_a_stray_and_a_damaged_picture_are_named(splits):
    write("pictures", "pictures", splits)
    picture = next(Path("pictures/train").rglob("*.png"))
    stray = Path(shutil.copy(picture, "pictures/test/stray.png"))
    refused("pictures", "test/stray.png")
    refused(stray, "stray.png")
    stray.unlink()
    content = picture.read_bytes()
    picture.write_bytes(content[:50])
    refused("pictures", str(picture))
    Image.new("L", (32, 32)).save(picture)
    refused("pictures", f"{picture}.*32 x 32")
    (picture.parents[1] / "metadata.csv").write_text(
        f"file_name,label\n{picture.relative_to(picture.parents[1])},3\n"
    )
    refused("pictures/train", f"{picture}.*32 x 32", "test")  # and not a link that is gone


def test_several_configurations_are_named(splits):
    configs = ""
    for name in ("digits", "more"):
        write("parquet with lists", f"mine/{name}", splits)
        configs += f"- config_name: {name}\n  data_files: {name}/train.parquet\n"
    Path("mine/README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    refused("mine", "digits, more")


def test_pointers_of_git_lfs_are_named(splits):
    write("pictures", "pictures", splits)
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
        refused(path, r"no file of a known kind.*pickle.*train-images-idx3-ubyte.gz")
    refused("folder", "no file of a known kind")


def test_two_tables_of_a_split(splits):
    write("csv", "csv", splits)
    shutil.copy("csv/train.csv", "csv/training.csv")
    refused("csv", "training.csv is not the only")
    write("idx", "idx", {"train": splits["train"]})
    write_npz("idx/train.npz", splits)
    refused("idx", "train-images-idx3-ubyte, train.npz x_train")


IMAGES = np.zeros((2, 28, 28), np.uint8)


@pytest.mark.parametrize(
    "arrays, sentence",
    [
        ({"x": [1], "y": [1]}, "npz x .*npz y"),
        ({"x_train": np.zeros((2, 32, 32), np.uint8), "y_train": [0, 1]}, "2 x 32 x 32"),
        ({"x_train": IMAGES + 1.5, "y_train": [0, 1]}, "0 to 255"),
        ({"x_train": IMAGES - 0.5, "y_train": [0, 1]}, "0 to 255"),
        ({"x_train": IMAGES + np.nan, "y_train": [0, 1]}, "0 to 255"),
        ({"x_train": IMAGES, "y_train": [0]}, "2 images, and 1 labels"),
        ({"x_train": IMAGES, "y_train": 3}, "2 images, and 1 labels"),
        ({"x_train": IMAGES, "y_train": np.eye(2)}, "2 x 2 float"),
        ({"x_train": IMAGES, "y_train": [0.5, 0.5]}, "row 0: .*0.5"),
        ({"x_train": IMAGES, "y_train": [0, 1j]}, "2 complex"),
        ({"x_train": IMAGES}, "npz x_train"),
        ({"x_train": np.array([print]), "y_train": [0]}, "allow_pickle=False"),
    ],
)
def test_npz_files_of_something_else(arrays, sentence):
    np.savez("mnist.npz", **arrays)
    refused("mnist.npz", sentence)


def test_damaged_files(splits):
    write("idx", "idx", splits)
    write_npz("mnist.npz", splits)
    write_zip(Path("zips/it.zip"), "idx")
    write("csv, zipped", "csv", splits)
    csv = Path("csv/train.csv.gz")
    for path in (Path("idx/train-images-idx3-ubyte"), Path("mnist.npz"), Path("zips/it.zip"), csv):
        content = path.read_bytes()
        for damaged in (b"", b"text", content[:-9], content[: len(content) // 2]):
            path.write_bytes(damaged)
            refused(path, "cannot be read|no file of a known kind")
    path = Path("half/t10k-images-idx3-ubyte")
    write("idx", path.parent, splits)
    path.with_name("t10k-labels-idx1-ubyte").unlink()
    for dataset in (path.parent, path):
        refused(dataset, "images-idx3-ubyte.*label", "test")


def test_a_zip_file_writes_nothing_outside_of_its_folder(splits, monkeypatch):
    Path("tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", "tmp")
    write("pictures", "pictures", splits)
    with zipfile.ZipFile("evil.zip", "w") as archive:
        archive.write(next(Path().rglob("*.png")), "../../evil.png")
    before = set(Path().rglob("*"))
    refused("evil.zip", "no file of a known kind")
    assert set(Path().rglob("*")) == before


# Dark ink on white.


def negative(splits):
    return {name: (255 - images, labels) for name, (images, labels) in splits.items()}


@pytest.mark.parametrize("kind", ["pictures", "idx", "parquet with bytes"])
def test_dark_on_light_is_inverted(kind, splits):
    write(kind, "scans", negative(splits))
    check("scans", splits)
    assert data.load("scans", "test").inverted


def test_a_network_of_dark_digits_is_that_of_light_ones(splits, run):
    write("idx", "digits", splits)
    write("idx", "scans", negative(splits))
    frames = []
    for name in ("digits", "scans"):
        code, out, _ = run(train.main, "--dataset", name, "--epochs", 1)
        assert code == 0 and ("dark on light: inverted" in out) == (name == "scans")
        frames.append(load_checkpoint(Path("checkpoint.pt"))[1].frame)
    assert frames[0] == frames[1] and run(analysis.main)[0] == 0
    content = torch.load("checkpoint.pt", weights_only=True)
    del content["settings"]["inverted"]  # as of an earlier version
    torch.save(content, "checkpoint.pt")
    code, _, err = run(analysis.main)
    assert code == 2 and "dark digits on light paper as they are: train anew" in err


def test_the_training_images_decide_for_both_splits_and_those_of_a_test_file_for_it(splits, run):
    write_npz("mnist.npz", negative({"train": splits["train"]}) | {"test": splits["test"]})
    test = data.load("mnist.npz", "test")  # first, as the analysis does
    assert test.inverted and (test.images.numpy() == 255 - splits["test"][0]).all()
    write("csv", "csv", negative(splits))
    check("csv/test.csv", {"test": splits["test"]})
    assert run(train.main, "--dataset", "csv", "--epochs", 1)[0] == 0
    code, out, _ = run(analysis.main, "--dataset", "csv/test.csv")
    assert code == 0 and "want of training images" in out


def test_light_things_that_touch_the_border_are_no_paper(splits):
    images = np.zeros((60, 28, 28), np.uint8)
    images[:, :, 4:24] = 250  # 40 of the 108 pixels at the border
    for thing, inverted in ((images, False), (255 - images, True)):
        np.savez(f"{inverted}.npz", x_train=thing, y_train=splits["train"][1])
        split = data.load(f"{inverted}.npz", "train")
        assert split.inverted == inverted and (split.images.numpy() == images).all()


NAMES = [
    "parquet",
    "a [da*ta] (1)",
    '{it\'s} "mine"',
    "$HOME `x`",
    "one::two",
    "~",
    "-x",
    "%41#?&;,é",
]


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
    write("idx", "real", splits)
    Path("dataset").mkdir()
    Path("dataset/raw").symlink_to(Path("real").resolve())
    check("dataset", splits)
    changed = {name: (images, 9 - labels) for name, (images, labels) in splits.items()}
    shutil.rmtree("real")
    write("idx", "real", changed)
    check("dataset", changed)
    write("pictures", "elsewhere", splits)
    Path("pictures").mkdir()
    for name in splits:
        Path("pictures", name).symlink_to(Path("elsewhere", name).resolve())
    check("pictures", splits)
