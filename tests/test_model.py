import io
import os
import pickle
import re
import resource
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FACTS, HISTORY, ROOT, python, save_network

import data
import recipes
from digits import distort, synthetic
from model import (
    MLP,
    Evaluation,
    activations,
    evaluate,
    load_checkpoint,
    occlusion_sensitivity,
)
from plumbing import optimizer as optimizers
from plumbing.cli import InputError
from plumbing.optimizer import Adam


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MLP()


def random_images(count):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 10, (count,), generator=generator)


@pytest.mark.parametrize("before", ["highest", "medium"])
def test_the_precision_of_products_is_afterwards_what_it_was(before):
    usual = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    with optimizers.fast_products():
        pass
    after = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(usual)
    assert after == before


@pytest.mark.parametrize("capable", [False, True])
def test_products_are_fast_where_gradients_alone_see_it(monkeypatch, model, capable):
    images, labels = random_images(64)
    images = data.to_float(images)

    def gradients():
        logits = model(images)
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits, labels).backward()
        return logits, [parameter.grad.clone() for parameter in model.parameters()]

    monkeypatch.setattr(optimizers, "multiplies_bfloat16", lambda: capable)
    logits, exact = gradients()
    with optimizers.fast_products():
        fast_logits, fast = gradients()
    assert logits.dtype == model(images).dtype == torch.float32
    assert fast_logits.dtype == (torch.bfloat16 if capable else torch.float32)
    for gradient, other in zip(exact, fast, strict=True):
        assert gradient.dtype == other.dtype == torch.float32
        assert (gradient - other).norm() <= 0.05 * gradient.norm()  # bfloat16 has 8 bits


def test_an_older_pytorch_does_not_tell_what_the_cpu_multiplies(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert optimizers.multiplies_bfloat16() is False
    for name, known in ("avx512_bf16", True), ("amx_bf16", True), ("avx2", False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda n=name: {n: True}, raising=False)
        assert optimizers.multiplies_bfloat16() is known


def test_forward_loss_and_gradients_agree_with_numpy(model):
    images, labels = random_images(32)
    loss = torch.nn.functional.cross_entropy(model(data.to_float(images)), labels)
    loss.backward()

    w1, b1, w2, b2 = (p.detach().double().numpy() for p in model.parameters())
    x = images.numpy().reshape(32, 784) / 255
    a = x @ w1.T + b1
    h = np.maximum(a, 0)
    z = h @ w2.T + b2
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    expected_loss = -np.log(p[np.arange(32), labels]).mean()
    dz = (p - np.eye(10)[labels]) / 32
    da = dz @ w2 * (a > 0)
    expected = [da.T @ x, da.sum(0), dz.T @ h, dz.sum(0)]

    np.testing.assert_allclose(model(data.to_float(images)).detach(), z, atol=1e-6)
    assert loss.item() == pytest.approx(expected_loss, abs=1e-6)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        np.testing.assert_allclose(parameter.grad, gradient, atol=1e-6)


def test_evaluate_agrees_with_a_count_by_hand(model):
    images, labels = random_images(2_345)  # not a multiple of the batch size
    errors = 0
    for image, label in zip(images, labels, strict=True):
        logits = model(image.reshape(1, 1, 28, 28) / 255)[0]
        errors += int(logits.argmax() != label)
    result = evaluate(model, images, labels)
    assert result.errors == errors and 0 < errors < 2_345
    assert result.accuracy == pytest.approx(1 - errors / 2_345)
    assert result.logits.shape == (2_345, 10)


# R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in
# Medicine 17 (1998), table I, method 3.
@pytest.mark.parametrize(
    "errors, images, low, high",
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)],
)
def test_the_interval_is_wilsons(errors, images, low, high):
    interval = Evaluation(errors, torch.zeros(images, 10)).interval
    assert interval == pytest.approx((1 - high, 1 - low), abs=5e-5)
    # The ends, where a standard error is zero, and where rounding might lead beyond all or none.
    for count in (images, *range(1000, 1100)):
        for errors in 0, count:
            low, high = Evaluation(errors, torch.zeros(count, 10)).interval
            assert 0 <= low < high - 0.003 and high <= 1


def test_save_and_load(tmp_path, model):
    save_network(model, tmp_path / "c.pt", seed=3)
    loaded, checkpoint = load_checkpoint(tmp_path / "c.pt")
    data = random_images(10)
    assert torch.equal(evaluate(loaded, *data).logits, evaluate(model, *data).logits)
    settings = FACTS["settings"] | {"seed": 3}
    assert {name: getattr(checkpoint, name) for name in FACTS} == FACTS | {"settings": settings}
    assert (checkpoint.epoch, checkpoint.history, checkpoint.test_accuracy) == (1, HISTORY, 0.95)
    assert checkpoint.versions["torch"] == torch.__version__


