"""The Hugging Face Hub and mirrors, played by a server on this machine."""

import gzip
import hashlib
import http.server
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import datasets
import pytest
import torch
from conftest import NOWHERE, ROOT
from huggingface_hub import constants
from processes import heed_ctrl_c, wait_for

import data
from plumbing import hub, sources
from plumbing.cli import InputError

REVISION = "0123456789" * 4


class Handler(http.server.BaseHTTPRequestHandler):
    """What huggingface_hub asks of the Hub, for any dataset; other paths are those of mirrors."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path, files = self.path.split("?")[0], self.server.files
        self.server.asked.append(path)
        if path.startswith("/api"):
            return self.server.api(self)
        name = path.partition(f"/resolve/{REVISION}/")[2] or path.strip("/")
        if name not in files:
            return self.answer(404, X_Error_Code="EntryNotFound")
        self.server.send(self, name)

    do_HEAD = do_GET

    def about(self):
        siblings = [{"rfilename": name} for name in self.server.files]
        self.answer(200, json.dumps({"id": "any", "sha": REVISION, "siblings": siblings}).encode())

    def answer(self, status, body=b"", size=None, **headers):
        self.send_response(status)
        headers["Content-Length"] = len(body) if size is None else size
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send(self, name, share=1):
        """Send a file, or only the first share of its bytes."""
        body = self.server.files[name]
        headers = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": REVISION}
        self.answer(200, body[: int(share * len(body))], len(body), **headers)

    def hang(self, *_):
        """Say nothing until the other side closes the connection."""
        self.rfile.read(1)
        self.server.left.set()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(dataset, monkeypatch):
    """A Hub on which each dataset is the same 500 + 100 drawn digits."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files = {path.name: path.read_bytes() for path in sorted(dataset.iterdir())}
        server.files |= {"README.md": b"# Digits", "network.safetensors": b"no data"}
        server.api, server.send, server.asked = Handler.about, Handler.send, []
        server.left = threading.Event()
        server.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_HOME", "hf")  # relative to where a script runs
        monkeypatch.setattr(constants, "HF_HUB_CACHE", "hf/hub")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", Path("hf/datasets"))
        connect(server.address, monkeypatch)
        yield server
        server.shutdown()


