"""Runs that go on from a checkpoint, and what is saved of them on the way."""

import os
import shlex
import time
from contextlib import contextmanager

import torch

from plumbing import checkpoint as checkpoints
from plumbing import cli

SAVE_EVERY = 5  # seconds


def add_flags(parser):
    """Add --start, which is None where it is not given, and --resume."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--start",
        metavar="FILE",
        type=cli.path,
        help="checkpoint with the first weights of a new run, in place of random ones; it decides "
        "which moments are taken out",
    )
    either.add_argument(
        "--resume",
        action="store_true",
        help="go on with the unfinished run in the checkpoint, with its settings",
    )


@contextmanager
def saving(path, before=None):
    """Yield save(checkpoint), to be called after each epoch of a run.

    That writes the file every SAVE_EVERY seconds. The last checkpoint is written at the end of the
    block, and where Ctrl-C or a closed pipe cuts it short, with a sentence about how to go on;
    `before` is the one that the run has been resumed from, if any.
    """
    latest, written = before, time.perf_counter()

    def save(checkpoint):
        nonlocal latest, written
        latest = checkpoint
        if checkpoint.optimizer and time.perf_counter() - written > SAVE_EVERY:
            try:
                checkpoints.save(path, checkpoint)
            except OSError as error:
                cli.complain(f"{error}; training goes on")
            written = time.perf_counter()

    try:
        yield save
        checkpoints.save(path, latest)
    except (KeyboardInterrupt, BrokenPipeError) as end:  # the latter of `train.py | head`
        cli.ignore_signals()
        if not latest:
            raise type(end)("interrupted in the first epoch, nothing is saved") from None
        if latest is not before:
            checkpoints.save(path, latest)
        sentence = f"interrupted; {latest.epoch} of {latest.settings['epochs']} epochs are saved"
        if latest.optimizer:
            file = shlex.quote(str(path))
            sentence += f", go on with: make train RESUME=1 CHECKPOINT={file}"
        raise type(end)(sentence) from None


def check_flags(args, checkpoint):
    """InputError where a flag that was typed says something else than the run of a Checkpoint."""
    saved = {"dataset": checkpoint.dataset, **checkpoint.settings}
    saved.pop("threads")  # which may be others, because they decide the last bits only
    if checkpoint.settings["checksum"]:  # A dataset may be elsewhere now: its images tell.
        saved.pop("dataset")
    typed = {name: value for name, value in vars(args).items() if value is not None}
    if differing := [name for name in saved if typed.get(name, saved[name]) != saved[name]]:
        kept, typed = (
            " ".join(f"--{name.replace('_', '-')} {values[name]}" for name in differing)
            for values in (saved, typed)
        )
        raise cli.InputError(
            f"checkpoint {args.checkpoint} is of a run with {kept}, not {typed}: leave that out to "
            "use it, or name another file for another run (CHECKPOINT=other.pt)"
        )


def usable_threads(checkpoint):
    """The number of threads of a run, if it is known and this machine has as many, else None."""
    threads = checkpoint.settings["threads"]
    return threads if 0 < threads <= os.cpu_count() else None


def restore(path, checkpoint, model, optimizer, split, settings):
    """Put a model and its Adam where they were at a checkpoint; the history until then, a list.

    Raises InputError where it cannot be of epochs of a training data.Split with these settings.
    """
    epochs, before = checkpoint.epoch, checkpoint.settings
    steps = epochs * -(-split.epoch // settings.batch_size)
    steps = min(steps, 2**24)  # where Adam's float32 stops
    misfits = ["list of classes"] if checkpoint.class_names != split.class_names else []
    if before["checksum"] not in (0, settings.checksum):  # 0 is that of an earlier version
        misfits.append("checksum of the training images")
    if (before["inverted"], before["stratified"]) != (settings.inverted, settings.stratified):
        misfits.append("way of reading the dataset")
    model.load_state_dict(checkpoint.weights)
    for name, tensor in optimizer.tensors():
        saved = checkpoint.optimizer.get(name, torch.empty(0))
        if saved.shape == tensor.shape and (not name.endswith(".step") or saved == steps):
            tensor.copy_(saved)
        else:
            misfits.append(name)
    if misfits:
        raise cli.InputError(
            f"checkpoint {path} cannot be resumed: its {misfits[0]} does not fit {epochs} epochs "
            f"of {split.epoch:,} images, so the dataset has changed or the file is damaged; train "
            "anew without --resume"
        )
    return list(checkpoint.history)
