"""Stands in for common.runs.train in workers of tests: a job does what its label says, such as "run 0.5" or "kill".

A line per training goes to the file that COUNTS names, or `job.data`.
"""

import os
import sys
import time

import numpy as np

from common.runs.store import packed

HASHES = {"data": {}, "weights": "0"}


def watched(tell, every_s):
    return lambda done, total, note: tell({"event": "progress", "done": done, "total": total, "note": note})


def attempt(job, report):
    """Sleep as long as the label says and end as it says; one line per training in the file `job.data`."""
    kind, _, seconds = job.label.partition(" ")
    with open(os.environ.get("COUNTS", job.data), "a") as file:
        file.write(f"{job.run_id} {os.getpid()} {job.force}\n")
    report(1, 2, "")
    end = time.monotonic() + float(seconds or 0)
    while time.monotonic() < end:
        time.sleep(0.1 if kind == "beat" else end - time.monotonic())
        report(1, 2, "")
    if kind == "kill":
        os.kill(os.getpid(), 9)
    if kind == "exit":
        os._exit(3)
    if kind == "fail":
        return {"event": "failed", "message": "ValueError: broken", "details": "Traceback\n"}
    if kind == "print":
        os.write(1, b"printed by a library\n")
        print("printed by Python", file=sys.stderr)
    if kind == "facts":
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM", "MALLOC_MMAP_THRESHOLD_")
        facts = [os.environ.get(name) for name in names] + [os.getsid(0) == os.getpid(), "obedient" in sys.modules]
        facts += [getattr(sys.modules["__main__"], "__file__", None), "common.runs.train" in sys.modules]
        return {"event": "failed", "message": facts, "details": ""}
    record = {"run_id": job.run_id, "hashes": HASHES, "pid": os.getpid()}
    files = packed(record, {"sst": np.zeros((2, 5), np.float32)}, {})
    return {"event": "finished", "files": files, "wall_s": 0.0}
