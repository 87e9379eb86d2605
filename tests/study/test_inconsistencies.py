"""What a report says against itself: every number in it is printed or follows from printed ones, in our own words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from importlib.resources import files

import pytest
import yaml

from common.data import sources
from common.data.tasks import TASKS
from common.errors import StudyError
from common.paths import ROOT
from common.study import inconsistencies_frame, reported
from common.study.reported import inconsistencies as module
from common.study.reported import printed_values
from common.study.rows import reports

FACTS = ROOT.parent / "shared" / "facts" / "inconsistencies.md"
TEXTS = ROOT.parent / "shared" / "reports"
CONTENT = yaml.safe_load(files("common.study.reported").joinpath(module.FILE).read_text(encoding="utf-8"))
ENTRIES = {entry["id"]: entry for entry in CONTENT}
VALUES = printed_values()
DEV = {"sst": 1101, "para": 20212, "sts": 863}  # usable examples of the course's dev files


def v(row: str, metric: str, split: str = "dev") -> float:
    return VALUES[row, split, metric]


def percent(old: float, new: float) -> float:
    return 100 * (new / old - 1)


def error(share: float, n: int) -> float:
    return math.sqrt(share * (1 - share) / n)


def gap(row: str) -> float:
    return v(row, "overall", "train") - v(row, "overall")


def minutes(batches: int) -> float:
    """At the speed of the SMART study's whole sets: 360 minutes for ten epochs."""
    return 360 * batches / (10 * epoch())


def epoch() -> int:
    return sum(batches(TASKS[task].report_train) for task in DEV)


def batches(rows: int, size: int = 8) -> int:
    return math.ceil(rows / size)


def sizes(report: str, section: str, task: str) -> dict[tuple[str, str], int]:
    found = [fact for fact in reported.stated() if (fact["report"], fact["task"]) == (report, task)]
    return {(fact["split"], fact["what"]): fact["stated"] for fact in found if fact["section"] == section}


def text(entry: dict) -> str:
    return " ".join(entry[name] for name in ("says", "but", "remark"))


