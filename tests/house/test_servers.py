"""The real servers that tests run on: found in order, steerable, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import redis
from sqlalchemy import create_engine, inspect, text

from tests import postgres_server as postgres_server_module
from tests.house.tree import ROOT
from tests.postgres_server import answers as postgres_answers
from tests.postgres_server import create_database, own_postgres, postgres_folders, run_sql
from tests.processes import Child, ProcessError, wait_until
from tests.redis_server import answers, own_redis, redis_client, redis_programs, start_redis
from tests.servers import Server, first_that_starts

REDIS = sorted(set(redis_programs()))
POSTGRES = sorted(set(postgres_folders()))


def gone(pid: int) -> bool:
    """Whether that process has ended, buried or not."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_redis_is_empty_for_each_test(redis_url: str) -> None:
    with redis_client(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_redis_is_empty_for_the_next_test_too(redis_url: str) -> None:
    with redis_client(redis_url) as client:
        assert client.dbsize() == 0


def test_redis_comes_back_at_its_address_with_what_it_stored(
    redis_url: str, redis_server: Server
) -> None:
    with redis_client(redis_url) as client:
        client.set("memory", "kept")
    redis_server.stop()
    assert not answers(redis_url)
    redis_server.start()
    with redis_client(redis_url) as client:
        assert client.get("memory") == b"kept"
    redis_server.flush()
    with redis_client(redis_url) as client:
        assert client.get("memory") is None


def test_a_paused_redis_takes_connections_and_answers_none(
    redis_url: str, redis_server: Server
) -> None:
    with redis_server.pause():
        started = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            redis.Redis.from_url(redis_url, socket_timeout=0.2, retry=None).ping()
        assert time.monotonic() - started < 5
    assert answers(redis_url)


def test_postgresql_gives_a_test_an_empty_database_to_sqlalchemy(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    try:
        assert inspect(engine).get_table_names() == []
    finally:
        engine.dispose()
    run_sql(postgres_url, "CREATE TABLE left_behind ()")


def test_postgresql_gives_the_next_test_another(postgres_url: str) -> None:
    assert (
        run_sql(postgres_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []
    )


def test_postgresql_is_as_durable_as_the_ledger_demands(postgres_url: str) -> None:
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert run_sql(postgres_url, f"SHOW {setting}") == ["on"]


def test_postgresql_keeps_what_it_committed_when_it_is_killed(
    postgres_url: str, postgres_server: Server
) -> None:
    run_sql(postgres_url, "CREATE TABLE kept AS SELECT 7 AS number")
    postgres_server.kill()
    assert not postgres_answers(postgres_url)
    postgres_server.start()
    assert run_sql(postgres_url, "SELECT number FROM kept") == ["7"]


def test_a_paused_postgresql_answers_nothing_until_it_is_resumed(
    postgres_url: str, postgres_server: Server
) -> None:
    engine = create_engine(postgres_url)
    with ThreadPoolExecutor(1) as thread, engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        with postgres_server.pause():
            question = thread.submit(lambda: connection.execute(text("SELECT 2")).scalar())
            with pytest.raises(TimeoutError):
                question.result(timeout=0.3)
        assert question.result(timeout=5) == 2
    engine.dispose()


@pytest.mark.parametrize("program", REDIS, ids=[path.name for path in REDIS])
def test_every_redis_on_this_machine_can_be_run(program: Path) -> None:
    server = own_redis(program)
    pid = server.pid
    assert answers(server.url)
    server.close()
    assert pid is not None
    assert gone(pid)
    assert not server.home.exists()


@pytest.mark.parametrize("programs", POSTGRES, ids=[path.parent.name for path in POSTGRES])
def test_every_postgresql_on_this_machine_can_be_run(programs: Path) -> None:
    server = own_postgres(programs)
    pid = server.pid
    assert pid is not None
    children = [child.pid for child in psutil.Process(pid).children(recursive=True)]
    url = create_database(server.url)
    assert run_sql(url, "SELECT 1") == ["1"]
    server.flush()
    assert run_sql(server.url, "SELECT count(*) FROM pg_database WHERE NOT datistemplate") == ["1"]
    server.close()
    assert wait_until(lambda: all(map(gone, [pid, *children])), timeout_seconds=5)
    assert not server.home.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lends its server another account")
def test_a_postgresql_that_its_account_cannot_reach_runs_from_a_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres_server_module, "reachable_by_all", lambda folder: False)
    *_, pip_installed = postgres_folders()
    server = own_postgres(pip_installed)
    try:
        assert server.home in Path(server.command[0]).parents
        assert run_sql(server.url, "SELECT 1") == ["1"]
    finally:
        server.close()


def test_an_address_in_the_environment_comes_first_and_is_not_ours_to_stop(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCLIMATE_TEST_REDIS_URL", redis_url)
    monkeypatch.delenv("CI", raising=False)
    server = start_redis()
    assert server.url == redis_url
    server.flush()
    with pytest.raises(pytest.skip.Exception):
        server.stop()
    server.close()
    assert answers(redis_url)


def failing() -> Server:
    raise ProcessError("this one does not start")


def test_without_any_server_a_test_is_skipped_in_print(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="this one does not start"):
        first_that_starts("Redis", [failing])
    assert "SKIPPED: no Redis" in capsys.readouterr().out


def test_without_any_server_a_test_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="this one does not start"):
        first_that_starts("Redis", [failing])


def test_a_child_that_ends_early_is_reported_with_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no such setting'); raise SystemExit(3)"]
    child = Child(command, log=tmp_path / "log")
    with pytest.raises(ProcessError, match=r"ended with 3\n.*no such setting"):
        child.wait_ready(lambda: False, timeout_seconds=10)


OWNER = """
import sys, time
from pathlib import Path
from tests.processes import Child
child = Child(["sleep", "600"], log=Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_does_not_outlive_killed_tests(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path / "log")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert not gone(pid)
        owner.send_signal(how)
        owner.wait()
        assert wait_until(lambda: gone(pid), timeout_seconds=5)


INTERRUPTED = """
import os, signal, time
from pathlib import Path

def test_that_somebody_interrupts(redis_server, postgres_server, tmp_path):
    Path(os.environ["PIDS"]).write_text(f"{redis_server.pid} {postgres_server.pid}")
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
"""


def test_ctrl_c_leaves_no_server_behind(tmp_path: Path) -> None:
    (tmp_path / "test_interrupted.py").write_text(INTERRUPTED)
    pids = tmp_path / "pids"
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ACCLIMATE_TEST_")}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path / "test_interrupted.py")],
        cwd=ROOT,
        env=inherited | {"PIDS": str(pids)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert run.returncode == pytest.ExitCode.INTERRUPTED, run.stdout + run.stderr
    assert all(gone(int(pid)) for pid in pids.read_text().split())
