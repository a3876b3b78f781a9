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
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        name = path.partition(f"/resolve/{REVISION}/")[2] or path.strip("/")
        if path.startswith("/api"):
            self.server.api(self)
        elif name in self.server.files:
            self.server.send(self, name)
        else:
            self.answer(404, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET

    def about(self):
        siblings = [{"rfilename": name} for name in self.server.files if "/" not in name]
        about = {"id": "any", "sha": REVISION, "siblings": siblings, "cardData": self.server.card}
        self.answer(200, json.dumps(about).encode())

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

    def log_message(self, *args):
        pass


@pytest.fixture
def server(dataset, monkeypatch):
    """A Hub on which each dataset is the same 500 + 100 drawn digits."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files = {path.name: path.read_bytes() for path in sorted(dataset.iterdir())}
        server.files |= {"README.md": b"# Digits", "network.safetensors": b"no data"}
        server.api, server.send, server.asked, server.card = Handler.about, Handler.send, [], {}
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


def check(drawn, dataset="a/b"):
    """Load a dataset, which must be the drawn digits, and forget what this project keeps of it."""
    test = data.load(dataset, "test")
    shutil.rmtree(sources.CACHE)
    assert torch.equal(test.images, drawn[0][500:]) and torch.equal(test.labels, drawn[1][500:])


def refused(named, dataset="a/b"):
    """Whether a dataset that cannot be had may be had later."""
    with pytest.raises(InputError, match=f"'{dataset}'.*{named}") as caught:
        data.load(dataset, "test")
    return isinstance(caught.value, hub.Unreachable)


def cache(dataset, name):
    """Let `datasets` keep a local dataset in its cache as it keeps one of the Hub."""
    datasets.load_dataset(str(dataset), cache_dir="hf/any")
    (info,) = Path("hf/any").rglob("dataset_info.json")
    shutil.copytree(info.parent, target := Path("hf/datasets", name, "default/0.0.0/5eed"))
    return target


def test_a_dataset_is_got_once_and_kept_for_later(server, drawn, monkeypatch, capsys):
    data.load("a/b", "train")
    assert capsys.readouterr() == ("", f"getting a/b from {server.address}\n")
    assert not any("safetensors" in path for path in server.asked)
    asked = len(server.asked)
    check(drawn)
    assert len(server.asked) == asked
    check(drawn)
    assert len(server.asked) == asked + 1  # for the newest revision
    capsys.readouterr()
    server.api = lambda handler: handler.answer(429)
    check(drawn)
    _, told = capsys.readouterr().err.splitlines()
    assert "429" in told and str(hub.downloads("a/b") / "snapshots" / REVISION) in told
    connect(NOWHERE, monkeypatch)
    check(drawn)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    capsys.readouterr()
    check(drawn)
    assert "HF_HUB_OFFLINE" in capsys.readouterr().err and refused("HF_HUB_OFFLINE", "c/d")


def test_a_copy_counts_only_if_it_is_whole(server, dataset, drawn, monkeypatch):
    # The connection stays open, and nothing more comes.
    server.send = lambda handler, name: handler.send(name, share="train" not in name)
    monkeypatch.setattr(hub, "PATIENCE", 1)
    assert refused("Hub: ", "a/Digits")
    assert list(Path("hf/hub").glob("*/snapshots/*/test.parquet"))
    connect(NOWHERE, monkeypatch)
    assert refused("Hub: ", "a/Digits")
    folder = cache(dataset, "a___digits")
    unfinished = folder.rename(folder.with_suffix(".incomplete"))
    assert refused("Hub: ", "a/Digits")
    unfinished.rename(folder)
    check(drawn, "a/Digits")
    shutil.copytree(folder, "hf/datasets/a___digits/letters/0.0.0/5eed")
    assert refused("Hub: ", "a/Digits")  # because either may be meant


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
    assert refused(named) == (status in (200, 429, 500))


@pytest.mark.parametrize("variable", hub.CERTIFICATES)
def test_a_variable_that_names_no_file_is_named(server, monkeypatch, variable):
    connect("https://127.0.0.1:9", monkeypatch)
    monkeypatch.setenv(variable, "no.pem")
    assert refused(f"Hub: .*{variable}")


def test_a_token_that_no_request_can_carry(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_one\N{EN DASH}two")
    assert not refused("hf auth login.*HF_TOKEN") and not server.asked


def test_of_several_configurations_one_must_be_chosen(server, drawn):
    server.card = {"configs": [{"config_name": "digits"}, {"config_name": "letters"}]}
    assert not refused("digits, letters.*hf download a/b .*'digits/[*]'.*DATASET=folder")
    assert not any("/resolve/" in path for path in server.asked)
    for name in ("train.parquet", "test.parquet"):  # what that command brings
        Path("folder/digits").mkdir(parents=True, exist_ok=True)
        Path("folder/digits", name).write_bytes(server.files[name])
    check(drawn, "folder")
    server.card["configs"][1]["default"] = True
    check(drawn)


@pytest.mark.parametrize("address", ["here", "ftp://[", "http://127.0.0.1:port", NOWHERE])
def test_a_hub_with_a_wrong_address(server, monkeypatch, address):
    connect(address, monkeypatch)
    assert refused("Hub: ")


def test_what_cannot_be_read_on_the_hub_gets_a_sentence(server):
    server.files["train.parquet"] = b"PAR1 but no more of it"
    assert not refused("remove .*datasets--a--b")
    for files in {"README.md": b"a script", "d.py": b"print(1)"}, {"README.md": b"nothing"}, {}:
        server.files = files
        assert not refused("", "c/d")


def test_a_slow_download_is_waited_for(server, drawn, monkeypatch):
    def trickle(handler, name):
        body = server.files[name] if handler.command == "GET" else b""
        handler.send(name, share=0)
        for start in range(0, len(body), 2**14):
            time.sleep(0.3)
            handler.wfile.write(body[start : start + 2**14])

    monkeypatch.setattr(hub, "PATIENCE", 1.5)
    server.send = trickle
    start = time.monotonic()
    check(drawn)
    assert time.monotonic() - start > 2 * hub.PATIENCE  # but it was never silent for so long


def test_a_download_that_is_cut_is_given_up(server, monkeypatch):
    def cut(handler, name):
        handler.send(name, share=0.9)
        handler.close_connection = True

    monkeypatch.setattr(hub, "PATIENCE", 2)
    server.send = cut
    assert refused("Hub: ")


@pytest.mark.parametrize("part", ["api", "send"])
def test_ctrl_c_ends_a_download_at_once(server, part):
    setattr(server, part, Handler.hang)
    script = [sys.executable, ROOT / "train.py", "--dataset", "a/b"]
    settings = {"stderr": subprocess.PIPE, "text": True, "preexec_fn": heed_ctrl_c}
    with subprocess.Popen(script, **settings) as process:
        wait_for(lambda: any("/resolve/" in path or part == "api" for path in server.asked))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=5)
    assert process.returncode == 130 and err.endswith("\ntrain.py: interrupted\n")


# MNIST, which is the same from everywhere.


@pytest.fixture
def mnist(server, dataset, drawn, monkeypatch):
    """mnist(*addresses): the drawn digits stand for MNIST, which has these mirrors; good/ on the
    server is one, bad/ has damaged files.
    """
    sums = {name: hub._sha256(sources.load(str(dataset), name)) for name in ("train", "test")}
    shutil.rmtree(sources.CACHE)
    names = data.KNOWN_MNIST.files
    parts = [kind[part] for part in (slice(500), slice(500, 600)) for kind in drawn]
    for name, array in zip(names, parts, strict=True):
        sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
        header = bytes([0, 0, 8, array.ndim]) + sizes
        content = gzip.compress(header + array.byte().numpy().tobytes())
        server.files |= {f"good/{name}": content, f"bad/{name}": content[:-9]}

    def mnist(*addresses, checksums=sums):
        known = data.KNOWN_MNIST._replace(checksums=checksums, mirrors=addresses)
        monkeypatch.setattr(data, "KNOWN_MNIST", known)

    return mnist


def test_mnist_is_taken_from_a_mirror(server, mnist, drawn, capsys, monkeypatch):
    threads = []
    within = hub.within
    monkeypatch.setattr(hub, "within", lambda *a: threads.append(a) or within(*a))
    server.api = lambda handler: handler.answer(500)
    addresses = [f"{NOWHERE}/", f"{server.address}/bad/", f"{server.address}/good/"]
    mnist(*addresses)
    name, train, test, warning = data.load_splits()
    assert (name, len(train.images), warning) == (data.MNIST, 500, None)
    assert test.class_names == data.DIGITS
    check(drawn, data.MNIST)
    told = [line.split()[-1] for line in capsys.readouterr().err.splitlines()]
    assert told == [server.address, *addresses]
    # For the Hub and for the mirror that is not there one each, and two for a file of the others.
    assert len(threads) <= 2 + 2 * 2 * len(data.KNOWN_MNIST.files)


def test_a_mirror_that_falls_silent_is_given_up(server, mnist, monkeypatch):
    server.api = lambda handler: handler.answer(500)
    server.send = lambda handler, name: handler.send(name, share=0.5)
    monkeypatch.setattr(hub, "PATIENCE", 0.5)
    mnist(f"{server.address}/good/")
    assert data.load_splits()[0] == "synthetic"


@pytest.mark.parametrize("name", ["mnist", "ylecun___mnist"])
def test_copies_come_first_and_hide_nothing(server, mnist, dataset, drawn, capsys, name):
    mnist(f"{server.address}/good/")
    copy = cache(dataset, name)
    check(drawn, data.MNIST)
    assert capsys.readouterr() == ("", "") and not server.asked
    (copy / "digits-test.arrow").write_bytes(b"no table")
    check(drawn, data.MNIST)  # from the Hub
    asked = len(server.asked)
    check(drawn, data.MNIST)  # from the cache of the Hub's client
    assert asked and len(server.asked) == asked
    next(Path("hf/hub").glob("*/snapshots/*/test.parquet")).write_bytes(b"no table")
    check(drawn, data.MNIST)  # from the mirror
    assert len(server.asked) == asked + 1 + len(data.KNOWN_MNIST.files)


def test_other_bytes_than_mnists_are_no_mnist(server, mnist):
    mnist(f"{server.address}/good/", checksums={})
    name, _, _, warning = data.load_splits()
    assert name == "synthetic" and "(DATASET=folder)" in warning
    assert re.search("Hugging Face Hub: .*checksums.* remove .*datasets--ylecun--mnist; ", warning)
    assert re.search("; 127.0.0.1: .*checksums", warning) and not sources.CACHE.exists()


def test_where_nothing_answers_it_is_decided_soon(server, mnist, monkeypatch):
    server.api = server.send = Handler.hang
    mnist(*[f"{server.address}/good/train-images-idx3-ubyte.gz?{n}" for n in (1, 2)])
    assert hub.ANSWER + 2 * hub.MIRROR_ANSWER < 20  # which leaves 10 s for starting and importing
    monkeypatch.setattr(hub, "ANSWER", 0.5)
    monkeypatch.setattr(hub, "MIRROR_ANSWER", 0.25)
    name, *_, warning = data.load_splits()
    assert name == "synthetic" and re.search("Hub: [^;]*(timed out|0.5 s)", warning)
    assert len(re.findall("127.0.0.1: [^;]* 0.25 s", warning)) == 2
