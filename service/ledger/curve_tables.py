"""The ledger's tables of adaptation curves: sums by interaction number, and who is counted in."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String, Table

from service.ledger.tables import metadata

curves = Table(
    "curves",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("workflow", String(64), primary_key=True),
    Column("policy", String(80), primary_key=True),  # or "fallback"
    # By interaction number: how many, sum of rewards, of their squares; float64 [3, LONGEST].
    Column("sums", LargeBinary, nullable=False),
)

curve_marks = Table(
    "curve_marks",
    metadata,
    # How much of an account's past is counted in.
    Column("tenant", String(64), primary_key=True),
    Column("workflow", String(64), primary_key=True),
    Column("account_id", String(128), primary_key=True),
    Column("base_generation", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
)
