"""The one exception a user sees: what is wrong, where, and what to do about it."""

from __future__ import annotations

MAX_PROBLEMS = 20
# Exit codes of commands.
DONE, INPUT, ENVIRONMENT, FAILED = 0, 2, 3, 4
CODES = dict.fromkeys(("E-WRITE", "E-DISK", "E-LOCK", "E-HUB", "E-CLUSTER"), ENVIRONMENT) | {"E-FAILED": FAILED}


class StudyError(Exception):
    """An input or environment problem with its place and remedy.

    Args:
        code: short stable name, such as `E-COLUMN`; tests and scripts match on it.
        where: file with line and column, field of a spec, or name of a run.
        what: what was expected and what was found.
        fix: what the reader can do next.
        problems: all problems of one input, when there are several (the first 20 are shown).
    """

    def __init__(self, code: str, where: str, what: str, fix: str, problems: tuple[str, ...] = ()):
        self.code, self.where, self.what, self.fix = code, str(where), what, fix
        self.problems = tuple(problems)
        super().__init__(self.message())

    def message(self) -> str:
        """One line, followed by up to 20 problems, one a line."""
        lines = [f"{self.where}: {self.what} [{self.code}] {self.fix}"]
        lines += [f"  {problem}" for problem in self.problems[:MAX_PROBLEMS]]
        if len(self.problems) > MAX_PROBLEMS:
            lines.append(f"  and {len(self.problems) - MAX_PROBLEMS} more")
        return "\n".join(lines)

    @property
    def exit_code(self) -> int:
        """What a command that ends with this error returns."""
        return CODES.get(self.code, INPUT)

    def __reduce__(self):
        # Keeps the fields when the error crosses a process boundary.
        return StudyError, (self.code, self.where, self.what, self.fix, self.problems)
