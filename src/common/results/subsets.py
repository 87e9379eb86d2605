"""Where models err, told by the words of the sentences: one piece of code for the error analyses of all reports.

swissBERT (section 6) sees errors in reviews that say "but" and in pairs that are built alike, Gu (6.1, 6.2) in pairs
that exchange I and you, and asks whether punctuation replaces [SEP]; the SMART study and SlapBERT (6) see common words.
What a sentence says is measured once and kept as a card: row numbers and numbers a row, never a sentence. So everything
here comes from records, stored scores and two cards, and needs neither the data nor a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import product

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import Ridge

from common.declare.reported import printed_values
from common.declare.spec import TaskSpec
from common.declare.tasks import TASK_NAMES, TASKS
from common.errors import StudyError
from common.results.facts import labels_card
from common.results.long import RUN, runs_of
from common.runs.record import Record
from common.runs.session import Results, Study
from common.training.evaluate import METRIC_NAMES, predict

CONTRASTS = {"but", "though", "yet"}
# Section 6 of swissBERT quotes them: what its model recognised, and what it missed.
PLAIN = ("meaningless downer", "load of junk", "hackneyed message", "remarkable camerawork", "deliriously funny")
MIXED = ("glorious failure", "facile technique")
SECOND_PERSON = {"i": "you", "me": "you", "my": "your", "mine": "yours", "myself": "yourself"}
END_MARK = re.compile(r"[.?!]+(?=[\s\"')]|$)")
ALIKE, NEARLY_IDENTICAL = 0.7, 0.8
UNLIKE_LABEL = 1.0  # the STS label up to which swissBERT's c26 asks for overrating
# Task -> subset -> how tables and figures name it; `all` is no subset.
SUBSETS = {
    "sst": {
        "all": "all reviews",
        "contrast": "says but, though or yet",
        "no_contrast": "says none of them",
        "plain": "plain phrase that swissBERT quotes",
        "mixed": "mixed phrase that swissBERT quotes",
    },
    "para": {
        "all": "all pairs",
        "persons": "one says I, the other you",
        "swaps": "only I and you swapped",
        "alike": f"word overlap of {ALIKE} or more",
        "nearly_identical": f"word overlap of {NEARLY_IDENTICAL} or more",
        "unparted": "end marks do not part the questions",
        "low": "lower third of word overlap",
        "high": "upper third of word overlap",
    },
    "sts": {"all": "all pairs", "low": "lower third of word overlap", "high": "upper third of word overlap"},
}
# Those that more than one report asks about; the others are Gu's patterns.
COMMON = ("all", "contrast", "no_contrast", "plain", "mixed", "low", "high")
# True label -> its values, and the metric under which a report prints the accuracy on it.
TRUE_LABELS = {
    "both": ((0, 1), "para_acc"),
    "paraphrases": ((1,), "para_acc_paraphrases"),
    "non-paraphrases": ((0,), "para_acc_non_paraphrases"),
}
COLUMNS = [*RUN, "task", "subset", "true label", "n", "quantity", "value"]
INTERVAL_Z = 1.96
ALL = SUBSETS["para"]["all"]
# Gu, section 6.2: which wrong answers are said to be common on which pairs.
ERRORS = {"missed paraphrases": ("paraphrases", "persons"), "false alarms": ("non-paraphrases", "alike")}


def words_card(lab: Study) -> dict[str, dict[str, np.ndarray]]:
    """Task -> name -> rows of a subset of the scored dev examples (whole numbers, ascending), or `overlap` of pairs and
    `word_score` of reviews, one number an example in their order."""

    def measure() -> dict[str, str]:
        found = {"para": pair_words(*lab.scored("para").texts, questions=True)}
        found["sts"] = pair_words(*lab.scored("sts").texts)
        found["sst"] = review_words(lab.scored("sst").texts[0])
        train = lab.corpus()["sst"]["train"]
        found["sst"]["word_score"] = word_scores(train.texts[0], train.labels, lab.scored("sst").texts[0])
        return {
            f"{task} {name}": " ".join(
                f"{number:.4g}" if number.dtype.kind == "f" else str(number) for number in values
            )
            for task, parts in found.items()
            for name, values in parts.items()
        }

    found: dict[str, dict[str, np.ndarray]] = {}
    for key, text in lab.card("words", measure).items():
        task, name = key.split()
        kind = float if name in ("overlap", "word_score") else np.int64
        found.setdefault(task, {})[name] = np.array(text.split(), dtype=kind)
    return found


def review_words(texts: Iterable[str]) -> dict[str, np.ndarray]:
    """Rows of reviews: with a word of contrast and without, and with the phrases that swissBERT quotes."""
    texts = [" ".join(text.lower().split()) for text in texts]
    contrast = np.array([bool(CONTRASTS & set(_words(text))) for text in texts])
    quoted = {
        name: np.array([any(phrase in text for phrase in phrases) for text in texts])
        for name, phrases in (("plain", PLAIN), ("mixed", MIXED))
    }
    return {name: np.flatnonzero(m) for name, m in {"contrast": contrast, "no_contrast": ~contrast, **quoted}.items()}


def pair_words(first: Iterable[str], second: Iterable[str], questions: bool = False) -> dict[str, np.ndarray]:
    """What the words of pairs say, whatever their case and punctuation.

    overlap: Jaccard's, of their sets of words, one number a pair. low, high: rows of its lower and upper third, with
    ties. Of questions also: persons, one in the first person and the other in the second; swaps, and they differ in
    nothing else; alike, nearly_identical, an overlap of at least 0.7, 0.8 without being equal; unparted, the end marks
    of their sentences do not show where the first question ends.
    """
    texts = list(zip(first, second, strict=True))
    pairs = [(_words(a), _words(b)) for a, b in texts]
    overlap = np.array([len(set(a) & set(b)) / max(1, len(set(a) | set(b))) for a, b in pairs])
    thirds = np.quantile(overlap, [1 / 3, 2 / 3])
    found = {"low": overlap <= thirds[0], "high": overlap >= thirds[1]}
    if questions:
        found["persons"] = np.array([{_persons(a), _persons(b)} == {"first", "second"} for a, b in pairs])
        found["swaps"] = found["persons"] & np.array([_turned(a) == _turned(b) for a, b in pairs])
        found["alike"] = (overlap >= ALIKE) & (overlap < 1)
        found["nearly_identical"] = (overlap >= NEARLY_IDENTICAL) & (overlap < 1)
        found["unparted"] = ~np.array([_is_parted(a, b) for a, b in texts])
    return {"overlap": overlap} | {name: np.flatnonzero(belongs) for name, belongs in found.items()}


def word_scores(train: Iterable[str], labels: np.ndarray, dev: Iterable[str]) -> np.ndarray:
    """(N,) what a linear model on word counts, fitted to the training reviews, says of the dev reviews: the sentiment
    of the words one by one, as far as it can be had without their order."""
    vectorizer = CountVectorizer()
    counts = vectorizer.fit_transform(train)
    return Ridge(alpha=10.0).fit(counts, labels).predict(vectorizer.transform(dev))


def answers(lab: Study, record: Record, task: str) -> np.ndarray:
    """(N,) what a run answers to the scored dev examples of a task, by its stored half-precision scores.

    Raises:
        StudyError: E-STALE when the labels at hand do not give the record's accuracy, by more than the rounding of
            scores can explain.
    """
    labels, spec = labels_card(lab)[task], record.spec.task(task)
    scores = lab.store.predictions(record.run_id)[task]
    scores = scores.reshape(len(scores), -1)  # (N, C)
    found = predict(spec, scores)
    if TASKS[task].kind == "score":
        is_stale = len(found) != len(labels)
    else:
        known = record.scores()[METRIC_NAMES[task]]
        is_stale = len(found) != len(labels) or abs((found == labels).mean() - known) > _rounded(spec, scores) + 1e-9
    if is_stale:
        what = (
            f"the dev labels give another {TASK_NAMES[task]} score to {record.name} ({record.run_id}) than its record."
        )
        raise StudyError("E-STALE", "cards/labels.json", what, "Delete this card and cards/words.json.")
    return found


def _rounded(spec: TaskSpec, scores: np.ndarray) -> float:
    """The share of answers that half precision may have changed."""
    half = np.abs(np.spacing(scores.astype(np.float16))).astype(np.float32) / 2
    if scores.shape[1] == 1:
        return float((predict(spec, scores - half) != predict(spec, scores + half)).mean())
    second, first = np.sort(scores, axis=1)[:, -2:].T
    return float((first - second <= 2 * half.max(axis=1)).mean())


def subset_frame(lab: Study, results: Results, tasks: tuple[str, ...] = ("sst", "para", "sts")) -> pd.DataFrame:
    """Dev scores by subset, one line a run, task, subset, true label and quantity.

    Quantities: accuracy of SST and Quora (there also by true label), with low and high, Wilson's 95 % interval of so
    many examples; of STS the mean of prediction minus label and of its square. A subset without an example has NaN.
    reported is what a report prints for the whole set.
    """
    words, labels, printed, lines = words_card(lab), labels_card(lab), printed_values(), []
    for (_, record, known), task in product(runs_of(results), tasks):
        if task not in record.tasks:
            continue
        found, every = answers(lab, record, task), np.arange(len(labels[task]))
        for name, title in SUBSETS[task].items():
            rows = every if name == "all" else words[task][name]
            place = known | {"task": TASK_NAMES[task], "subset": title}
            for measured in _quantities(task, found[rows], labels[task][rows]):
                metric = measured.pop("metric")
                theirs = printed.get((known["row"], "dev", metric), np.nan) if name == "all" else np.nan
                lines.append(place | measured | {"reported": theirs})
    return pd.DataFrame(lines, columns=[*COLUMNS, "low", "high", "reported"])


def _quantities(task: str, found: np.ndarray, labels: np.ndarray) -> Iterator[dict]:
    """Each quantity of some examples, with the metric that a report prints for it."""
    if TASKS[task].kind == "score":
        error = found - labels
        for quantity, values in (("prediction minus label", error), ("squared error", error**2)):
            mean = float(values.mean()) if len(values) else np.nan
            yield {"true label": "any", "n": len(labels), "quantity": quantity, "value": mean, "metric": ""}
        return
    groups = TRUE_LABELS if task == "para" else {"any": (np.unique(labels), METRIC_NAMES[task])}
    for of, (wanted, metric) in groups.items():
        right = (found == labels)[np.isin(labels, wanted)]
        mean = float(right.mean()) if len(right) else np.nan
        low, high = _interval(mean, len(right))
        known = {"true label": of, "n": len(right), "quantity": "accuracy", "value": mean}
        yield known | {"low": low, "high": high, "metric": metric}


def _interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's interval of a share of n examples (Wilson 1927); it stays within [0, 1] and does not collapse at 0."""
    if not n:
        return np.nan, np.nan
    z2 = INTERVAL_Z**2 / n
    middle, half = share + z2 / 2, INTERVAL_Z * np.sqrt(share * (1 - share) / n + z2 / (4 * n))
    return float((middle - half) / (1 + z2)), float((middle + half) / (1 + z2))


