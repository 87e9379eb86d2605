"""The learning curves that other programs read: all runs of a store, as one CSV or as event files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common import open_study, row
from common.declare.strict import to_dict
from common.results import history_export


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with one made-up run of two epochs; the folder that exports go to."""
    monkeypatch.setenv("STUDY_OUT", str(tmp_path))
    study, of = open_study("smoke"), row("swissbert_pair")
    spec = study.apply(of.specs[0], 0)
    epochs = [{"epoch": n, "train": {"sst_acc": n / 2}, "train_loss": {"sst": 1 / n}} for n in (1, 2)]
    epochs = [epoch | {"dev": {"sst_acc": epoch["epoch"] / 4, "sts_corr": None}} for epoch in epochs]
    named = {"id": of.id, "label": of.label, "report": of.report}
    record = {"run_id": spec.run_id, "row": named, "spec": to_dict(spec), "history": epochs, "metrics": {}}
    record["hashes"] = {"data": {}, "weights": "x"}
    study.store.write(record, {"sst": np.zeros((2, 5), np.float32)}, {})
    return study.places.build


def test_the_csv_has_a_line_for_each_score_and_loss_of_each_epoch(stored: Path, capsys) -> None:
    assert history_export.main(["smoke"]) == 0
    assert capsys.readouterr().out == f"1 runs, 6 numbers: {stored / 'history.csv'}\n"
    read = pd.read_csv(stored / "history.csv")
    assert set(read["row"]) == {"swissbert_pair"} and set(read["label"]) == {row("swissbert_pair").label}
    cells = {(line.epoch, line.split, line.metric): line.value for line in read.itertuples()}
    assert cells == {
        (n, *name): value
        for n in (1, 2)
        for name, value in ((("dev", "sst_acc"), n / 4), (("train", "sst_acc"), n / 2), (("train", "sst_loss"), 1 / n))
    }


def test_event_files_hold_the_same_numbers(stored: Path) -> None:
    pytest.importorskip("tensorboardX", reason="the extra `tensorboard` is not installed")
    from tensorboardX.proto.event_pb2 import Event

    assert history_export.main(["smoke", "--tensorboard"]) == 0
    (file,) = (stored / "tensorboard").rglob("events*")
    assert file.parent.name.startswith("swissbert_pair-")
    content, found = file.read_bytes(), {}
    while content:  # length (8 bytes), its checksum (4), the event, its checksum (4)
        size = int.from_bytes(content[:8], "little")
        for value in (event := Event.FromString(content[12 : 12 + size])).summary.value:
            found[event.step, value.tag] = value.simple_value
        content = content[16 + size :]
    assert found[2, "sst_acc/dev"] == 0.5 and found[1, "sst_acc/train"] == 0.5 and len(found) == 6


def test_without_the_package_the_extra_is_named(stored: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert history_export.main(["smoke", "--tensorboard"]) == 2
    assert "pip install -e '.[tensorboard]'" in capsys.readouterr().err and not (stored / "tensorboard").exists()


def test_a_wrong_profile_is_refused_in_plain_words(capsys) -> None:
    assert history_export.main(["smok"]) == 2
    assert "Did you mean 'smoke'?" in capsys.readouterr().err
