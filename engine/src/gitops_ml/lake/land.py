"""Landing: every item of a source becomes partitions, or stays as it landed, or is quarantined."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

import polars as pl

from gitops_ml.core.file_hash import sha256_of
from gitops_ml.core.landed import (
    Landing,
    Partition,
    has_manifest,
    is_of_the_lake,
    newest_landings,
)
from gitops_ml.lake import partition, quarantine
from gitops_ml.lake.errors import LakeError, UnfitError
from gitops_ml.lake.store import Store, VersionTakenError, WriteTable, opened
from gitops_ml.lake.upstream import DATA_SUFFIXES, Fetched, Item

ATTEMPTS = 10


@dataclass(frozen=True)
class Tables:
    """How this project reads, checks and writes a table; the schema's business, not the lake's.

    Attributes:
        read: A file in the schema's types: given the file, what to call it, and whether it came
            from a database. Raises UnfitError if its columns cannot be that.
        check: Raises UnfitError if the rows of a partition break the schema; given them and what to
            call them.
        write: See Store.
        layout: Hash of what decides how rows are kept: another one lands everything anew.
    """

    read: Callable[[Path, str, bool], pl.DataFrame]
    check: Callable[[pl.DataFrame, str], None]
    write: WriteTable
    layout: str


@dataclass(frozen=True)
class Rules:
    """How rows are cut, and what is asked for.

    Attributes:
        time: The column that dates a row.
        period: How long a partition is.
        order: By which columns rows of a database are sorted; all of them if empty.
        take_over: What another source has landed under the same name may be superseded.
        again: What has not changed upstream is read all the same.
    """

    time: str | None
    period: partition.Period
    order: tuple[str, ...] = ()
    take_over: bool = False
    again: bool = False


@dataclass
class Outcome:
    """What came of a landing, in words.

    Attributes:
        landed: What is new, one line for each item or period.
        unchanged: How many items have landed before.
        bad: What is not fit, and where it is kept.
        newest: The time of the newest row that came.
    """

    landed: list[str] = field(default_factory=list)
    unchanged: int = 0
    bad: list[str] = field(default_factory=list)
    newest: datetime | None = None


@dataclass(frozen=True)
class _Cut:
    """An item's rows by period, those that fit and those that do not."""

    fit: Mapping[str | None, pl.DataFrame]
    unfit: Mapping[str | None, UnfitError]
    rows: Mapping[str | None, pl.DataFrame]


def land(
    folder: Path, items: Sequence[Item], tables: Tables, rules: Rules, outcome: Outcome
) -> None:
    """Land what is new of some items.

    Args:
        folder: Of the landed files.
        items: What there is upstream.
        tables: Read, check and write.
        rules: How rows are cut.
        outcome: What came of it is added here, so that it is known also after an error.

    Raises:
        LakeError: If the source or the folder fails; what landed before stays.
    """
    with opened(folder, tables.write) as store:
        if store.mended:
            outcome.landed.append(
                f"{folder}: removed {_count(store.mended, 'file')} that counted for nothing: "
                "left by a landing that was stopped, or superseded"
            )
        landings = newest_landings(folder)
        # Only what is read needs them, and it takes a while to hash what a folder holds.
        by_hand = cache(lambda: _hashes_of_hand_put(folder))
        claimed: dict[str, str] = {}
        for item in items:
            try:
                rival = claimed.setdefault(item.name, item.source)
                if rival != item.source:
                    raise UnfitError([_two_claims(item.source, item.name, rival)])
                _land_item(store, item, tables, rules, landings, by_hand, outcome)
            except UnfitError as error:
                outcome.bad += error.lines