def subset_table(frame: pd.DataFrame, names: Iterable[str] | None = None) -> pd.DataFrame:
    """One line per task, subset, true label and quantity, with its number of examples and each model's mean over
    seeds; a column with one value throughout is left out.

    Args:
        frame: of `subset_frame`.
        names: keys of SUBSETS to show; None shows all.
    """
    if names is not None:
        titles = {title for parts in SUBSETS.values() for name, title in parts.items() if name in names}
        frame = frame[frame["subset"].isin(titles)]
    keys = ["task", "subset", "true label", "quantity", "n"]
    table = _by_model(frame, keys, "value")
    return table.drop(columns=[name for name in keys[:4] if table[name].nunique() < 2])


def label_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Quora accuracy over all pairs and by true label, reported and here (Gu, Table 6), one line per model and label.

    Args:
        frame: of `subset_frame`.
    """
    whole = frame[frame["subset"] == ALL].rename(columns={"label": "model", "n": "pairs"})
    grouped = whole.groupby(["model", "true label", "pairs"], sort=False)
    table = grouped.agg(reported=("reported", "first"), here=("value", "mean"), sd=("value", "std"))
    return table.assign(difference=table["here"] - table["reported"], seeds=grouped.size()).reset_index()


def error_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Rates of the two kinds of errors over all pairs and on the subset where the report sees them, and their ratio."""
    rates = 1 - frame.groupby(["true label", "subset", "label"], sort=False)["value"].mean()
    names = SUBSETS["para"]
    lines = [
        {"model": model, "error": error, "subset": names[subset]}
        | {"rate over all": rates[of, ALL, model], "rate in subset": rates[of, names[subset], model]}
        for (error, (of, subset)), model in product(ERRORS.items(), frame["label"].unique())
    ]
    table = pd.DataFrame(lines, columns=["model", "error", "subset", "rate over all", "rate in subset"])
    return table.assign(ratio=table["rate in subset"] / table["rate over all"].where(table["rate over all"] > 0))


