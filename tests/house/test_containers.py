"""The compose file, the image and Redis's configuration fit the service they are made for.

No container engine is needed: this reads what an engine would, and runs Redis on its file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema.validators import validator_for

from service.server import FINISH_SECONDS, LINGER_SECONDS
from service.settings import Settings
from tests.house.tree import ROOT
from tests.postgres_server import own_postgres, postgres_folders, run_sql
from tests.redis_server import own_redis, redis_client, redis_programs
from tests.servers import unavailable

DOCKERFILE = ROOT / "infra" / "docker" / "Dockerfile"
PREFIX = "ACCLIMATE_"
CORE = {"service", "redis", "postgres"}
PROFILES = {
    "worker": ("worker", "beat"),
    "observability": ("prometheus", "alertmanager", "grafana"),
}
CLOSE_SECONDS = 10
"""For what comes after the last request: commits, and the stores' connections."""


@cache
def compose() -> dict[str, Any]:
    parsed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert isinstance(parsed, dict)
    return parsed


def instructions() -> Iterator[tuple[str, str]]:
    """The Dockerfile's instructions, comments dropped and continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), rest.strip()


def setting_names(text: str) -> set[str]:
    return set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", text))


def known_settings() -> set[str]:
    return {PREFIX + name.upper() for name in Settings.model_fields}


def test_compose_runs_the_service_on_a_healthy_redis_and_postgresql() -> None:
    services = compose()["services"]
    assert set(services) == CORE | set(PROFILES["worker"]) | set(PROFILES["observability"])
    waits = {name: d["condition"] for name, d in services["service"]["depends_on"].items()}
    assert waits == {"redis": "service_healthy", "postgres": "service_healthy"}
    for name, service in services.items():
        check = service["healthcheck"]  # every one of them has its own
        assert check["test"][0] == "CMD", name
        assert {"interval", "timeout", "retries"} <= set(check), name
    assert "/readyz" in services["service"]["healthcheck"]["test"][-1]


def test_compose_builds_from_what_is_here_and_keeps_its_data_in_named_volumes() -> None:
    build = compose()["services"]["service"]["build"]
    assert (ROOT / build["context"] / build["dockerfile"]).resolve() == DOCKERFILE
    used = set()
    for service in compose()["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), source
                assert volume.endswith(":ro"), volume
            else:
                used.add(source)
    assert used == set(compose()["volumes"])


def test_compose_publishes_no_store_and_on_loopback_alone() -> None:
    published = {n: s["ports"] for n, s in compose()["services"].items() if "ports" in s}
    assert set(published) == {"service", *PROFILES["observability"]}
    for ports in published.values():
        assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_fits_the_schema_of_compose_files() -> None:
    schema = json.loads(
        files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text()
    )
    kind = validator_for(schema)
    assert not [error.message for error in kind(schema).iter_errors(compose())]
    broken = json.loads(json.dumps(compose()))
    broken["services"]["service"]["helthcheck"] = {}
    assert [error.message for error in kind(schema).iter_errors(broken)]


def test_every_container_is_confined() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert any(one.startswith("/tmp:") for one in service["tmpfs"]), name
        assert int(service["user"].split(":")[0]) > 0, name
        assert "privileged" not in service, name
    assert int(dict(instructions())["USER"]) == int(
        compose()["services"]["service"]["user"].split(":")[0]
    )


def test_profiles_start_what_they_say() -> None:
    services = compose()["services"]
    for name, service in services.items():
        expected = [profile for profile, names in PROFILES.items() if name in names]
        assert service.get("profiles", []) == expected, name


def test_compose_waits_for_as_long_as_a_stop_may_take() -> None:
    service = compose()["services"]["service"]
    drain = service["environment"]["ACCLIMATE_DRAIN_SECONDS"]
    (seconds,) = re.findall(r":-(\d+)", drain)
    longest = int(seconds) + LINGER_SECONDS + FINISH_SECONDS
    assert int(service["stop_grace_period"].removesuffix("s")) >= longest + CLOSE_SECONDS


@pytest.mark.parametrize("path", ["docker-compose.yml", "infra/docker/Dockerfile"])
def test_every_setting_named_is_one_the_service_reads(path: str) -> None:
    named = setting_names((ROOT / path).read_text())
    assert named, "this names no setting at all"
    assert named <= known_settings()


@pytest.mark.parametrize("which", ["service", "worker", "beat"])
def test_compose_gives_each_process_settings_that_it_accepts(
    monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    given = compose()["services"][which]["environment"]
    for name in known_settings():
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        if value is not None:
            default = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
            assert "$" not in default, f"{name} has a variable without a default"
            monkeypatch.setenv(name, default)
    settings = Settings()
    assert settings.redis_url == "redis://redis:6379/0"
    assert settings.ledger_url is not None
    assert "@postgres:5432/acclimate" in settings.ledger_url
    assert settings.jobs == ("here" if which == "service" else "workers")


def test_compose_starts_workers_only_when_asked_to_and_in_the_same_image() -> None:
    services = compose()["services"]
    for name in ("worker", "beat"):
        assert services[name]["profiles"] == ["worker"]
        assert services[name]["image"] == services["service"]["image"]
        assert services[name]["command"] == ["acclimate", name]
    assert services["service"]["environment"]["ACCLIMATE_JOBS"] == "${ACCLIMATE_JOBS:-here}"


def test_the_image_copies_what_is_here_and_what_the_build_may_see() -> None:
    seen = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in seen
    for word, rest in instructions():
        if word == "COPY" and "--from=" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in seen, f"{source} is hidden by .dockerignore"


def test_the_image_holds_every_package_of_the_project() -> None:
    copied = " ".join(rest for word, rest in instructions() if word == "COPY").split()
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= set(copied)
    assert {"acclimate.py", "workflows", "policies"} <= set(copied)


def test_the_image_runs_the_service_unprivileged_and_without_torch() -> None:
    last = dict(instructions())
    assert json.loads(last["CMD"]) == ["python", "-m", "service"]
    assert int(last["USER"]) > 0  # a number: an orchestrator can tell that it is not root
    health = json.loads(last["HEALTHCHECK"].partition("CMD ")[2])
    assert "/readyz" in health[-1]
    compile(health[-1], "HEALTHCHECK", "exec")
    installs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    assert len(installs) == 1
    assert "-c constraints.txt '.[client,otel,production,worker]'" in installs[0]


def test_redis_keeps_what_it_is_told_with_its_production_configuration() -> None:
    program = next(redis_programs(), None)
    if program is None:
        unavailable("no Redis program to try infra/redis/redis.conf with")
    server = own_redis(program, ROOT / "infra" / "redis" / "redis.conf")
    try:
        with redis_client(server.url) as client:
            assert client.config_get("appendonly", "appendfsync", "maxmemory-policy", "save") == {
                "appendonly": "yes",
                "appendfsync": "everysec",
                "maxmemory-policy": "noeviction",
                "save": "",
            }
            client.set("memory", "kept")
        server.kill()
        server.start()
        with redis_client(server.url) as client:
            assert client.get("memory") == b"kept"
    finally:
        server.close()


def test_postgresql_runs_with_its_production_configuration() -> None:
    program = next(postgres_folders(), None)
    if program is None:
        unavailable("no PostgreSQL program to try infra/postgres/postgresql.conf with")
    server = own_postgres(program)
    try:
        for name, value in (
            ("fsync", "on"),
            ("synchronous_commit", "on"),
            ("full_page_writes", "on"),
            ("shared_buffers", "512MB"),
        ):
            assert run_sql(server.url, f"SHOW {name}") == [value]
        (packed,) = run_sql(server.url, "SHOW wal_compression")
        assert packed != "off"
    finally:
        server.close()


def test_the_paths_named_inside_the_image_are_those_it_makes() -> None:
    text = DOCKERFILE.read_text()
    volume = Path(dict(instructions())["VOLUME"])
    assert f"ACCLIMATE_DATA_DIR={volume}" in text
    for name in ("workflows", "policies"):
        assert f"COPY {name} /etc/acclimate/{name}" in text
        assert f"ACCLIMATE_{name.upper()}=/etc/acclimate/{name}" in text
