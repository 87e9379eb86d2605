"""How much of this machine the process may use. Only the standard library, so that the doctor can ask before anything
is installed.

A container's limit on processor time is no limit on which cores: `os.cpu_count` and the affinity mask show all cores
of the host, and as many runs at once would only wait for each other. The limit is in the control group (cgroup) of
the process or in one above it, in version 2 (Linux kernel, cgroup-v2.rst, `cpu.max`) as well as in version 1
(sched-bwc.rst, `cpu.cfs_quota_us`).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

MEMBERSHIP, CGROUPS, COUNTERS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"), Path("/proc/vmstat")


def usable_cores(membership: Path = MEMBERSHIP, cgroups: Path = CGROUPS) -> int:
    """Cores that this process may keep busy: the smaller of its affinity and its processor time, at least one."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(membership, cgroups)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def cpu_quota(membership: Path = MEMBERSHIP, cgroups: Path = CGROUPS) -> float | None:
    """Seconds of processor time per second that the control groups grant; None without a limit.

    Args:
        membership: lists the groups of the process, as lines `number:controllers:/path` (`0::/path` in version 2).
        cgroups: where the groups are mounted.
    """
    quotas = [_quota(folder) for folder in _groups(membership, cgroups)]
    return min((quota for quota in quotas if quota is not None), default=None)


def oom_kills(counters: Path = COUNTERS) -> int | None:
    """Processes that the system has killed for lack of memory, its own or a control group's; None where it counts none.

    Source: `oom_kill` of /proc/vmstat (Linux 4.13 and newer).
    """
    lines = counters.read_text().splitlines() if counters.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def _groups(membership: Path, cgroups: Path) -> Iterator[Path]:
    """Folders of the process's groups and of all above them; a container may see only the upper ones."""
    lines = membership.read_text().splitlines() if membership.is_file() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers == "" or "cpu" in controllers.split(","):
            group = Path(path.lstrip("/"))
            mounts = (cgroups / controllers, cgroups / "cpu") if controllers else (cgroups,)
            yield from (mount / part for mount in mounts for part in (group, *group.parents))


def _quota(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    except OSError:  # no such group, or not for us to read: no limit that we could know
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def processor() -> str:
    """The processor's name, and "amx" where it has matrix units: results are the same bytes on one kind alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    has_units = "amx_bf16" in facts.get("flags", "").split()
    return facts.get("model name", platform.machine()) + (", amx" if has_units else "")