@pytest.mark.parametrize("level, words", [(1, "slant"), (2, "slant and half of width and height")])
def test_a_network_takes_moments_out_of_images_if_it_was_trained_so(tmp_path, model, level, words):
    images, labels = random_images(10)
    upright = MLP(level)
    upright.load_state_dict(model.state_dict())
    expected = model(distort.take_out_moments(data.to_float(images), level))
    assert torch.equal(upright(data.to_float(images)), expected)
    assert not torch.allclose(model(data.to_float(images)), expected)
    save_network(upright, tmp_path / "c.pt")
    loaded, checkpoint = load_checkpoint(tmp_path / "c.pt")
    assert checkpoint.summary.endswith(f"on digits, {words} taken out")
    assert torch.equal(evaluate(loaded, images, labels).logits, expected)
    with torch.inference_mode():
        logits = loaded.layers[-1](activations(loaded, images))
    torch.testing.assert_close(logits, expected.detach())


@pytest.mark.parametrize("moments", [0, 2])
def test_what_speaks_for_a_class_is_the_ink_without_which_it_leads_by_less(network, moments):
    model = MLP(moments)
    model.load_state_dict(network.state_dict())
    images = synthetic.generate(40, seed=6)[0]

    def leads(images):
        logits = evaluate(model, images, first).logits
        return logits.gather(1, first[:, None])[:, 0] - logits.gather(1, second[:, None])[:, 0]

    first, second = evaluate(model, images, images[:, 0, 0]).logits.topk(2).indices.T
    found = occlusion_sensitivity(model, images, first, second)
    for row, column in (0, 0), (5, 7), (8, 6), (13, 13):
        covered = images.clone()
        top, left = max(0, 2 * row - 2), max(0, 2 * column - 2)
        covered[:, top : 2 * row + 4, left : 2 * column + 4] = 0
        falls = leads(images) - leads(covered)
        torch.testing.assert_close(found[:, row, column], falls, rtol=1e-3, atol=1e-3)
    # Without all ink that speaks for the first, or for the second, it leads by less, or by more.
    near = found.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert (leads(images * (near <= 0)) < leads(images)).float().mean() > 0.9
    assert (leads(images * (near >= 0)) > leads(images)).float().mean() > 0.9


def test_an_exported_network_gives_the_same_logits():
    export, use = re.findall("```python\n(.*?)```", (ROOT / "docs/own-digits.md").read_text(), re.S)
    images = "images = torch.rand(100, 1, 28, 28)"
    check = "assert all(torch.equal(network(part), model(part)) for part in (images, images[:1]))"
    both = "\n".join([export, images, use, check])
    for moments in "02":
        Path(moments).mkdir()
        save_network(MLP(int(moments)), Path(moments, "checkpoint.pt"))
    # In a process in which nothing was made before.
    run = f"import os\nfor folder in '0', '../2':\n    os.chdir(folder)\n    exec({both!r})"
    code, _, err = python(run)
    assert code == 0 and Path("2/network.pt2").exists(), err


SETTINGS = FACTS["settings"]
OUT_OF_RANGE = [
    *product(
        ["validation", "inverted", "threads", "moments", "seed", "epochs"],
        ["many", -1, 0.5, True, 10**30, None],
    ),
    *product(["shift", "rotation", "learning_rate"], ["far", -1e9, float("nan"), [1.0]]),
    *(("recipe", 1), ("recipe", ["x"])),
]


class Code:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def damage(content):
    """Ways in which a file is no checkpoint."""
    whole = torch.load(io.BytesIO(content), weights_only=True)
    yield from (b"", b"this is no checkpoint\n", pickle.dumps({"weights": Code()}))
    yield from (content[: int(part * len(content))] for part in (0.01, 0.5, 0.99))
    for state in (
        *([1, 2], torch.zeros(3), MLP().state_dict(), {"weights": Code()}),
        *(whole | {key: None} for key in whole),
        {key: value for key, value in whole.items() if key != "dataset"},
        *(whole | {"class_names": names} for names in (list(range(10)), ["x"] * 9)),
        *(whole | {"weights": weights} for weights in ({1: torch.zeros(1)}, {"a": 1})),
        *(whole | {"weights": {"a": torch.tensor([1, bad])}} for bad in (torch.nan, torch.inf)),
        whole | {"weights": {"a": torch.zeros(1).expand(2**40)}},  # terabytes from a small file
        *(whole | {"settings": {**SETTINGS, "distortion": 5}}, whole | {"settings": {}}),
        whole | {"settings": {"recipe": "quick", "epochs": 1}},
        *(whole | {"settings": SETTINGS | {name: value}} for name, value in OUT_OF_RANGE),
        *(whole | {"frame": {"side": 20} | frame} for frame in ({}, {"centre": "top"})),
        *(whole | {"frame": {"side": side, "centre": "mass"}} for side in (0, 29, 2.5)),
        whole | {"frame": {"side": torch.zeros(2), "centre": "mass"}},
        *(
            whole | {"history": [HISTORY[0] | entry]}
            for entry in ({"loss": float("nan")}, {"test_accuracy": 2.0}, {"errors": None})
        ),
        *(whole | {"history": history} for history in ([], [{"epoch": 1}], HISTORY * 2)),
        *(whole | {"test_accuracy": 1.5}, whole | {"epoch": 2}),
    ):
        file = io.BytesIO()
        torch.save(state, file)
        yield file.getvalue()