def connect(address, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def known(drawn, monkeypatch):
    """The drawn digits in place of MNIST."""
    parts = {"train": slice(0, 500), "test": slice(500, 600)}
    sums = {
        name: hub._sha256(sources.Pixels(*(t[part].numpy() for t in drawn), [], turned=False))
        for name, part in parts.items()
    }
    monkeypatch.setattr(data, "KNOWN_MNIST", data.KNOWN_MNIST._replace(checksums=sums))


def is_drawn(split, drawn):
    return torch.equal(split.images, drawn[0][500:]) and torch.equal(split.labels, drawn[1][500:])


def forget():
    """Remove what this project itself keeps of a dataset."""
    shutil.rmtree(sources.CACHE)


def cache(dataset, name):
    """Let `datasets` keep a local dataset in its cache as it keeps one of the Hub."""
    datasets.load_dataset(str(dataset), cache_dir="hf/any")
    (info,) = Path("hf/any").rglob("dataset_info.json")
    shutil.copytree(info.parent, target := Path("hf/datasets", name, "default/0.0.0/5eed"))
    return target


def test_a_dataset_is_got_once_and_kept_for_later(server, drawn, monkeypatch, capsys):
    assert is_drawn(data.load("a/b", "test"), drawn)
    assert capsys.readouterr() == ("", f"getting a/b from {server.address}\n")
    assert not any("safetensors" in path for path in server.asked)
    asked = len(server.asked)
    assert is_drawn(data.load("a/b", "test"), drawn) and len(server.asked) == asked
    forget()
    assert is_drawn(data.load("a/b", "test"), drawn) and len(server.asked) == asked + 1
    forget()
    connect(NOWHERE, monkeypatch)
    assert is_drawn(data.load("a/b", "test"), drawn)  # from the cache of the Hub's client
    forget()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    capsys.readouterr()
    assert is_drawn(data.load("a/b", "test"), drawn) and capsys.readouterr().err == ""
    with pytest.raises(hub.Unreachable, match="c/d.*HF_HUB_OFFLINE"):
        data.load("c/d", "test")


def test_a_copy_counts_only_if_it_is_whole(server, dataset, drawn, monkeypatch):
    server.send = lambda handler, name: handler.send(name, share="train" not in name)
    monkeypatch.setattr(hub, "PATIENCE", 1)
    with pytest.raises(hub.Unreachable):
        data.load("a/Digits", "test")
    assert list(Path("hf/hub").glob("*/snapshots/*/test.parquet"))  # and no train.parquet
    connect(NOWHERE, monkeypatch)
    with pytest.raises(hub.Unreachable):
        data.load("a/Digits", "test")
    folder = cache(dataset, "a___digits")
    whole = folder.rename(folder.with_suffix(".incomplete"))
    with pytest.raises(hub.Unreachable):
        data.load("a/Digits", "test")
    whole.rename(folder)
    assert is_drawn(data.load("a/Digits", "test"), drawn)
    shutil.copytree(folder, "hf/datasets/a___digits/letters/0.0.0/5eed")
    forget()
    with pytest.raises(hub.Unreachable):  # It might be either.
        data.load("a/Digits", "test")


@pytest.mark.parametrize(
    "part, status, code, token, named",
    [
        ("api", 401, "", "hf_expired", "401.*hf auth login.*HF_TOKEN"),
        ("api", 401, "", "", "hf auth login"),
        ("api", 403, "GatedRepo", "", "/datasets/a/b.*hf auth login"),
        ("send", 403, "GatedRepo", "", "/datasets/a/b.*hf auth login"),
        ("api", 404, "RepoNotFound", "", "hf auth login"),
        ("api", 429, "", "", "429 .Too Many Requests"),
        ("api", 500, "", "", "500 .Internal Server Error"),
        ("api", 200, "", "", "Hub: "),  # the page of a network at which to log in first
    ],
)
def test_a_refusal_is_told_in_words(server, monkeypatch, part, status, code, token, named):
    headers = {"X_Error_Code": code} if code else {}
    if token:
        headers["X_Error_Message"] = "Invalid credentials in Authorization header"
    setattr(server, part, lambda handler, *_: handler.answer(status, b"<html>", **headers))
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match=f"'a/b'.*{named}") as caught:
        data.load("a/b", "test")
    assert isinstance(caught.value, hub.Unreachable) == (status in (200, 429, 500))


@pytest.mark.parametrize("address", ["here", "ftp://[", "http://127.0.0.1:port", NOWHERE])
def test_a_hub_with_a_wrong_address(server, monkeypatch, address):
    connect(address, monkeypatch)
    with pytest.raises(hub.Unreachable, match="Hub: "):
        data.load("a/b", "test")


def test_what_cannot_be_read_on_the_hub_gets_a_sentence(server):
    server.files["train.parquet"] = b"PAR1 but no more of it"
    with pytest.raises(InputError, match="'a/b'.*remove .*datasets--a--b") as caught:
        data.load("a/b", "test")
    assert not isinstance(caught.value, hub.Unreachable)
    for files in {"README.md": b"a script", "d.py": b"print(1)"}, {"README.md": b"nothing"}, {}:
        server.files = files
        with pytest.raises(InputError, match="'c/d'"):
            data.load("c/d", "test")


def test_a_slow_download_is_waited_for(server, drawn, monkeypatch):
    def trickle(handler, name):
        body = server.files[name]
        handler.send(name, share=0)
        if handler.command == "GET":
            for start in range(0, len(body), 2**14):
                time.sleep(0.3)
                handler.wfile.write(body[start : start + 2**14])

    monkeypatch.setattr(hub, "PATIENCE", 1.5)
    server.send = trickle
    start = time.monotonic()
    assert is_drawn(data.load("a/b", "test"), drawn)
    assert time.monotonic() - start > 2 * hub.PATIENCE  # but it was never silent for so long


@pytest.mark.parametrize("silent", [False, True])
def test_a_download_that_stops_is_given_up(server, monkeypatch, silent):
    def stop(handler, name):
        handler.send(name, share=0.9 if handler.command == "GET" else 1)
        if handler.command == "GET":
            handler.close_connection = True
            if silent:
                handler.hang()

    monkeypatch.setattr(hub, "PATIENCE", 3)
    server.send = stop
    with pytest.raises(hub.Unreachable, match="'a/b'.*Hub: "):
        data.load("a/b", "test")


