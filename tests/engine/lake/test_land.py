"""What becomes of what is upstream; the tables are a few rows of CSV, the rule is `n >= 0`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from gitops_ml.core import paths
from gitops_ml.core.landed import counted_partitions, newest_landings, version_file
from gitops_ml.lake import store
from gitops_ml.lake.errors import LakeError, UnfitError
from gitops_ml.lake.land import Outcome, Rules, Tables, land
from gitops_ml.lake.upstream import Fetched, Item, local_items

FOLDER, UP = Path("data/landed"), Path("up")
RULES = Rules(time="at", period="month")


def read(path: Path, shown: str, from_database: bool) -> pl.DataFrame:
    rows = pl.read_csv(path, try_parse_dates=True)
    if rows.columns != ["n", "at"]:
        raise UnfitError([f"{shown}: other columns"])
    return rows.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))


def check(rows: pl.DataFrame, shown: str) -> None:
    if (rows["n"] < 0).any():
        raise UnfitError([f"{shown}: n: below 0"])


TABLES = Tables(read, check, lambda rows, path: rows.write_parquet(path), "layout")


def upstream(name: str, *rows: tuple[int, str]) -> None:
    UP.mkdir(exist_ok=True)
    lines = ["n,at", *(f"{n},{at}" for n, at in rows)]
    (UP / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def go(tables: Tables = TABLES, rules: Rules = RULES, items: list[Item] | None = None) -> Outcome:
    outcome = Outcome()
    land(FOLDER, local_items(UP) if items is None else items, tables, rules, outcome)
    return outcome


def there() -> dict[str, list[int]]:
    """The numbers that count, by name and period."""
    parts = sorted((counted_partitions(FOLDER) or {}).items())
    return {
        f"{path.name.rpartition('-')[0]} {part.period}": pl.read_parquet(path)["n"].to_list()
        for path, part in parts
    }


def test_what_has_landed_does_not_land_again() -> None:
    upstream("july", (1, "2013-07-01"), (2, "2013-07-02"))
    assert go().landed == ["july, 2013-07: 2 rows"]
    one = newest_landings(FOLDER)["july"]
    assert (one.source, one.version, one.partitions[0].rows) == ("up/july.csv", 1, 2)
    assert one.partitions[0].latest == datetime(2013, 7, 2, tzinfo=UTC)
    again = go()
    assert (again.landed, again.bad, again.unchanged) == ([], [], 1)
    # Other bytes with the same rows are no news either.
    (UP / "july.csv").write_text("n,at\n1,2013-07-01\n2,2013-07-02", encoding="utf-8")
    assert (go().landed, go().unchanged) == ([], 1)


def test_a_correction_supersedes_and_says_so() -> None:
    upstream("july", (1, "2013-06-30"), (2, "2013-07-01"), (3, "2013-08-01"))
    go()
    upstream("july", (1, "2013-06-30"), (4, "2013-07-01"), (5, "2013-07-01"))
    landed = go().landed
    when = f"{newest_landings(FOLDER)['july'].landed_at:%Y-%m-%d}"
    assert landed[0].startswith(f"july, 2013-07: 2 rows, supersede version 1 (1 row, landed {when}")
    assert landed[1:] == ["july, 2013-08: withdrawn: 1 row that had landed are gone upstream"]
    assert there() == {"july 2013-06": [1], "july 2013-07": [4, 5]}
    assert len(list(FOLDER.rglob("*.parquet"))) == 2


def test_late_rows_go_to_their_period() -> None:
    upstream("july", (1, "2013-07-01"))
    go()
    upstream("august", (2, "2013-08-01"), (3, "2013-06-30"))
    assert go().landed == [
        "august, 2013-06: 1 row, late: newer periods have landed before",
        "august, 2013-08: 1 row",
    ]
    assert there() == {"august 2013-06": [3], "july 2013-07": [1], "august 2013-08": [2]}


def test_an_unfit_period_stays_out_and_what_landed_of_it_stays() -> None:
    upstream("july", (1, "2013-06-30"), (2, "2013-07-01"))
    go()
    upstream("july", (3, "2013-06-30"), (-1, "2013-07-01"), (4, "2013-08-01"))
    outcome = go()
    assert outcome.bad == [
        "up/july.csv, 2013-07: n: below 0",
        "  kept, with report.json, in data/quarantine/july/2013-07/",
    ]
    assert there() == {"july 2013-06": [3], "july 2013-07": [2], "july 2013-08": [4]}
    # Nothing new lands, but it is said again.
    assert (go().landed, go().bad) == ([], outcome.bad)
    upstream("july", (3, "2013-06-30"), (5, "2013-07-01"), (4, "2013-08-01"))
    assert [line.partition(" row")[0] for line in go().landed] == ["july, 2013-07: 1"]
    assert not (paths.QUARANTINE / "july").exists()
    assert go().unchanged == 1


def test_an_unfit_file_stays_out_and_the_others_land() -> None:
    upstream("a", (1, "2013-07-01"))
    upstream("c", (2, "2013-07-01"))
    (UP / "b.csv").write_text("m\n1\n", encoding="utf-8")
    outcome = go()
    assert outcome.landed == ["a, 2013-07: 1 row", "c, 2013-07: 1 row"]
    assert outcome.bad == [
        "up/b.csv: other columns",
        "  kept, with report.json, in data/quarantine/b/all/",
    ]
    assert (paths.QUARANTINE / "b/all/rows.csv").read_text(encoding="utf-8") == "m\n1\n"


def test_nothing_counts_of_what_is_unfit_altogether() -> None:
    upstream("july", (-1, "2013-07-01"))
    assert go().landed == []
    assert newest_landings(FOLDER) == {}


def test_without_a_time_a_file_is_a_partition() -> None:
    upstream("july", (1, "2013-07-01"), (2, "2013-08-01"))
    assert go(rules=Rules(time=None, period="month")).landed == ["july: 2 rows"]
    assert there() == {"july None": [1, 2]}


def test_another_layout_reads_anew() -> None:
    upstream("july", (1, "2013-07-01"), (2, "2013-07-02"))
    go()
    daily = replace(RULES, period="day")
    landed = go(replace(TABLES, layout="daily"), daily).landed
    assert [line.partition(":")[0] for line in landed] == [
        *("july, 2013-07-01", "july, 2013-07-02", "july, 2013-07")
    ]
    assert there() == {"july 2013-07-01": [1], "july 2013-07-02": [2]}


def test_a_validator_spares_the_reading_until_it_is_asked_for() -> None:
    fetched = []

    def fetch(folder: Path, known: str | None) -> Fetched | None:
        fetched.append(known)
        if known == "1":
            return None
        path = folder / "rows.csv"
        path.write_text("n,at\n1,2013-07-01\n", encoding="utf-8")
        return Fetched(path, "1")

    conditional = Item("july", "https://host/july.csv", fetch)
    go(items=[conditional])
    assert go(items=[conditional]).unchanged == 1
    assert fetched == [None, "1"]
    assert go(items=[replace(conditional, validator="1")]).unchanged == 1
    assert fetched == [None, "1"]
    go(items=[conditional], rules=replace(RULES, again=True))
    assert fetched == [None, "1", None]


def test_a_name_is_one_source_s() -> None:
    upstream("july", (1, "2013-07-01"))
    go()
    Path("mirror").mkdir()
    (UP / "july.csv").rename("mirror/july.csv")
    Path("mirror/july.csv").write_text("n,at\n7,2013-07-01\n", encoding="utf-8")
    moved = local_items(Path("mirror"))
    assert go(items=moved).bad == [
        "mirror/july.csv: would land as `july`, which is up/july.csv already; land it under "
        "another name with NAMED=name, or, if the source has moved, with TAKE_OVER=1"
    ]
    assert there() == {"july 2013-07": [1]}
    go(items=[replace(moved[0], name="mirrored")])
    assert there() == {"july 2013-07": [1], "mirrored 2013-07": [7]}
    # It keeps the name under which it has landed.
    assert go(items=moved).unchanged == 1


def test_a_source_that_has_moved_takes_over() -> None:
    upstream("july", (1, "2013-07-01"))
    go()
    (UP / "july.csv").rename(UP / "moved.csv")
    item = replace(local_items(UP)[0], name="july")
    go(items=[item], rules=replace(RULES, take_over=True))
    one = newest_landings(FOLDER)["july"]
    assert (one.version, one.source) == (2, "up/moved.csv")


def test_two_files_of_one_landing_may_not_have_one_name() -> None:
    upstream("july", (1, "2013-07-01"))
    upstream("July 1", (2, "2013-07-01"))
    items = [replace(item, name="july") for item in local_items(UP)]
    outcome = go(items=items)
    assert len(outcome.landed) == 1
    assert "would land as `july`, which is up/" in outcome.bad[0]


def test_what_was_put_there_by_hand_does_not_land_beside_itself() -> None:
    upstream("july", (1, "2013-07-01"))
    FOLDER.mkdir(parents=True)
    (FOLDER / "by-hand.csv").write_bytes((UP / "july.csv").read_bytes())
    assert (go().landed, go().unchanged) == ([], 1)
    assert newest_landings(FOLDER) == {}


def test_rows_of_a_database_have_no_order_and_may_be_the_newest_only() -> None:
    rows: list[tuple[int, str]] = [(1, "2013-06-01"), (3, "2013-07-02"), (2, "2013-07-01")]

    def fetch(folder: Path, _: str | None) -> Fetched:
        path = folder / "rows.csv"
        path.write_text("n,at\n" + "".join(f"{n},{at}\n" for n, at in rows), encoding="utf-8")
        return Fetched(path)

    table = Item("flights", "sqlite:///db#flights", fetch, from_database=True)
    go(items=[table])
    rows.reverse()
    assert go(items=[table]).unchanged == 1
    rows[:] = [(4, "2013-07-01"), (5, "2013-08-01")]
    go(items=[replace(table, since=datetime(2013, 7, 1, tzinfo=UTC))])
    assert there() == {"flights 2013-06": [1], "flights 2013-07": [4], "flights 2013-08": [5]}


def test_the_newest_rows_do_not_land_on_top_of_another_layout() -> None:
    upstream("july", (1, "2013-07-01"))
    go()
    newest = replace(local_items(UP)[0], since=datetime(2013, 7, 1, tzinfo=UTC))
    with pytest.raises(LakeError, match="land all of it once, without SINCE"):
        go(replace(TABLES, layout="other"), items=[newest])


def test_what_is_as_it_landed_again_leaves_the_quarantine() -> None:
    upstream("july", (1, "2013-07-01"))
    go()
    good = (UP / "july.csv").read_bytes()
    (UP / "july.csv").write_text("m\n1\n", encoding="utf-8")
    assert go().bad
    assert there() == {"july 2013-07": [1]}
    (UP / "july.csv").write_bytes(good)
    assert go().unchanged == 1
    assert not (paths.QUARANTINE / "july").exists()


def taken(times: int) -> Callable[..., None]:
    """A commit before which another landing takes the version, so many times."""
    commit = store.Store.commit
    left = [times]

    def race(self: store.Store, landing: object) -> None:
        from gitops_ml.core.landed import Landing

        assert isinstance(landing, Landing)
        if left[0]:
            left[0] -= 1
            other = landing.model_copy(update={"partitions": (), "landed_at": landing.landed_at})
            path = version_file(self.folder, other.name, other.version)
            path.parent.mkdir(exist_ok=True)
            path.write_text(other.model_dump_json(), encoding="utf-8")
        commit(self, landing)

    return race


def test_a_landing_that_comes_second_goes_on_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.Store, "commit", taken(2))
    upstream("july", (1, "2013-07-01"))
    go()
    assert newest_landings(FOLDER)["july"].version == 3
    assert there() == {"july 2013-07": [1]}


def test_a_landing_does_not_try_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.Store, "commit", taken(99))
    upstream("july", (1, "2013-07-01"))
    with pytest.raises(LakeError, match="other landings got in the way 10 times; land again"):
        go()


def test_what_a_stopped_landing_left_is_told() -> None:
    upstream("july", (1, "2013-07-01"))
    go()
    (FOLDER / "partitions/2013-07/orphan.parquet").touch()
    assert go().landed[0].startswith("data/landed: removed 1 file that counted for nothing")
