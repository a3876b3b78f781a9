"""The scripts in a notebook, and what they are made of in a program of someone else's."""

import subprocess
import sys

from conftest import ROOT, save_network

TRAIN = "['train.py', '--dataset', 'digits', '--epochs', '1', '--json']"


def python(code):
    """(exit code, stdout, stderr) of a Python that runs code in the current folder."""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return shown.returncode, shown.stdout, shown.stderr


def test_a_notebook_keeps_its_handlers_and_may_run_a_script_again_and_again(dataset):
    # `%run` in short: it runs a file as __main__, in a process with its own streams and handlers.
    code = f"""
import io, json, runpy, signal, sys, types
sys.modules["IPython"] = types.ModuleType("IPython")
handlers = [signal.getsignal(number) for number in signal.valid_signals()]
for flags in ({TRAIN}, {TRAIN} + ["--seed", "1"], ["train.py", "--dataset", "none at all"]):
    sys.argv, sys.stdout, sys.stderr = flags, io.StringIO(), io.StringIO()
    try:
        code = runpy.run_path({str(ROOT / "train.py")!r}, run_name="__main__") and 0
    except SystemExit as end:
        code = end.code
    out, err = sys.stdout.getvalue(), sys.stderr.getvalue()
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    print(code, out.count("test_accuracy"), err)
assert handlers == [signal.getsignal(number) for number in signal.valid_signals()]
"""
    code, out, err = python(code)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == ["0 1 ", "0 1 "]
    assert lines[2].startswith("2 0 train.py: dataset 'none at all': there is no such file")


def test_a_web_app_reads_a_picture_in_a_thread(network):
    save_network(network)
    code = """
import threading, sys
def answer():
    from pathlib import Path
    import torch
    from model import MLP, load_checkpoint
    model, checkpoint = load_checkpoint(Path("checkpoint.pt"))
    print(type(model) is MLP, model(torch.zeros(1, 1, 28, 28)).shape[1], checkpoint.epoch)
thread = threading.Thread(target=answer)
thread.start()
thread.join()
"""
    assert python(code) == (0, "True 10 1\n", "")
