"""Card payments: approve, have somebody look, or decline, from what is known at the moment of a payment.

A chargeback comes days after its payment. It is an event of its own, dated when it became known, so that no
feature counts a fraud before anyone could know of it; the same goes for what a review finds. Amounts are in cents.
"""

from polars import col

import penstock as ps

app = ps.App("fraud")


class Payment(ps.Event):
    """A payment that asks to be approved."""

    customer: str
    terminal: str
    amount: ps.Money
    device: str | None = None


class Chargeback(ps.Event):
    """A payment turned out to be fraud; `payment` is its id, and `time` when that became known.

    `usual` is what the customer paid on average when it was made, where the bank's records have it. A fraud
    that was no larger than usual says more of its terminal: a stolen card is used for large amounts anywhere.
    """

    payment: str
    customer: str
    terminal: str
    amount: ps.Money
    device: str | None = None
    usual: ps.Money | None = None


class Review(ps.Event):
    """Somebody looked at a payment; `payment` is its id."""

    payment: str
    customer: str
    terminal: str
    fraud: bool


class AccountChange(ps.Event):
    """A customer's address, telephone or password was changed."""

    customer: str
    what: str


NIGHT = col("time").dt.hour() <= 6
WEEKEND = col("time").dt.weekday() > 5
ANY = col("amount").is_not_null()
NO_LARGER = col("amount") < col("usual") * 2.2


class Block(ps.Event):
    """A customer or a terminal is not to pay for now: the block lists."""

    customer: str | None = None
    terminal: str | None = None


@app.view(on=Payment, by="customer")
class Customer:
    payments_1min = ps.count(window="1min")
    payments_10min = ps.count(window="10min")
    payments_1h = ps.count(window="1h")
    payments_1d = ps.count(window="1d")
    payments_7d = ps.count(window="7d")
    payments_30d = ps.count(window="30d")
    spent_1d = ps.sum("amount", window="1d")
    mean_1d = ps.mean("amount", window="1d")
    mean_7d = ps.mean("amount", window="7d")
    mean_14d = ps.mean("amount", window="14d")
    mean_90d = ps.mean("amount", window="90d")
    variance_90d = ps.variance("amount", window="90d")
    max_7d = ps.max("amount", window="7d")
    max_14d = ps.max("amount", window="14d")
    max_30d = ps.max("amount", window="30d")
    terminals_30d = ps.distinct("terminal", window="30d", precision=6)
    high_30d = ps.quantile("amount", q=0.9, window="30d", least=1_00, most=10_000_00, error=0.1)
    nights_30d = ps.rate(NIGHT, ANY, window="30d")
    weekends_30d = ps.rate(WEEKEND, ANY, window="30d")
    since = ps.recency()


@app.view(on=Payment, by="terminal")
class Terminal:
    payments_10min = ps.count(window="10min")
    customers_1d = ps.distinct("customer", window="1d", precision=6)
    payments_7d = ps.count(window="7d")
    payments_14d = ps.count(window="14d")
    payments_21d = ps.count(window="21d")
    payments_35d = ps.count(window="35d")
    mean_7d = ps.mean("amount", window="7d")


@app.view(on=Payment, by=("customer", "terminal"))
class Habit:
    payments = ps.count()
    since = ps.recency()


@app.view(on=Payment, by="device")
class Device:
    customers_30d = ps.distinct("customer", window="30d", precision=6)
    payments_1d = ps.count(window="1d")


@app.view(on=Chargeback, by="customer")
class CustomerFraud:
    known_30d = ps.count(window="30d")
    since = ps.recency()


