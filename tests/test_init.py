"""`penstock init` gives a newcomer a folder that runs as it is, and guesses a mapping that fits the newcomer's file."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import penstock as ps
from helpers import cli
from penstock.clock import DAY, SECOND
from penstock.errors import MappingError
from penstock.events import Mapping, ties
from penstock.scaffold import STARTERS, Guess, check, guess, mapping_toml, sampled
from penstock.scaffold.payments import sample_payments

SHOP = [("u1", "i1", "view"), ("u2", "i2", "view"), ("u1", "i1", "cart"), ("u1", "i1", "buy"), ("u2", "i3", "view")]
TIMES = [
    "2025-11-17 06:19:05",
    "2025-11-17 06:20:03",
    "2025-11-18 10:00:00",
    "2025-11-29 00:00:00",
    "2025-12-01 12:30:59",
]
SECONDS = [1763360345, 1763360403, 1763460000, 1764374400, 1764592259]


def told(folder: Path, *arguments: str | Path) -> dict[str, Any]:
    """What a run of init says as JSON."""
    done = cli("init", *arguments, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def of_text(folder: Path, text: str | bytes, name: str = "history.csv") -> Guess:
    """The guess for a file of this content."""
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return guess(sampled(folder / name))


def of_times(folder: Path, times: list[str], head: str = "time") -> Guess:
    """The guess for a shop's five events, with these times."""
    rows = (f"{at};{user};{item};{kind}" for at, (user, item, kind) in zip(times, SHOP, strict=True))
    return of_text(folder, f"{head};user;item;kind\n" + "\n".join(rows) + "\n")


@pytest.mark.parametrize("name", ["retailrocket_sample", "taobao", "online_retail", "eshop_clothing"])
def test_the_guess_for_a_real_file_fits_nearly_every_row(name: str, shared_data: Path, tmp_path: Path) -> None:
    """The guessed mapping makes at least 95 % of the rows that name a shopper events of the app written beside it."""
    file = shared_data / "clickstream" / f"{name}.csv.gz"
    found = told(tmp_path, "shop", "--from", file)
    assert found["rows"] >= 5_000
    assert found["events"] >= 0.95 * (found["rows"] - found["dropped"])
    # Only rows without a shopper are filtered out.
    assert (found["dropped"] > 0) == (name == "online_retail")


@pytest.mark.parametrize(
    ("name", "columns", "kinds"),
    [
        ("retailrocket_sample", {"user": "visitorid", "item": "itemid", "kind": "event"},
         {"0": "view", "1": "cart", "2": "buy"}),
        ("taobao", {"user": "user", "item": "item", "category": "category", "kind": "kind"},
         {"pv": "view", "cart": "cart", "fav": "fav", "buy": "buy"}),
        ("online_retail", {"user": "CustomerID", "item": "StockCode", "price": "UnitPrice", "kind": None}, None),
        ("eshop_clothing", {"user": "session ID", "item": "page 2 (clothing model)", "price": "price"}, None),
    ],
)  # fmt: skip
def test_the_guess_for_a_real_file_is_what_a_reader_would_write(
    name: str, columns: dict[str, str | None], kinds: dict[str, str] | None, shared_data: Path
) -> None:
    """Shopper, item, price and kind are the columns that the file's description names."""
    found = guess(sampled(shared_data / "clickstream" / f"{name}.csv.gz"))
    assert {field: found.found[field].column for field in columns} == columns
    assert found.found["kind"].source.map == kinds
    if name == "taobao":
        assert found.mapping.csv.columns == ("user", "item", "category", "kind", "time")


