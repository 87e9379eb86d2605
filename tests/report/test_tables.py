"""Tables: rounding, escaping and holes, the same in every format, and byte for byte the same on every run."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pandas as pd
import pytest

from common.errors import StudyError
from common.report import tables

HOSTILE = "a|b <script>alert(1)</script> 50% of_it & more \\ `x`"


def small() -> pd.DataFrame:
    columns = pd.MultiIndex.from_tuples(
        [("", "model"), ("STS", "reported"), ("STS", "here"), ("STS", "sd"), ("STS", "difference"), ("runs", "notes")]
    )
    lines = [
        [HOSTILE, 0.842, 0.81236, 0.0104, -0.02964, ""],
        ["one seed", float("nan"), 0.5, float("nan"), float("nan"), "under-trained"],
        ["hole", 0.3, "failed", float("nan"), float("nan"), "seed 0 failed"],
    ]
    return pd.DataFrame(lines, columns=columns, index=pd.Index(["a", "b", "c"], name="row"))


def test_display_has_three_decimals_joined_deviations_and_marked_holes() -> None:
    text = tables.formatted(small())
    assert text["STS", "here"].tolist() == ["0.812 ± 0.010", "0.500", "failed"]
    assert text["STS", "difference"].tolist() == ["-0.030", "–", "–"]
    assert text["STS", "reported"].tolist() == ["0.842", "–", "0.300"]
    assert ("STS", "sd") not in text


@pytest.mark.parametrize(
    ("value", "column", "text"),
    [
        (0.0004, "difference", "0.000"),
        (-0.0004, "difference", "0.000"),
        (0.0005001, "difference", "+0.001"),
        (-141, "difference", "-141"),
        (0.0457, "share of training", "4.57 %"),
        (1.0, "share of training", "100 %"),
        (2.5e-7, "largest difference", "2.5e-07"),
        (pd.NA, "here", "–"),
        (None, "here", "–"),
        (True, "here", "True"),
        ("two\nlines", "here", "two lines"),
    ],
)
def test_cells(value: object, column: str, text: str) -> None:
    assert tables.cell(value, column) == text


def test_csv_keeps_every_digit_and_the_row_ids(lab: SimpleNamespace) -> None:
    tables.save(lab, "02_small", small(), "Caption.")
    frame = pd.read_csv(lab.places.tables / "02_small.csv")
    assert frame["STS: here"].tolist()[0] == "0.81236" and frame["row"].tolist() == ["a", "b", "c"]
    assert frame["model"].tolist()[0] == HOSTILE


def test_markdown_reads_back_as_it_was_shown(lab: SimpleNamespace) -> None:
    tables.save(lab, "02_small", small(), "Caption with a | and <b>.")
    caption, text = tables.read_markdown((lab.places.tables / "02_small.md").read_text(encoding="utf-8"))
    pd.testing.assert_frame_equal(text, tables.formatted(small()).reset_index(drop=True), check_dtype=False)
    assert caption == f"Caption with a | and <b>. {tables.provenance(lab)}"


def test_markdown_and_html_escape_hostile_text() -> None:
    assert "<script>" not in tables.to_markdown(small(), HOSTILE)
    assert "<script>" not in tables.Shown(small())._repr_html_()
    assert "&lt;script&gt;" in tables.Shown(small())._repr_html_()


def test_in_a_notebook_text_is_left_numbers_are_right_and_a_group_is_above_its_columns() -> None:
    drawn = tables.Shown(small())._repr_html_()
    first, second, *lines = [re.findall(r"<t[hd].*?text-align: (\w+)", line) for line in drawn.split("<tr")[1:]]
    assert first == ["center"] and second == ["left", "right", "left", "right", "left"]
    assert lines == [second] * 3


def test_a_notebook_says_once_what_is_the_same_in_all_lines_and_leaves_out_what_is_empty() -> None:
    lines = {"model": ["a", "b"], "seeds": ["one seed", None], "notes": ["", ""], "share of training": [0.1, 0.2]}
    empty = {"reported": [float("nan")] * 2, "here": [float("nan")] * 2}
    frame = pd.DataFrame(lines | empty)
    frame.attrs["caption"] = "Caption."
    shown = tables.Shown(frame)
    assert [*shown.text] == ["model", "share of training", "here"]
    assert shown.caption == "Caption. Alike in all lines that have it: seeds (one seed)."
    assert [*tables.Shown(frame[:1]).text] == [*frame] and [*tables.formatted(frame)] == [*frame]


def test_latex_escapes_cells_header_and_caption() -> None:
    text = tables.to_latex(small(), "50% of_it", "tab:x")
    assert r"\caption{50\% of\_it}" in text and r"50\% of\_it \& more \textbackslash" in text
    assert r"\toprule" in text and r"\multicolumn{3}{c}{STS}" in text


def test_saving_twice_gives_the_same_bytes(lab: SimpleNamespace) -> None:
    def saved() -> dict[str, bytes]:
        tables.save(lab, "02_small", small(), "Caption.")
        return {path.name: path.read_bytes() for path in lab.places.tables.iterdir()}

    first = saved()
    assert first == saved() and set(first) == {"02_small.csv", "02_small.md", "02_small.tex"}


@pytest.mark.parametrize("name", ["table2", "02_", "02_../x", "2_x", "02_X"])
def test_names_that_could_leave_the_folder_are_refused(name: str, lab: SimpleNamespace) -> None:
    with pytest.raises(StudyError, match="is no table name"):
        tables.save(lab, name, small(), "Caption.")


def test_contamination_stands_in_every_caption_of_minilm_numbers(lab: SimpleNamespace) -> None:
    lab.encoder = "minilm-l6"
    saved = tables.save(lab, "02_small", small(), "Caption.")
    assert "contaminated" in saved.attrs["caption"] and "contaminated" in repr(tables.Shown(saved))
    assert "contaminated" in (lab.places.tables / "02_small.md").read_text()
    lab.encoder = "bert-base-uncased"
    assert tables.contamination_note(lab) == ""


def test_table_without_results_names_no_encoder(lab: SimpleNamespace) -> None:
    assert tables.save(lab, "00_small", small(), "Counts.", from_runs=False).attrs["caption"] == "Counts."


def test_saving_leaves_the_frame_as_it_was(lab: SimpleNamespace) -> None:
    frame = small()
    tables.save(lab, "02_small", frame, "Caption.")
    assert frame.attrs == {}


def test_reading_formats_numbers_and_escapes_what_is_filled_in() -> None:
    text = tables.reading("r is **{r}** for {name}", r=0.84249, name="<b>*x*")
    assert text.data == r"r is **0.842** for &lt;b&gt;\*x\*"


def low() -> pd.DataFrame:
    columns = pd.MultiIndex.from_tuples(
        [("", "model"), ("SST", "here"), ("SST", "sd"), ("SST", "at constant"), ("SST", "difference")]
    )
    lines = [["low", 0.25, 0.01, True, -0.2], ["undefined", "undefined", float("nan"), True, float("nan")]]
    return pd.DataFrame([*lines, ["high", 0.5, float("nan"), False, 0.1]], columns=columns)


def test_a_score_no_better_than_a_constant_is_marked_in_every_format_and_the_mark_is_explained(
    lab: SimpleNamespace,
) -> None:
    text = tables.formatted(low())
    assert text["SST", "here"].tolist() == ["0.250 ± 0.010†", "undefined†", "0.500"]
    assert text.columns.tolist() == [("", "model"), ("SST", "here"), ("SST", "difference")]
    saved = tables.save(lab, "02_low", low(), "Caption.")
    assert saved.attrs["caption"] == f"Caption. {tables.MARKED} {tables.provenance(lab)}"
    assert "0.250 ± 0.010†" in (lab.places.tables / "02_low.md").read_text(encoding="utf-8")
    assert "†" in (lab.places.tables / "02_low.tex").read_text(encoding="utf-8")
    assert pd.read_csv(lab.places.tables / "02_low.csv")["SST: at constant"].tolist() == [True, True, False]
    clean = tables.save(lab, "02_clean", low().iloc[2:], "Caption.")
    assert tables.MARK not in clean.attrs["caption"], "nothing is explained that is not there"
