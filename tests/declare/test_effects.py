"""The pairs that isolate a method differ by that method alone, or say what else."""

from __future__ import annotations

import re

import pytest

from common.declare import effects as module
from common.declare.effects import BUDGET_FILE, Effect, effects
from common.declare.rows import row
from common.declare.strict import to_dict
from common.errors import StudyError

# Method -> the fields that it may change; a pair that changes others has to say so.
FIELDS = {
    "gradient surgery": r"surgery\.kind",
    "joint step": r"schedule\..*|surgery\..*",
    "pair encoding": r"tasks\.\w+\.pair_method",
    "cosine head": r"tasks\.\w+\.(pair_method|output|threshold)",
    "mean pooling": r"tasks\.\w+\.pooling",
    "SMART": r"smart.*",
    "learned loss weights": r"weighting.*",
    "task adapters (PALs)": r"encoder\.pals.*",
    "shared layer": r"tasks\.\w+\.shared_(layer|transformer)",
    "order and share of the tasks": r"schedule\..*|tasks\.\w+\.(examples|per_epoch)",
    "additional pretraining": r"encoder\.pretraining.*",
    "training the encoder": r"encoder\.frozen",
}


def flat(value: object, place: str = "") -> dict[str, object]:
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple) and value and isinstance(value[0], dict) and "name" in value[0]:
        parts = [(part["name"], part) for part in value]
    else:
        return {place: value}
    return {k: v for name, part in parts for k, v in flat(part, f"{place}.{name}".lstrip(".")).items()}


@pytest.mark.parametrize("effect", effects(), ids=lambda effect: f"{effect.a}-{effect.b}")
def test_a_pair_differs_by_its_method_or_says_what_else(effect: Effect) -> None:
    first, second = row(effect.a).specs, row(effect.b).specs
    if effect.method == "several tasks in one model":
        assert len(first) == 1 and len(second) == 3
        return
    fields, others = (flat(to_dict(specs[0])) for specs in (first, second))
    differ = {name for name in fields.keys() | others.keys() if fields.get(name) != others.get(name)}
    outside = {name for name in differ if not re.fullmatch(FIELDS[effect.method], name)}
    assert bool(outside) == (bool(effect.also) and effect.method != "joint step"), sorted(outside)
    assert differ or [t.name for t in first[0].tasks] != [t.name for t in second[0].tasks]


@pytest.mark.parametrize(
    ("pair", "error"),
    [("swissbert_pair, swissbert_pair", "E-TABLES"), ("swissbert_pair, gu_final", "E-TABLES"), ("a, b", "E-ROW")],
)
def test_a_pair_that_compares_nothing_is_refused(pair, error, tmp_path, monkeypatch) -> None:
    (tmp_path / module.FILE).write_text(f"cosine head:\n- [{pair}]\n")
    monkeypatch.setattr(module, "files", lambda package: tmp_path)
    with pytest.raises((StudyError, ValueError)) as refused:
        effects()
    assert getattr(refused.value, "code", error) == error


# The head of one task: how it compares, and what a cosine needs in place of a linear layer.
HEAD = r"tasks\.para\.(pair_method|segments|dropout|threshold|loss)"
BUDGET_FIELDS = FIELDS | {"cosine against concatenation": HEAD, "gradient surgery": r"surgery\..*"}


def test_the_budget_check_has_eight_rows_in_pairs_of_which_the_method_alone_differs() -> None:
    pairs = effects(BUDGET_FILE)
    assert len(pairs) == 4 and len({name for pair in pairs for name in (pair.a, pair.b)}) == 8
    for pair in pairs:
        first, second = (flat(to_dict(row(name).specs[0])) for name in (pair.a, pair.b))
        differ = {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}
        assert differ and all(re.fullmatch(BUDGET_FIELDS[pair.method], name) for name in differ), sorted(differ)