@pytest.mark.parametrize(
    ("times", "unit", "format"),
    [
        (TIMES, "auto", "%Y-%m-%d %H:%M:%S"),
        ([t.replace(" ", "T") + "Z" for t in TIMES], "auto", None),
        ([t + " UTC" for t in TIMES], "auto", None),
        ([t + ".250" for t in TIMES], "auto", "%Y-%m-%d %H:%M:%S%.f"),
        (["17.11.2025 06:19", "17.11.2025 06:20", "18.11.2025 10:00", "29.11.2025 00:00", "01.12.2025 12:30"], "auto",
         "%d.%m.%Y %H:%M"),
        (["11/17/2025 6:19", "11/17/2025 6:20", "11/18/2025 10:00", "11/29/2025 0:00", "12/1/2025 12:30"], "auto",
         "%m/%d/%Y %H:%M"),
        ([f"{second}" for second in SECONDS], "s", None),
        ([f"{second}123" for second in SECONDS], "ms", None),
        ([f"{second}123456" for second in SECONDS], "us", None),
    ],
)  # fmt: skip
def test_times_are_read_in_the_form_that_they_have(
    times: list[str], unit: str, format: str | None, tmp_path: Path
) -> None:
    """Epochs by their size, texts by the first form that reads them all; and each row's time is then right."""
    found = of_times(tmp_path, times)
    assert (found.mapping.time.unit, found.mapping.time.format) == (unit, format)
    mapping = Mapping.parse(mapping_toml(found, "history.csv"))
    assert mapping == found.mapping


def test_a_day_first_or_month_first_is_told_by_the_order_of_the_rows(tmp_path: Path) -> None:
    """Where both read, the file's own order decides, and the doubt is said."""
    days = ["03/01/2025", "04/01/2025", "07/01/2025", "02/02/2025", "05/02/2025"]
    found = of_times(tmp_path, [f"{day} 10:00:00" for day in days])
    assert found.mapping.time.format == "%d/%m/%Y %H:%M:%S"
    assert any("other way round" in doubt for doubt in found.found["time"].doubts)


def test_columns_that_say_nothing_are_left_out_and_told(tmp_path: Path) -> None:
    """A row number without a name and an empty column become no fields; a category of one value stays one."""
    rows = "\n".join(f"{n},{t},{u},{i},{k},lamps," for n, (t, (u, i, k)) in enumerate(zip(TIMES, SHOP, strict=True)))
    found = of_text(tmp_path, f",time,user,item,kind,group,note\n{rows}\n")
    assert found.left == ("", "note")
    assert found.extras == {}
    assert found.found["category"].column == "group"


def test_a_day_and_a_clock_in_two_columns_are_joined(tmp_path: Path) -> None:
    rows = "\n".join(f"{t.split()[0]};{t.split()[1]};{u};{i};{k}" for t, (u, i, k) in zip(TIMES, SHOP, strict=True))
    found = of_text(tmp_path, f"date;clock;user;item;kind\n{rows}\n")
    assert found.mapping.time.columns == ("date", "clock")
    assert found.mapping.csv.separator == ";"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_are_found(separator: str, tmp_path: Path) -> None:
    head = ["time", "customer_id", "sku", "event_type", "price"]
    rows = [[t, u, i, k, "12.50"] for t, (u, i, k) in zip(TIMES, SHOP, strict=True)]
    found = of_text(tmp_path, "\n".join(separator.join(row) for row in [head, *rows]) + "\n")
    assert found.mapping.csv.separator == (None if separator == "," else separator)
    columns = {field: part.column for field, part in found.found.items()}
    assert columns == {"time": "time", "user": "customer_id", "item": "sku", "kind": "event_type", "price": "price"}


def test_an_export_as_people_make_them_is_understood(tmp_path: Path) -> None:
    """Latin-1 text, decimal commas with a currency, words of the shop's own, an id of the event, true missing words."""
    lines = ["event_id;date;Customer No;Article;Action;Amount;Größe;Qty"]
    kinds = ["PV", "BASKET", "ORDER", "REMOVE_FROM_BASKET", "PV"]
    for n, (at, kind) in enumerate(zip(TIMES, kinds, strict=True)):
        lines.append(f"e{n};{at};c{n % 2};a{n % 3};{kind};{n}.199,95 €;{'NULL' if n else 'weiß'};{n}")
    found = of_text(tmp_path, "\n".join(lines).encode("cp1252"))
    assert found.mapping.csv.encoding == "cp1252"
    assert found.mapping.csv.missing == ("NULL",)
    assert found.mapping.id == ("event_id",)
    source = found.mapping.source("kind")
    assert source.map == {"PV": "view", "BASKET": "cart", "ORDER": "buy", "REMOVE_FROM_BASKET": "remove_from_basket"}
    assert "remove_from_basket" in found.kinds
    assert {name: extra.type for name, extra in found.extras.items()}["qty"] == "int"
    report = told(tmp_path, "shop", "--from", "history.csv")
    assert report["events"] == 5
    with ps.load(tmp_path / "shop" / "app.py") as app:
        app.home = tmp_path / "home"
        assert cli("ingest", "history.csv", "--mapping", "shop/mapping.toml", "--app", "shop/app.py", "--home", "home",
                   cwd=tmp_path).returncode == 0  # fmt: skip
        assert app.features("Shopper", "c0")["spent"] == 2_199_95


