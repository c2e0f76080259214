"""The first ledger: spec versions, accounts, decisions, feedback."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From nothing."""
    op.create_table(
        "ledgers",
        sa.Column("ledger_id", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", name=op.f("pk_ledgers")),
    )
    op.create_table(
        "accounts",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("workflow", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("decisions", sa.BigInteger(), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("adapted_at", sa.BigInteger(), nullable=True),
        sa.Column("recent_rewards", sa.Text(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "workflow", "account_id", name=op.f("pk_accounts")),
    )
    op.create_index(op.f("ix_accounts_updated_at_us"), "accounts", ["updated_at_us"], unique=False)
    op.create_index(
        op.f("ix_accounts_workflow_phase"), "accounts", ["workflow", "phase"], unique=False
    )
    op.create_table(
        "spec_versions",
        sa.Column("workflow", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("workflow", "version", name=op.f("pk_spec_versions")),
        sa.UniqueConstraint("workflow", "sha256", name=op.f("uq_spec_versions_workflow_sha256")),
    )
    op.create_table(
        "decisions",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("decision_id", sa.String(length=128), nullable=False),
        sa.Column("workflow", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("episode_id", sa.String(length=128), nullable=True),
        sa.Column("spec_version", sa.Integer(), nullable=False),
        sa.Column("policy", sa.String(length=80), nullable=False),
        sa.Column("context", sa.Text(), nullable=False),
        sa.Column("asked_for", sa.Text(), nullable=True),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("probability", sa.Float(precision=53), nullable=False),
        sa.Column("draw", sa.Float(precision=53), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("limits", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=False),
        sa.Column("default_due_at_us", sa.BigInteger(), nullable=True),
        sa.Column("folded", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workflow", "spec_version"],
            ["spec_versions.workflow", "spec_versions.version"],
            name=op.f("fk_decisions_workflow_spec_version"),
        ),
        sa.PrimaryKeyConstraint("tenant", "decision_id", name=op.f("pk_decisions")),
    )
    op.create_index(
        op.f("ix_decisions_default_due_at_us"), "decisions", ["default_due_at_us"], unique=False
    )
    op.create_index(
        op.f("ix_decisions_tenant_workflow_account_id_created_at_us"),
        "decisions",
        ["tenant", "workflow", "account_id", "created_at_us"],
        unique=False,
    )
    op.create_table(
        "feedback",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("decision_id", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("feedback_id", sa.String(length=128), nullable=False),
        sa.Column("workflow", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=True),
        sa.Column("position", sa.BigInteger(), nullable=True),
        sa.Column("reward", sa.Float(precision=53), nullable=False),
        sa.Column("outcome", sa.String(length=64), nullable=True),
        sa.Column("episode_end", sa.Boolean(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("occurred_at_us", sa.BigInteger(), nullable=True),
        sa.Column("received_at_us", sa.BigInteger(), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "decision_id"],
            ["decisions.tenant", "decisions.decision_id"],
            name=op.f("fk_feedback_tenant_decision_id"),
        ),
        sa.PrimaryKeyConstraint(
            "tenant", "decision_id", "kind", "feedback_id", name=op.f("pk_feedback")
        ),
        sa.UniqueConstraint(
            "tenant",
            "workflow",
            "account_id",
            "generation",
            "position",
            name=op.f("uq_feedback_tenant_workflow_account_id_generation_position"),
        ),
    )
