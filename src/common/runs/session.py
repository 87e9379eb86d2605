"""What a notebook holds: a study on one profile, which reads the runs it has and trains the ones it lacks.

    lab = study.open_study("quick")
    results = lab.run(study.rows("swissbert", "table2"))

Specs get the names of data and encoder, never paths. In report-only mode nothing is trained and neither data nor
encoder need be there; where they are, their hashes are compared with those in the records.
"""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from common import paths
from common.data import sources
from common.data.split import Split
from common.declare.profile import PROFILES, REPORT_TRAIN, Profile, profile_named
from common.declare.rows import Row, is_row, lookup, reports, row, rows
from common.declare.spec import RunSpec
from common.declare.strict import meant, to_dict
from common.declare.tasks import TASKS
from common.errors import StudyError
from common.files import refuse_without_locks
from common.model import weights
from common.paths import Places
from common.runs import check, combine, models
from common.runs.pool import Event, Job, Pool, default_jobs, local_pool
from common.runs.progress import Progress, terminal, told_failure
from common.runs.record import Record
from common.runs.store import RunStore
from common.training import loop
from common.training.evaluate import sample

if TYPE_CHECKING:  # an extra
    from common.runs.cluster import Cluster


@dataclass(frozen=True)
class Failure:
    """A run that is not there: why, and where its log is."""

    seed: int
    run_id: str
    message: str
    log: str | None


@dataclass(frozen=True)
class RowResult:
    """What one row came to: a record per seed, in order (see combine.py for rows of several runs or of none).

    coincides_with: an earlier row of the same call that is the same run under this profile.
    """

    row: Row
    records: tuple[Record, ...]
    failures: tuple[Failure, ...] = ()
    coincides_with: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", tuple(map(Record, self.records)))

    @property
    def runs(self) -> tuple[Record, ...]:
        """The records that are runs of their own, with arrays in the store."""
        return tuple(record for record in self.records if "parts" not in record)


class Results(dict[str, RowResult]):
    """Row id -> RowResult, in the order the rows were given."""

    def of(self, chosen: Iterable[str | Row]) -> Results:
        """Some of them in that order. A Row, such as one of a printed table, brings its label and its numbers."""
        return Results(
            (each, self[each]) if isinstance(each, str) else (each.id, replace(self[each.id], row=each))
            for each in chosen
        )

    def __or__(self, other: Mapping[str, RowResult]) -> Results:
        return Results({**self, **other})


@dataclass(frozen=True)
class Planned:
    """One run that a row asks for: as the report has it, and as this machine runs it."""

    row: Row
    written: RunSpec
    applied: RunSpec

    @property
    def run_id(self) -> str:
        return self.applied.run_id

    @property
    def label(self) -> str:
        return f"{self.row.id}, seed {self.applied.seed}"

    def __str__(self) -> str:
        return f"{self.label}: {self.run_id}"