def _land_item(
    store: Store,
    item: Item,
    tables: Tables,
    rules: Rules,
    landings: Mapping[str, Landing],
    by_hand: Callable[[], Collection[str]],
    outcome: Outcome,
) -> None:
    name, known = _known(landings, item, rules)
    if known is not None and item.since is not None and known.layout != tables.layout:
        raise LakeError(
            f"{item.source}: schema.yaml or `data.partition` has changed since it landed: "
            "land all of it once, without SINCE"
        )
    settled = _settled(known, item, tables, rules)
    if known is not None and settled and item.validator and item.validator == known.validator:
        outcome.unchanged += 1
        return
    with tempfile.TemporaryDirectory(dir=store.staging) as place:
        validator = known.validator if known is not None and settled else None
        try:
            fetched = item.fetch(Path(place), validator)
        except UnfitError as error:
            raise _quarantined(_any_file(Path(place)), name, None, item.source, error) from error
        if fetched is None:
            outcome.unchanged += 1
            return
        digest = None if item.from_database else sha256_of(fetched.path)
        if digest is not None and digest in by_hand():
            outcome.unchanged += 1
            return
        if known is not None and settled and digest is not None and digest == known.sha256:
            quarantine.forget(name, [])
            outcome.unchanged += 1
            return
        try:
            rows = tables.read(fetched.path, item.source, item.from_database)
        except UnfitError as error:
            raise _quarantined(fetched.path, name, None, item.source, error) from error
        if item.from_database:
            rows = rows.sort(rules.order or rows.columns, nulls_last=True, maintain_order=True)
        found = _cut(rows, tables, rules, item.source)
        _commit(store, item, tables, rules, found, fetched, digest, outcome)
        _keep_unfit(store, name, item, found, outcome)


def _known(landings: Mapping[str, Landing], item: Item, rules: Rules) -> tuple[str, Landing | None]:
    """The name under which an item lands, and how it landed last.

    Raises:
        UnfitError: If another source has landed under its name.
    """
    for landing in landings.values():
        if landing.source == item.source:
            return landing.name, landing
    known = landings.get(item.name)
    if known is not None and not rules.take_over:
        raise UnfitError([_two_claims(item.source, item.name, known.source)])
    return item.name, known


def _two_claims(source: str, name: str, rival: str) -> str:
    return (
        f"{source}: would land as `{name}`, which is {rival} already; land it under another name "
        "with NAMED=name, or, if the source has moved, with TAKE_OVER=1"
    )


def _settled(known: Landing | None, item: Item, tables: Tables, rules: Rules) -> bool:
    """Whether an item need not be read again as long as it is the same upstream."""
    return (
        known is not None
        and known.source == item.source
        and known.layout == tables.layout
        and not known.quarantined
        and not rules.again
        and item.since is None
    )


def _cut(rows: pl.DataFrame, tables: Tables, rules: Rules, source: str) -> _Cut:
    parts = partition.cut(rows, rules.time, rules.period)
    unfit: dict[str | None, UnfitError] = {}
    for period, part in parts.items():
        try:
            tables.check(part, source if period is None else f"{source}, {period}")
        except UnfitError as error:
            unfit[period] = error
    fit = {period: part for period, part in parts.items() if period not in unfit}
    return _Cut(fit, unfit, parts)


def _commit(
    store: Store,
    item: Item,
    tables: Tables,
    rules: Rules,
    found: _Cut,
    fetched: Fetched,
    digest: str | None,
    outcome: Outcome,
) -> None:
    """Write the partitions that fit and let them count, on top of whatever landed last."""
    for _ in range(ATTEMPTS):
        before = newest_landings(store.folder)
        name, known = _known(before, item, rules)
        partitions = [
            _partition(store, rows, name, period, rules) for period, rows in found.fit.items()
        ]
        partitions += _kept(known, item, found, rules)
        landing = Landing(
            name=name,
            version=known.version + 1 if known else 1,
            source=item.source,
            sha256=digest,
            validator=fetched.validator,
            layout=tables.layout,
            landed_at=datetime.now(UTC).replace(microsecond=0),
            engine=version("gitops-ml"),
            quarantined=tuple(sorted(period or "all" for period in found.unfit)),
            partitions=tuple(sorted(partitions, key=lambda part: part.file)),
        )
        if _says_the_same(landing, known):
            outcome.unchanged += not found.unfit
            return
        if not landing.partitions and known is None:
            return
        try:
            store.commit(landing)
        except VersionTakenError:
            continue
        outcome.landed += _told(landing, known, before)
        times = [part.latest for part in landing.partitions if part.latest is not None]
        outcome.newest = max([*times, *([outcome.newest] if outcome.newest else [])], default=None)
        return
    raise LakeError(f"{item.source}: other landings got in the way {ATTEMPTS} times; land again")


