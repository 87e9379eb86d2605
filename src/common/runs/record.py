"""The record of a run, as it is stored: a JSON object, with names for what is asked of it."""

from __future__ import annotations

import functools

from common.declare.spec import RunSpec
from common.training.evaluate import OVERALL_TASKS

KIND_CHARACTERS = 40
KIND = ("code", "torch", "processor", "threads", "precision", "device")
KIND += ("revision", "weights", "config", "tokenizer")
CONTAMINATION = (
    "The MiniLM encoder was trained by its authors for cosine similarity on about a billion text pairs, "
    "Quora duplicates among them, so paraphrase and cosine results on it are contaminated."
)
CAVEATS = {
    "minilm-l6": CONTAMINATION,
    "tiny-bert": "The tiny encoder and the made-up corpus rank methods; the scores are not comparable with a report's.",
    "tiny-random": "The encoder has random weights: this checks the machinery, and the scores mean nothing.",
}


class Record(dict):
    """What `runs/store.py` holds of a run, or what `runs/combine.py` makes of several (then `parts` names them)."""

    @property
    def run_id(self) -> str:
        return self["run_id"]

    @property
    def seed(self) -> int:
        return self["spec"]["seed"]

    @property
    def name(self) -> str:
        """How messages and tables call a run: the row that asked for it first, and its seed."""
        return f"{self['row']['id']}, seed {self.seed}"

    @functools.cached_property
    def spec(self) -> RunSpec:
        """What was trained; a record of several runs has none."""
        return RunSpec.from_dict(self["spec"], self.run_id)

    @property
    def caveat(self) -> str:
        """What a reader must know about its encoder's numbers; empty for an encoder without a known caveat."""
        return CAVEATS.get(self["spec"]["encoder"]["checkpoint"], "")

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that the model has."""
        return tuple(task["name"] for task in self["spec"]["tasks"])

    @property
    def kind(self) -> dict[str, str]:
        """What decides the digits of a run beside its spec: the program, the machine, the encoder and the data."""
        made, hashes = self.get("environment", {}), self.get("hashes", {})
        facts = {name: found[name] for found in (made, hashes) for name in KIND if name in found}
        return {name: str(value)[:KIND_CHARACTERS] for name, value in (facts | hashes.get("data", {})).items()}

    @property
    def parts(self) -> tuple[str, ...]:
        """Ids of the runs behind it."""
        return tuple(self.get("parts", [self.run_id]))

    def scores(self, split: str = "dev") -> dict[str, float | None]:
        """Metric -> score of the scored epoch; empty for a split that was not measured."""
        return self["metrics"].get(split, {})

    def value(self, metric: str, split: str = "dev") -> float | None:
        """One metric; None where it is undefined, or the run or the split does not have it."""
        return self.scores(split).get(metric)

    def has(self, metric: str, split: str = "dev") -> bool:
        """Whether the run has what the metric is made of; an overall needs all three tasks."""
        is_whole = not metric.startswith("overall") or set(self.tasks) >= set(OVERALL_TASKS)
        return is_whole and metric in self.scores(split)
