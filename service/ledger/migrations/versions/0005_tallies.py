"""What accounts were served lately is counted where a decision commits; what was left to it is
kept."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From jobs."""
    op.create_table(
        "tallies",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("workflow", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "workflow", "account_id", name=op.f("pk_tallies")),
    )
    op.add_column("decisions", sa.Column("actions_left", sa.Text()))
