"""The ledger's tables. A change here needs a migration beside it."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from service.ledger.records import AccountKey

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ledgers = Table(
    "ledgers",
    metadata,
    # One row: who this ledger is, so that stores shared by several never mix their memories.
    Column("ledger_id", String(32), primary_key=True),
)

spec_versions = Table(
    "spec_versions",
    metadata,
    Column("workflow", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("sha256", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    UniqueConstraint("workflow", "sha256"),
)

accounts = Table(
    "accounts",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("workflow", String(64), primary_key=True),
    Column("account_id", String(128), primary_key=True),
    # The head: what a memory must equal before a decision may be made from it.
    Column("generation", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    # contract.adaptation.AccountAdaptation, as of the head.
    Column("phase", String(16), nullable=False),
    Column("adapted_at", BigInteger),
    Column("recent_rewards", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),  # when the head last moved
    # The generation of the last reset: what is older is not folded any more.
    Column("base_generation", Integer, nullable=False, server_default="0"),
    # Interactions up to this position are deleted; a snapshot holds what they came to.
    Column("kept_above", BigInteger, nullable=False, server_default="0"),
    Index(None, "updated_at_us"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("decision_id", String(128), primary_key=True),
    Column("workflow", String(64), nullable=False),
    Column("account_id", String(128), nullable=False),
    Column("episode_id", String(128)),
    Column("spec_version", Integer, nullable=False),
    Column("policy", String(80), nullable=False),
    Column("context", Text, nullable=False),  # raw, as it came; JSON
    Column("asked_for", Text),  # the subset of actions asked for; JSON
    Column("action", String(64), nullable=False),
    Column("probability", Float(53), nullable=False),
    Column("draw", Float(53), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("limits", Text, nullable=False),  # limits applied; JSON
    Column("generation", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("request_sha256", String(64), nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
    Column("mode", String(8), nullable=False, server_default="serve"),  # serve, defer
    Column("activated_at_us", BigInteger),  # of a deferred decision; null until then
    # The actions left after every guardrail, JSON, where the account's past took something away.
    Column("actions_left", Text),
    # Whether the fallback would have chosen another action, where there is an exploration budget.
    Column("deviates", Boolean),
    # By account first, as in feedback's: an index that begins like another table key would be taken
    # for it by a planner that has not seen the table yet, and be read from end to end.
    Index(None, "account_id", "workflow", "tenant", "created_at_us"),
    # No foreign keys, here and in feedback: what comes of a decision is settled on its row, under
    # its account's lock. A constraint would look them up once more, and PostgreSQL write a
    # lock into each.
)

defaults_due = Table(
    "defaults_due",
    metadata,
    # Decisions whose window is open and whose default reward is folded when it closes. Apart from
    # decisions, which are then written once and never again (but for an activation).
    Column("due_at_us", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", String(64), primary_key=True),
    Column("decision_id", String(128), primary_key=True),
    sqlite_with_rowid=False,
)

feedback = Table(
    "feedback",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("decision_id", String(128), primary_key=True),
    Column("kind", String(8), primary_key=True),  # received, default
    Column("feedback_id", String(128), primary_key=True),  # "" when none was given
    Column("workflow", String(64), nullable=False),
    Column("account_id", String(128), nullable=False),
    # Null unless it made or revised an interaction: that one's position, in this generation. Of
    # several at one position the newest generation stands.
    Column("generation", Integer),
    Column("position", BigInteger),
    Column("folded_reward", Float(53)),
    Column("folded_end", Boolean),
    Column("reward", Float(53), nullable=False),
    Column("outcome", String(64)),
    Column("episode_end", Boolean, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("occurred_at_us", BigInteger),
    Column("received_at_us", BigInteger, nullable=False),
    Column("request_sha256", String(64), nullable=False),
    UniqueConstraint("account_id", "workflow", "tenant", "position", "generation"),
)

generations = Table(
    "generations",
    metadata,
    # What changed an account's past, and when: memories of an older generation are not its fold.
    Column("tenant", String(64), primary_key=True),
    Column("workflow", String(64), primary_key=True),
    Column("account_id", String(128), primary_key=True),
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("reason", String(16), nullable=False),  # revision, reset
    Column("position", BigInteger, nullable=False),  # of the revised interaction; 0: all
    Column("head_position", BigInteger, nullable=False),  # how far the past went then
    Column("decision_id", String(128)),
    Column("opened_at_us", BigInteger, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    # A memory now and then, so that a replay has a bounded tail. Every row is a prefix of the
    # account's past as it is now: what a new generation changes is deleted with it.
    Column("tenant", String(64), primary_key=True),
    Column("workflow", String(64), primary_key=True),
    Column("account_id", String(128), primary_key=True),
    Column("digest", String(64), primary_key=True),  # of the policy whose memory it is
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("generation", Integer, nullable=False),
    Column("policy", String(80), nullable=False),
    Column("memory", LargeBinary, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
)

tombstones = Table(
    "tombstones",
    metadata,
    # What was erased, as keyed hashes that say nothing to whoever lacks the installation key: ids
    # of decisions, and accounts with the generation that a new account of that name starts above.
    Column("digest", String(32), primary_key=True),
    Column("generation", Integer),
    Column("erased_at_us", BigInteger, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    # Who may run a job now, and what its last run wrote down for the next: service.ledger.leases.
    Column("job", String(64), primary_key=True),
    Column("fence", BigInteger, nullable=False),  # how many runs began
    Column("holder", String(128)),
    Column("until_us", BigInteger, nullable=False),  # by the database's clock; 0: free
    Column("began_at_us", BigInteger),
    Column("ended_at_us", BigInteger),  # of the last run; null: it did not end, or not yet
    Column("done_at_us", BigInteger),  # when one last ended well, whatever came after it
    Column("outcome", String(16)),
    Column("kept", Text, nullable=False),  # JSON
)


tallies = Table(
    "tallies",
    metadata,
    # What an account was served lately, as far as its caps have to know, and what exploring cost
    # it; JSON. Changed under the account's lock alone. Rows without an account are of all accounts
    # of a tenant together, and without a tenant of all of a workflow; locked after accounts.
    Column("tenant", String(64), primary_key=True),
    Column("workflow", String(64), primary_key=True),
    Column("account_id", String(128), primary_key=True),
    Column("body", Text, nullable=False),
)

alarm_marks = Table(
    "alarm_marks",
    metadata,
    # How far the job that looks for alarms has looked at an account: service.ledger.alarms.
    Column("tenant", String(64), primary_key=True),
    Column("workflow", String(64), primary_key=True),
    Column("account_id", String(128), primary_key=True),
    Column("base_generation", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("anchor", BigInteger, nullable=False),
)

alarm_streams = Table(
    "alarm_streams",
    metadata,
    # What many accounts' interactions come to: guardrails.streams. No account is named.
    Column("tenant", String(64), primary_key=True),
    Column("workflow", String(64), primary_key=True),
    Column("policy", String(80), primary_key=True),
    Column("bucket", String(256), primary_key=True),  # "": the whole workflow
    Column("version", BigInteger, nullable=False),
    Column("body", Text, nullable=False),  # JSON
)

alarms = Table(
    "alarms",
    metadata,
    Column("alarm_id", String(32), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("workflow", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("scope", String(16), nullable=False),  # account, workflow, bucket
    Column("account_id", String(128), nullable=False),  # "" unless it is about one
    Column("bucket", String(256), nullable=False),
    Column("policy", String(80), nullable=False),
    Column("consequence", String(16), nullable=False),
    Column("base_generation", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("cause", Text, nullable=False),
    Column("suggestion", Text, nullable=False),
    Column("numbers", Text, nullable=False),  # JSON
    Column("raised_at_us", BigInteger, nullable=False),
    Column("acknowledged_at_us", BigInteger),
    Column("acknowledged_by", String(128)),
    Column("acted_at_us", BigInteger),
    Column("cleared_at_us", BigInteger),
    Column("cleared_by", String(128)),
    Column("note", Text),
    Index(None, "account_id", "workflow", "tenant"),
    Index(None, "cleared_at_us", "consequence"),
    Index(None, "raised_at_us", "alarm_id"),
)


api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", String(16), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("tenant", String(64), nullable=False),  # "*": every tenant
    Column("sha256", String(64), nullable=False),  # of the whole key, which is kept nowhere
    Column("created_at_us", BigInteger, nullable=False),
    Column("created_by", String(96), nullable=False),
    Column("expires_at_us", BigInteger),
    Column("revoked_at_us", BigInteger),
    Column("revoked_by", String(96)),
    Column("rotated_from", String(16)),
)


def of_account(table: Table, key: AccountKey) -> tuple[ColumnElement[bool], ...]:
    """What holds of an account's own rows in any table that names accounts."""
    return tuple(table.c[name] == value for name, value in key._asdict().items())
