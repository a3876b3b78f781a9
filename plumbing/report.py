"""What is printed about training runs: a line for each epoch or for each seed, and the end."""

import statistics

from plumbing import cli


def print_head(kind, seeds):
    """Print the head of the table, of epochs or of seeds; kind is "test" or "validation"."""
    first = " seed        " if seeds else "epoch    loss"
    kind = "test accuracy" if kind == "test" else kind
    print(f"\n{first}  {kind:>13}  errors  seconds")


def print_line(number, loss, results):
    """Print a line of the table: of an epoch, with its loss as text, or of a seed, without one."""
    accuracy, errors, seconds = (results[n] for n in ("test_accuracy", "errors", "seconds"))
    print(f"{number:5}  {loss:6}  {accuracy:13.2%}  {errors:6,}  {seconds:7.2f}", flush=True)


def summarize(path, checkpoint, seconds, device):
    """What --json tells of a run."""
    return {
        "test_accuracy": checkpoint.test_accuracy,
        "errors": checkpoint.history[-1]["errors"],
        "epochs": checkpoint.epoch,
        "history": checkpoint.history,
        "seconds": seconds,
        "device": str(device),
        "dataset": checkpoint.dataset,
        "checkpoint": str(path),
    }


def print_end(summaries, kind, json, warning=None):
    """Print the summary of a run, or the mean of several, and all as JSON where that is wanted."""
    print()
    accuracies = [summary["test_accuracy"] for summary in summaries]
    mean, images, (first, *more) = statistics.mean(accuracies), f"of the {kind} images", summaries
    if more:
        deviation, n = statistics.stdev(accuracies), len(summaries)
        cli.show(
            accuracy=f"{mean:.2%} {images}, mean of n = {n}; standard deviation {deviation:.2%}",
            checkpoint=f"{first['checkpoint']} to {more[-1]['checkpoint']}",
            warning=warning,
        )
        return cli.print_json(
            json, test_accuracy=mean, standard_deviation=deviation, runs=summaries
        )
    cli.show(
        accuracy=f"{mean:.2%} {images}, {first['errors']:,} errors",
        time=f"{first['seconds']:.2f} s in the training loop, evaluation included",
        checkpoint=first["checkpoint"],
        warning=warning,
    )
    cli.print_json(json, **first)
