"""Every setting of the service, read from the environment under the prefix `ACCLIMATE_`."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """One process's settings. The defaults are the embedded profile: no server to install."""

    model_config = SettingsConfigDict(env_prefix="ACCLIMATE_", extra="ignore", frozen=True)

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
    ledger_url: str | None = None
    """SQLAlchemy URL, `sqlite:///…` or `postgresql+psycopg://…`; default: SQLite in `data_dir`."""
    redis_url: str | None = None
    """`redis://…` keeps memories in Redis; default: in this process."""
    installation_key: SecretStr | None = None
    """Secret behind the draws, shared by all replicas; default: one file in `data_dir`."""
    memory_timeout_seconds: float = Field(0.25, gt=0)
    """How long a decision waits for the memory store before the fallback answers."""
    memory_idle_seconds: int = Field(30 * 86_400, gt=0)
    """Redis forgets the memory of an account idle for so long; the ledger rebuilds it."""
    in_process_memories: int = Field(100_000, gt=0)
    """How many memories the embedded profile holds; the ledger rebuilds the others."""
    job_interval_seconds: float = Field(1.0, gt=0)
    """How often the scheduler looks for what is due."""
    max_body_bytes: int = Field(1_000_000, gt=0)
    """Larger request bodies get 413."""

    @property
    def ledger(self) -> str:
        """The ledger's SQLAlchemy URL."""
        return self.ledger_url or f"sqlite:///{self.data_dir / 'ledger.sqlite'}"

    def draw_key(self) -> bytes:
        """The installation key, made and kept in `data_dir` on first use unless one is set."""
        if self.installation_key is not None:
            return self.installation_key.get_secret_value().encode()
        path = self.data_dir / "installation.key"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_bytes()
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode())
            file.flush()
            os.fsync(file.fileno())
        return path.read_bytes()
