"""Every test runs in an empty folder of its own, and none reaches a network."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"  # of processes that tests start
os.environ["OMP_NUM_THREADS"] = "1"  # for two tests side by side, and the same sums everywhere
HF_HOME = tempfile.TemporaryDirectory()  # removed at exit
os.environ["HF_HOME"] = HF_HOME.name
NOWHERE = "http://127.0.0.1:9"  # a port where nothing listens
os.environ["HF_ENDPOINT"] = os.environ["http_proxy"] = os.environ["https_proxy"] = NOWHERE
os.environ["no_proxy"] = "127.0.0.1,localhost"
# Folders with MNIST, with digits of strangers and with pages of digits: make test-all DATASET=...
MNIST, STRANGERS, PAGES = (
    folder and str(Path(folder).resolve())
    for folder in map(os.environ.get, ("DATASET", "DIGITS", "PAGES"))
)

import datasets  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

import data  # noqa: E402
import recipes  # noqa: E402
import train  # noqa: E402
from data import Split  # noqa: E402
from digits import synthetic  # noqa: E402
from model import MLP  # noqa: E402
from plumbing import checkpoint as checkpoints  # noqa: E402
from plumbing import cli  # noqa: E402
from plumbing.optimizer import Adam  # noqa: E402

datasets.disable_progress_bars()  # of write_split, which are not the scripts' output
DEVICES = ["cpu"]
if torch.accelerator.is_available():
    DEVICES.append(torch.accelerator.current_accelerator().type)


def pytest_configure(config):
    config.addinivalue_line("markers", "browser: needs Chromium, so make test leaves it out")


def pytest_collection_modifyitems(items):
    """The longest file first, so that two workers end at about the same time."""
    items.sort(key=lambda item: item.path.name != "test_mnist.py")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=DEVICES)
def device(request):
    """The CPU, and the accelerator where PyTorch has one."""
    return torch.device(request.param)


@pytest.fixture
def run(monkeypatch, capsys):
    """run(main, *flags): call a script's main as its command line does; (exit code, out, err).

    The tracebacks that DEBUG=1 shows are printed at the end, for pytest to show if the test fails.
    """
    monkeypatch.setenv("DEBUG", "1")
    shown = []

    def run(main, *flags):
        monkeypatch.setattr(sys, "argv", [f"{main.__module__}.py", *map(str, flags)])
        code = 0
        handlers = {number: signal.getsignal(number) for number in cli.SIGNALS}
        try:
            cli.run(main)
        except SystemExit as exit:
            code = exit.code
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        out, err = capsys.readouterr()
        tracebacks = rf"^(?:Traceback|\S[^\n]*Error: )(?:(?!^{main.__module__}\.py: ).)*"
        shown.extend(re.findall(tracebacks, err, re.M | re.S))
        return code, out, re.sub(tracebacks, "", err, flags=re.M | re.S)

    yield run
    print(*shown, sep="\n")


def python(code, **environment):
    """(exit code, stdout, stderr) of a Python that runs code in the current folder."""
    command, environment = [sys.executable, "-c", code], os.environ | environment
    shown = subprocess.run(command, env=environment, capture_output=True, text=True)
    return shown.returncode, shown.stdout, shown.stderr


@pytest.fixture(scope="module")
def chromium():
    webdriver = pytest.importorskip("selenium.webdriver")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip("needs chromium and chromedriver (apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (
        *("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-sync"),
        *("disable-background-networking", "disable-component-update", "window-size=1000,800"),
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as chromium:
        yield chromium


def write_split(path, images, labels, image="picture", label="digit", names="0123456789"):
    """Write a parquet file as the Hub serves it: an Image and a ClassLabel column."""
    features = {image: datasets.Image(), label: datasets.ClassLabel(names=list(names))}
    columns = {image: images, label: labels}
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, datasets.Features(features)).to_parquet(path)


@pytest.fixture(scope="session")
def drawn():
    """images uint8 [600, 28, 28] and labels int64 [600] of drawn digits."""
    return synthetic.generate(600, seed=2)


@pytest.fixture
def dataset(tmp_path, drawn):
    """A local dataset of 500 + 100 drawn digits."""
    images, labels = drawn[0].numpy(), drawn[1].tolist()
    write_split(tmp_path / "digits" / "train.parquet", list(images[:500]), labels[:500])
    write_split(tmp_path / "digits" / "test.parquet", list(images[500:]), labels[500:])
    return tmp_path / "digits"


def train_network(split, settings, device="cpu"):
    """An MLP, trained as train.py does it."""
    torch.manual_seed(settings.seed)
    model = MLP(settings.moments).to(device)
    optimizer = Adam(model, settings.beta1, settings.beta2)
    for _ in train.train(model, optimizer, split.to(device), settings):
        pass
    return model


@pytest.fixture(scope="session")
def network():
    """An MLP that reads drawn digits."""
    split = Split(*synthetic.generate(12_000, seed=0), [])
    return train_network(split, replace(recipes.RECIPES["accurate"], epochs=20, moments=0))


@pytest.fixture(scope="session")
def reader():
    """An MLP that reads drawn digits and knows what is none."""
    split = Split(*synthetic.generate(12_000, seed=0), data.DIGITS)
    settings = replace(recipes.RECIPES["everyday"], epochs=30, drawn=3000, nothing=3000, moments=0)
    return train_network(data.add_drawn(split, 3000, 3000, "digits"), settings)


FACTS = {
    "dataset": "digits",
    "class_names": list("0123456789"),
    "frame": {"side": 20, "centre": "mass"},
    "settings": asdict(replace(recipes.RECIPES["quick"], epochs=1)),
}
HISTORY = [{"epoch": 1, "loss": 0.5, "test_accuracy": 0.95, "errors": 5}]


def save_network(model, path=Path("checkpoint.pt"), **facts):
    """Write a checkpoint with the weights of a model and invented circumstances."""
    settings = FACTS["settings"] | {
        "moments": getattr(model, "moments", 0),
        "seed": facts.pop("seed", 0),
        "threshold": facts.pop("threshold", 0.0),
    }
    facts = FACTS | {"settings": settings} | facts
    checkpoints.save(path, checkpoints.snapshot(model, None, HISTORY, **facts))
