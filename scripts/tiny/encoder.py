"""Remakes the encoder shipped in src/common/assets/tiny-bert: `python scripts/tiny/encoder.py`, minutes on one core.

Its vocabulary is the words of the embedded corpus and of the reports' own example sentences, so that attention maps of
either can be read; the training is `common.training.pretrain.pretrain` on the base text, where the reports' words
never occur and keep their random start.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from common import paths
from common.data.synthetic import make_corpus, mlm_texts
from common.declare.rows import examples
from common.training.pretrain import PretrainConfig, make_tokenizer, new_model, pretrain, save


def vocabulary_texts(is_printed_in: bool = True) -> list[str]:
    """Every text of the embedded corpus and of the base text, and the sentences that reports print.

    Without the last: the vocabulary of the random encoder of `smoke`, whose attention nobody reads.
    """
    columns = [column for splits in make_corpus().values() for split in splits.values() for column in split.texts]
    printed = [example.texts for example in examples()] if is_printed_in else []
    return [text for texts in [*columns, *mlm_texts("base"), *printed] for text in texts]


def main() -> None:
    """Remake the shipped encoder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=paths.TINY_BERT, help="folder to write (default: the shipped one)")
    parser.add_argument("--steps", type=int, default=PretrainConfig.steps, help="updates; 0 writes random weights")
    options = parser.parse_args()
    torch.set_num_threads(1)  # sums in another order would give other weights
    config = PretrainConfig(steps=options.steps)
    tokenizer = make_tokenizer(vocabulary_texts())
    model = new_model(config, tokenizer.get_vocab_size())
    pretrain(model, mlm_texts("base", config.seed), tokenizer, config, _print_every(100))
    save(model, tokenizer, options.out)
    print(f"wrote {options.out}")


def _print_every(interval: int) -> Callable[[int, float, float], None]:
    """Print both losses, averaged over each `interval` steps."""
    recent: list[tuple[float, float]] = []

    def report(step: int, masked: float, following: float) -> None:
        recent.append((masked, following))
        if len(recent) == interval:
            means = [sum(column) / interval for column in zip(*recent, strict=True)]
            print(f"step {step + 1}: masked words {means[0]:.3f}, next sentence {means[1]:.3f} nats", flush=True)
            recent.clear()

    return report


if __name__ == "__main__":
    main()