@dataclass(frozen=True)
class Study:
    """One profile, its store, and what to train with.

    data and encoder are the names that go into specs, source and encoder_source what is loaded.
    """

    profile: Profile
    places: Places
    store: RunStore
    seeds: tuple[int, ...]
    data: str
    encoder: str
    report_only: bool
    jobs: int
    source: str | None
    encoder_source: str
    scheduler: str | None = None
    keep_weights: bool = False

    def __post_init__(self) -> None:
        if self.keep_weights and self.scheduler:
            fix = "Train the rows whose models you want on one machine, without --scheduler."
            raise StudyError("E-OPTION", "--keep-weights", "a cluster's workers give back records alone.", fix)

    def __str__(self) -> str:
        seeds, threads = ", ".join(map(str, self.seeds)), self.profile.threads or "all"
        parts = f"encoder {self.encoder}, data {self.data}, seeds {seeds}, threads per run {threads}"
        return f"profile {self.profile.name}: {parts}"

    def apply(self, spec: RunSpec, seed: int, exact: bool = False) -> RunSpec:
        """What this machine runs in place of the report's spec."""
        return self.profile.apply(replace(spec, seed=seed), self.data, self.encoder, exact)

    def corpus(self) -> sources.Corpus:
        """The data, read once; StudyError with every problem when it cannot be read."""
        if self.source is None:
            what = f"profile {self.profile.name} needs the {self.data} data."
            fix = "Give it: --data FOLDER (a CS224N data folder) or --data hub. --report-only reads what is stored."
            raise StudyError("E-DATA", "data", what, fix)
        return _corpus(self.source)

    def scored(self, task: str) -> Split:
        """The dev examples that final scores belong to, in the order of the stored predictions."""
        split = self.corpus()[task]["dev"]
        return split.take(sample(len(split), self.profile.final_examples, task))

    def encoder_folder(self) -> Path:
        """The folder of the encoder's files, fetched on first need."""
        return weights.resolve_encoder(self.encoder_source)

    def card(self, name: str, measure: Callable[[], dict]) -> dict:
        """A small measured fact, made where there is none or a damaged one; in report-only mode it must be there."""
        try:
            content = self.store.card(name)
        except StudyError as error:
            if self.report_only:
                raise
            print(f"{error.where} is damaged: {error.what} It is made again.", file=terminal())
            content = None
        if content is None:
            if self.report_only:
                fix = "Run the profile without --report-only once."
                raise StudyError("E-MISSING", f"cards/{name}.json", "there is no such card.", fix)
            self.store.write_card(name, measure())
        return self.store.card(name)

    def run(self, rows: Iterable[Row], seeds: Sequence[int] | None = None, force: bool = False) -> Results:
        """Read every run of these rows that the store holds, train the others, and hand all of them back.

        In report-only mode a damaged run is left out with its reason. force: train again what the store holds.

        Raises:
            StudyError: E-MISSING or E-STALE in report-only mode.
        """
        rows = list(rows)
        plans = self.plan(rows, seeds)
        for line in self._said_of_variants(plans):
            print(line)
        by_id = {plan.run_id: plan for plan in plans}
        events = self._left_out(by_id) if self.report_only else self.train(plans, force)
        failed = {run_id: event for run_id, event in events.items() if event["event"] in ("failed", "impossible")}
        records = self._read({run_id: plan for run_id, plan in by_id.items() if run_id not in failed})
        return self._results(rows, plans, records, failed)

    def plan(self, rows: Iterable[Row], seeds: Sequence[int] | None = None) -> list[Planned]:
        """Every run the rows ask for: row by row, seed by seed."""
        return [
            Planned(row, replace(spec, seed=seed), self.apply(spec, seed, row.exact))
            for row in rows
            for seed in (self.seeds if seeds is None else seeds)
            for spec in row.specs
        ]

    def find(self, name: str | Row, seeds: Sequence[int] | None = None) -> list[Planned]:
        """The runs of a row, given or named, seed by seed; or the stored run of that id.

        Raises:
            StudyError: E-MISSING for an unknown name, with one like it, or the profile that has the run; E-ROW for a
                row without a model; E-DATA for a run of another source or encoder.
        """
        if isinstance(name, Row) or is_row(name):
            chosen = row(name) if isinstance(name, str) else name
            if not chosen.specs:
                raise StudyError(
                    "E-ROW", chosen.id, "its answers are drawn at random: no model.", "Choose another row."
                )
            return self.plan([chosen], seeds)
        if name not in self.store.names():
            raise self._unknown(name)
        record = self.store.get(name)
        then, here = (record.spec.data, record.spec.encoder.checkpoint), (self.data, self.encoder)
        if then != here:
            what = f"its data and encoder were {' and '.join(then)}; here they are {' and '.join(here)}."
            raise StudyError("E-DATA", name, what, "Give --data and --encoder as they were for its training.")
        written = RunSpec.from_dict(record["written"], name)
        return [Planned(Row(**record["row"], table="", specs=(written,), base=None, reported={}), written, record.spec)]

    def _unknown(self, name: str) -> StudyError:
        ids = {profile: RunStore(paths.places(profile)).names() for profile in PROFILES}
        owner = next((profile for profile, known in ids.items() if name in known), None)
        what = f"profile {self.profile.name} holds no such run{f', profile {owner} does' if owner else ''}."
        known = [each.id for report in reports() for each in rows(report)] + ids[self.profile.name]
        listed = f"Name a row, such as swissbert_pair, or a folder in {self.places.runs}.{meant(name, known)}"
        return StudyError("E-MISSING", name, what, f"Add --profile {owner}." if owner else listed)

    def _said_of_variants(self, plans: list[Planned]) -> list[str]:
        """For each variant: what was asked, what runs in its place, and whether that is the run of another row."""
        lines = {}
        for plan in (plan for plan in plans if plan.row.asked):
            bases = self.plan([row(plan.row.base)] if is_row(plan.row.base) else [], [plan.applied.seed])
            twins = {p.row.id for p in [*plans, *bases] if p.run_id == plan.run_id} - {plan.row.id}
            fields = [(name, asked, lookup(plan.applied, name)) for name, asked in plan.row.asked]
            told = ", ".join(f"{n} {asked!r}" + (f" -> {ran!r}" if ran != asked else "") for n, asked, ran in fields)
            line = f"{plan.row.id}: asked -> runs here: {told}."
            if twins:
                line += (
                    f" THE SAME RUN as {', '.join(sorted(twins))}: under this profile nothing of the change is left."
                )
            if any(ran != asked for _, asked, ran in fields) and not plan.row.exact:
                line += " variant(..., exact=True) runs what was asked."
            lines.setdefault(plan.row.id, line)
        return list(lines.values())

    def stale(self, record: Record) -> list[str]:
        """What the run was trained on that is here and differs: data sets, the encoder's weights, config, tokenizer."""
        data, encoder = _fingerprint(self.source) if self._has_data else {}, _encoder_hashes(self.encoder_source)
        changed = [name for name, digest in record["hashes"]["data"].items() if data.get(name, digest) != digest]
        return changed + [f"{self.encoder} ({name})" for name in encoder if record["hashes"].get(name) != encoder[name]]

    def refuse_stale(self, records: Iterable[Record]) -> None:
        """Raise StudyError naming the runs that were trained on other data or weights than those here."""
        changed = [(record, self.stale(record)) for record in records]
        problems = tuple(f"{r.name}: {r.run_id} ({', '.join(names)})" for r, names in changed if names)
        if problems:
            what = f"{len(problems)} of {len(changed)} runs were trained on other data or weights than those here."
            raise StudyError("E-STALE", "report-only", what, f"Train them again: {self._command()}", problems)

    def jobs_for(self, plans: Iterable[Planned], force: bool = False) -> list[Job]:
        """Jobs for what the store lacks, for what is damaged or was trained on other data; with force for all."""
        jobs = []
        for run_id, plan in {plan.run_id: plan for plan in plans}.items():
            if not self._is_sound(plan) or force:
                jobs.append(self._job(plan, force))
            elif changed := self.stale(self.store.get(run_id)):
                names = ", ".join(changed)
                print(f"{plan} was trained on other contents of {names}: training it again.", file=terminal())
                jobs.append(self._job(plan, force=True))
            elif self.lacks_weights(run_id):
                jobs.append(self._job(plan, force))
        return jobs

    def lacks_weights(self, run_id: str) -> bool:
        """Whether the run's model is wanted and not kept, or was trained on other contents than those here."""
        kept = models.kept_record(self.places.weights / run_id) if self.keep_weights else None
        return self.keep_weights and (kept is None or bool(self.stale(kept)))

    def keep(self, plans: Iterable[Planned]) -> None:
        """Train those of these runs whose models are not kept, and keep them; what the store holds of them stays.

        Raises:
            StudyError: E-FAILED where one cannot be trained; E-MISSING in report-only mode.
        """
        study = replace(self, keep_weights=True)
        missing = {plan.run_id: plan for plan in plans if study.lacks_weights(plan.run_id)}
        for plan in missing.values():
            if self.report_only:
                raise StudyError("E-MISSING", plan.label, "no weights of it are kept.", "Leave report-only mode.")
            print(f"Training {plan}, of which no weights are kept.", file=terminal(), flush=True)
        for run_id, event in study._train(
            missing, [study._job(plan, force=False) for plan in missing.values()]
        ).items():
            if event["event"] == "failed":
                raise StudyError("E-FAILED", missing[run_id].label, event["message"], f"Log: {event['log'] or 'none'}")

    def _is_sound(self, plan: Planned) -> bool:
        """Whether the store holds the run; a damaged one is set aside."""
        if not self.store.present(plan.run_id):
            return False
        lock = self.store.try_lock(plan.run_id)
        if lock is None:  # another process writes it just now
            return False
        with lock:
            damage = self.store.damage(plan.run_id)
            if damage:
                aside = self.store.set_aside(plan.run_id)
                print(f"{plan} is damaged. {damage} It is now {aside}; training it again.", file=terminal())
        return damage is None

    def _left_out(self, plans: dict[str, Planned]) -> dict[str, Event]:
        """Damaged runs as failures: a report trains nothing."""
        present = {run_id: plan for run_id, plan in plans.items() if self.store.present(run_id)}
        damages = {run_id: self.store.damage(run_id) for run_id in present}
        for run_id, damage in damages.items():
            if damage:
                print(f"{plans[run_id]} is damaged and left out. {damage}", file=terminal())
        missing = [plan for run_id, plan in plans.items() if run_id not in present]
        return self._impossible(missing) | {
            run_id: {"event": "failed", "message": f"damaged: {damage}", "log": None, "label": plans[run_id].label}
            for run_id, damage in damages.items()
            if damage
        }

    def _job(self, plan: Planned, force: bool) -> Job:
        return Job(
            run_id=plan.run_id,
            row={"id": plan.row.id, "label": plan.row.label, "report": plan.row.report},
            label=plan.label,
            spec=to_dict(plan.applied),
            written=to_dict(plan.written),
            profile=self.profile.name,
            data=self.source or self.data,
            encoder=self.encoder_source,
            examples=plan.applied.total_examples(REPORT_TRAIN),
            log=str(self.places.logs / f"{plan.run_id}.log"),
            encoders=str(self.places.encoders),
            checkpoint=str(self.places.checkpoints / plan.run_id),
            force=force,
            weights=str(self.places.weights / plan.run_id) if self.keep_weights else None,
        )

    def train(self, plans: Iterable[Planned], force: bool = False) -> dict[str, Event]:
        """Train what of these the store lacks; the last event (`finished` or `failed`) of each run that was asked for.

        Finished runs are in the store, whatever becomes of the others; one whose task the data lack is `impossible`.
        Progress is shown on the terminal and in logs/progress.log, in a notebook's outputs only what failed.
        """
        by_id = {plan.run_id: plan for plan in plans}
        return self._train(by_id, self.jobs_for(by_id.values(), force))

    def _train(self, by_id: dict[str, Planned], jobs: list[Job]) -> dict[str, Event]:
        if not jobs:
            return {}
        refuse_without_locks(self.places.locks)
        self.check(by_id[job.run_id] for job in jobs)
        impossible = self._impossible(by_id[job.run_id] for job in jobs)
        jobs = [job for job in jobs if job.run_id not in impossible]
        if impossible:
            rows = ", ".join(dict.fromkeys(by_id[run_id].row.id for run_id in impossible))
            what = f"the {self.data} data have not every task of {len(impossible)} runs"
            print(f"Left out, because {what}: {rows}.", file=terminal())
        progress = Progress(self.places.logs / "progress.log")
        try:
            events = self._workers().run(jobs, self.store, progress)
        except KeyboardInterrupt:
            print("Stopped. Finished runs are kept: run this again to go on.", file=progress.stream)
            raise
        finally:
            progress.close()
        if progress.stream is not sys.stderr:
            for run_id, event in events.items():
                if event["event"] == "failed":
                    print(told_failure(run_id, event), file=sys.stderr)
        return events | impossible

    def check(self, plans: Iterable[Planned]) -> None:
        """Refuse an encoder or data that would end or falsify these runs, and say what a reader should know of them."""
        notes = check.check_inputs(self.encoder_folder, self.corpus, [plan.applied for plan in plans])
        if terminal() is sys.stderr:  # kernels would say it again
            print(*notes, sep="\n", end="\n" * bool(notes), file=sys.stderr)

    def _impossible(self, plans: Iterable[Planned]) -> dict[str, Event]:
        """Runs whose tasks the data lack, each with its reason in place of an end."""
        tasks = self._tasks_here()
        lacks = [(plan, [task for task in plan.applied.tasks if task.name not in tasks]) for plan in plans]
        end = {"event": "impossible", "log": None}
        return {
            plan.run_id: end | {"message": f"the {self.data} data have no {names[0].name}", "label": plan.label}
            for plan, names in lacks
            if names
        }

    @property
    def _has_data(self) -> bool:
        """Whether the data can be read here; a report fetches nothing."""
        return bool(self.source) and not (self.data == "hub" and self.report_only)

    def _tasks_here(self) -> set[str]:
        """Tasks that the data hold: as read or, where they are not here, as the data card has them."""
        if self._has_data:
            return set(self.corpus())
        card = self.store.card("data")
        return set(card["counts"] if card else TASKS)

    def _workers(self) -> Pool | Cluster:
        """Who trains: this process's own pool, or the workers of a cluster."""
        if self.scheduler is None:
            return local_pool(self.jobs, self.profile.threads)
        try:
            from common.runs.cluster import Cluster, Origin
        except ModuleNotFoundError as error:
            fix = "Install it: pip install -e '.[cluster]'"
            raise StudyError("E-CLUSTER", "--scheduler", f"the package {error.name} is missing.", fix) from error
        hashes = weights.encoder_hashes(self.encoder_folder())
        origin = Origin(
            self.profile.name, self.source, self.encoder_source, _fingerprint(self.source), hashes, loop.code_hash()
        )
        return Cluster(self.scheduler, origin)

    def _read(self, wanted: dict[str, Planned]) -> dict[str, dict]:
        absent = [run_id for run_id in wanted if not self.store.present(run_id)]
        if absent:
            what = f"{len(absent)} of {len(wanted)} runs are not in the store of profile {self.profile.name}."
            whole = {plan.applied.seed for plan in wanted.values()} - {wanted[i].applied.seed for i in absent}
            shown = f", or show what is whole: --seeds {','.join(map(str, sorted(whole)))}" if whole else ""
            fix = f"Train them: {self._command()}{shown}"
            raise StudyError("E-MISSING", "report-only", what, fix, tuple(str(wanted[i]) for i in absent))
        records = {run_id: self.store.get(run_id) for run_id in wanted}
        if self.report_only:
            self.refuse_stale(records.values())
        return records

    def _results(self, rows: list[Row], plans: list[Planned], records: dict, failed: dict[str, Event]) -> Results:
        results, first_with = Results(), {}
        for each in rows:
            ids = {plan.run_id: plan.applied.seed for plan in plans if plan.row is each}
            first = first_with.setdefault(tuple(ids), each.id) if ids else each.id
            results[each.id] = RowResult(
                row=each,
                records=self._combined(each, [records[i] for i in ids if i in records]),
                failures=tuple(Failure(ids[i], i, failed[i]["message"], failed[i]["log"]) for i in ids if i in failed),
                coincides_with=None if first == each.id else first,
            )
        return results

    def _combined(self, row: Row, records: list[Record]) -> tuple[dict, ...]:
        """One record per seed; a row of several models needs all of them."""
        if row.combine == "random":
            return tuple(combine.random_answers(self, seed) for seed in self.seeds)
        if row.combine == "one":
            return tuple(records)
        by_seed: dict[int, list[dict]] = {}
        for record in records:
            by_seed.setdefault(record.seed, []).append(record)
        return tuple(combine.per_task(found) for found in by_seed.values() if len(found) == len(row.specs))

    def _command(self) -> str:
        """The command that trains what this study shows."""
        options = {"--profile": self.profile.name, "--seeds": ",".join(map(str, self.seeds))}
        if self.data != "embedded":
            options["--data"] = self.source or "FOLDER"
        if self.encoder != self.profile.encoder:
            options["--encoder"] = self.encoder_source
        return shlex.join(["./run_all.sh", *(word for option in options.items() for word in option)])


