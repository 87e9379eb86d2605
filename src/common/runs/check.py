"""Before the first run: one look at encoder and data, and one message that lists everything wrong with either.

What is found here would otherwise end runs one by one, or, worse, change what they compute without a word.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Encoding, Tokenizer

from common.data.encoding import input_limit, load_tokenizer
from common.data.sources import Corpus
from common.data.split import Split
from common.declare.spec import RunSpec
from common.declare.tasks import TASKS, Task
from common.errors import StudyError
from common.model import weights
from common.model.bert import BertConfig, BertModel, config_of

# Far above every published BERT; a config beyond them would take all memory before anything else could be said.
LARGEST = {
    "vocab_size": 2**21,
    "hidden_size": 2**14,
    "num_hidden_layers": 2**8,
    "num_attention_heads": 2**10,
    "intermediate_size": 2**17,
    "max_position_embeddings": 2**17,
    "type_vocab_size": 2**10,
}
SHORTEST_INPUT = 8
# Fields of a config.json that change what a BERT computes, and that this code does not know.
UNKNOWN_FIELDS = ("is_decoder", "add_cross_attention", "pruned_heads", "quantization_config")
DROPPED = ("hidden_dropout_prob", "attention_probs_dropout_prob")
WRAPPERS = ("module.", "_orig_mod.", "0.auto_model.", "model.")
SAMPLE, OTHER, STRANGE = "a film", "two films", "\N{SNOWMAN} ſ漢"
FIX = "Mend what is listed, or name another encoder (--encoder) or other data (--data)."


def check_inputs(encoder: Callable[[], Path], corpus: Callable[[], Corpus], specs: Iterable[RunSpec]) -> list[str]:
    """Look at both before anything is trained; what a reader should know though it stops nothing.

    Raises:
        StudyError: E-ENCODER, E-DATA, or E-INPUT where both are at fault; one error of reading alone is raised as is.
    """
    errors, found = [], {"E-ENCODER": [], "E-DATA": []}
    for code, look in (
        ("E-ENCODER", lambda: encoder_problems(encoder(), list(specs))),
        ("E-DATA", lambda: data_problems(corpus())),
    ):
        try:
            found[code] = look()
        except StudyError as error:
            errors.append(error)
            found[code] = [f"{error.where}: {error.what} [{error.code}]", *error.problems]
    wrong = [code for code in found if found[code]]
    if errors and len(wrong) == 1:
        raise errors[0]
    if wrong:
        listed = tuple(problem for problems in found.values() for problem in problems)
        what = f"{len(listed)} thing{'s' if len(listed) > 1 else ''} would end or falsify runs; nothing was trained."
        raise StudyError(wrong[0] if len(wrong) == 1 else "E-INPUT", "before the first run", what, FIX, listed)
    return data_notes(corpus())


def encoder_problems(folder: Path, specs: list[RunSpec]) -> list[str]:
    """What of an encoder's folder these specs could not be trained with, or not as its authors meant it."""
    try:
        raw = weights.read_config(folder)
        config, problems = _config(folder, raw)
    except (StudyError, OSError, RecursionError) as error:
        config, problems = None, [f"{folder / 'config.json'}: {getattr(error, 'what', error)}"]
    if config is not None:
        problems += _weight_problems(folder, config)
    return problems + _tokenizer_problems(folder, config, specs)


def data_problems(corpus: Corpus) -> list[str]:
    """What of the data no model could be trained or scored on."""
    splits = [(TASKS[task], name, split) for task, parts in corpus.items() for name, split in parts.items()]
    return [
        f"{task.name} {name}: {problem}"
        for task, name, split in splits
        if name in ("train", "dev")
        for problem in _label_problems(task, name, split)
    ]


def data_notes(corpus: Corpus) -> list[str]:
    """Texts that train and dev share, texts whose labels disagree, and classes of dev that train lacks."""
    notes = []
    for task, parts in corpus.items():
        train, dev = parts["train"], parts["dev"]
        known: dict[tuple[str, ...], set[float]] = {}
        for text, label in zip(zip(*train.texts, strict=True), train.labels.tolist(), strict=True):
            known.setdefault(text, set()).add(label)
        shared = sum(text in known for text in zip(*dev.texts, strict=True))
        torn = sum(len(labels) > 1 for labels in known.values())
        unseen = sorted(set(dev.labels.tolist()) - set(train.labels.tolist())) if TASKS[task].num_classes else []
        told = {
            f"{shared} of {len(dev):,} dev examples stand in train too": shared,
            f"{torn} texts of train have labels that disagree": torn,
            f"train has no example of {', '.join(map(str, unseen))}, dev has": unseen,
        }
        notes += [f"Note on {task}: {note}." for note, is_so in told.items() if is_so]
    return notes


def _config(folder: Path, raw: object) -> tuple[BertConfig | None, list[str]]:
    """The config, None where it cannot be judged by, and what is wrong with it."""
    path = folder / "config.json"
    if not isinstance(raw, dict):
        return None, [f"{path}: holds no object."]
    problems = [
        f"{path}: {name} is {str(raw[name])[:40]}, expected a whole number from 1 to {limit}."
        for name, limit in LARGEST.items()
        if name in raw and not (type(raw[name]) is int and 1 <= raw[name] <= limit)
    ]
    problems += [f"{path}: {name} is set, and this code does not do that." for name in UNKNOWN_FIELDS if raw.get(name)]
    for name in ("layer_norm_eps", *DROPPED):
        value = raw.get(name, 0.5)
        if type(value) not in (int, float) or not 0 <= value < 1 or (value == 0 and name not in DROPPED):
            problems.append(f"{path}: {name} is {str(value)[:40]}, expected a number below 1.")
    try:
        config = config_of(folder)
    except StudyError as error:
        return None, [*problems, f"{path}: {error.what}"]
    if not problems and config.hidden_size % config.num_attention_heads:
        problems.append(f"{path}: {config.num_attention_heads} heads do not share {config.hidden_size} evenly.")
    if not problems and input_limit(config.max_position_embeddings) < SHORTEST_INPUT:
        problems.append(f"{path}: max_position_embeddings is below {SHORTEST_INPUT}.")
    return (None, problems) if problems else (config, [])