def correlation_frame(lab: Study, results: Results) -> pd.DataFrame:
    """Does an error go with the words? Pearson's r over dev examples, one line a run and question.

    Quora: overlap with the answer "paraphrase", among pairs that are none and among all. STS: overlap with prediction
    minus label, among pairs labelled up to 1 and among all. SST: the prediction with what the words say one by one
    (`word_scores`). NaN where a model answers the same to all.
    """
    words, labels, lines = words_card(lab), labels_card(lab), []
    for _, record, known in runs_of(results):
        present = record.tasks
        for task, question, among, ours in _questions(words, labels):
            if task in present:
                found = answers(lab, record, task)
                value = _correlation(
                    ours(found)[among], (words[task]["word_score" if task == "sst" else "overlap"])[among]
                )
                place = known | {"task": TASK_NAMES[task], "question": question, "n": int(among.sum())}
                lines.append(place | {"correlation": value})
    columns = [*RUN, "task", "question", "n", "correlation"]
    return pd.DataFrame(lines, columns=columns)


def _questions(words: dict, labels: dict) -> Iterator[tuple]:
    """(task, the question in words, (N,) which examples it is about, what of the answers is correlated)."""
    none, unlike = labels["para"] == 0, labels["sts"] <= UNLIKE_LABEL
    everything = {task: np.ones(len(found), dtype=bool) for task, found in labels.items()}
    yield "para", "overlap with a false paraphrase, pairs that are none", none, lambda found: found
    yield "para", "overlap with the answer paraphrase, all pairs", everything["para"], lambda found: found
    error = lambda found: found - labels["sts"]  # noqa: E731
    yield "sts", f"overlap with prediction minus label, labels up to {UNLIKE_LABEL:g}", unlike, error
    yield "sts", "overlap with prediction minus label, all pairs", everything["sts"], error
    yield "sst", "score of single words with the prediction, all reviews", everything["sst"], lambda found: found


