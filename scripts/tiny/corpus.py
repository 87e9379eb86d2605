"""Remakes the embedded corpus, byte for byte: `python scripts/tiny/corpus.py`, seconds.

Four small tasks as files of the course starter's format, and text for additional pretraining beside them, so that a
first run needs no download and is read by the same loader as a user's own folder. Every text comes from a grammar over
about 200 words, and every label follows from what the text means, not from which words it holds: reviews turn on
negation and contrast, questions and scenes on who does what, in synonyms drawn independently for the two texts of a
pair. Class priors are those of the real training sets. The sentences are ours; nothing is taken from a data set. What
it leaves out: spelling, length and the long tail of real text, so scores here rank methods, no more.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common import paths
from common.data.sources import FILES
from common.data.texts import TEXT_FILES
from common.declare.tasks import TASKS

SPLITS = ("train", "dev", "test")
# The order of sizes is the real one (STS < SST < Quora); dev sets are large enough for differences of 0.05 to be seen.
SIZES = {"sst": (1600, 600, 300), "para": (2400, 800, 300), "sts": (1200, 600, 300), "cfimdb": (400, 200, 100)}

# Shares of each class (for STS, of [0, 1), [1, 2), [2, 3), [3, 4), [4, 5]) in the training files of the course starter.
PRIORS = {
    "sst": (0.1278, 0.2596, 0.1901, 0.2718, 0.1507),
    "para": (0.6247, 0.3753),
    "sts": (0.1727, 0.1621, 0.1724, 0.2626, 0.2302),
    "cfimdb": (0.5015, 0.4985),
}

# Reviews. A phrase is a degree word and an adjective; its value runs from -2 (awful) to 2 (superb).
ASPECTS = ("film", "movie", "plot", "story", "script", "cast", "acting", "music", "ending", "humour")
VERBS = ("is", "was", "seems")
POOR, PLAIN, FINE = ("bad", "dull", "weak"), ("average", "ordinary", "plain"), ("good", "clever", "fresh")
VERY, QUITE, NOT = ("very", "truly"), ("quite", "rather"), ("not", "never")
PHRASES = {
    -2: ((VERY, POOR),),
    -1: ((QUITE, POOR), (NOT, FINE)),
    0: ((VERY, PLAIN), (QUITE, PLAIN)),
    1: ((QUITE, FINE), (NOT, POOR)),
    2: ((VERY, FINE),),
}
# One word for a whole review, in the text for pretraining alone: real reviews come with a headline or a rating.
VERDICTS = {
    -2: ("awful", "dreadful"),
    -1: ("poor", "lacking"),
    0: ("mixed", "passable"),
    1: ("decent", "pleasant"),
    2: ("superb", "brilliant"),
}
# Words that join two clauses, and the clause that decides the value of the sentence.
LINKS = (("but", "second"), ("yet", "second"), ("although", "first"), ("though", "first"))
SINGLE_CLAUSES = 0.6
SST_NOISE = 0.12  # share of sentences rated one step off, as two readers would differ

# Questions. Each inner tuple is one meaning in three words.
TOPICS = (
    ("coding", "programming", "computing"),
    ("running", "jogging", "sprinting"),
    ("cooking", "baking", "cuisine"),
    ("painting", "drawing", "art"),
    ("travel", "tourism", "touring"),
    ("medicine", "healthcare", "nursing"),
    ("sailing", "boating", "yachting"),
    ("finance", "banking", "investing"),
)
INTENTS = (
    ("price", "cost", "fee"),
    ("benefit", "advantage", "gain"),
    ("risk", "danger", "harm"),
    ("origin", "history", "source"),
    ("future", "outlook", "fate"),
    ("meaning", "sense", "definition"),
)
QUESTION_FRAMES = tuple(
    f"{opening} the {kind} {{intent}} of {{topic}} {when} ?"
    for opening in ("what is", "what was", "who knows", "where is")
    for kind in ("main", "real", "usual", "true")
    for when in ("now", "today", "here")
)
# How the topics of duplicates lean, and the agents and places of similar scenes: the first is so many times likelier
# than one in the middle, the last so many times less likely, and the other way round in the rest. Real sets lean too;
# without it a linear layer on two sentences that are read apart, a sum of what each says alone, could learn nothing.
LEANING = 4
QUESTION_NOISE = 0.06  # share of pairs labelled the other way, as real annotators do: no model gets all of them right
# Of the pairs that are no duplicates: the topic, the intent, or both differ.
QUESTION_EDITS = (("topic",), ("intent",), ("topic", "intent"))
QUESTION_EDIT_WEIGHTS = (0.45, 0.45, 0.1)

# Scenes.
ACTORS = (
    ("man", "guy", "gentleman"),
    ("woman", "lady", "female"),
    ("boy", "lad", "youngster"),
    ("dog", "hound", "puppy"),
    ("cat", "kitten", "tomcat"),
    ("teacher", "tutor", "instructor"),
    ("doctor", "medic", "physician"),
    ("thief", "robber", "burglar"),
)
ACTIONS = (
    ("follows", "trails", "tracks"),
    ("helps", "assists", "aids"),
    ("pushes", "shoves", "nudges"),
    ("watches", "observes", "views"),
    ("greets", "welcomes", "hails"),
    ("scares", "frightens", "alarms"),
)
PLACES = (
    ("park", "garden", "meadow"),
    ("street", "road", "lane"),
    ("house", "home", "cottage"),
    ("shop", "store", "market"),
    ("river", "stream", "creek"),
    ("forest", "woods", "grove"),
)
SCENE_FRAMES = tuple(
    f"{first} {{agent}} {{action}} {second} {{patient}} {near} the {{place}} ."
    for first in ("a", "the")
    for second in ("a", "the")
    for near in ("near", "by", "beside")
)
# What differs between two scenes: share of pairs, points lost of 5. Swapped roles keep every word.
SCENE_EDITS: dict[tuple[str, ...], tuple[float, float]] = {
    (): (0.22, 0.0),
    ("place",): (0.20, 1.0),
    ("action",): (0.08, 1.6),
    ("agent",): (0.05, 2.0),
    ("patient",): (0.05, 2.0),
    ("swap",): (0.26, 3.2),
    ("swap", "place"): (0.09, 4.2),
    ("agent", "patient", "action", "place"): (0.05, 5.0),
}
SCENE_NOISE = 0.7  # half width of the uniform noise on a score, in points

Phrase = tuple[tuple[str, ...], tuple[str, ...]]
Example = tuple[tuple[str, ...], float]


class Row(NamedTuple):
    """One example of a task."""

    id: str
    texts: tuple[str, ...]
    label: float


def files(seed: int = 0) -> dict[str, bytes]:
    """Every file of the corpus by its path in the folder; those of texts are not yet compressed."""
    tables = {FILES[t][name]: _table(t, name, rows) for t in SIZES for name, rows in make_task(t, seed).items()}
    return tables | {f"mlm/{file}": _text_file(name, make_texts(name, seed)) for name, file in TEXT_FILES.items()}


def make_task(task: str, seed: int = 0) -> dict[str, list[Row]]:
    """Train, dev and test of a task.

    No two examples of a task, in whatever split, have the same text (for pairs: the same two texts in either order).
    """
    makers = {"sst": _review_example, "para": _question_example, "sts": _scene_example, "cfimdb": _long_review_example}
    seen: set[tuple[str, ...]] = set()
    splits = {}
    for split, size in zip(SPLITS, SIZES[task], strict=True):
        rng = random.Random(f"{task} {split} {seed}")
        examples = [_draw_new(makers[task], rng, label, seen) for label in _class_sequence(PRIORS[task], size, rng)]
        splits[split] = [Row(f"{task}-{split}-{i:04d}", *example) for i, example in enumerate(examples)]
    return splits


def make_texts(name: str, seed: int = 0) -> list[tuple[str, ...]]:
    """Make a pretraining corpus: documents of consecutive sentences that restate one thing in other words.

    Documents about like things (the same people in other roles, the same topic with another question, the same film
    with another verdict) stand side by side: a neighbour's sentence is a hard negative for next-sentence prediction.
    That is the base text; in-domain corpora are independent texts, for masked words alone.

    Args:
        name: which corpus; `base` is what the shipped encoder was pretrained on, `imdb`, `mnli` and `sick` stand for
            the corpora of additional pretraining.
        seed: another seed gives other documents of the same kind.
    """
    if name not in TEXT_MAKERS:
        raise ValueError(f"name: one of {sorted(TEXT_MAKERS)} expected, {name!r} found")
    return TEXT_MAKERS[name](random.Random(f"text {name} {seed}"))


def _table(task: str, split: str, rows: list[Row]) -> bytes:
    """A file as the starter has it: rows are numbered in a first column without a name, and test has no label.

    Two of the starter's test files were numbered twice, and their header with their rows.
    """
    is_twice = split == "test" and FILES[task][split].startswith("ids-")
    columns = ["id", *TASKS[task].text_columns, *([TASKS[task].label_column] if split != "test" else [])]
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow([0, "", *columns] if is_twice else ["", *columns])
    for i, row in enumerate(rows):
        label = row.label if TASKS[task].label_column == "sentiment" else float(row.label)
        fields = [row.id, *row.texts, label][: len(columns)]
        writer.writerow([i + 1, float(i), *fields] if is_twice else [i, *fields])
    return text.getvalue().encode()


def _text_file(name: str, documents: list[tuple[str, ...]]) -> bytes:
    """A document a line; a tab between the two sentences of a pair."""
    joint = " " if name == "imdb" else "\t"
    return "".join(f"{joint.join(document)}\n" for document in documents).encode()


def _class_sequence(priors: tuple[float, ...], size: int, rng: random.Random) -> list[int]:
    """Classes in random order, in numbers as near to `priors` as whole examples allow."""
    edges = [round(size * sum(priors[: i + 1]) / sum(priors)) for i in range(len(priors))]
    classes = [sum(i >= edge for edge in edges) for i in range(size)]
    rng.shuffle(classes)
    return classes


def _draw_new(make: Callable, rng: random.Random, label: int, seen: set[tuple[str, ...]]) -> Example:
    while True:
        texts, value = make(rng, label)
        key = tuple(sorted(texts))
        if key not in seen and len(set(texts)) == len(texts):
            seen.add(key)
            return texts, value


def _review_example(rng: random.Random, label: int) -> Example:
    value = label - 2
    if rng.random() < SST_NOISE:
        value = rng.choice([v for v in (value - 1, value + 1) if v in PHRASES])
    return (_review(rng, rng.choice(PHRASES[value])),), label


def _review(rng: random.Random, phrase: Phrase, single: float = SINGLE_CLAUSES) -> str:
    """A sentence that means what `phrase` means: one clause, or two, of which the main one decides."""
    main = _clause(rng, phrase)
    if rng.random() < single:
        return f"{main} ."
    link, side = rng.choice(LINKS)
    other = _clause(rng, rng.choice([p for phrases in PHRASES.values() if phrase not in phrases for p in phrases]))
    first, second = (other, main) if side == "second" else (main, other)
    return f"{first} {link} {second} ."


def _clause(rng: random.Random, phrase: Phrase) -> str:
    degrees, adjectives = phrase
    return f"the {rng.choice(ASPECTS)} {rng.choice(VERBS)} {rng.choice(degrees)} {rng.choice(adjectives)}"


def _long_review_example(rng: random.Random, label: int) -> Example:
    sign = 1 if label else -1
    values = [sign * rng.choice((1, 2)) for _ in range(3)] + [0] * rng.choice((0, 1)) + [-sign] * rng.choice((0, 1, 2))
    rng.shuffle(values)
    return (" ".join(_review(rng, rng.choice(PHRASES[value])) for value in values),), label


def _question_example(rng: random.Random, label: int) -> Example:
    topic, intent = _leaning(rng, TOPICS, bool(label)), rng.choice(INTENTS)
    is_duplicate = label if rng.random() >= QUESTION_NOISE else 1 - label
    edits = () if is_duplicate else rng.choices(QUESTION_EDITS, QUESTION_EDIT_WEIGHTS)[0]
    other_topic = _another(rng, TOPICS, topic) if "topic" in edits else topic
    other_intent = _another(rng, INTENTS, intent) if "intent" in edits else intent
    return (_question(rng, topic, intent), _question(rng, other_topic, other_intent)), label


def _question(rng: random.Random, topic: tuple[str, ...], intent: tuple[str, ...]) -> str:
    return rng.choice(QUESTION_FRAMES).format(topic=rng.choice(topic), intent=rng.choice(intent))


def _another(rng: random.Random, choices: tuple, *taken: tuple[str, ...]) -> tuple[str, ...]:
    return rng.choice([choice for choice in choices if choice not in taken])


def _scene_example(rng: random.Random, score_bin: int) -> Example:
    weights = [weight for weight, _ in SCENE_EDITS.values()]
    while True:
        edits, (_, lost) = rng.choices(list(SCENE_EDITS.items()), weights)[0]
        score = round(min(5.0, max(0.0, 5.0 - lost + rng.uniform(-SCENE_NOISE, SCENE_NOISE))), 1)
        if min(int(score), 4) == score_bin:
            scene = _scene(rng, score)
            return (_describe(rng, scene), _describe(rng, _edit_scene(rng, scene, edits))), score


def _scene(rng: random.Random, score: float | None = None) -> dict[str, tuple[str, ...]]:
    """A scene; with a score, its agent and place lean as scenes of that likeness do."""
    agent, patient = rng.sample(ACTORS, 2)
    scene = {"agent": agent, "action": rng.choice(ACTIONS), "patient": patient, "place": rng.choice(PLACES)}
    if score is not None:
        is_high = rng.random() < score / 5
        scene["agent"] = _leaning(rng, [actor for actor in ACTORS if actor != patient], is_high)
        scene["place"] = _leaning(rng, PLACES, is_high)
    return scene


def _leaning(rng: random.Random, choices: Sequence[tuple[str, ...]], to_first: bool) -> tuple[str, ...]:
    """One of the choices, from the first on less and less likely, or from the last."""
    weights = [LEANING ** (1 - 2 * i / (len(choices) - 1)) for i in range(len(choices))]
    return rng.choices(choices, weights if to_first else weights[::-1])[0]


def _edit_scene(
    rng: random.Random, scene: dict[str, tuple[str, ...]], edits: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    edited = dict(scene)
    if "swap" in edits:
        edited["agent"], edited["patient"] = scene["patient"], scene["agent"]
    if "agent" in edits:
        edited["agent"] = _another(rng, ACTORS, scene["agent"], scene["patient"])
    if "patient" in edits:
        edited["patient"] = _another(rng, ACTORS, scene["agent"], scene["patient"], edited["agent"])
    if "action" in edits:
        edited["action"] = _another(rng, ACTIONS, scene["action"])
    if "place" in edits:
        edited["place"] = _another(rng, PLACES, scene["place"])
    return edited


def _describe(rng: random.Random, scene: dict[str, tuple[str, ...]]) -> str:
    return rng.choice(SCENE_FRAMES).format(**{slot: rng.choice(words) for slot, words in scene.items()})


BASE_FAMILIES = 1500  # of each kind; a family is two neighbouring documents
SENTENCES = 4  # of each document
BASE_SINGLE_CLAUSES = 0.5  # more than in the task: what a phrase means is easier to see alone
FAVOURS = (2, 20)  # how much likelier a document's favourite word is; with the larger one it hardly uses another


def _base_text(rng: random.Random) -> list[tuple[str, ...]]:
    makers = (_scene_family, _question_family, _review_family)
    return [document for make in makers for _ in range(BASE_FAMILIES) for document in make(rng)]


def _scene_family(rng: random.Random) -> Iterator[tuple[str, ...]]:
    scene = _scene(rng)
    for edits in ((), rng.choice((("swap",), ("swap",), ("place",), ("action",), ("agent",), ("patient",)))):
        told = {slot: _favour(rng, words) for slot, words in _edit_scene(rng, scene, edits).items()}
        yield tuple(_describe(rng, told) for _ in range(SENTENCES))


def _question_family(rng: random.Random) -> Iterator[tuple[str, ...]]:
    topic, intent = rng.choice(TOPICS), rng.choice(INTENTS)
    other = (_another(rng, TOPICS, topic), intent) if rng.random() < 0.5 else (topic, _another(rng, INTENTS, intent))
    for asked in ((topic, intent), other):
        words = [_favour(rng, part) for part in asked]
        yield tuple(_question(rng, *words) for _ in range(SENTENCES))


def _review_family(rng: random.Random) -> Iterator[tuple[str, ...]]:
    for value in rng.sample(list(PHRASES), 2):
        degrees, adjectives = rng.choice(PHRASES[value])
        phrase = _favour(rng, degrees), _favour(rng, adjectives)
        argued = (_review(rng, phrase, BASE_SINGLE_CLAUSES) for _ in range(SENTENCES // 2))
        yield tuple(text for sentence in argued for text in (sentence, _summary(rng, phrase, value)))


def _summary(rng: random.Random, phrase: Phrase, value: int) -> str:
    return f"in short {_clause(rng, phrase)} , {rng.choice(VERDICTS[value])} ."


def _favour(rng: random.Random, words: tuple[str, ...]) -> tuple[str, ...]:
    """The same words with one of them likelier: a writer returns to a word."""
    return words + (rng.choice(words),) * rng.choice(FAVOURS)


# In-domain corpora for additional pretraining, each in the place of its namesake: long reviews, sentence pairs of
# several genres that agree, disagree or are unrelated, and described scenes. Their sizes are in the order of the real
# ones. Every word is one of the tasks above, so the shipped tokenizer knows it.
TEXT_SIZES = {"imdb": 1500, "mnli": 1000, "sick": 500}
REVIEW_SENTENCES = (6, 12)
DENIED = 0.2  # share of scene pairs whose second scene is denied, as SICK makes its contradictions


def _imdb_text(rng: random.Random) -> list[tuple[str, ...]]:
    return [_told_review(rng) for _ in range(TEXT_SIZES["imdb"])]


def _told_review(rng: random.Random) -> tuple[str, ...]:
    """A review at length: it leans one way, sentence by sentence more or less so, and ends with its verdict."""
    leaning = rng.choice((-1, 1))
    values = [leaning * rng.choice((2, 1, 1, 0, -1)) for _ in range(rng.randint(*REVIEW_SENTENCES) - 1)]
    told = [_review(rng, rng.choice(PHRASES[value])) for value in values]
    return (*told, _summary(rng, rng.choice(PHRASES[2 * leaning]), 2 * leaning))


def _mnli_text(rng: random.Random) -> list[tuple[str, ...]]:
    makers = (_review_pair, _question_pair, _scene_pair)
    return [rng.choice(makers)(rng) for _ in range(TEXT_SIZES["mnli"])]


def _review_pair(rng: random.Random) -> tuple[str, ...]:
    """A review sentence, and one that says the same, the opposite, or neither."""
    value = rng.choice([value for value in PHRASES if value])
    second = rng.choice((value, -value, 0))
    return tuple(_review(rng, rng.choice(PHRASES[v]), BASE_SINGLE_CLAUSES) for v in (value, second))


def _question_pair(rng: random.Random) -> tuple[str, ...]:
    return _question_example(rng, rng.randrange(2))[0]


def _sick_text(rng: random.Random) -> list[tuple[str, ...]]:
    return [_scene_pair(rng, DENIED) for _ in range(TEXT_SIZES["sick"])]


def _scene_pair(rng: random.Random, denied: float = 0.0) -> tuple[str, ...]:
    scene = _scene(rng)
    other = _edit_scene(rng, scene, rng.choice(list(SCENE_EDITS)))
    if rng.random() < denied:
        other["action"] = tuple(f"never {word}" for word in other["action"])
    return _describe(rng, scene), _describe(rng, other)


TEXT_MAKERS: dict[str, Callable[[random.Random], list[tuple[str, ...]]]] = {
    "base": _base_text,
    "imdb": _imdb_text,
    "mnli": _mnli_text,
    "sick": _sick_text,
}


def main() -> None:
    """Remake the shipped corpus."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=paths.EMBEDDED, help="folder to write (default: the shipped one)")
    options = parser.parse_args()
    for name, content in files().items():
        path = options.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
