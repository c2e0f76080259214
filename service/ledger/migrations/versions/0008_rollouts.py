"""Rollouts: where each stands, how it got there, what it showed; and what operators did."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From tallies of exploration."""
    op.create_table(
        "policies",
        sa.Column("policy", sa.String(length=80), nullable=False),
        sa.Column("decide_sha256", sa.String(length=64), nullable=False),
        sa.Column("learn_sha256", sa.String(length=64), nullable=False),
        sa.Column("first_seen_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("policy", name=op.f("pk_policies")),
    )
    op.create_table(
        "rollouts",
        sa.Column("rollout_id", sa.String(length=32), nullable=False),
        sa.Column("workflow", sa.String(length=64), nullable=False),
        sa.Column("policy", sa.String(length=80), nullable=False),
        sa.Column("against", sa.String(length=80), nullable=False),
        sa.Column("file_policy", sa.String(length=80), nullable=False),
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("salt", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("stage_since_us", sa.BigInteger(), nullable=False),
        sa.Column("approved", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", name=op.f("pk_rollouts")),
    )
    op.create_index(
        op.f("ix_rollouts_workflow_created_at_us"), "rollouts", ["workflow", "created_at_us"]
    )
    op.create_table(
        "rollout_transitions",
        sa.Column("rollout_id", sa.String(length=32), nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", "revision", name=op.f("pk_rollout_transitions")),
    )
    op.create_table(
        "rollout_progress",
        sa.Column("rollout_id", sa.String(length=32), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", name=op.f("pk_rollout_progress")),
    )
    op.create_table(
        "rollout_accounts",
        sa.Column("rollout_id", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("counted_in", sa.BigInteger(), nullable=False),
        sa.Column("cells", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(
            "rollout_id", "tenant", "account_id", name=op.f("pk_rollout_accounts")
        ),
    )
    op.create_table(
        "rollout_sums",
        sa.Column("rollout_id", sa.String(length=32), nullable=False),
        sa.Column("cohort", sa.String(length=16), nullable=False),
        sa.Column("measure", sa.String(length=64), nullable=False),
        sa.Column("sums", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", "cohort", "measure", name=op.f("pk_rollout_sums")),
    )
    op.create_table(
        "operator_audit",
        sa.Column("event_id", sa.String(length=32), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_operator_audit")),
    )
    op.create_index(op.f("ix_operator_audit_at_us"), "operator_audit", ["at_us"])