def open_study(
    profile: str | None = None,
    data: str | os.PathLike | None = None,
    encoder: str | os.PathLike | None = None,
    seeds: Sequence[int] | None = None,
    jobs: int | None = None,
    report_only: bool = False,
    scheduler: str | None = None,
    is_open: bool = False,
) -> Study:
    """Open a study.

    Args:
        profile: its name; None takes `STUDY_PROFILE` from the environment, or quick.
        data: embedded, hub, or a CS224N data folder; None takes the profile's.
        encoder: a known name, a folder or a hub id; None takes the profile's.
        seeds: None takes the profile's; with report_only those that are stored.
        jobs: runs at once; None takes what fits on the cores. Results do not depend on it.
        report_only: read records only; data and encoder need not be there.
        scheduler: train on the Dask cluster of that address, tls://host:port.
        is_open: take one without TLS as well, tcp://host:port, which whoever reaches its port commands.
    """
    chosen = profile_named(os.environ.get("STUDY_PROFILE", "quick") if profile is None else profile)
    places, encoder = paths.places(chosen.name), _encoder_source(str(chosen.encoder if encoder is None else encoder))
    source = str(data) if data is not None else ("embedded" if chosen.data == "embedded" else None)
    name = chosen.data if source is None else sources.name(source)
    if report_only and name == "cs224n" and not Path(source or "").is_dir():
        source = None  # the name is enough to find the records
    store = RunStore(places)
    if seeds is None:
        seeds = (report_only and _stored_seeds(store)) or chosen.seeds
    jobs = default_jobs(chosen.threads) if jobs is None else jobs
    _check_numbers(seeds, jobs)
    _check_address(scheduler, is_open)
    return Study(
        profile=chosen,
        places=places,
        store=store,
        seeds=tuple(seeds),
        data=name,
        encoder=weights.encoder_name(encoder),
        report_only=report_only,
        jobs=jobs,
        source=source,
        encoder_source=encoder,
        scheduler=scheduler,
    )