H, D, G, BASE = "bertpp_model_h", "bertpp_model_d", "bertpp_model_g", "bertpp_baseline"
SMART, SHARE, SLAP = "siar_mtl_smart", "slapbert_smart_interleaved_sharebert", "slapbert_smart_annealed_slapbert"
SIAR_BASE, SIAR_SST, INTERLEAVED = "siar_baseline_sst", "siar_smart_sst_lam10", "slapbert_smart_interleaved_slapbert"
WEIGHT = 1e-5 * 20 * batches(TASKS["sts"].report_train, 32)  # rate x epochs x joint steps: how far Adam moves a scalar
CORRECTED = (0.9 + 0.995 + (0.864 + 1) / 2) / 3  # SlapBERT's train overall from its parts (5.2)
QUORA, IMDB, SST, STS = (sizes("bertpp", "4.1", task) for task in ("para", "imdb", "sst", "sts"))
LABELS = sizes("bertpp", "4.2", "para") | {f"sst {k[1]}": n for k, n in sizes("bertpp", "4.2", "sst").items()}
# Entry -> {what the entry says: the number as it is worked out from what is printed}.
ARITHMETIC = {
    "bertpp_i05": {
        "0.068": v(D, "sst_acc", "test") - v(D, "sst_acc"),
        "0.018": math.hypot(error(v(D, "sst_acc"), 1101), error(v(D, "sst_acc", "test"), 2210)),
        "3.7": 0.068 / math.hypot(error(v(D, "sst_acc"), 1101), error(v(D, "sst_acc", "test"), 2210)),
    },
    "bertpp_i06": {
        "1874": percent(v(BASE, "sts_corr"), v(H, "sts_corr")),
        "0.01926": v(H, "sts_corr") / (1 + v(H, "pct_gain_sts_corr_vs_baseline") / 100),
        "119.1": percent(v(BASE, "overall"), v(H, "overall")),
        "66.7": percent(v(BASE, "sst_acc"), v(H, "sst_acc")),
        "80.32": percent(v(BASE, "para_acc"), v(H, "para_acc")),
    },
    "bertpp_i07": {
        "17688": batches(141498),
        "755": batches(6040),
        "2243": percent(755, 17688),
        "8844": batches(141498, 16),
        "378": batches(6040, 16),
        "141498": LABELS["train", "label 0"] + LABELS["train", "label 1"],
    },
    "bertpp_i12": {"9277": sum(SST[split, "rows"] for split in reported.SPLITS), "11855": SST["all", "rows"]},
    "bertpp_i13": {
        "100000": sum(IMDB[split, "rows"] for split in ("train", "test", "unlabelled")),
        "50000": IMDB["all", "rows"],
    },
    "bertpp_i14": {
        "141498": LABELS["train", "label 0"] + LABELS["train", "label 1"],
        "141506": QUORA["train", "rows"],
    },
    "bertpp_i15": {"202152": sum(QUORA[split, "rows"] for split in reported.SPLITS), "400000": QUORA["all", "rows"]},
    "bertpp_i16": {"8631": sum(STS[split, "rows"] for split in reported.SPLITS), "8628": STS["all", "rows"]},
    "bertpp_i17": {
        "63.1": 100 * LABELS["train", "label 0"] / 141498,
        "2.1": LABELS["sst label 3"] / LABELS["sst label 0"],
    },
    "swissbert_i08": {
        "189": batches(6040, 32),
        "0.038": WEIGHT,
        "0.46": 1 / (2 * (1 + WEIGHT) ** 2),
        "0.006": 0.74 - 0.734,
    },
    "gu_i01": {"0.019": v("gu_para_cos_cls_t050", "sst_acc") - v("gu_para_cos_cls_t075", "sst_acc")},
    "gu_i02": {
        "0.011": v("gu_pcgrad", "overall") - v("gu_para_concat_sep_cls_1l", "overall"),
        "0.037": v("gu_pcgrad", "sst_acc") - v("gu_para_concat_sep_cls_1l", "sst_acc"),
    },
    "siar_i01": {"50": 100 * (60 / 40 - 1), "40": v("siar_mtl_capped", "train_time_min")},
    "siar_i02": {"6": 360 / 60, "9": v("siar_mtl_nocap", "train_time_min") / v("siar_mtl_capped", "train_time_min")},
    "siar_i03": {"1068": batches(8544), "19511": epoch(), "15": v(SIAR_BASE, "train_time_min")},
    "siar_i04": {
        "11.2": percent(v(SIAR_BASE, "sts_corr"), v(SIAR_SST, "sts_corr")),
        "21": percent(v(SIAR_BASE, "para_acc"), v(SIAR_SST, "para_acc")),
    },
    "siar_i07": {
        "195110": 10 * epoch(),
        "755": batches(6040),
        "216": batches(1725),
        "42": minutes(30 * batches(6040)),
        "12": minutes(30 * batches(1725)),
    },
    "siar_i08": {"0.500": 1 / (1 + math.exp(0)), "0.731": 1 / (1 + math.exp(-1))},
    "siar_i11": {"0.650": v(SMART, "overall"), "0.6497": v(SMART, "overall")},
    "siar_i13": {"0.001": v(SMART, "sst_acc") - v(SIAR_BASE, "sst_acc")},
    "siar_i14": {"0.262": 289 / DEV["sst"]},
    "slapbert_i02": {
        "0.016": v("slapbert_setup1", "sts_corr") - v("slapbert_initial_mtl", "sts_corr"),
        "0.030": (1 - v("slapbert_setup1", "sts_corr") ** 2) / math.sqrt(DEV["sts"]),
    },
    "slapbert_i06": {"0.286": gap(SHARE), "0.247": gap("slapbert_setup2"), "0.255": round(CORRECTED, 3) - 0.687},
    "slapbert_i07": {"0.313": gap(INTERLEAVED), "0.286": gap(SHARE), "0.218": gap(SLAP)},
    "slapbert_i09": {"17": 204 / 12},
    "slapbert_i13": {"0.942": CORRECTED, "0.992": 3 * v(SHARE, "overall", "train") - 0.995 - (0.864 + 1) / 2},
    "slapbert_i15": {"0.375": 7585 / DEV["para"]},
    "slapbert_i16": {"0.208": 229 / DEV["sst"], "0.625": 12627 / DEV["para"], "12627": DEV["para"] - 7585},
}
# Decimals that are neither printed scores nor worked out above: settings, counts of places, bounds of a reading.
OTHER = {
    "bertpp_i02": {"0.2", "0.8", "0.3"},  # dropout (Table 4)
    "gu_i01": {"0.75"},  # a threshold
    "swissbert_i08": {"0.50"},  # 1 / (2 sigma^2) at sigma 1
    "siar_i08": {"0.50", "0.72"},  # see the test of Table A.3
    "slapbert_i06": {"0.5"},  # dropout (Table 4)
    "siar_i11": {"0.001"},  # half of the last digit, twice
}


