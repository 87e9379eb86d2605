"""The command line of run_all.sh. Its help needs no package: run_all.sh calls this file before it installs anything.

runner.py parses with the same parser, so that help and behaviour cannot differ. Any Python 3.8 or newer can run this.
"""

from __future__ import annotations

import argparse
import difflib

DESCRIPTION = """\
Trains every row that the notebooks announce and that results/ does not hold yet, then writes executed notebooks,
tables, figures and a page that shows them to results/ and figures/. A call that was stopped is simply repeated.
"""
EPILOG = """\
examples:
  ./run_all.sh                               every notebook, in minutes: a tiny encoder on a made-up corpus
  ./run_all.sh --dry-run                     what that would train, and how long it may take
  ./run_all.sh --profile cpu --data ~/data   real data in the starter's format and a small real encoder
  ./run_all.sh --only 03,05 --seeds 0,1,2    two notebooks, three seeds
  ./run_all.sh --report-only                 notebooks, tables and figures again, from the records
  ./run_all.sh --verify                      whether what is published is what the records make

what this machine has and lacks: python3 src/common/doctor.py

exit codes: 0 done, 2 input refused, 3 environment, 4 a run or a notebook failed (--verify: a file differs),
129, 130, 141 and 143 stopped
"""


def parser() -> argparse.ArgumentParser:
    """What run_all.sh accepts."""
    options = Parser(
        prog="run_all.sh",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = options.add_argument
    add("--profile", help="what the machine can afford: smoke, quick, cpu, gpu, paper (default quick)")
    add("--data", help="embedded, hub, or a CS224N data folder (default: the profile's)")
    add("--encoder", help="a known name, a folder, or a hub id (default: the profile's)")
    add("--only", type=_words, metavar="00,02", help="notebooks by number or name (default: all)")
    add("--seeds", type=_seeds, metavar="0,1,2", help="seeds to show (default: the profile's; of a report, the stored)")
    add("--jobs", type=_jobs, metavar="N", help="runs at once (default: cores over threads per run)")
    add("--scheduler", metavar="ADDRESS", help="train on a Dask cluster, such as tls://host:8786 (README says how)")
    add("--open-scheduler", action="store_true", help="take a tcp:// address too, which whoever reaches it commands")
    add("--report-only", action="store_true", help="train nothing: notebooks, tables and figures from the records")
    add("--verify", action="store_true", help="make all files again elsewhere, and name those that differ")
    add("--dry-run", action="store_true", help="check the input, list what would be trained and how long it may take")
    add("--force", action="store_true", help="train again what the store already holds")
    add(
        "--keep-weights",
        action="store_true",
        help="keep each run's best model in build/<profile>/weights (the size of its encoder)",
    )
    add(
        "--export-predictions",
        metavar="ROW",
        help="only write leaderboard files: of a row's seeds, or of a run by its id",
    )
    return options


class Parser(argparse.ArgumentParser):
    """One that offers the nearest option for a wrong one."""

    def error(self, message: str) -> None:
        known = [name for action in self._actions for name in action.option_strings]
        wrong = {word.partition("=")[0].rstrip(":") for word in message.split() if word.startswith("-")} - {*known}
        close = [match for word in wrong for match in difflib.get_close_matches(word, known, n=1)]
        super().error(message + (f" (did you mean {close[0]}?)" if close else ""))


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise argparse.ArgumentTypeError(f"expected numbers or names such as 00,02, got {text!r}")
    return words


def _seeds(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words) or len({*map(int, words)}) < len(words):
        raise argparse.ArgumentTypeError(f"expected different whole numbers from 0 such as 0,1,2, got {text!r}")
    return [int(word) for word in words]


def _jobs(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    parser().parse_args()