def _stored_seeds(store: RunStore) -> tuple[int, ...]:
    """The seeds that a report shows: all of which the store holds at least half as many runs as of the fullest one.

    A seed that one variant was tried with is not asked of every row.
    """
    counts = Counter(int(run_id.rpartition("-s")[2]) for run_id in store.names())
    return tuple(sorted(seed for seed, count in counts.items() if 2 * count >= max(counts.values())))


def _encoder_source(name: str) -> str:
    """What to load; a known name wins over a folder of that name, which is then ./name."""
    if not name.strip():
        fix = "Give a known name, a folder or a hub id, or leave it out."
        raise StudyError("E-ENCODER", "encoder", "is empty.", fix)
    if os.path.expanduser(name).startswith("~"):
        raise StudyError("E-ENCODER", name, "there is no such user.", "Give the folder in full.")
    return str(paths.ASSETS / name) if name in weights.SHIPPED and Path(name).is_dir() else name


def _check_address(address: str | None, is_open: bool) -> None:
    """Refuse the address of a scheduler whose port is open to whoever reaches it."""
    if address is None:
        return
    if not address.startswith(("tls://", "tcp://")):
        what = f"expected an address such as tls://host:8786, got {address!r}."
        raise StudyError("E-SCHEDULER", "scheduler", what, "See README, Several machines.")
    if address.startswith("tcp://") and not is_open:
        what = "whoever reaches the port of a scheduler without TLS can run anything as its owner."
        raise StudyError("E-SCHEDULER", "scheduler", what, "Use tls://, or say that you want it: --open-scheduler")


