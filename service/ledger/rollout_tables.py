"""The ledger's tables about rollouts, the policies they are of, and what operators did."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)

from service.ledger.tables import metadata

policies = Table(
    "policies",
    metadata,
    # Every policy that was ever rolled out: a name must not come to mean another network.
    Column("policy", String(80), primary_key=True),
    Column("decide_sha256", String(64), nullable=False),
    Column("learn_sha256", String(64), nullable=False),
    Column("first_seen_at_us", BigInteger, nullable=False),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("rollout_id", String(32), primary_key=True),
    Column("workflow", String(64), nullable=False),
    Column("policy", String(80), nullable=False),
    Column("against", String(80), nullable=False),  # a policy, or "fallback"
    Column("file_policy", String(80), nullable=False),  # what the workflow's file named then
    Column("schedule", Text, nullable=False),  # JSON
    Column("salt", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("stage", Integer, nullable=False),
    Column("stage_since_us", BigInteger, nullable=False),
    Column("approved", Boolean, nullable=False),
    Column("reason", Text, nullable=False),  # why it is where it is
    Column("created_at_us", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
    # Raised by every transition: whoever decided on an older one has lost the race.
    Column("revision", Integer, nullable=False),
    Index(None, "workflow", "created_at_us"),
)

rollout_transitions = Table(
    "rollout_transitions",
    metadata,
    Column("rollout_id", String(32), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("actor", String(128), nullable=False),  # an operator, or "evaluator"
    Column("action", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("stage", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence", Text, nullable=False),  # JSON
)

rollout_progress = Table(
    "rollout_progress",
    metadata,
    # How far the evidence has been gathered, and counts.
    Column("rollout_id", String(32), primary_key=True),
    Column("body", Text, nullable=False),  # JSON
)

rollout_accounts = Table(
    "rollout_accounts",
    metadata,
    # What each account has contributed, so that it is counted once, and revised with its past.
    Column("rollout_id", String(32), primary_key=True),
    Column("tenant", String(64), primary_key=True),
    Column("account_id", String(128), primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("counted_in", BigInteger, nullable=False),  # beginning of the stage it was counted in
    Column("cells", Text, nullable=False),  # JSON: by cohort and stratum, n and sums
)

rollout_sums = Table(
    "rollout_sums",
    metadata,
    Column("rollout_id", String(32), primary_key=True),
    Column("cohort", String(16), primary_key=True),
    Column("measure", String(64), primary_key=True),
    Column("sums", LargeBinary, nullable=False),
)

operator_audit = Table(
    "operator_audit",
    metadata,
    # Who did what, when and why; never changed.
    Column("event_id", String(32), primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(32), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Index(None, "at_us"),
)
