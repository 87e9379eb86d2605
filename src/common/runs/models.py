"""Trained models: kept on demand, each in a folder that is written whole or not at all, and asked for answers.

A folder `build/<profile>/weights/<run_id>/` is an encoder as `transformers.AutoModel` loads it (config.json,
model.safetensors, tokenizer), `heads.safetensors` with everything else that decides answers (heads, PALs, a shared
layer), the run's record with its applied spec, and a card for readers. Which runs are trained is session.py's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from scipy.special import softmax
from tokenizers import Tokenizer

from common.data.encoding import Layout, encode, input_limit, load_tokenizer
from common.data.split import Split
from common.declare.rows import Row
from common.declare.spec import TaskSpec
from common.declare.tasks import TASK_NAMES, TASKS
from common.errors import StudyError
from common.files import replace_folder
from common.model.bert import BertModel
from common.model.heads import MultitaskModel
from common.model.weights import TOKENIZER_FILES, WEIGHT_FILE, file_sha256
from common.runs.progress import terminal
from common.runs.record import Record
from common.runs.store import RECORD, read_checked, sealed, to_json
from common.seeding import stateless_generator
from common.training import evaluate
from common.training.checkpoint import tensors_below
from common.training.pretrain import config_json

if TYPE_CHECKING:  # it imports this file
    from common.runs.session import Planned, Study

HEADS, CARD = "heads.safetensors", "README.md"


def save(folder: Path, model: MultitaskModel, record: dict, encoder: Path) -> None:
    """Keep a trained model in that folder, in place of what is there.

    Args:
        folder: its place.
        model: with the weights of the best epoch.
        record: of its run, as it is stored.
        encoder: the folder that its tokenizer comes from.
    """
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    contents = {
        "config.json": config_json(model.encoder.config),
        WEIGHT_FILE: save_tensors(tensors_below(state, "encoder."), {"format": "pt"}),
        HEADS: save_tensors({name: tensor for name, tensor in state.items() if not name.startswith("encoder.")}),
        CARD: card(Record(record)).encode(),
    }
    contents |= {name: (encoder / name).read_bytes() for name in TOKENIZER_FILES if (encoder / name).is_file()}
    kept = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    replace_folder(folder, contents | {RECORD: to_json(sealed({**record, "kept": kept}))})


def kept_record(folder: Path) -> Record | None:
    """The record of the model in that folder; None where none is kept, or what is there is damaged."""
    try:
        record = Record(read_checked(folder / RECORD))
        is_sound = all(file_sha256(folder / name) == digest for name, digest in record["kept"].items())
    except (StudyError, OSError, KeyError):
        return None
    return record if is_sound else None


@dataclass(frozen=True, eq=False)
class KeptRun:
    """A model with its record and its tokenizer."""

    record: Record
    model: MultitaskModel
    tokenizer: Tokenizer

    def outputs(self, task: str, split: Split) -> np.ndarray:
        """What the head of the task gives for each example, (N, C) float32."""
        return evaluate.score(self.model, task, encode(split, self.tokenizer, Layout.of(self.record.spec.task(task))))


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """The model of a row with one seed; of a row of several runs all of them, each with the tasks that it trained."""

    name: str
    runs: tuple[KeptRun, ...]

    @property
    def by_task(self) -> dict[str, KeptRun]:
        """The run that answers each trained task."""
        return {task.name: run for run in self.runs for task in run.record.spec.trained_tasks}

    def predict(self, task: str, texts: Sequence[str] | Sequence[tuple[str, str]]) -> np.ndarray:
        """Answers to texts (sst, cfimdb) or to pairs of texts (para, sts).

        Returns:
            Classes: (N, C) probabilities. Paraphrase: (N,) the probability, or of a row that was not trained on
            probabilities the cosine that its threshold is for. Similarity: (N,) a score from 0 to 5, or of a row that
            was trained on the order of pairs alone its output as it is.

        Raises:
            StudyError: E-TASK for a task that the row did not train, E-TEXT for texts that do not fit it.
        """
        if task not in self.by_task:
            what, fix = f"{task!r} is no task that it trained.", f"Choose of {', '.join(self.by_task)}."
            raise StudyError("E-TASK", self.name, what, fix)
        run, columns = self.by_task[task], _columns(task, texts)
        split = Split(tuple(map(str, range(len(texts)))), columns, None)
        return answers(run.record.spec.task(task), run.outputs(task, split))


def answers(task: TaskSpec, outputs: np.ndarray) -> np.ndarray:
    """Outputs of a head (N, C) as probabilities or scores; see `TrainedModel.predict`."""
    if outputs.shape[1] > 1:
        return softmax(outputs.astype(np.float64), axis=1)
    if TASKS[task.name].kind != "score":
        return evaluate.positive_score(task, outputs)
    scores = outputs[:, 0].astype(np.float64)
    return np.clip(scores, TASKS[task.name].low, TASKS[task.name].high) if task.loss == "mse" else scores


def load(study: Study, name: str | Row, seed: int | None = None) -> TrainedModel:
    """The model of a row (with the study's first seed, or the given one) or of a stored run.

    It is trained first, with progress on the terminal, where no weights are kept.

    Raises:
        StudyError: no such row or run, one that trains nothing, or a training that failed.
    """
    plans = study.find(name, study.seeds[:1] if seed is None else (seed,))
    if not any(plan.applied.trained_tasks and plan.applied.epochs for plan in plans):
        what = "it trains nothing: there is no model of its own."
        raise StudyError("E-ROW", plans[0].row.id, what, "Choose a row that is trained, such as swissbert_pair.")
    return TrainedModel(plans[0].label, tuple(load_runs(study, plans)))


def load_runs(study: Study, plans: Sequence[Planned]) -> list[KeptRun]:
    """The models of these runs, trained first where no weights are kept."""
    study.keep(plans)
    runs = [_read(study.places.weights / plan.run_id, study.profile.device) for plan in plans]
    for plan, run in zip(plans, runs, strict=True):
        if study.store.has(plan.run_id) and study.store.get(plan.run_id)["files"] != run.record["files"]:
            note = "the weights kept here do not give the stored scores to the last digit"
            print(f"{plan}: {note} (another machine, code or data).", file=terminal())
    return runs


def card(record: Record) -> str:
    """What a reader of the folder should know, in Markdown."""
    row, spec, counts = record["row"], record.spec, record["counts"]
    drawn = [f"{TASK_NAMES[name]} {number:,}" for name, number in counts["examples"].items() if number]
    scores = [f"- {TASK_NAMES[task.name]}: {told_score(record, task.name)}" for task in spec.trained_tasks]
    limits = [record.caveat] * bool(record.caveat)
    limits += ["Its dev scores were still rising when training ended."] * record["under_trained"]
    limits.append(f"It saw {100 * record['share']:.2g} % of the report's training, with one seed.")
    extra = " without its task-specific and shared layers" if spec.encoder.pals or _has_shared_layer(record) else ""
    return f"""# {record.name}

{row["label"]}, a model of the report {row["report"]}, trained again under the profile {record["profile"]}.
Run `{record.run_id}`; all of its settings and numbers are in `{RECORD}`.

- Encoder it started from: {spec.encoder.checkpoint}
- Trained on: {spec.data}; examples drawn: {", ".join(drawn) or "none"}
- Weights of: epoch {record["best_epoch"]} of {len(record["history"])}, the best by its dev scores

## Scores on dev

{chr(10).join(scores)}

## Limits

{chr(10).join(f"- {limit}" for limit in limits)}
- It answers what the three data sets ask, in English, and is a study's result, not a product.

## Use

`transformers.AutoModel.from_pretrained` loads this folder as an encoder{extra}.
For answers: `common.load("{row["id"]}", profile="{record["profile"]}", seed={record.seed}).predict(task, texts)`.
"""


def told_score(record: Record, task: str) -> str:
    """The dev score of a task in words, with its number of examples."""
    value, count = record.value(evaluate.METRIC_NAMES[task]), record["counts"]["scored"][task]
    measure = {"accuracy": "accuracy", "pearson": "Pearson's r"}[TASKS[task].metric]
    return f"{measure} {'undefined' if value is None else f'{value:.3f}'} ({count:,} examples)"


def _has_shared_layer(record: Record) -> bool:
    return any(task.shared_transformer for task in record.spec.tasks)


def _columns(task: str, texts: Sequence) -> tuple[tuple[str, ...], ...]:
    """The columns of a split; StudyError where one is no text or there are none."""
    width = len(TASKS[task].text_columns)
    examples = [(text,) if width == 1 else text for text in ([] if isinstance(texts, str) else texts)]
    fit = [
        isinstance(example, tuple | list) and len(example) == width and all(isinstance(t, str) for t in example)
        for example in examples
    ]
    if not all(fit) or not fit:
        wanted = "a list of texts" if width == 1 else "a list of pairs of texts"
        raise StudyError("E-TEXT", task, f"expected {wanted}, got {texts!r}.", "Give at least one.")
    if not all(text.strip() for example in examples for text in example):
        raise StudyError("E-TEXT", task, "a text is empty.", "Give every text at least one word.")
    return tuple(zip(*examples, strict=True))


def _read(folder: Path, device: str) -> KeptRun:
    record = kept_record(folder)
    encoder = BertModel.from_pretrained(folder)
    model = MultitaskModel(encoder, record.spec, stateless_generator(record.seed, "heads"))
    state = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    model.load_state_dict(state | load_file(folder / HEADS))
    tokenizer = load_tokenizer(folder, input_limit(encoder.config.max_position_embeddings))
    return KeptRun(record, model.to(device if torch.cuda.is_available() else "cpu").eval(), tokenizer)
