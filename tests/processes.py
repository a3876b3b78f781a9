"""Processes for tests to kill, forked in milliseconds from one that has imported all they need.

Each writes what it prints to the files out and err, and its temporary files to the folder tmp.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import datasets  # noqa: F401

import analysis
import data
import train
from plumbing import cli, resume

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["processes"])


def start(work, *arguments):
    """A process that does a piece of work, a function of this module; it runs already."""
    Path("tmp").mkdir(exist_ok=True)
    process = CONTEXT.Process(target=_prepared, args=(work, arguments))
    process.start()
    return process


def wait_for(happened, process=None, seconds=60):
    """Return once happened() is true; AssertionError if it never is, or the process has ended."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end and (process is None or process.is_alive())
        time.sleep(0.001)


def heed_ctrl_c():
    """Let Ctrl-C reach a process: under nohup or behind an & it is ignored from the start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _prepared(work, arguments):
    for number, name in enumerate(("out", "err"), start=1):
        os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    tempfile.tempdir = "tmp"
    for number in cli.SIGNALS:  # Under nohup, or behind an &, they may be ignored from the start.
        signal.signal(number, signal.SIG_DFL)
    cli.set_up()
    work(*arguments)


# The work.


def run_train(*flags):
    """Train, and save after each epoch."""
    resume.SAVE_EVERY = 0
    sys.argv = ["train.py", *map(str, flags)]
    cli.run(train.main)


def decode():
    data.load("digits", "train")


def analyse_for_ever():
    while True:
        for checkpoint in ("one.pt", "two.pt"):
            sys.argv = ["analysis.py", "--checkpoint", checkpoint]
            cli.run(analysis.main)