def _says_the_same(landing: Landing, known: Landing | None) -> bool:
    """Whether nothing would be gained by writing a landing down."""
    return known is not None and (
        landing.partitions == known.partitions
        and landing.quarantined == known.quarantined
        and landing.layout == known.layout
        and landing.source == known.source
    )


def _partition(
    store: Store, rows: pl.DataFrame, name: str, period: str | None, rules: Rules
) -> Partition:
    file, digest = store.add(rows, name, period)
    earliest, latest = partition.bounds(rows, rules.time)
    return Partition(
        file=file,
        period=period,
        rows=rows.height,
        earliest=earliest,
        latest=latest,
        sha256=digest,
    )


def _kept(known: Landing | None, item: Item, found: _Cut, rules: Rules) -> Iterator[Partition]:
    """What counts of the last landing: periods that were not read, or came unfit this time."""
    if known is None:
        return
    first = None if item.since is None else partition.label_of(item.since, rules.period)
    for part in known.partitions:
        before = first is not None and part.period is not None and part.period < first
        if part.period in found.unfit or before:
            yield part


def _keep_unfit(store: Store, name: str, item: Item, found: _Cut, outcome: Outcome) -> None:
    quarantine.forget(name, list(found.unfit))
    for period, error in found.unfit.items():
        file = store.staging / "unfit.parquet"
        store.write(found.rows[period], file)
        outcome.bad += _quarantined(file, name, period, item.source, error).lines


def _quarantined(
    file: Path | None, name: str, period: str | None, source: str, error: UnfitError
) -> UnfitError:
    """Keep a file that is not fit; the error says where it is."""
    if file is None:
        return error
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        folder = quarantine.keep(file, name, period, source, error.problems, now)
    except OSError as full:
        return UnfitError([*error.lines, f"  and cannot be kept: {full.strerror}"], error.problems)
    return UnfitError([*error.lines, f"  kept, with report.json, in {folder}/"], error.problems)


def _any_file(folder: Path) -> Path | None:
    return next((path for path in sorted(folder.iterdir()) if path.is_file()), None)


def _hashes_of_hand_put(folder: Path) -> set[str]:
    """The hashes of the files that were put beside the partitions by hand."""
    found = set()
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") for part in parts) or not path.is_file():
            continue
        if path.suffix.lower() in DATA_SUFFIXES and not (
            has_manifest(folder) and is_of_the_lake(path, folder)
        ):
            found.add(sha256_of(path))
    return found


def _told(landing: Landing, known: Landing | None, before: Mapping[str, Landing]) -> list[str]:
    """What a landing changed, one line for each period."""
    newest = max(
        (part.period for one in before.values() for part in one.partitions if part.period),
        default="",
    )
    earlier = {part.period: part for part in known.partitions} if known else {}
    lines = []
    for part in landing.partitions:
        last = earlier.pop(part.period, None)
        if last is not None and last.file == part.file:
            continue
        what = f"{landing.name}{f', {part.period}' if part.period else ''}: "
        what += _count(part.rows, "row")
        if last is not None and known is not None:
            what += (
                f", supersede version {known.version} ({_count(last.rows, 'row')}, "
                f"landed {known.landed_at:%Y-%m-%d %H:%M})"
            )
        elif part.period and part.period != partition.UNDATED and part.period < newest:
            what += ", late: newer periods have landed before"
        lines.append(what)
    for period, last in earlier.items():
        lines.append(
            f"{landing.name}{f', {period}' if period else ''}: withdrawn: "
            f"{_count(last.rows, 'row')} that had landed are gone upstream"
        )
    return lines


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
