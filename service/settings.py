"""Every setting of the service, read from the environment under the prefix `ACCLIMATE_`.

A setting that could not be served under is refused here, by name. Addresses may hold passwords:
no message quotes one.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

from service.fault_points import parse

SHORTEST_KEY = 16
"""Bytes of an installation key: whoever could guess it could steer the draws."""
SHORTEST_ADMIN_KEY = 32
"""Characters of the environment's admin key: 16 random bytes in hex."""
REDIS_URL = (
    "redis://, rediss:// or unix:// and what redis-py takes after it, or "
    "redis+cluster:// or rediss+cluster:// and nodes of a cluster, <host>:<port>,<host>:<port>"
)
LEDGER_URL = "sqlite:///<file> or postgresql+psycopg://<user>:<password>@<host>:<port>/<database>"


class SettingError(ValueError):
    """What a setting names cannot be used. The message says why."""


class Settings(BaseSettings):
    """One process's settings. The defaults are the embedded profile: no server to install."""

    model_config = SettingsConfigDict(
        env_prefix="ACCLIMATE_",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8000, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one."""
    data_dir: Path = Path("data")
    """Where the embedded ledger and the installation key live."""
    workflows: Path = Path("workflows")
    """Directory of workflow YAML files; every one of them is served."""
    policies: Path = Path("policies")
    """Directory of bundles, `<name>/<version>/`."""
    policy_pins: Path | None = None
    """File of `sha256sum */*/manifest.json`: no other bundle is served. Default: any that is
    whole."""
    ledger_url: str | None = None
    """SQLAlchemy URL, `sqlite:///…` or `postgresql+psycopg://…`; default: SQLite in `data_dir`."""
    migrations: Literal["start", "wait"] = "start"
    """`start`: whoever starts first brings the ledger to this release's version. `wait`: nobody
    who serves does; they wait until `acclimate migrate` has."""
    redis_url: str | None = None
    """`redis://…`, `rediss://…` or `unix://…` keeps memories in Redis, and
    `redis+cluster://<host>:<port>,<host>:<port>` or `rediss+cluster://…` in a Redis Cluster, of
    which any nodes are named; default: in this process."""
    installation_key: SecretStr | None = None
    """Secret behind the draws, shared by all replicas; default: one file in `data_dir`."""
    access: Literal["keys", "open"] | None = None
    """`keys`: every request needs one. `open`: none does, which is refused beyond this machine and
    with Redis or PostgreSQL. Default: `keys` as soon as one was ever made, or with either of
    these."""
    admin_key: SecretStr | None = None
    """A key of role admin for every tenant, valid for as long as it is set: whatever makes the
    others needs one first. `acclimate keys new` prints one."""
    key_refresh_seconds: float = Field(2.0, gt=0, le=60)
    """How often each process reads the keys from the ledger: a key that was revoked elsewhere is
    refused here so many seconds later, and the time of one read."""
    requests_per_second: float | None = Field(None, gt=0)
    """What a key may ask of this process in a second, and at once after a pause; an item of a batch
    counts as a request. More gets 429. Default: no limit."""
    metrics_need_key: bool = False
    """/metrics is for any key (Prometheus: `authorization`); default: for whoever asks."""
    memory_timeout_seconds: float = Field(0.25, gt=0)
    """How long a decision waits for the memory store before the fallback answers."""
    decision_deadline_seconds: float = Field(2.0, gt=0)
    """How long a decision may take to choose, replays and the network included, before the fallback
    does. What the ledger then takes to commit is bounded apart."""
    memory_idle_seconds: int = Field(30 * 86_400, gt=0)
    """Redis forgets the memory of an account that learned nothing for so long; the ledger rebuilds
    it when it is asked for."""
    in_process_memories: int = Field(100_000, gt=0)
    """How many memories the embedded profile holds; the ledger rebuilds the others."""
    snapshot_every: int = Field(500, gt=0)
    """Interactions of an account between two memories kept in the ledger: what a replay folds at
    most."""
    retention_days: float | None = Field(None, gt=0)
    """Events older than this are deleted where a kept memory holds what they came to; default:
    never."""
    jobs: Literal["here", "workers"] = "here"
    """Who runs the jobs: the processes that serve, or Celery workers (`acclimate worker` and
    `acclimate beat`), which need Redis and PostgreSQL."""
    job_interval_seconds: float = Field(1.0, gt=0)
    """How often the scheduler looks for what is due. It may be a second at the least with
    workers."""
    job_lease_seconds: float = Field(3.0, ge=0.5, le=600)
    """How long a job waits for a worker that was killed in it; a run renews its lease at a third of
    that."""
    alarm_interval_seconds: float = Field(15.0, gt=0)
    """How often what changed is looked at for alarms."""
    broker_url: str | None = None
    """Celery's broker, `redis://…`; default: `redis_url`. One installation a database: beats and
    workers of two would mix."""
    worker_metrics_port: int | None = Field(None, ge=1, le=65_535)
    """Where a worker listens for Prometheus; default: nowhere."""
    drain_seconds: float = Field(0.0, ge=0, le=3_600)
    """How long a process that was asked to end serves on while /readyz says that it is stopping:
    the time a load balancer takes to notice."""
    max_body_bytes: int = Field(1_000_000, gt=0)
    """Larger request bodies get 413."""
    log_format: Literal["text", "json"] = "text"
    """Lines of the log for people, or a JSON object each for machines. Both name requests and
    decisions by id, and quote nothing that a request held."""
    log_requests: Literal["off", "failed", "all"] = "failed"
    """Which requests get a line in the log: those answered with 5xx, all, or none."""
    traces: Literal["off", "otlp"] = "off"
    """`otlp`: a trace a request, to a collector that speaks OTLP over HTTP; needs the extra `otel`.
    Where that is, and which requests are traced, OpenTelemetry's own variables say
    (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER)."""
    fault_point: str | None = None
    """For tests only: where in `service/fault_points.py` the process is to kill itself."""

    @field_validator("installation_key")
    @classmethod
    def _not_guessable(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None:
            _refuse_short(key.get_secret_value().encode())
        return key

    @field_validator("broker_url")
    @classmethod
    def _broker(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("redis://", "rediss://")):
            raise ValueError("expected redis:// or rediss:// and what redis-py takes after it")
        return url

    @field_validator("admin_key")
    @classmethod
    def _random(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value()) < SHORTEST_ADMIN_KEY:
            raise ValueError(
                f"expected at least {SHORTEST_ADMIN_KEY} characters, got "
                f"{len(key.get_secret_value())}; `acclimate keys new` prints one"
            )
        return key

    @field_validator("fault_point")
    @classmethod
    def _known_point(cls, point: str | None) -> str | None:
        if point is not None:
            parse(point)
        return point

    @field_validator("traces")
    @classmethod
    def _traceable(cls, traces: str) -> str:
        if traces != "off":
            try:
                import service.tracing  # noqa: F401
            except ImportError as error:
                raise ValueError("needs OpenTelemetry: pip install 'acclimate[otel]'") from error
        return traces

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            from service.memory.redis_address import parse_address
        except ImportError as error:
            raise ValueError("needs redis: pip install 'acclimate[production]'") from error
        try:
            parse_address(url)
        except ValueError as error:
            raise ValueError(f"expected {REDIS_URL}") from error
        return url

    @field_validator("ledger_url")
    @classmethod
    def _ledger(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parsed = make_url(url)
        except (SQLAlchemyError, ValueError) as error:
            raise ValueError(f"expected {LEDGER_URL}") from error
        refusal = f"expected {LEDGER_URL}, got {parsed.drivername}://"
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise ValueError(refusal)
        try:
            dialect = parsed.get_dialect()
            dialect.import_dbapi()
        except (NoSuchModuleError, ImportError) as error:
            raise ValueError(f"{refusal}, whose driver is unknown or not installed") from error
        if dialect.is_async:
            raise ValueError(f"{refusal}, whose driver is asynchronous")
        return url

    @model_validator(mode="after")
    def _workers_can_reach_it(self) -> Settings:
        if self.jobs == "workers":
            self.broker()
            if make_url(self.ledger).get_backend_name() == "sqlite" or self.redis_url is None:
                raise ValueError(
                    "jobs: expected `here`, or a ledger in PostgreSQL (ACCLIMATE_LEDGER_URL) and "
                    "memories in Redis (ACCLIMATE_REDIS_URL), which workers can reach"
                )
        return self

    def broker(self) -> str:
        """Celery's broker. Raises ValueError where none is named."""
        for url in (self.broker_url, self.redis_url):
            if url is not None and url.startswith(("redis://", "rediss://")):
                return url
        raise ValueError(
            "broker_url: expected redis:// or rediss://, or such a redis_url: Celery speaks to one "
            "server, not to a cluster"
        )

    @property
    def ledger(self) -> str:
        """The ledger's SQLAlchemy URL."""
        return self.ledger_url or f"sqlite:///{self.data_dir / 'ledger.sqlite'}"

    @property
    def shares_stores(self) -> bool:
        """Whether this is the production profile: several replicas on Redis or PostgreSQL."""
        sqlite = make_url(self.ledger).get_backend_name() == "sqlite"
        return self.redis_url is not None or not sqlite

    @property
    def may_be_open(self) -> bool:
        """Whether requests need no key as long as none was ever made."""
        return self.access == "open" or (self.access is None and not self.shares_stores)

    def refuse_exposure(self, *, is_open: bool, is_empty: bool) -> None:
        """Raises SettingError where whoever reaches this process could do as they like, or where
        nobody could do anything."""
        here = is_loopback(self.host)
        if self.access == "open" and (self.shares_stores or not here):
            raise SettingError(
                "ACCLIMATE_ACCESS: open is for this machine alone, with neither Redis nor "
                "PostgreSQL: expected keys"
            )
        if is_empty and (not is_open or not here):
            where = "keys are needed" if here else f"others reach {self.host}"
            raise SettingError(
                f"{where}, and no key is valid: expected one from `acclimate keys create --role "
                "admin`, with this process's settings, or ACCLIMATE_ADMIN_KEY"
            )

    def draw_key(self) -> bytes:
        """The installation key, made and kept in `data_dir` on first use unless one is set.

        Raises SettingError.
        """
        if self.installation_key is not None:
            return self.installation_key.get_secret_value().encode()
        path = self.data_dir / "installation.key"
        try:
            if not path.exists():
                _make_key(path)
            key = path.read_bytes()
            _refuse_short(key)
        except OSError as error:
            raise SettingError(
                f"{path}: expected a file to keep the installation key in, or one in "
                f"ACCLIMATE_INSTALLATION_KEY: {error.strerror}"
            ) from error
        except ValueError as error:
            raise SettingError(
                f"{path}: {error}; another key changes every draw: bring the file back, or delete "
                "it and have a new one made"
            ) from error
        return key


def is_loopback(host: str) -> bool:
    """Whether only this machine is reached by that name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse_short(key: bytes) -> None:
    if len(key) < SHORTEST_KEY:
        raise ValueError(f"expected at least {SHORTEST_KEY} characters, got {len(key)}")


def _make_key(path: Path) -> None:
    """A new key at `path`, whole or not at all; one that somebody else was faster to put there
    stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(prefix=".installation-", dir=path.parent)  # for us alone
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        Path(draft).unlink()
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