@pytest.mark.parametrize("ending", [".parquet", ".ndjson", ".csv.gz"])
def test_other_formats_are_looked_at_alike(ending: str, tmp_path: Path) -> None:
    """Parquet with true times, NDJSON and zipped CSV give the same fields."""
    frame = pl.DataFrame(
        {
            "event_time": pl.Series(TIMES).str.to_datetime(time_unit="us"),
            "event_type": [kind for _, _, kind in SHOP],
            "product_id": [item for _, item, _ in SHOP],
            "user_id": [user for user, _, _ in SHOP],
            "user_session": ["s1", "s2", "s1", "s1", "s3"],
        }
    )
    file = tmp_path / f"history{ending}"
    if ending == ".parquet":
        frame.write_parquet(file)
    elif ending == ".ndjson":
        frame.with_columns(pl.col("event_time").dt.to_string()).write_ndjson(file)
    else:
        file.write_bytes(gzip.compress(frame.write_csv().encode()))
    sample = sampled(file)
    found = guess(sample)
    assert [found.found[field].column for field in ("time", "user", "item", "kind")] == [
        "event_time", "user_id", "product_id", "event_type",
    ]  # fmt: skip
    assert told(tmp_path, "shop", "--from", file.name)["events"] == 5


def test_a_file_that_says_no_shopper_is_refused_with_its_columns(tmp_path: Path) -> None:
    """Nothing is written, and the message names what there is."""
    (tmp_path / "weather.csv").write_text("time,celsius\n2026-01-01 00:00:00,4.5\n2026-01-01 01:00:00,4.1\n")
    done = cli("init", "shop", "--from", "weather.csv", cwd=tmp_path)
    assert done.returncode == 1
    assert "celsius" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "shop").exists()
    with pytest.raises(MappingError, match="existing file"):
        sampled(tmp_path / "none.csv")


def test_files_that_are_there_stay(tmp_path: Path) -> None:
    """Without --force nothing is written, and the message says which files stand in the way; with it they are."""
    told(tmp_path, "shop")
    app = tmp_path / "shop" / "app.py"
    (tmp_path / "shop" / "README.md").unlink()
    app.write_text("mine")
    done = cli("init", "shop", cwd=tmp_path)
    assert done.returncode == 1
    assert "app.py" in done.stderr
    assert "README.md" not in done.stderr
    assert "--force" in done.stderr
    assert app.read_text() == "mine"
    assert not (tmp_path / "shop" / "README.md").exists()
    told(tmp_path, "shop", "--force")
    assert "ps.App" in app.read_text()


def test_an_unknown_starter_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    done = cli("init", "shop", "--app", "bank", cwd=tmp_path)
    assert done.returncode == 1
    assert "fraud, nextbest" in done.stderr