@pytest.mark.parametrize("part", ["api", "send"])
def test_ctrl_c_ends_a_download_at_once(server, part):
    setattr(server, part, Handler.hang)
    script = [sys.executable, ROOT / "train.py", "--dataset", "a/b"]
    pipe = {"stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(script, preexec_fn=heed_ctrl_c, **pipe) as process:
        wait_for(lambda: any("/resolve/" in path or part == "api" for path in server.asked))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=5)
    assert process.returncode == 130 and err.endswith("\ntrain.py: interrupted\n")
    assert server.left.wait(5)


# MNIST, which is the same from everywhere.


@pytest.mark.parametrize("name", ["mnist", "ylecun___mnist"])
def test_mnist_is_taken_from_the_cache_of_datasets(server, dataset, drawn, known, capsys, name):
    cache(dataset, name)
    name, train, test, warning = data.load_splits()
    assert (name, len(train.images), warning) == ("ylecun/mnist", 500, None)
    assert is_drawn(test, drawn) and capsys.readouterr() == ("", "") and not server.asked


def idx(array):
    """An array of bytes in the format of MNIST's own files, compressed."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.numpy().tobytes())


@pytest.fixture
def mirrors(server, drawn, monkeypatch):
    """mirrors(*addresses), which are asked; of the server two folders, one of them with damage."""
    images, labels = drawn[0], drawn[1].byte()
    contents = map(idx, [images[:500], labels[:500], images[500:], labels[500:]])
    for name, content in zip(data.KNOWN_MNIST.files, contents, strict=True):
        server.files |= {f"good/{name}": content, f"bad/{name}": content[:-9]}

    def mirrors(*addresses):
        ask = data.KNOWN_MNIST._replace(mirrors=lambda: addresses)
        monkeypatch.setattr(data, "KNOWN_MNIST", ask)

    return mirrors


def test_mnist_is_taken_from_a_mirror(server, mirrors, drawn, known, capsys):
    server.api = lambda handler: handler.answer(500)
    addresses = [f"{NOWHERE}/", f"{server.address}/bad/", f"{server.address}/good/"]
    mirrors(*addresses)
    name, train, test, warning = data.load_splits()
    assert (name, len(train.images), warning) == ("ylecun/mnist", 500, None)
    assert is_drawn(test, drawn) and test.class_names == data.DIGITS
    told = [line.split()[-1] for line in capsys.readouterr().err.splitlines()]
    assert told == [server.address, *addresses]


def test_damaged_copies_hide_nothing(server, mirrors, dataset, drawn, known):
    mirrors(f"{server.address}/good/")
    (cache(dataset, "mnist") / "digits-test.arrow").write_bytes(b"no table")
    assert is_drawn(data.load_splits()[2], drawn)  # from the Hub
    forget()
    asked = len(server.asked)
    assert is_drawn(data.load_splits()[2], drawn) and len(server.asked) == asked  # from its cache
    forget()
    next(Path("hf/hub").glob("*/snapshots/*/test.parquet")).write_bytes(b"no table")
    assert is_drawn(data.load_splits()[2], drawn)  # from the mirror
    assert len(server.asked) == asked + 1 + len(data.KNOWN_MNIST.files)


def test_other_bytes_than_mnists_are_no_mnist(server, mirrors):
    mirrors(f"{server.address}/good/")
    name, _, _, warning = data.load_splits()
    assert name == "synthetic" and "(DATASET=folder)" in warning
    assert re.search("Hugging Face Hub: .*checksums.* remove .*datasets--ylecun--mnist; ", warning)
    assert re.search("; 127.0.0.1: .*checksums", warning) and not sources.CACHE.exists()


def test_where_nothing_answers_it_is_decided_soon(server, mirrors, monkeypatch):
    server.api = server.send = Handler.hang
    mirrors(*[f"{server.address}/good/train-images-idx3-ubyte.gz?{n}/" for n in (1, 2)])
    assert hub.ANSWER + 2 * hub.MIRROR_ANSWER < 20  # which leaves 10 s for starting and importing
    monkeypatch.setattr(hub, "ANSWER", 0.5)
    monkeypatch.setattr(hub, "MIRROR_ANSWER", 0.25)
    name, *_, warning = data.load_splits()
    assert name == "synthetic" and re.search("Hub: [^;]*(timed out|0.5 s)", warning)
    assert len(re.findall("127.0.0.1: [^;]* 0.25 s", warning)) == 2
