"""The scripts in a notebook, and what they are made of in a program of someone else's."""

from conftest import ROOT, python, save_network

from model import MLP


def test_a_notebook_keeps_its_handlers_and_may_run_a_script_again_and_again(dataset):
    # `%run` in short: it runs a file as __main__, in a process with its own streams and handlers.
    code, out, err = python(f"""
import contextlib, io, runpy, signal, sys, types
sys.modules["IPython"] = types.ModuleType("IPython")
handlers = [signal.getsignal(number) for number in signal.valid_signals()]
for dataset in ("digits", "digits", "none at all"):
    sys.argv = ["train.py", "--dataset", dataset, "--epochs", "1", "--json"]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path({str(ROOT / "train.py")!r}, run_name="__main__")
        except SystemExit as end:
            code = end.code
    print(code, out.getvalue().count("test_accuracy"), err.getvalue())
assert handlers == [signal.getsignal(number) for number in signal.valid_signals()]
""")
    assert (code, err) == (0, "")
    first, again, bad, *_ = out.splitlines()
    assert first == again == "0 2 " and bad.startswith("2 0 train.py: ") and "none at all" in bad


def test_a_web_app_reads_a_picture_in_a_thread():
    save_network(MLP())
    code = """
import threading
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