def _check_numbers(seeds: Sequence[int], jobs: int) -> None:
    are_seeds = isinstance(seeds, list | tuple) and all(type(seed) is int and 0 <= seed < 2**31 for seed in seeds)
    if not (are_seeds and 0 < len(set(seeds)) == len(seeds)):
        what = f"expected distinct whole numbers from 0, got {seeds!r}."
        raise StudyError("E-SEEDS", "seeds", what, "Write them as a list: [0, 1, 2].")
    if type(jobs) is not int or not 1 <= jobs <= 256:
        what = f"expected a number from 1 to 256, got {jobs!r}."
        raise StudyError("E-JOBS", "jobs", what, "Give the number of runs at once.")


@functools.cache
def _corpus(source: str) -> sources.Corpus:
    return sources.load(source)


@functools.cache
def _fingerprint(source: str) -> dict[str, str]:
    return sources.fingerprint(_corpus(source))


@functools.cache
def _encoder_hashes(encoder: str) -> dict[str, str]:
    """Hashes of the encoder's files where they are on this machine, else none; nothing is fetched for it."""
    has_minilm = encoder == "minilm-l6" and any(metadata.distributions(name=weights.MINILM_PACKAGE))
    if not (Path(encoder).is_dir() or encoder in weights.SHIPPED or has_minilm):
        return {}
    folder = weights.resolve_encoder(encoder)
    is_whole = all((folder / name).is_file() for name in (weights.WEIGHT_FILE, "config.json"))
    return weights.encoder_hashes(folder) if is_whole else {}  # what is missing, the check before training tells