def test_what_is_no_checkpoint_is_refused_and_not_run(tmp_path, model):
    path = tmp_path / "c.pt"
    save_network(model, path)
    for number, content in enumerate(damage(path.read_bytes())):
        path.write_bytes(content)
        with pytest.raises(InputError, match="c.pt: damaged, or not written by train.py"):
            load_checkpoint(path)
            pytest.fail(f"damage {number} is taken for a checkpoint")
        assert not (tmp_path / "ran").exists(), number


@pytest.mark.parametrize(
    "other", [torch.nn.Linear(784, 10), torch.nn.Sequential(torch.nn.Linear(784, 64))]
)
def test_another_architecture_is_refused(tmp_path, other):
    save_network(other, tmp_path / "c.pt")
    with pytest.raises(InputError, match="not those of a 784-128-10 network"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_missing_checkpoint_says_to_train_and_a_folder_is_none(tmp_path):
    with pytest.raises(InputError, match="make train"):
        load_checkpoint(tmp_path / "c.pt")
    with pytest.raises(InputError, match="directory"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_of_the_first_version_is_read(tmp_path, model):
    path = tmp_path / "c.pt"
    save_network(model, path)
    state = torch.load(path, weights_only=True)
    for key in ("settings", "frame", "optimizer"):
        del state[key]
    state["seed"] = 4
    distortion = {"rotation": 20, "stretch": 1.25, "shift": 2}
    state["recipe"] = {"name": "accurate", "epochs": 1, "learning_rate": 0.01}
    state["recipe"] |= {"batch_size": 512, "distortion": distortion}
    torch.save(state, path)
    loaded, checkpoint = load_checkpoint(path)
    assert torch.equal(loaded.layers[1].weight, model.layers[1].weight)
    assert checkpoint.summary == "1 epochs of recipe accurate, seed 4, on digits"
    assert checkpoint.settings["rotation"] == 20 and checkpoint.settings["batch_size"] == 512
    assert checkpoint.frame == {"side": 20, "centre": "mass"}


def test_a_checkpoint_of_a_later_version_says_so(tmp_path, model):
    path = tmp_path / "c.pt"
    save_network(model, path)
    torch.save(torch.load(path, weights_only=True) | {"temperature": 2.0}, path)
    with pytest.raises(InputError, match="later version .*temperature.* git pull"):
        load_checkpoint(path)


def test_a_full_disk_while_saving_leaves_the_old_checkpoint(tmp_path, model):
    path = tmp_path / "c.pt"
    save_network(model, path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # bytes a file may have
    try:
        with pytest.raises(OSError, match="c.pt could not be written"):
            save_network(model, path, seed=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("recipe", recipes.RECIPES.values(), ids=recipes.RECIPES)
def test_adam_is_pytorchs(recipe, device):
    images, labels = (tensor.to(device) for tensor in random_images(64))
    torch.manual_seed(0)
    model, other = MLP().to(device), MLP().to(device)
    other.load_state_dict(model.state_dict())
    mine = Adam(model, recipe.beta1, recipe.beta2)
    theirs = torch.optim.Adam(other.parameters(), 0.01, betas=(recipe.beta1, recipe.beta2))
    for _ in range(5):
        for network, optimizer, rate in (model, mine, [0.01]), (other, theirs, []):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(data.to_float(images)), labels).backward()
            optimizer.step(*rate)
    for parameter, like in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter, like, atol=1e-5, rtol=1e-4)


def test_every_device_evaluates_as_the_cpu_does(model, device):
    images, labels = random_images(2_345)
    here, there = (evaluate(model.to(d), images.to(d), labels.to(d)) for d in ("cpu", device))
    torch.testing.assert_close(here.logits, there.logits.cpu(), atol=1e-4, rtol=1e-4)
    assert abs(here.errors - there.errors) <= 2