def _weight_problems(folder: Path, config: BertConfig) -> list[str]:
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in BertModel(config).state_dict().items()}
    path = folder / weights.WEIGHT_FILE
    try:
        state = weights.read_state(folder, shapes)
    except StudyError as error:
        return [f"{path}: {error.what} {_hint(folder, error)}".strip(), *error.problems[:3]]
    except OSError as error:
        return [f"{path}: cannot be read ({error.strerror or error})."]
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    return [f"{path}: not every number of {name} is finite." for name in broken[:3]]


def _hint(folder: Path, error: StudyError) -> str:
    """What the names in a weights file tell of how it was saved."""
    if (folder / f"{weights.WEIGHT_FILE}.index.json").is_file():
        return "It is in several shards: save it in one file."
    if error.problems and all(problem.startswith("pooler.") for problem in error.problems):
        return "It was saved without its pooler (as masked-language models are): save it with one."
    try:
        with safe_open(folder / weights.WEIGHT_FILE, "pt") as file:
            names = list(file.keys())
    except (SafetensorError, OSError):
        return ""
    found = next((prefix for prefix in WRAPPERS if any(name.startswith(prefix) for name in names)), None)
    return f"Its names begin with {found!r}: save the model without what wraps it." if found else ""


def _tokenizer_problems(folder: Path, config: BertConfig | None, specs: list[RunSpec]) -> list[str]:
    where = f"{folder}: the tokenizer"
    try:
        tokenizer = load_tokenizer(folder, input_limit(config.max_position_embeddings) if config else SHORTEST_INPUT)
        one, pair = tokenizer.encode(SAMPLE), tokenizer.encode(SAMPLE, OTHER)
        tokenizer.encode(STRANGE)
    except StudyError as error:
        return [f"{where}: {error.what}"]
    except Exception as error:  # the library raises nothing more special
        return [f"{where} cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}."]
    problems = _form_problems(one, pair) + _case_problems(folder, tokenizer)
    if config is not None:
        highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
        if highest >= config.vocab_size:
            problems.append(f"has ids up to {highest}, the encoder embeds {config.vocab_size} of them.")
        has_pairs = any(task.pair_method == "pair" and task.segments for spec in specs for task in spec.tasks)
        if has_pairs and config.type_vocab_size < 2:
            problems.append("marks the second sentence of a pair, and the encoder has one segment only.")
    return [f"{where} {problem}" for problem in problems]


def _form_problems(one: Encoding, pair: Encoding) -> list[str]:
    """BERT reads [CLS] text [SEP], and [CLS] text [SEP] text [SEP] with segments 0 and 1, whatever the names are."""
    inner = pair.type_ids.count(0) - 1
    first, last = one.ids[:1], one.ids[-1:]
    is_one = len(one.ids) > 2 and first != last and not any(one.type_ids) and _special(one) == [0, len(one.ids) - 1]
    is_pair = pair.type_ids == sorted(pair.type_ids) and _special(pair) == [0, inner, len(pair.ids) - 1]
    is_pair = is_pair and [pair.ids[i] for i in (0, inner, -1)] == [*first, *last, *last]
    wrong = [f"makes {' '.join(one.tokens)!r} of one text, not [CLS] text [SEP]."] * (not is_one)
    what = f"makes {' '.join(pair.tokens)!r} of a pair, not [CLS] text [SEP] text [SEP] with segments 0 and 1."
    return wrong + [what] * (not is_pair)


def _special(encoding: Encoding) -> list[int]:
    return [place for place, is_special in enumerate(encoding.special_tokens_mask) if is_special]


def _case_problems(folder: Path, tokenizer: Tokenizer) -> list[str]:
    """Letters are kept, or made small, as the tokenizer's own settings ask for."""
    path = folder / "tokenizer_config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        asked = settings.get("do_lower_case")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        return [f"has a tokenizer_config.json that cannot be read ({type(error).__name__})."]
    lowers = tokenizer.normalizer is not None and tokenizer.normalizer.normalize_str("A") == "a"
    if asked is None or bool(asked) == lowers:
        return []
    return [f"{'makes' if lowers else 'does not make'} letters small, and its settings say do_lower_case: {asked}."]


def _label_problems(task: Task, name: str, split: Split) -> list[str]:
    if split.labels is None:
        return ["no example has a label."]
    if task.kind == "score" and len(split) < 2:
        return ["one example has no correlation."]
    if name == "train" and len(np.unique(split.labels)) < 2:
        return [f"all {len(split)} labels are {split.labels[0]}: there is nothing to learn."]
    if name == "train" and task.kind == "score" and split.labels.max() <= 1 < task.high:
        return [f"no score is above {split.labels.max():g}: the scale looks like 0 to 1, expected 0 to {task.high:g}."]
    return []
