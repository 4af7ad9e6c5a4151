"""Card payments: what is known of a customer, a terminal and a device at the moment of a payment.

A chargeback comes days after its payment. It is an event of its own, dated when it became known, so that no
feature counts a fraud before anyone could know of it.
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
    """A payment turned out to be fraud; `time` is when that became known."""

    payment: str
    customer: str
    terminal: str
    amount: ps.Money
    device: str | None = None


@app.view(on=Payment, by="customer")
class Customer:
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
    since = ps.recency()


@app.view(on=Payment, by="terminal")
class Terminal:
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


@app.view(on=Chargeback, by="device")
class DeviceFraud:
    known_30d = ps.count(window="30d")


# Computed when a payment asks, from its own amount (in cents, as sums and means are) and the views' features.
USUAL = col("Customer.mean_90d")
# Chargebacks come after a week or so: the frauds known by now are of payments that are at least as old.
JUDGED = {days: col(f"Terminal.payments_{days + 7}d") - col("Terminal.payments_7d") for days in (7, 14, 28)}
REQUEST = {
    "hour": col("now").dt.hour(),
    "amount_to_usual": col("amount") / USUAL,
    "amount_to_max": col("amount") / col("Customer.max_30d"),
    "amount_deviation": (col("amount") - USUAL) / col("Customer.variance_90d").sqrt(),
    **{f"mean_{w}_to_usual": col(f"Customer.mean_{w}") / USUAL for w in ("1d", "7d", "14d")},
    **{f"max_{w}_to_usual": col(f"Customer.max_{w}") / USUAL for w in ("7d", "14d")},
    **{f"judged_{days}d": judged for days, judged in JUDGED.items()},
    **{f"risk_{days}d": col(f"TerminalFraud.known_{days}d") / (judged + 1) for days, judged in JUDGED.items()},
    "new_frauds": col("TerminalFraud.known_28d") - col("TerminalFraud.known_21d"),
}
