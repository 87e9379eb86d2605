"""Every figure of the reports is drawn from runs or from a spec, or left out with a reason; none falls between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from common.declare import reported
from common.declare.reported import diagrams
from common.declare.reported.diagrams import LEFT_OUT, diagrams_frame
from common.declare.rows import is_row, row
from common.errors import StudyError

# Figures with a caption in each report: BERT++ 1 to 8, swissBERT 1 to 5, Gu 1 and 2, SMART 1 to 4, A.1 and A.4 to A.8
# (A.2 and A.3 are tables), SlapBERT 1 to 7.
CAPTIONED = {
    "bertpp": {str(n) for n in range(1, 9)},
    "swissbert": {str(n) for n in range(1, 6)},
    "gu": {"1", "2"},
    "siar": {"1", "2", "3", "4", "A.1", *(f"A.{n}" for n in range(4, 9))},
    "slapbert": {str(n) for n in range(1, 8)},
}


def test_every_captioned_figure_is_in_one_of_the_two_lists_and_in_one_only() -> None:
    frame = diagrams_frame()
    for report, figures in CAPTIONED.items():
        results = {panel.figure for panel in reported.panels() if panel.report == report}
        others = set(frame.loc[frame["report"] == report, "figure"])
        assert results | others == figures and not results & others, report
    assert sum(map(len, CAPTIONED.values())) == 32


def test_diagrams_come_from_rows_of_their_own_report_and_the_rest_says_why() -> None:
    frame = diagrams_frame()
    kinds = Counter("left out" if d == LEFT_OUT else "row" if is_row(d) else "figure" for d in frame["drawn"])
    assert kinds == {"row": 6, "left out": 5, "figure": 1}
    for line in frame.to_dict("records"):
        assert not is_row(line["drawn"]) or row(line["drawn"]).report == line["report"]
    assert diagrams_frame("gu")["figure"].tolist() == ["1", "2"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gu,1,4.2", "gru,1,4.2", r"diagrams.csv:4: report 'gru', known: bertpp"),
        ("gu,1,4.2", "gu,2,4.2", r"figure 2 of gu stands twice"),
        ("gu_sts_cos_mean", "gu_sts_cos_men", r"diagrams.csv:4: drawn 'gu_sts_cos_men' is no row"),
        ("gu,1,4.2", "gu,1,", r"diagrams.csv:4: no text in section"),
    ],
)
def test_a_damaged_list_is_refused_with_its_place(
    old: str, new: str, message: str, damage_reported: Callable[..., None]
) -> None:
    damage_reported("diagrams.csv", old, new)
    with pytest.raises(StudyError, match=message):
        diagrams.diagrams_frame()
