from __future__ import annotations

import pytest

from gitops_ml.lake.address import name_of, public, secrets_of, told


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:pw@example.com/a.csv?month=7", "https://example.com/a.csv?month=7"),
        (
            "https://example.com/a.csv?X-Amz-Signature=s&month=7",
            "https://example.com/a.csv?month=7",
        ),
        ("https://example.com/a.csv?sig=s&se=1&api_key=s#part", "https://example.com/a.csv"),
        ("postgresql://me:p%40w@db:5432/flights?password=s", "postgresql://db:5432/flights"),
        ("sqlite:///data/flights.db", "sqlite:///data/flights.db"),
        ("sqlite:////srv/flights.db", "sqlite:////srv/flights.db"),
        ("s3://bucket/a.csv", "s3://bucket/a.csv"),
    ],
)
def test_what_is_written_down_tells_no_secret(address: str, shown: str) -> None:
    assert public(address) == shown


def test_messages_of_libraries_tell_no_secret() -> None:
    address = "postgresql://me:p%40w@db/flights?token=abc"
    assert secrets_of(address) == ["abc", "p%40w", "p@w"]
    said = f"cannot open {address}:\n p@w is wrong, abc too, see https://you:other@host/"
    assert told(said, address) == (
        "cannot open postgresql://db/flights: *** is wrong, *** too, see https://host/"
    )
    assert told("https://token@host/a", "https://token@host/a") == "https://host/a"


@pytest.mark.parametrize(
    ("place", "query", "name"),
    [
        ("flights-2013-07.parquet", "", "flights-2013-07"),
        ("2013/07 July.CSV", "", "2013-07-July"),
        ("public.flights", "", "public.flights"),
        ("../..", "", "data"),
        ("export", "month=7", "export-9b4a17d5"),
    ],
)
def test_names_are_safe_as_names_of_files(place: str, query: str, name: str) -> None:
    found = name_of(place, query)
    assert found == name or (query and found.startswith("export-") and len(found) == 15)


def test_addresses_that_differ_in_a_parameter_have_different_names() -> None:
    assert name_of("export", "month=7") != name_of("export", "month=8")
