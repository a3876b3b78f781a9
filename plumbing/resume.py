"""Runs that are cut short: what is saved of them on the way, and how they go on."""

import argparse
import os
import shlex
import time
from contextlib import contextmanager

import torch

from plumbing import checkpoint as checkpoints
from plumbing import cli

SAVE_EVERY = 5  # seconds


@contextmanager
def saving(path, epochs, before=None):
    """Yield save(checkpoint), to be called after each epoch of a run of so many epochs.

    That writes the file every SAVE_EVERY seconds. The last checkpoint is written at the end of the
    block, and where Ctrl-C or a closed pipe cuts it short, with a sentence about how to go on;
    `before` is the one that the run has been resumed from, if any.
    """
    latest, written = before, time.perf_counter()

    def save(checkpoint):
        nonlocal latest, written
        latest = checkpoint
        if checkpoint.epoch < epochs and time.perf_counter() - written > SAVE_EVERY:
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
        sentence = f"interrupted; {latest.epoch} of {epochs} epochs are saved"
        if latest.epoch < epochs:
            file = shlex.quote(str(path))
            sentence += f", go on with: make train ARGS=--resume CHECKPOINT={file}"
        raise type(end)(sentence) from None


def saved_flags(parser, args, checkpoint):
    """The flags of the run that wrote a checkpoint, with those of this one beside them.

    args are what the parser made of the flags that were typed; those that a run is made of are None
    where they were not. Raises InputError where one of them says something else, or what is saved
    is not what the flag takes.
    """
    path = args.checkpoint
    names = [name for name, value in vars(parser.parse_args([])).items() if value is None]
    saved = {"dataset": checkpoint.dataset, "seed": checkpoint.seed, **checkpoint.settings}
    # None in a checkpoint of an earlier version. Of a larger machine's no bits are kept anyway.
    if not 0 < saved["threads"] <= os.cpu_count():
        names.remove("threads")

    def flag(name):
        return f"--{name.replace('_', '-')}"

    try:
        before = vars(parser.parse_args([f"{flag(name)}={saved[name]}" for name in names]))
    except (KeyError, cli.InputError) as error:
        raise cli.InputError(f"checkpoint {path}: its settings are damaged: {error}") from error
    now = vars(args)
    fixed = [name for name in names if name != "threads"]  # which decides the last bits only
    if differing := [name for name in fixed if now[name] not in (None, before[name])]:
        kept, typed = (
            " ".join(f"{flag(name)} {flags[name]}" for name in differing) for flags in (before, now)
        )
        raise cli.InputError(
            f"checkpoint {path} is of a run with {kept}, not {typed}: go on with it without these, "
            "or train anew without --resume"
        )
    return argparse.Namespace(**now | {n: before[n] for n in names if now[n] is None})


def restore(path, checkpoint, model, optimizer, facts, images):
    """Put a model and its Adam where they were at a checkpoint.

    Raises InputError where that does not fit the facts of this run (see snapshot()), or epochs of
    so many images.
    """
    epochs, batch_size = checkpoint.epoch, facts["settings"]["batch_size"]
    steps = min(epochs * -(-images // batch_size), 2**24)  # where Adam's float32 stops
    misfits = ["list of classes"] if checkpoint.class_names != facts["class_names"] else []
    if checkpoint.settings["turned"] != facts["settings"]["turned"]:
        misfits.append("side of light and dark")
    model.load_state_dict(checkpoint.weights)
    for name, tensor in optimizer.tensors():
        saved = checkpoint.optimizer.get(name)
        if (
            torch.is_tensor(saved)
            and (saved.shape, saved.dtype) == (tensor.shape, tensor.dtype)
            and saved.isfinite().all()
            and (not name.endswith(".step") or saved == steps)
        ):
            tensor.copy_(saved)
        else:
            misfits.append(name)
    if misfits:
        raise cli.InputError(
            f"checkpoint {path} cannot be resumed: its {misfits[0]} does not fit {epochs} epochs "
            f"of {images:,} images, so the dataset has changed or the file is damaged; train anew "
            "without --resume"
        )
