"""Limits on processor time, read from control groups as kernels and containers lay them out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common import machine
from common.machine import cpu_quota, usable_cores


def groups(folder: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    (folder / "cgroup").write_text(membership)
    for name, text in files.items():
        path = folder / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder / "cgroup", folder / "fs"


def v1(group: str, quota: int) -> dict[str, str]:
    return {f"{group}/cpu.cfs_quota_us": str(quota), f"{group}/cpu.cfs_period_us": "100000"}


CASES = {
    "version 2, container": ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
    "version 2, no limit": ("0::/\n", {"cpu.max": "max 100000"}, None),
    "version 2, service": ("0::/system.slice/a.service\n", {"system.slice/a.service/cpu.max": "50000 100000"}, 0.5),
    "version 2, limit above": (
        "0::/pod/a\n",
        {"pod/a/cpu.max": "max 100000", "pod/cpu.max": "200000 100000"},
        2.0,
    ),
    "version 2, smallest of two": ("0::/a/b\n", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "20000 10000"}, 2.0),
    # A container without a name space of its own is told the host's path, but sees its group as the root.
    "version 2, path of the host": ("0::/docker/0a1b\n", {"cpu.max": "400000 100000"}, 4.0),
    "version 1": ("5:cpu,cpuacct:/docker/0a\n4:memory:/\n", v1("cpu,cpuacct/docker/0a", 250000), 2.5),
    "version 1, short name": ("1:cpu:/\n", v1("cpu", 100000), 1.0),
    "version 1, path of the host": ("5:cpu,cpuacct:/docker/0a\n", v1("cpu", 300000), 3.0),
    "version 1, no limit": ("5:cpu,cpuacct:/\n", v1("cpu,cpuacct", -1), None),
    "both versions": ("5:cpu:/a\n0::/a\n", v1("cpu/a", 600000) | {"a/cpu.max": "max 100000"}, 6.0),
    "another controller": ("5:cpuset:/a\n4:cpuacct:/a\n", v1("cpuset/a", 1) | v1("cpuacct/a", 1), None),
    "nothing mounted": ("0::/a\n", {}, None),
}


@pytest.mark.parametrize(("membership", "files", "expected"), CASES.values(), ids=CASES)
def test_the_quota_is_the_smallest_on_the_way_up(
    membership: str, files: dict[str, str], expected: float | None, tmp_path: Path
) -> None:
    assert cpu_quota(*groups(tmp_path, membership, files)) == expected


def test_a_machine_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "fs") is None


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("50000 100000", 1), ("290000 100000", 2), ("400000 100000", 4), ("9900000 100000", 8), ("max 100000", 8)],
)
def test_cores_are_the_smaller_of_affinity_and_quota(
    limit: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert usable_cores(*groups(tmp_path, "0::/\n", {"cpu.max": limit})) == cores


def test_where_affinity_is_unknown_all_cores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores(tmp_path / "cgroup", tmp_path / "fs") == 6


def test_kills_for_lack_of_memory_are_counted_where_the_system_counts_them(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("nr_free_pages 7\noom_kill_disable 9\noom_kill 3\n")
    (tmp_path / "old").write_text("nr_free_pages 7\n")
    assert machine.oom_kills(tmp_path / "vmstat") == 3
    assert machine.oom_kills(tmp_path / "old") is None and machine.oom_kills(tmp_path / "none") is None
