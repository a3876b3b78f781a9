"""Devices that cannot be used, and how many threads of a CPU are."""

import warnings

import numpy as np
import pytest
import torch
from conftest import python

import train
from plumbing import devices, openmp
from plumbing.cli import InputError

META = torch.device("meta")  # to which tensors go, and from which none comes back


@pytest.fixture
def accelerator(monkeypatch):
    """PyTorch's "meta" in place of an accelerator, or of the one that it has."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: META)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)


def test_auto_says_why_an_accelerator_is_not_used_and_takes_the_cpu(run, dataset, accelerator):
    code, out, err = run(train.main, "--dataset", "digits", "--epochs", 1)
    assert code == 0 and out.startswith("device      cpu (1 threads), PyTorch")
    assert err.startswith("train.py: meta cannot be used, so this runs on the CPU: ")
    assert "meta tensor" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "name, reason",
    [*((n, "cannot be used: ") for n in ("meta", "meta:0")), ("meta:1", "sees meta")],
)
def test_a_named_device_that_cannot_be_used_is_refused(run, dataset, accelerator, name, reason):
    code, out, err = run(train.main, "--dataset", "digits", "--device", name)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert f"--device {name} " in err and reason in err


def test_an_accelerator_that_computes_something_else_is_not_used(monkeypatch, accelerator):
    on_cpu = devices._try(torch.device("cpu"))
    for changed in range(len(on_cpu)):  # the warp, the weights and the biases after Adam
        results = [tensor + 0.01 * (i == changed) for i, tensor in enumerate(on_cpu)]
        results = {"cpu": on_cpu, "meta": results}
        monkeypatch.setattr(devices, "_try", lambda device, found=results: found[device.type])
        with pytest.raises(InputError, match="does not compute what the CPU computes"):
            devices.choose("meta")
    monkeypatch.setattr(devices, "_try", lambda device: on_cpu)
    assert devices.choose("meta") == devices.choose("auto") == META


def test_a_real_accelerator_is_used(device):
    assert devices.choose(device.type).type == device.type


def test_what_pytorch_warns_of_is_said_where_no_accelerator_is_left(monkeypatch, capsys):
    def is_available():
        warnings.warn("the driver on your system is too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.accelerator, "is_available", is_available)
    assert devices.choose("auto").type == devices.choose("cpu").type == "cpu"
    said = "this runs on the CPU: the driver on your system is too old\n"
    assert capsys.readouterr().err.split(": ", 1)[1] == said


# What PyTorch says of memory and devices, as RuntimeErrors or of classes below that one.
PROBLEMS = [
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory",
    "CUDA error: an illegal memory access was encountered\nFor debugging consider ...",
    "CUDA out of memory. Tried to allocate 20.00 GiB.",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "MPS backend out of memory (MPS allocated: 18.00 GB)",
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem[:20])
def test_a_device_that_fails_later_ends_in_a_sentence(run, monkeypatch, dataset, problem):
    def fail(*args):
        raise RuntimeError(problem)

    monkeypatch.setattr(train.F, "cross_entropy", fail)
    code, _, err = run(train.main, "--dataset", "digits", "--epochs", 1)
    assert code == 1 and err.startswith("train.py: ") and err.count("\n") == 1
    way_out = "--batch-size" if "DefaultCPUAllocator" in problem else "--device cpu"
    assert problem.split("\n")[0] in err and way_out in err


@pytest.mark.parametrize("make", [torch.empty, lambda bytes: np.empty(8 * bytes)])
def test_more_memory_than_the_machine_has_ends_in_a_sentence(run, monkeypatch, dataset, make):
    monkeypatch.setattr(train.F, "cross_entropy", lambda *args: make(2**50))
    code, _, err = run(train.main, "--dataset", "digits", "--epochs", 1)
    assert code == 1 and "not enough memory: " in err and err.count("\n") == 1


def test_a_mistake_in_the_program_keeps_its_traceback(run, monkeypatch, dataset):
    monkeypatch.setattr(train.F, "cross_entropy", lambda *args: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        run(train.main, "--dataset", "digits", "--epochs", 1)


def write_group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_quota_of_a_control_group_is_found_in_both_versions(tmp_path):
    groups = tmp_path / "groups"

    def quota(text):
        groups.write_text(text)
        return openmp.cpu_quota(groups, tmp_path)

    assert quota("0::/\n") == float("inf")
    write_group(tmp_path, cpu__max="max 100000\n")  # what Docker's group says of itself, inside
    assert quota("0::/\n") == float("inf")
    for odd in ("max\n", "", "1 2 3\n", "100000 0\n"):
        write_group(tmp_path, cpu__max=odd)
        assert quota("0::/\n") == quota("no line of groups\n0::/\n") == float("inf")
    write_group(tmp_path / "slice", cpu__max="150000 100000\n")
    write_group(tmp_path / "slice" / "service", cpu__max="400000 100000\n")
    assert quota("0::/slice/service\n") == 1.5
    assert quota("1:name=systemd:/slice\n0::/other\n") == float("inf")
    write_group(tmp_path, cpu__max="50000 100000\n")
    assert quota("0::/of/the/host\n") == 0.5

    (tmp_path / "cpu.max").unlink()
    write_group(tmp_path / "cpu", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert quota("4:memory:/\n2:cpu,cpuacct:/\n") == float("inf")
    write_group(tmp_path / "cpu", cpu__cfs_quota_us="200000\n", cpu__cfs_period_us="100000\n")
    assert quota("4:memory:/\n2:cpu,cpuacct:/docker/of-the-host\n") == 2
    assert quota("4:memory:/\n3:cpuset:/\n") == float("inf")
    assert openmp.cpu_quota(tmp_path / "no such file", tmp_path) == float("inf")


@pytest.mark.parametrize("quota, threads", [(0.5, "1"), (1, "1"), (2.9, "2"), (8, None)])
def test_as_many_threads_as_the_quota_allows(monkeypatch, quota, threads):
    monkeypatch.setattr(openmp.os, "sched_getaffinity", lambda process: range(4), raising=False)
    monkeypatch.setattr(openmp, "cpu_quota", lambda: quota)
    monkeypatch.setattr(openmp.os, "environ", {})
    openmp.set_up()
    assert openmp.os.environ.get("OMP_NUM_THREADS") == threads
    openmp.os.environ = {"OMP_NUM_THREADS": "3", "GOMP_SPINCOUNT": "7"}
    openmp.set_up()
    assert openmp.os.environ == {"OMP_NUM_THREADS": "3", "GOMP_SPINCOUNT": "7"}
    openmp.os.environ = {"OMP_WAIT_POLICY": "active"}
    openmp.set_up()
    assert "GOMP_SPINCOUNT" not in openmp.os.environ


def test_openmp_is_set_before_pytorch_reads_it(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    quota = "from plumbing import cli, openmp; openmp.cpu_quota = lambda: 1; cli.set_up()"
    code = f"{quota}; import torch; print(torch.get_num_threads())"
    assert python(code) == (0, "1\n", "")
