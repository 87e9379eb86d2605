"""Read SST-5, QQP and STS-B, and text for additional pretraining, from the hub or a folder saved by `datasets`.

Revisions are recorded. The hub's splits are not the reports' splits: the starter cut QQP and STS-B anew.
Not here: the starter's files (`tables.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from common.data.split import Split
from common.data.tables import Row, make_split, missing_column, parse_label
from common.declare.tasks import CLASS_NAMES, TASKS, Task
from common.errors import StudyError

if TYPE_CHECKING:
    import datasets


class HubSet(NamedTuple):
    """Where a task or a text lives on the hub; `folder` is its name in a local copy (`hub:<folder>`)."""

    repository: str
    config: str | None
    revision: str
    folder: str
    text_columns: tuple[str, ...]


_GLUE = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
HUB_SETS = {
    "sst": HubSet("SetFit/sst5", None, "e51bdcd8cd3a30da231967c1a249ba59361279a3", "sst5", ("text",)),
    "para": HubSet("nyu-mll/glue", "qqp", _GLUE, "qqp", ("question1", "question2")),
    "sts": HubSet("nyu-mll/glue", "stsb", _GLUE, "stsb", ("sentence1", "sentence2")),
}
# Text for additional pretraining (BERT++, section 4.3.2). SICK's repository is a script, which `datasets` runs no more:
# what is read is the hub's own conversion, which has no fixed revision. Checkpoints are named by a hash of their texts.
_IMDB, _MNLI = "e6281661ce1c48d982bc483cf8a173c1bbeb5d31", "da70db2af9d09693783c3320c4249840212ee221"
HUB_TEXTS = {
    "imdb": HubSet("stanfordnlp/imdb", None, _IMDB, "imdb", ("text",)),
    "mnli": HubSet("nyu-mll/multi_nli", None, _MNLI, "multi_nli", ("premise", "hypothesis")),
    "sick": HubSet("RobZamp/sick", None, "refs/convert/parquet", "sick", ("sentence_A", "sentence_B")),
}
HUB_TEXT_SPLITS = {"imdb": "unsupervised", "mnli": "train", "sick": "train"}
HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
HUB_NO_LABEL = -1
_SAVE_FIX = (
    "Save the DatasetDict, all splits included, with save_to_disk in <folder>/{sst5,qqp,stsb,imdb,multi_nli,sick}."
)
_HUB_FIX = "Check the network and HF_HUB_OFFLINE, or use 'embedded', a starter folder or 'hub:<local folder>'."


def read_hub(folder: Path | None = None) -> dict[str, dict[str, Split]]:
    """Read the three tasks from the hub, or from `folder`/{sst5,qqp,stsb}.

    Returns:
        task -> "train", "dev" (the hub's "validation") and, where present, "test" -> `Split`. The labels of a split
        without any (-1 throughout, as in the tests of GLUE) are `None`; ids are `<folder>-<hub split>-<row number>`.

    Raises:
        StudyError: E-HUB when the hub gives no data, E-FILE, E-COLUMN or E-LABEL when the data are not as expected.
    """
    return {task: _read_task(TASKS[task], folder) for task in HUB_SETS}


def read_hub_texts(corpus: str, folder: Path | None = None) -> list[tuple[str, ...]]:
    """Read a corpus for additional pretraining from the hub, or from `folder`/{imdb,multi_nli,sick}.

    Returns:
        The texts of every row, two where the corpus has pairs; a row with a blank text is left out.

    Raises:
        StudyError: E-HUB when the hub gives no data, E-FILE or E-COLUMN when the data are not as expected.
    """
    source, split = HUB_TEXTS[corpus], HUB_TEXT_SPLITS[corpus]
    place, data = _open_splits(source, folder, (split,))
    rows = zip(*_columns(data[split], source.text_columns, f"{place}:{split}"), strict=True)
    return [row for row in rows if all(text and text.strip() for text in row)]


def _read_task(task: Task, folder: Path | None) -> dict[str, Split]:
    place, data = _open_splits(HUB_SETS[task.name], folder, (HUB_SPLITS["train"], HUB_SPLITS["dev"]))
    return {split: _hub_split(data[key], task, f"{place}:{key}") for split, key in HUB_SPLITS.items() if key in data}


def _open_splits(source: HubSet, folder: Path | None, needed: tuple[str, ...]) -> tuple[str, datasets.DatasetDict]:
    """The place that messages name, and the data with the needed splits in them."""
    place = f"{folder / source.folder}" if folder else f"{source.repository} ({source.config or 'default'})"
    data = _open_hub(source, folder, place)
    missing = [name for name in needed if name not in data]
    if missing:
        what = f"no split {', '.join(missing)}; found {', '.join(data)}"
        raise StudyError("E-FILE", place, what, _SAVE_FIX)
    return place, data


def _open_hub(source: HubSet, folder: Path | None, place: str) -> datasets.DatasetDict:
    import datasets  # slow to import, and needed for this source only

    failures = (OSError, ValueError, datasets.exceptions.DatasetsError)
    if folder:
        try:
            data = datasets.load_from_disk(str(folder / source.folder))
        except failures as error:
            raise StudyError("E-FILE", place, f"not a saved dataset: {error}", _SAVE_FIX) from error
        if not isinstance(data, datasets.DatasetDict):
            raise StudyError("E-FILE", place, "one Dataset, where a DatasetDict with splits was expected", _SAVE_FIX)
        return data
    try:
        return datasets.load_dataset(source.repository, source.config, revision=source.revision)
    except failures as error:
        raise StudyError("E-HUB", place, f"the hub gave no data: {error}", _HUB_FIX) from error


def _hub_split(data: datasets.Dataset, task: Task, place: str) -> Split:
    """One split; rows with a blank text are left out by id, because nobody can mend a fixed revision."""
    texts = list(zip(*_columns(data, HUB_SETS[task.name].text_columns, place), strict=True))
    is_test = place.endswith(f":{HUB_SPLITS['test']}")
    has_labels = "label" in data.column_names or not is_test
    labels = _columns(data, ("label",), place)[0] if has_labels else [None] * len(texts)
    # None, -1 and NaN, which alone differs from itself, stand for a label that is withheld.
    is_labelled = not all(label in (None, HUB_NO_LABEL) or label != label for label in labels)
    labels = _renamed(labels, data.features["label"], task, place) if is_labelled else labels
    key = f"{HUB_SETS[task.name].folder}-{place.rpartition(':')[2]}"
    rows, left_out, wrong = [], [], []
    for index, (pair, label) in enumerate(zip(texts, labels, strict=True)):
        value, what = parse_label(str(label), task) if is_labelled else (None, "")
        wrong += [f"row {index}: {what}"] if what else []
        if all(text and text.strip() for text in pair):
            rows.append(Row(f"{key}-{index}", pair, value))
        else:
            left_out.append(f"{key}-{index}")
    if wrong:
        raise StudyError("E-LABEL", f"{place}:label", wrong[0], _SAVE_FIX, tuple(wrong))
    return make_split(rows, task, is_labelled, left_out)


def _renamed(labels: list, feature: object, task: Task, place: str) -> list:
    """Labels in our numbers: a data set that numbers its names otherwise is read by the names; truth values as 0, 1."""
    names = [str(name).replace("_", " ").lower() for name in getattr(feature, "names", None) or []]
    wanted = CLASS_NAMES.get(task.name, ())
    if not names or all(name == str(number) for number, name in enumerate(names)):
        return [int(label) if isinstance(label, bool) else label for label in labels]
    if sorted(names) != sorted(wanted):
        what = f"the labels are named {', '.join(names)}; expected {', '.join(wanted)}"
        raise StudyError("E-LABEL", f"{place}:label", what, _SAVE_FIX)
    return [wanted.index(names[label]) if label in range(len(names)) else label for label in labels]


def _columns(data: datasets.Dataset, names: tuple[str, ...], place: str) -> list[list]:
    missing = [name for name in names if name not in data.column_names]
    if missing:
        raise StudyError("E-COLUMN", place, missing_column(missing[0], data.column_names), _SAVE_FIX)
    return [list(data[name]) for name in names]