def test_every_report_has_its_entries_in_order_under_its_own_ids() -> None:
    counts = Counter(entry["report"] for entry in CONTENT)
    assert counts == {"bertpp": 18, "swissbert": 11, "gu": 5, "siar": 14, "slapbert": 17}
    wanted = [f"{report}_i{number:02d}" for report, count in counts.items() for number in range(1, count + 1)]
    assert list(ENTRIES) == wanted and {entry["kind"] for entry in CONTENT} == set(module.KINDS)


def test_the_frame_of_a_report_is_its_part_of_the_whole() -> None:
    whole = inconsistencies_frame()
    assert len(whole) == len(CONTENT) and list(whole) == ["report", "sections", "says", "but", "remark", "kind"]
    for report in reports():
        own = inconsistencies_frame(report)
        assert own.to_dict("records") == whole[whole["report"] == report].drop(columns="report").to_dict("records")
    with pytest.raises(ValueError, match="got 'nobody'"):
        inconsistencies_frame("nobody")


@pytest.mark.parametrize("name", ARITHMETIC)
def test_what_can_be_worked_out_is_what_the_entry_says(name: str) -> None:
    said = text(ENTRIES[name]).replace(",", "")
    for number, found in ARITHMETIC[name].items():
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d]|\.\d)", said), number
        digits = len(number.partition(".")[2])
        assert float(number) == pytest.approx(found, abs=0.5 * 10**-digits + 1e-9), number


def test_every_other_decimal_is_a_printed_one_of_that_report() -> None:
    for name, entry in ENTRIES.items():
        rows = {row for row, _, _ in VALUES if row.startswith(f"{entry['report']}_")}
        printed = {value for (row, _, _), value in VALUES.items() if row in rows}
        found = re.findall(r"(?<![\d.-])0\.\d+", text(entry))
        unknown = {number for number in found if float(number) not in printed}
        assert unknown <= OTHER.get(name, set()) | set(ARITHMETIC.get(name, {})), name


def test_what_is_said_to_fall_or_lead_does() -> None:
    assert v("bertpp_model_c", "para_acc") > v(D, "para_acc") and v("bertpp_model_f", "para_acc") > v(G, "para_acc")
    assert v(G, "sst_acc") > v(H, "sst_acc")
    linear = [v(f"bertpp_model_{letter}", "sts_corr") for letter in "abcdfg"]
    assert (min(linear), max(linear)) == (0.121, 0.343) and max(linear) < v("bertpp_model_e", "sts_corr") < v(
        H, "sts_corr"
    )
    tables = [*reported.printed("swissbert", "table2"), *reported.printed("swissbert", "table3")]
    pairs = [row for row in tables if row.startswith(("swissbert_pair", "swissbert_hp"))]
    assert max(v(row, "para_acc") for row in pairs) == 0.865
    tuned, weighted = reported.printed("swissbert", "table3"), reported.printed("swissbert", "table2")
    assert len(tuned) == 7 and set(tuned) & set(weighted) == {"swissbert_pair_awl_lr1e5"}
    frozen = weighted["swissbert_baseline_frozen"]
    worse = [(row, metric) for row, scores in weighted.items() for metric in scores if scores[metric] < frozen[metric]]
    assert worse == [("swissbert_cosine_similarity", "para_acc")]
    sentiment = [scores["sst_acc"] for scores in reported.printed("gu", "table2").values()]
    assert (min(sentiment), max(sentiment)) == (0.474, 0.513)
    concatenated = {row: v(row, "overall") for row in reported.printed("gu", "table2") if "concat_sep" in row}
    assert sorted(concatenated.values()) == [0.735, 0.735, 0.738, 0.742]
    table1 = reported.printed("siar", "table1").values()
    assert [max(scores[metric] for scores in table1) for metric in reported.OVERALL_PARTS] == [0.518, 0.705, 0.774]
    later = [*reported.printed("slapbert", "table3"), *reported.printed("slapbert", "table4")]
    assert min(v(row, "sst_acc") for row in later) == 0.463
    annealed = [v(row, "sts_corr") for row in later if "annealed" in row]
    assert len(annealed) == 4 and max(annealed) == v("slapbert_smart_annealed_slapbert_cos", "sts_corr")


