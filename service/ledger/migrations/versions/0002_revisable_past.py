"""A past that can be revised: generations, snapshots, deferred decisions, tombstones."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ACCOUNT = ("tenant", "workflow", "account_id")
OLD_UNIQUE = "uq_feedback_tenant_workflow_account_id_generation_position"
NEW_UNIQUE = "uq_feedback_account_id_workflow_tenant_position_generation"
BY_ACCOUNT = ("account_id", "workflow", "tenant")


def upgrade() -> None:
    """From the first ledger."""
    with op.batch_alter_table("accounts") as table:
        table.add_column(
            sa.Column("base_generation", sa.Integer(), nullable=False, server_default="0")
        )
        for name in ("kept_above", "used_position", "unaware_decisions"):
            table.add_column(sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    # All that is folded counts as used: how soon a decision knows it is measured from here on.
    op.execute("UPDATE accounts SET used_position = position")
    with op.batch_alter_table("decisions") as table:
        table.add_column(
            sa.Column("mode", sa.String(length=8), nullable=False, server_default="serve")
        )
        table.add_column(sa.Column("activated_at_us", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("feedback") as table:
        table.add_column(sa.Column("folded_reward", sa.Float(precision=53), nullable=True))
        table.add_column(sa.Column("folded_end", sa.Boolean(), nullable=True))
        table.drop_constraint(op.f(OLD_UNIQUE), type_="unique")
        # By position first: a page of a long past is then one walk of the index.
        table.create_unique_constraint(op.f(NEW_UNIQUE), [*BY_ACCOUNT, "position", "generation"])
    op.drop_index(op.f("ix_accounts_workflow_phase"), "accounts")
    op.drop_index(op.f("ix_decisions_tenant_workflow_account_id_created_at_us"), "decisions")
    op.create_index(
        op.f("ix_decisions_account_id_workflow_tenant_created_at_us"),
        "decisions",
        [*BY_ACCOUNT, "created_at_us"],
        unique=False,
    )
    op.execute(
        "UPDATE feedback SET folded_reward = reward, folded_end = episode_end "
        "WHERE position IS NOT NULL"
    )
    op.create_table(
        "generations",
        *(
            sa.Column(name, sa.String(length=128 if name == "account_id" else 64), nullable=False)
            for name in ACCOUNT
        ),
        sa.Column("generation", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("head_position", sa.BigInteger(), nullable=False),
        sa.Column("decision_id", sa.String(length=128), nullable=True),
        sa.Column("opened_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(*ACCOUNT, "generation", name=op.f("pk_generations")),
    )
    op.create_table(
        "snapshots",
        *(
            sa.Column(name, sa.String(length=128 if name == "account_id" else 64), nullable=False)
            for name in ACCOUNT
        ),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("policy", sa.String(length=80), nullable=False),
        sa.Column("memory", sa.LargeBinary(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(*ACCOUNT, "digest", "position", name=op.f("pk_snapshots")),
    )
    op.create_table(
        "tombstones",
        sa.Column("digest", sa.String(length=32), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=True),
        sa.Column("erased_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_tombstones")),
    )
