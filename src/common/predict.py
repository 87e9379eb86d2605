"""What a row's model answers to texts of one's own: python -m common.predict ROW "text" ["text"].

`common.load` gives the model itself. Both train it first where no weights of it are kept.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from common.cli import Parser
from common.declare.tasks import CLASS_NAMES, TASKS
from common.errors import DONE, StudyError

if TYPE_CHECKING:  # torch takes seconds: help and refusals need none
    from common.declare.rows import Row
    from common.declare.spec import TaskSpec
    from common.runs.models import TrainedModel
    from common.runs.session import Study

EPILOG = """\
examples:
  python -m common.predict swissbert_pair "a fine film"                             sentiment
  python -m common.predict swissbert_pair "A dog runs." "A cat sits."               paraphrase and similarity
  python -m common.predict gu_final "a fine film" --profile cpu --data ~/cs224n     real data, a small real encoder

exit codes: 0 answered, 2 input refused, 3 environment, 4 the training failed, 130 stopped
"""


def load(
    name: str | Row,
    profile: str | None = None,
    seed: int | None = None,
    data: str | None = None,
    encoder: str | None = None,
) -> TrainedModel:
    """The trained model of a row, or of a stored run by its id; `.predict(task, texts)` gives its answers.

    It is trained first, with progress on the terminal, where no weights of it are kept.

    Args:
        name: a row or its id, such as swissbert_pair, or a run's id.
        profile, data, encoder: as for `open_study`.
        seed: None is the profile's first.
    """
    from common.runs import models

    return models.load(_study(profile, seed, data, encoder), name)


def main(arguments: list[str] | None = None) -> int:
    """Answer the command line; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _check_texts(options.texts)
        study = _study(options.profile, options.seed, options.data, options.encoder)
        print("\n".join(_answers(study, options.name, options.texts)))
    except StudyError as error:
        print(error.message(), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:  # what that means has been said
        return 130
    return DONE


def _parser() -> argparse.ArgumentParser:
    about = (
        "Ask a row's model: one text for its sentiment, two for paraphrase and similarity. It is trained first where\n"
    )
    options = Parser(
        prog="python -m common.predict",
        description=f"{about}no weights of it are kept; ./run_all.sh --keep-weights keeps those of all rows.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = options.add_argument
    add("name", metavar="ROW", help="a row of a report, such as swissbert_pair, or the id of a stored run")
    add("texts", metavar="TEXT", nargs="*", help="one text or two")
    add("--profile", help="as for run_all.sh (default quick)")
    add("--seed", type=int, metavar="N", help="default: the profile's first")
    add("--data", help="as for run_all.sh; needed where the model must be trained, and for hub")
    add("--encoder", help="as for run_all.sh")
    return options


def _study(profile: str | None, seed: int | None, data: str | None, encoder: str | None) -> Study:
    from common.runs.session import open_study

    folder = os.path.expanduser(data) if data else data
    return open_study(profile, folder, encoder, None if seed is None else [seed])


def _check_texts(texts: list[str]) -> None:
    if not 1 <= len(texts) <= 2:
        what = f"expected one text or two, got {len(texts) or 'none'}."
        raise StudyError("E-TEXT", "TEXT", what, 'Put each in quotes: swissbert_pair "A dog runs." "A cat sits."')
    if not all(text.strip() for text in texts):
        raise StudyError("E-TEXT", "TEXT", "a text is empty.", "Give every text at least one word.")


def _answers(study: Study, name: str, texts: list[str]) -> list[str]:
    """Lines that say who answers, what, and what that means."""
    from common.runs import models

    def fits(task: str) -> bool:
        return len(TASKS[task].text_columns) == len(texts)

    trained = [task.name for plan in study.find(name, study.seeds[:1]) for task in plan.applied.trained_tasks]
    if trained and not any(map(fits, trained)):
        what = f"it trained {', '.join(trained)} alone, which take {3 - len(texts)} text(s), not {len(texts)}."
        raise StudyError("E-TEXT", name, what, "Give that many, or choose another row.")
    model = models.load(study, name)
    lines = [f"{model.name}, profile {study.profile.name}"]
    for task, run in model.by_task.items():
        if fits(task):
            answer = model.predict(task, [texts[0] if len(texts) == 1 else tuple(texts)])[0]
            score = models.told_score(run.record, task)
            lines += ["", *_told(run.record.spec.task(task), answer), f"  On dev: {score}."]
    caveats = dict.fromkeys(run.record.caveat for run in model.runs if run.record.caveat)
    return lines + ["", *caveats] * bool(caveats)


def _told(task: TaskSpec, answer) -> list[str]:
    """The answer, and a sentence on what it means."""
    if task.name in ("sst", "cfimdb"):
        names = CLASS_NAMES[task.name]
        shares = ", ".join(f"{name} {share:.3f}" for name, share in zip(names, answer, strict=True))
        likeliest = names[answer.argmax()]
        return [f"sentiment ({task.name}): {shares}", f"  The model takes it for {likeliest}; these are probabilities."]
    if task.name == "para":
        kind = "probability" if task.loss == "bce" else "cosine (no probability)"
        verdict = "the same question" if answer > task.threshold else "two questions"
        reason = f"it says so where the {kind.split()[0]} exceeds {task.threshold}"
        return [f"paraphrase: {kind} {answer:.3f}", f"  The model takes them for {verdict}; {reason}."]
    if task.loss == "mse":
        meaning = "From 0, nothing in common, to 5, the same meaning."
        return [f"similarity: {answer:.2f} of 5", f"  {meaning}"]
    meaning = "Trained on the order of pairs alone: a higher number means more alike, on no scale."
    return [f"similarity: {answer:.3f}", f"  {meaning}"]


if __name__ == "__main__":
    sys.exit(main())
