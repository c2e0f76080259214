"""Decisions are written once: what is due stands apart, and accounts do not count them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From a revisable past."""
    op.create_table(
        "defaults_due",
        sa.Column("due_at_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("decision_id", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("due_at_us", "tenant", "decision_id", name=op.f("pk_defaults_due")),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO defaults_due (due_at_us, tenant, decision_id) "
        "SELECT default_due_at_us, tenant, decision_id FROM decisions "
        "WHERE default_due_at_us IS NOT NULL"
    )
    # Feedback first: what refers to a table keeps SQLite from writing that one anew.
    with op.batch_alter_table("feedback") as table:
        table.drop_constraint(op.f("fk_feedback_tenant_decision_id"), type_="foreignkey")
    op.drop_index(op.f("ix_decisions_default_due_at_us"), "decisions")
    with op.batch_alter_table("decisions") as table:
        table.drop_constraint(op.f("fk_decisions_workflow_spec_version"), type_="foreignkey")
        table.drop_column("default_due_at_us")
        table.drop_column("folded")
    with op.batch_alter_table("accounts") as table:
        for name in ("decisions", "used_position", "unaware_decisions"):
            table.drop_column(name)
