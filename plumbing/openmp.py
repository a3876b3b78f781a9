"""How OpenMP, with which PyTorch uses the CPU, is set for crowded and fenced machines."""

import contextlib
import math
import os
from pathlib import Path


def set_up():
    """Set what OpenMP reads from the environment once PyTorch is imported, unless the user has."""
    # A thread that waits for the others spins so many rounds before it lets another process have
    # its CPU. By default it spins for milliseconds, and two trainings on the same CPUs crawl: see
    # docs/speed.md.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    quota = cpu_quota()
    if quota < math.inf and quota < len(os.sched_getaffinity(0)):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, int(quota))))


def cpu_quota(groups="/proc/self/cgroup", mount="/sys/fs/cgroup"):
    """How many CPUs' time the control groups of Linux grant to this process, else math.inf.

    It is cpu.max in version 2 (docs.kernel.org/admin-guide/cgroup-v2.html), and two files in
    version 1 (docs.kernel.org/scheduler/sched-bwc.html): microseconds in each period.
    """
    quotas = []
    nothing = contextlib.suppress(OSError, ValueError, ZeroDivisionError)  # no file, or no limit
    with nothing:
        for line in Path(groups).read_text(errors="replace").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):  # none in version 2
                continue
            # A limit holds for the groups inside, too. In a container its own group may be at the
            # top, under the name that it has outside.
            folder = Path(mount, "cpu" if controllers else "", group.strip("/"))
            for place in (folder, *folder.parents):
                for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
                    with nothing:
                        quota, period = " ".join((place / n).read_text() for n in names).split()
                        quotas.append(int(quota) / int(period))
    return min((quota for quota in quotas if quota > 0), default=math.inf)
