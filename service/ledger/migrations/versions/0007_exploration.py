"""Decisions say whether they deviated from the fallback, where there is an exploration budget."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From API keys."""
    op.add_column("decisions", sa.Column("deviates", sa.Boolean()))