def correlation_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One line a question, each model's mean over seeds beside it."""
    return _by_model(frame, ["task", "question", "n"], "correlation")


def _by_model(frame: pd.DataFrame, keys: list[str], number: str) -> pd.DataFrame:
    """One line per combination of the keys, each model's mean over seeds beside it, all in the frame's order."""
    means = frame.groupby([*keys, "label"], sort=False)[number].mean().unstack("label")
    lines, models = pd.MultiIndex.from_frame(frame[keys].drop_duplicates()), frame["label"].unique()
    return means.reindex(index=lines, columns=models).rename_axis(columns=None).reset_index()


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return np.nan
    return float(np.corrcoef(first.astype(float), second)[0, 1])


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _is_parted(first: str, second: str) -> bool:
    """Whether the first question ends in the only end mark before the last one of the two joined."""
    ends = [[match.end() for match in END_MARK.finditer(text.strip())] for text in (first, second)]
    stripped = first.strip().rstrip("\"')")
    return len(ends[0]) == 1 and ends[0][0] >= len(stripped) and len(ends[1]) <= 1


def _persons(words: list[str]) -> str:
    """Which of the two persons a question speaks in: none, first, second or both."""
    has_first, has_second = set(words) & set(SECOND_PERSON), set(words) & set(SECOND_PERSON.values())
    return ("both" if has_second else "first") if has_first else ("second" if has_second else "none")


def _turned(words: list[str]) -> list[str]:
    return [SECOND_PERSON.get(word, word) for word in words]
