"""The Hugging Face Hub and torchvision's mirrors, played by servers on this machine."""

import gzip
import hashlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs

import huggingface_hub
import pytest
import torch
from conftest import NOWHERE, ROOT
from processes import heed_ctrl_c, wait_for
from torchvision.datasets import MNIST

import data
from plumbing import hub, sources
from plumbing.cli import InputError

REVISION = "0123456789" * 4


class Handler(http.server.BaseHTTPRequestHandler):
    """What huggingface_hub asks of the Hub, as far as `datasets` needs it, for any dataset."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        body = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        path, files = self.path.split("?")[0], self.server.files
        if path.startswith("/api"):
            if self.server.api:
                return self.server.api(self)
            listing = [self.entry(name) for name in files]
            if "/paths-info/" in path:
                listing = [entry for entry in listing if entry["path"] in body["paths"]]
            about = {"id": "any", "sha": REVISION, "siblings": []}
            lists = "/paths-info/" in path or "/tree/" in path
            return self.answer(200, json.dumps(listing if lists else about).encode())
        name = path.partition(f"/resolve/{REVISION}/")[2] or path.strip("/")
        if name not in files:
            return self.answer(404, X_Error_Code="EntryNotFound")
        self.server.send(self, name)

    do_HEAD = do_POST = do_GET

    def entry(self, name):
        size, oid = len(self.server.files[name]), hashlib.sha1(self.server.files[name]).hexdigest()
        return {"type": "file", "path": name, "size": size, "oid": oid}

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
        headers = {"ETag": f'"{self.entry(name)["oid"]}"', "X-Repo-Commit": REVISION}
        self.answer(200, body[: int(share * len(body))], len(body), **headers)

    def hang(self):
        """Say nothing until the other side closes the connection."""
        self.rfile.read(1)
        self.server.left.set()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(dataset, monkeypatch):
    """A Hub on which each dataset is the same 500 + 100 drawn digits."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files = {f"{name}.parquet": None for name in ("train", "test")}
        server.files = {name: (dataset / name).read_bytes() for name in server.files}
        server.files["README.md"] = b"# Digits"
        server.asked, server.left, server.api, server.send = (
            [],
            threading.Event(),
            None,
            Handler.send,
        )
        server.address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_HOME", "hf")  # relative to where the script runs
        yield server
        server.shutdown()


def unplug(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", NOWHERE)
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    shutil.rmtree(sources.CACHE)


@pytest.fixture
def drawn_mnist(drawn, monkeypatch):
    """The checksums of the drawn digits in place of MNIST's."""
    parts = {"train": slice(0, 500), "test": slice(500, 600)}
    sums = {
        name: hub._sha256(sources.Pixels(*(t[part].numpy() for t in drawn), [], turned=False))
        for name, part in parts.items()
    }
    monkeypatch.setattr(data, "MNIST_SHA256", sums)


def is_drawn(split, drawn):
    return torch.equal(split.images, drawn[0][500:]) and torch.equal(split.labels, drawn[1][500:])


def damage(pattern):
    (path,) = Path("hf").rglob(pattern)
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(64) + content[half + 64 :])


def test_a_dataset_is_got_once_and_kept_for_later(server, drawn, monkeypatch, capsys):
    assert is_drawn(data.load("a/b", "test"), drawn)
    assert capsys.readouterr() == ("", f"getting a/b from {server.address}\n")
    asked = len(server.asked)
    assert is_drawn(data.load("a/b", "test"), drawn) and len(server.asked) == asked
    unplug(monkeypatch)
    assert is_drawn(data.load("a/b", "test"), drawn)  # from the cache of `datasets`
    shutil.rmtree(sources.CACHE)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    capsys.readouterr()
    assert is_drawn(data.load("a/b", "test"), drawn) and capsys.readouterr().err == ""
    with pytest.raises(InputError, match=r"Hub: not asked \(HF_HUB_OFFLINE\); cache.*no good copy"):
        data.load("c/d", "test")


