"""`make console-shot`: pictures of every page of the console, of a live service at its work:
workflows under simulated traffic, a rollout that waits for approval, an alarm.

The service runs by itself, on a free port and a temporary folder, and is played against over REST.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer
from rich.console import Console

from benchmarks.chromium import NoChromiumError, chromium
from benchmarks.interruption import ended_like_ctrl_c
from benchmarks.service_process import ServiceError, ServiceProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FOLDER = Path("out/console")
WORKFLOW = "retention-offer"
SCREENS: dict[str, dict[str, Any]] = {
    "laptop": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}
SCHEDULE = {
    "stages": [
        {"percent": 0, "min_accounts": 0, "bake_interactions": 50},
        {"percent": 30, "min_accounts": 30, "bake_interactions": 2, "approval": True},
        {"percent": 100},
    ],
    "holdout_percent": 10,
}
WAIT_SECONDS = 90.0
FAILED = 1
INTERRUPTED = 130

app = typer.Typer()


@app.command()
def shoot(
    folder: Annotated[Path, typer.Option(help="Where the pictures go.")] = FOLDER,
    accounts: Annotated[int, typer.Option(min=40, help="Of each workflow.")] = 400,
    decisions: Annotated[int, typer.Option(min=20, help="Of each account.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Fixes the accounts and their luck.")] = 3,
    workflows: Annotated[Path, typer.Option(help="Folder of workflow files.")] = Path("workflows"),
    policies: Annotated[Path, typer.Option(help="Folder of bundles.")] = Path("policies"),
) -> None:
    """Pictures of each page of the console on a laptop, in the dark and on a phone.

    Exits with 1 when there is no Chromium, or the service is not as it should be.
    """
    notes, out = Console(stderr=True), Console()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with ended_like_ctrl_c(), tempfile.TemporaryDirectory(prefix="acclimate-shot-") as home:
            service = ServiceProcess(
                Path(home),
                workflows=workflows,
                policies=policies,
                settings={
                    "ACCLIMATE_ALARM_INTERVAL_SECONDS": "5",
                    "ACCLIMATE_INSTALLATION_KEY": "a-fixed-one-for-pictures",
                },
            )
            service.start()
            try:
                pages = _play(service, accounts, decisions, seed, folder / "first-look.png", notes)
                notes.print("taking pictures", highlight=False)
                with chromium() as browser:
                    taken = [
                        path
                        for name, screen in SCREENS.items()
                        for path in _take(browser, service, pages, folder, name, screen)
                    ]
            finally:
                service.stop()
    except (NoChromiumError, ServiceError) as error:
        notes.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    for path in taken:
        out.print(str(path), highlight=False, soft_wrap=True)


def _play(
    service: ServiceProcess,
    accounts: int,
    decisions: int,
    seed: int,
    picture: Path,
    notes: Console,
) -> dict[str, str]:
    """The pages to be taken, once there is something on all of them; the first one is taken before
    the kill switch is thrown. Raises ServiceError."""
    with httpx.Client(base_url=service.base_url, trust_env=False, timeout=30) as http:
        body = {
            "workflow": WORKFLOW,
            "policy": f"{WORKFLOW}/1",
            "why": "trained on the last year",
            "by": "Ada",
            "schedule": SCHEDULE,
        }
        answer = http.post("/v1/rollouts", json=body)
        answer.raise_for_status()
        rollout = answer.json()["rollout_id"]
        notes.print("playing simulated accounts", highlight=False)
        _simulate(service, WORKFLOW, accounts // 4, decisions, seed, "shadow")
        _until(http, f"/v1/rollouts/{rollout}", lambda body: body["stage"] == 1)
        _simulate(service, WORKFLOW, accounts, decisions, seed, "sim")
        _simulate(service, "fraud-step-up", accounts, decisions, seed, "sim")
        notes.print("accounts that change, until an alarm is raised", highlight=False)
        _simulate(
            service, "lead-qualification", accounts // 4, 2 * decisions, seed, "sim", decisions
        )
        _until(
            http,
            f"/v1/rollouts/{rollout}",
            lambda body: (body["verdict"] or {}).get("reason") == "awaiting_approval",
        )
        _until(http, "/v1/alarms", lambda body: bool(body["alarms"]))
        time.sleep(6)  # the curves are counted
        notes.print(f"the first look goes to {picture}", highlight=False)
        with chromium() as browser:
            page = browser.new_page(**SCREENS["laptop"])
            page.goto(f"{service.base_url}/console")
            page.screenshot(path=str(picture))
        http.put(
            "/v1/kill-switch",
            json={"on": True, "workflow": "onboarding", "why": "new mails under review"},
        ).raise_for_status()
        home = f"/console/workflows/{WORKFLOW}"
        listed = http.get(f"{home}/accounts?phase=adapted").text
        names = re.findall(rf'href="({home}/accounts/[^"?]+)"', listed)
        if not names:
            raise ServiceError("no account has adapted")
    return {
        "workflows": "/console",
        "workflow": home,
        "accounts": f"{home}/accounts",
        "account": names[0],
        "alarms": "/console/alarms",
        "rollouts": "/console/rollouts",
        "rollout": f"/console/rollouts/{rollout}",
        "kill-switch": "/console/kill-switch",
    }


def _simulate(
    service: ServiceProcess,
    workflow: str,
    accounts: int,
    decisions: int,
    seed: int,
    run: str,
    change_at: int | None = None,
) -> None:
    command = [
        *(sys.executable, "acclimate.py", "simulate", workflow, "--url", service.base_url),
        *("--accounts", str(accounts), "--decisions", str(decisions), "--seed", str(seed)),
        *("--run", run, "--batch", "--json"),
        *(() if change_at is None else ("--change-at", str(change_at))),
    ]
    played = subprocess.run(command, capture_output=True, text=True, check=False)
    if played.returncode:
        raise ServiceError(f"{' '.join(command)} ended with {played.returncode}: {played.stderr}")


def _until(http: httpx.Client, path: str, holds: Any) -> None:
    give_up_at = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < give_up_at:
        body = http.get(path).json()
        if holds(body):
            return
        time.sleep(0.5)
    raise ServiceError(f"{path} after {WAIT_SECONDS:g} s: {json.dumps(body)[:2000]}")


def _take(
    browser: Browser,
    service: ServiceProcess,
    pages: dict[str, str],
    folder: Path,
    name: str,
    screen: dict[str, Any],
) -> list[Path]:
    context = browser.new_context(base_url=service.base_url, **screen)
    page, taken = context.new_page(), []
    for title, path in pages.items():
        page.goto(path)
        taken.append(folder / f"{title}-{name}.png")
        page.screenshot(path=str(taken[-1]), full_page=True)
    context.close()
    return taken


if __name__ == "__main__":
    app()