def test_predictions_of_the_damaged_table_lie_where_a_sigmoid_of_a_cosine_does() -> None:
    cells: dict[tuple[str, str], list[float]] = {}
    for (row, _, metric), value in VALUES.items():
        if row.startswith("siar_sts_example_") and metric.startswith("pred_"):
            cells.setdefault((row, metric.partition("_ocr")[0]), []).append(value)
    agreed = [readings for readings in cells.values() if len({f"{value:.3f}"[:3] for value in readings}) == 1]
    assert len(cells) == 12 and len(agreed) == 8
    assert all(0.50 <= value <= 0.72 for readings in agreed for value in readings)


def test_samples_that_are_in_no_file_are_in_none(cs224n) -> None:
    corpus = sources.load(cs224n)
    for task in ("sst", "sts"):
        parts = corpus[task].values()
        assert sum(len(part) for part in parts) == {"sst": 11855, "sts": 8628}[task]
        (sample,) = (e for e in reported.examples("slapbert") if e["id"] == f"slapbert_sample_{task}")
        words = {" ".join(re.findall(r"\w+", text.lower())) for part in parts for texts in part.texts for text in texts}
        assert not {" ".join(re.findall(r"\w+", text.lower())) for text in sample["texts"]} & words


@pytest.mark.parametrize(
    "place", [FACTS, *(TEXTS / f"{report}.txt" for report in sorted(reports()))], ids=lambda p: p.stem
)
def test_no_sentence_is_copied(place) -> None:
    if not place.exists():
        pytest.skip("the collected facts and the texts of the reports are not beside this checkout")

    def runs_of_eight(words: str) -> set[tuple[str, ...]]:
        found = re.findall(r"[a-z0-9.]*[a-z0-9]", words.lower())
        return {tuple(found[start : start + 8]) for start in range(len(found) - 7)}

    theirs = runs_of_eight(place.read_text(encoding="utf-8"))
    for entry in CONTENT:
        assert not runs_of_eight(text(entry)) & theirs, entry["id"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("- id: gu_i05\n", "- id: gu_i05\n  note: extra\n", r"inconsistencies.yaml: gu_i05: fields .*'note'"),
        ("  but: It is Figure 1.\n", "", r"gu_i05: fields .* expected id, report"),
        ("  but: It is Figure 1.\n", "  but: 1\n", r"gu_i05: no text in but"),
        ("  but: It is Figure 1.\n", "  but: ''\n", r"gu_i05: no text in but"),
        ("- id: gu_i05\n  report: gu\n", "- id: gu_i05\n  report: starter\n", r"gu_i05: report 'starter' is unknown"),
        (
            "- id: gu_i05\n  report: gu\n",
            "- id: gu_i05\n  report: siar\n",
            r"gu_i05: report 'siar' .* another one's id",
        ),
        ("- id: gu_i05\n", "- id: gu_i04\n", r"inconsistencies.yaml: ids stand twice: \['gu_i04'\]"),
        ('is Figure 1.\n  remark: ""\n  kind: slip', 'is Figure 1.\n  remark: ""\n  kind: lie', r"gu_i05: kind 'lie'"),
    ],
)
def test_damaged_file_is_refused_with_its_place(
    old: str, new: str, message: str, damage_reported: Callable[..., None]
) -> None:
    damage_reported(module.FILE, old, new, module)
    with pytest.raises(StudyError, match=message):
        inconsistencies_frame()