@pytest.mark.parametrize(
    "status, headers, token, sentence",
    [
        (401, {}, "hf_expired", r"not accept your login \(401\).*hf auth login.*HF_TOKEN$"),
        (401, {}, "", "neither a file or folder here nor on the Hub .*hf auth login"),
        (403, {"X_Error_Code": "GatedRepo"}, "", "ask at http.*/datasets/a/b, then log in"),
        (404, {"X_Error_Code": "RepoNotFound"}, "", "neither a file or folder here nor on the Hub"),
        (429, {}, "", r"try again later, or .*answers 429 \(Too Many Requests\)"),
        (500, {}, "", r"try again later, or .*answers 500 \(Internal Server Error\)"),
    ],
)
def test_a_refusal_is_told_in_words(server, monkeypatch, status, headers, token, sentence):
    message = {"X_Error_Message": "Invalid credentials in Authorization header"} if token else {}
    server.api = lambda handler: handler.answer(status, **headers, **message)
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match=sentence):
        data.load("a/b", "test")


def test_access_that_is_refused_to_the_files_alone(server):
    server.send = lambda handler, name: handler.answer(403, X_Error_Code="GatedRepo")
    with pytest.raises(InputError, match="'a/b': given on request only: ask at .*/datasets/a/b"):
        data.load("a/b", "test")


def test_what_cannot_be_read_on_the_hub_gets_a_sentence(server):
    server.files["train.parquet"] = b"PAR1 but no more of it"
    with pytest.raises(InputError, match="cannot be read: .*remove .*datasets--a--b and run again"):
        data.load("a/b", "test")
    server.files = {"README.md": b"a script", "d.py": b"print(1)"}
    with pytest.raises(InputError, match="'e/d': cannot be read: Dataset scripts are no longer"):
        data.load("e/d", "test")
    server.files = {"README.md": b"nothing else"}
    with pytest.raises(InputError, match="'c/d'.*doesn't contain any data files"):
        data.load("c/d", "test")


def test_a_slow_download_is_waited_for(server, drawn, monkeypatch):
    def trickle(handler, name):
        body = server.files[name]
        handler.send(name, share=0)
        if handler.command == "GET":
            for start in range(0, len(body), 2**13):
                time.sleep(0.4)
                handler.wfile.write(body[start : start + 2**13])

    monkeypatch.setattr(hub, "PATIENCE", 5)
    server.send = trickle
    start = time.monotonic()
    assert is_drawn(data.load("a/b", "test"), drawn)
    assert time.monotonic() - start > 5  # so it was longer than that, but never silent for so long


@pytest.mark.parametrize("end", ["cut", "silent"])
def test_a_download_that_stops_is_given_up(server, monkeypatch, end):
    def stop(handler, name):
        handler.send(name, share=0.9 if handler.command == "GET" else 1)
        if handler.command == "GET":
            handler.close_connection = True
            if end == "silent":
                handler.hang()

    monkeypatch.setattr(hub, "PATIENCE", 4)
    server.send = stop
    with pytest.raises(InputError, match="later, .*Hub: (nothing has arrived|the download)"):
        data.load("a/b", "test")
    if end == "silent":
        assert server.left.wait(5)  # The process that waited is gone.