@app.view(on=Chargeback, by="terminal")
class TerminalFraud:
    known_1d = ps.count(window="1d")
    known_3d = ps.count(window="3d")
    known_7d = ps.count(window="7d")
    known_14d = ps.count(window="14d")
    known_21d = ps.count(window="21d")
    known_28d = ps.count(window="28d")
    customers_28d = ps.distinct("customer", window="28d", precision=6)
    mean_28d = ps.mean("amount", window="28d")
    min_30d = ps.min("amount", window="30d")
    max_30d = ps.max("amount", window="30d")
    since = ps.recency()
    usual_7d = ps.count(window="7d", where=NO_LARGER)
    usual_14d = ps.count(window="14d", where=NO_LARGER)
    usual_21d = ps.count(window="21d", where=NO_LARGER)
    usual_28d = ps.count(window="28d", where=NO_LARGER)
    usual_since = ps.recency(where=NO_LARGER)


@app.view(on=Chargeback, by="device")
class DeviceFraud:
    known_30d = ps.count(window="30d")


@app.view(on=Review, by="customer")
class CustomerReviews:
    frauds_30d = ps.count(window="30d", where=col("fraud"))
    good_30d = ps.count(window="30d", where=~col("fraud"))


@app.view(on=Review, by="terminal")
class TerminalReviews:
    frauds_7d = ps.count(window="7d", where=col("fraud"))
    frauds_28d = ps.count(window="28d", where=col("fraud"))
    good_28d = ps.count(window="28d", where=~col("fraud"))


@app.view(on=AccountChange, by="customer")
class Account:
    changes_1d = ps.count(window="1d")
    since = ps.recency()


@app.view(on=Block, by="customer")
class BlockedCustomer:
    blocks_90d = ps.count(window="90d")


@app.view(on=Block, by="terminal")
class BlockedTerminal:
    blocks_90d = ps.count(window="90d")


# Computed when a payment asks, from its own amount (in cents, as sums and means are) and the views' features.
NOW = col("now").dt
USUAL = col("Customer.mean_90d")
# Chargebacks come after a week or so: the frauds known by now are of payments that are at least as old.
JUDGED = {days: col(f"Terminal.payments_{days + 7}d") - col("Terminal.payments_7d") for days in (7, 14, 28)}
REQUEST = {
    "hour": NOW.hour(),
    "amount_to_usual": col("amount") / USUAL,
    "amount_to_max": col("amount") / col("Customer.max_30d"),
    "amount_to_high": col("amount") / col("Customer.high_30d"),
    "amount_deviation": (col("amount") - USUAL) / col("Customer.variance_90d").sqrt(),
    **{f"mean_{w}_to_usual": col(f"Customer.mean_{w}") / USUAL for w in ("1d", "7d", "14d")},
    **{f"max_{w}_to_usual": col(f"Customer.max_{w}") / USUAL for w in ("7d", "14d")},
    **{f"judged_{days}d": judged for days, judged in JUDGED.items()},
    **{f"risk_{days}d": col(f"TerminalFraud.known_{days}d") / (judged + 1) for days, judged in JUDGED.items()},
    "night": NOW.hour() <= 6,
    "weekend": NOW.weekday() > 5,
    "new_frauds": col("TerminalFraud.known_28d") - col("TerminalFraud.known_21d"),
}


@app.verdict("payment", on=Payment, by="customer", budget="20ms")
class Approval:
    outcomes = [
        ps.outcome(Chargeback, of="payment", within="7d"),
        ps.outcome(Review, of="payment", where=col("fraud")),
    ]
    request = REQUEST
    models = [ps.Logistic(), ps.Classifier()]
    # A review takes some minutes; a declined customer who was honest may not come back.
    costs = ps.Costs("amount", review=3_00, decline=15_00, reviews=100)
    first = [
        ps.rule("blocked_customer", "decline", col("BlockedCustomer.blocks_90d") > 0),
        ps.rule("blocked_terminal", "decline", col("BlockedTerminal.blocks_90d") > 0),
        ps.rule("too_fast", "decline", col("Customer.payments_1min") >= 10),
    ]
    last = [ps.rule("limit", "review", col("amount") > 5_000_00)]
    fallback = [ps.rule("large", "review", col("amount") > 220_00)]
    explore = 0.05