def test_a_fresh_folder_runs_as_it_is(tmp_path: Path) -> None:
    """Without a file: its own test passes, its sample is ingested whole, its app learns from it."""
    assert set(told(tmp_path, "my-shop")["files"]) == {
        "app.py", "mapping.toml", "test_app.py", "README.md", ".gitignore", "events.csv",
    }  # fmt: skip
    folder = tmp_path / "my-shop"
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    done = cli("ingest", "events.csv", "--mapping", "mapping.toml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])["files"][0]
    assert counts["rejected"] == counts["dropped"] == 0
    assert counts["accepted"] > 4_000
    done = cli("train", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert ps.load(folder / "app.py").name == "my_shop"


def test_a_fresh_folder_for_payments_runs_as_it_is(tmp_path: Path) -> None:
    """One file becomes two streams, a chargeback names the payment that it is about, and the app learns from both."""
    files = told(tmp_path, "my-bank", "--app", "fraud")["files"]
    assert set(files) == {
        "app.py", "payments.toml", "chargebacks.toml", "test_app.py", "README.md", ".gitignore", "payments.csv",
    }  # fmt: skip
    folder = tmp_path / "my-bank"
    assert "{{" not in "".join((folder / name).read_text() for name in files)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
    counts = {}
    for name in ("payments", "chargebacks"):
        done = cli("ingest", "payments.csv", "--mapping", f"{name}.toml", "--json", cwd=folder)
        assert done.returncode == 0, done.stderr
        counts[name] = json.loads(done.stdout.splitlines()[-1])["files"][0]
    assert counts["payments"]["accepted"] > 15_000
    assert counts["payments"]["rejected"] == counts["chargebacks"]["rejected"] == counts["payments"]["dropped"] == 0
    app = ps.load(folder / "app.py")
    assert app.name == "my_bank"
    app.home = folder / "penstock-data"
    log = app.log(read_only=True)
    rows = log.read(0, log.end)
    named = ties("payment", log.strings.texts(rows["chargeback"].fields["payment"]))
    at = dict(zip(rows["payment"].tie.tolist(), rows["payment"].time.tolist(), strict=True))
    late = [when - at[tie] for tie, when in zip(named.tolist(), rows["chargeback"].time.tolist(), strict=True)]
    log.close()
    # Payments of one second are a microsecond apart.
    assert {round(span / SECOND) for span in late} == {7 * DAY // SECOND}
    done = cli("train", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    bodies = [json.loads(body) for body in re.findall(r"^curl -d '(.*?)'", (folder / "README.md").read_text(), re.M)]
    with app:
        answers = [app.judge("payment", body["event"]) for body in bodies if "event" in body]
        assert [answer.tier for answer in answers] == ["model", "model"]
        assert answers[1].action == "review"
        assert app.ingest([body for body in bodies if "event" not in body]) == 2


def test_the_sample_payments_hold_the_three_kinds_of_fraud() -> None:
    """About one in a hundred: large amounts, stolen cards, terminals for weeks; only what was known by then."""
    midnight = 20_000 * DAY
    frame = sample_payments(midnight)
    assert frame.equals(sample_payments(midnight))
    assert 15_000 < len(frame) < 25_000
    seconds = frame["time"].str.to_datetime("%+", time_zone="UTC").dt.timestamp("us")
    assert seconds.is_sorted()
    assert seconds.to_list()[-1] < midnight
    bad = frame["fraud"] == 1
    assert 0.008 < bad.sum() / len(frame) < 0.015
    settled = seconds < midnight - 7 * DAY
    assert not (bad & ~settled).any()
    assert bad.filter(settled & (frame["amount"] > 220)).all()
    assert bad.filter(settled & frame["device"].str.starts_with("x-").fill_null(False)).all()
    assert sorted(frame.filter(bad)["terminal"].value_counts()["count"].to_list())[-4] > 10


def test_a_mapping_is_guessed_only_for_a_shop(tmp_path: Path) -> None:
    """Nothing is written then, and the message names the files to write the columns into."""
    (tmp_path / "history.csv").write_text("time,user,item,kind\n" + "\n".join(f"{t},u,i,view" for t in TIMES) + "\n")
    done = cli("init", "bank", "--app", "fraud", "--from", "history.csv", cwd=tmp_path)
    assert done.returncode == 1
    assert "payments.toml" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize("starter", STARTERS)
def test_what_is_written_reads_well(starter: str, tmp_path: Path) -> None:
    """The Python that init writes has the formatting and passes the checks of ruff."""
    told(tmp_path, "shop", "--app", starter)
    for command in (["check", "--select", "E,F,I,B"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", "--line-length", "120", "."],
            cwd=tmp_path / "shop", capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


def test_the_check_counts_what_ingest_would(tmp_path: Path) -> None:
    """A row that the app refuses is told before anything is ingested."""
    rows = [f"{at},{u},{i},{k}" for at, (u, i, k) in zip(TIMES, SHOP, strict=True)]
    rows = rows * 60 + ["not a time,u1,i1,view"]
    (tmp_path / "history.csv").write_text("time,user,item,kind\n" + "\n".join(rows) + "\n")
    found = told(tmp_path, "shop", "--from", "history.csv")
    assert (found["rows"], found["events"], found["refused"]) == (301, 300, 1)
    mapping = Mapping.load(tmp_path / "shop" / "mapping.toml")
    cls = ps.load(tmp_path / "shop" / "app.py").events["action"]
    checked = check(sampled(tmp_path / "history.csv"), mapping, cls)
    assert [one.field for one in checked.refused] == ["time"]