def test_ctrl_c_ends_a_download_at_once(server):
    server.send = lambda handler, name: handler.hang()
    script = [sys.executable, ROOT / "train.py", "--dataset", "a/b"]
    pipe = {"stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(script, preexec_fn=heed_ctrl_c, **pipe) as process:
        wait_for(lambda: any("/resolve/" in path for path in server.asked))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 130 and err.endswith("\ntrain.py: interrupted\n")
    assert server.left.wait(5)


# MNIST, which is the same from everywhere.


def test_mnist_is_taken_from_the_cache_of_datasets(server, drawn, drawn_mnist, monkeypatch, capsys):
    data.load("a/mnist", "test")
    Path("hf/datasets/a___mnist").rename("hf/datasets/mnist")  # without an owner, as it was once
    unplug(monkeypatch)
    capsys.readouterr()
    name, train, test, warning = data.load_splits()
    assert (name, len(train.images), warning) == ("ylecun/mnist", 500, None)
    assert is_drawn(test, drawn) and capsys.readouterr() == ("", "")


@pytest.mark.parametrize("pattern", ["*test.arrow", "*info.json"])
def test_a_damaged_cache_of_datasets_hides_nothing(server, drawn, drawn_mnist, pattern):
    data.load("ylecun/mnist", "test")
    asked = len(server.asked)
    shutil.rmtree(sources.CACHE)
    damage(pattern)
    assert is_drawn(data.load_splits()[2], drawn) and len(server.asked) > asked


def idx(array):
    """An array of bytes in the format of MNIST's own files, compressed."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.numpy().tobytes())


@pytest.fixture
def mirror(server, drawn, monkeypatch, tmp_path):
    """The address of a mirror with the drawn digits in place of MNIST."""
    images, labels = drawn[0], drawn[1].byte()
    contents = [images[:500], labels[:500], images[500:], labels[500:]]
    files = dict(zip([name for name, _ in MNIST.resources], map(idx, contents), strict=True))
    resources = [(name, hashlib.md5(content).hexdigest()) for name, content in files.items()]
    Path("site").mkdir()
    Path("site/sitecustomize.py").write_text(
        "import sys\nif any(word.startswith('http:') for word in sys.orig_argv):\n"
        f"    from torchvision.datasets import MNIST\n    MNIST.resources = {resources}\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{os.environ['PYTHONPATH']}")
    server.files |= {f"good/{name}": content for name, content in files.items()}
    server.files |= {f"bad/{name}": content[:-9] for name, content in files.items()}
    return f"{server.address}/good/"


def test_mnist_is_taken_from_a_mirror(server, mirror, drawn, drawn_mnist, monkeypatch, capsys):
    server.api = lambda handler: handler.answer(500)
    bad = f"{server.address}/bad/"
    monkeypatch.setattr(MNIST, "mirrors", [f"{NOWHERE}/", bad, mirror])
    name, train, test, warning = data.load_splits()
    assert (name, len(train.images), warning) == ("ylecun/mnist", 500, None)
    assert is_drawn(test, drawn) and test.class_names == data.DIGITS
    addresses = [server.address, f"{NOWHERE}/", bad, mirror]
    assert capsys.readouterr().err == "".join(
        f"getting ylecun/mnist from {address}\n" for address in addresses
    )


def test_other_bytes_than_mnists_are_no_mnist(server, mirror, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", [mirror])
    name, _, _, warning = data.load_splits()
    assert name == "synthetic" and warning.startswith("drawn digits in place of MNIST: ")
    way_out, reasons = warning.split(" at present: ")
    assert "try again later, or give a local copy (DATASET=folder)" in way_out
    reasons, known = reasons.split("; "), "its checksums are not the known ones"
    assert reasons[0] == "cache of `datasets`: no good copy"
    assert reasons[1].startswith(f"Hugging Face Hub: {known}, so remove ")
    assert reasons[2:] == [f"127.0.0.1: {known}"]
    assert not sources.CACHE.exists()


def test_where_nothing_answers_it_is_decided_soon(server, monkeypatch):
    server.api = server.send = lambda handler, *_: handler.hang()
    monkeypatch.setattr(MNIST, "mirrors", [f"{server.address}/README.md?{n}" for n in (1, 2)])
    assert hub.ANSWER + 2 * hub.MIRROR_ANSWER < 20  # which leaves 10 s for starting and importing
    monkeypatch.setattr(hub, "ANSWER", 0.5)
    monkeypatch.setattr(hub, "MIRROR_ANSWER", 0.25)
    name, *_, warning = data.load_splits()
    assert name == "synthetic" and "Hub: cannot be reached (no answer in 0.5 s)" in warning
    assert warning.count("127.0.0.1: cannot be reached (no answer in 0.25 s)") == 2
