"""`acclimate rollout`: put a policy in front of real accounts by and by, and take it back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from service.operator_cli import LOCAL, AsJson, Key, Url, Why, ask, moment, signed
from service.rollout_simulate_cli import (
    ScheduleFile,
    read_schedule,
    schedule_command,
    simulate_command,
)

app = typer.Typer(
    help="Put a policy in front of real accounts, a few at first, and take it back when it is "
    "worse. `start` begins one, the service goes on by itself, `show` says where it stands and "
    "why. docs/rollouts.md tells the whole story.",
    no_args_is_help=True,
)
RolloutId = Annotated[str, typer.Argument(help="As `start` and `list` print it.")]

app.command("schedule")(schedule_command)
app.command("simulate")(simulate_command)


@app.command("start")
def start_command(
    policy: Annotated[str, typer.Argument(help="A bundle's name and version, retention-offer/2.")],
    workflow: Annotated[str, typer.Option(help="Whose decisions it is to make.")],
    why: Why,
    against: Annotated[
        str,
        typer.Option(
            help="`current`: who is not in stays on the policy that serves now. `fallback`: who is "
            "not in is on the fallback, for a workflow whose first policy this is."
        ),
    ] = "current",
    schedule: ScheduleFile = None,
    url: Url = LOCAL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Begin a rollout at its first stage, which by default is shadow: nobody is served by it.

    Exits with 1 when the service refuses: the bundle fails its parity vectors or does not fit the
    workflow, the schedule cannot be followed, or a rollout is on its way already. Nothing has
    changed then. Exits with 2 when the service does not answer.
    """
    body: dict[str, Any] = {"workflow": workflow, "policy": policy, "against": against}
    if schedule is not None:
        body["schedule"] = read_schedule(schedule).model_dump(mode="json")
    answer = ask(url, key, "POST", "/v1/rollouts", signed(why) | body)
    _show_one(answer, as_json)


@app.command("list")
def list_command(
    workflow: Annotated[str | None, typer.Option(help="Only of this one.")] = None,
    url: Url = LOCAL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Every rollout there ever was, oldest first."""
    query = "" if workflow is None else f"?workflow={workflow}"
    answer = ask(url, key, "GET", f"/v1/rollouts{query}")
    if as_json:
        print(json.dumps(answer))
        return
    for one in answer["rollouts"]:
        print(
            f"{one['rollout_id']}  {one['policy']} on {one['workflow']}: {one['status']} at "
            f"{one['percent']:g} %, since {moment(one['stage_since'])}"
        )


@app.command("show")
def show_command(
    rollout_id: RolloutId, url: Url = LOCAL, key: Key = None, as_json: AsJson = False
) -> None:
    """Where a rollout stands: the last verdict and what it rests on, and how it got there."""
    answer = ask(url, key, "GET", f"/v1/rollouts/{rollout_id}")
    if as_json:
        print(json.dumps(answer))
        return
    _show_one(answer, False)
    verdict, evidence = answer["verdict"], answer["evidence"]
    if verdict is not None:
        print(f"verdict     {verdict['verdict']} ({verdict['reason']}): {verdict['detail']}")
    if evidence["shadow_decisions"]:
        print(
            f"shadow      {evidence['shadow_decisions']} decisions, {evidence['shadow_failures']} "
            f"failures, mean probability of what was served {evidence['shadow_agreement']:.3f}"
        )
    print(
        f"this stage  {evidence['stage_candidate_accounts']} accounts of the candidate's, "
        f"{evidence['stage_control_accounts']} of the control's, {evidence['stage_interactions']} "
        "interactions"
    )
    for name, one in evidence["comparisons"].items():
        within = f", within [{one['lower']:+.4f}, {one['upper']:+.4f}]" if "lower" in one else ""
        print(
            f"{name:11} {one['candidate_mean']:.4f} against {one['control_mean']:.4f}: "
            f"{one['difference']:+.4f}, standard error {one['standard_error']:.4f}{within}"
        )
    for one in answer["transitions"]:
        did = f"{one['actor']} {one['action'].replace('_', ' ')}, to {one['percent']:g} %"
        print(f"{moment(one['at'])}  {did}: {one['reason']}")


@app.command("advance")
def advance_command(
    rollout_id: RolloutId, why: Why, url: Url = LOCAL, key: Key = None, as_json: AsJson = False
) -> None:
    """Go on to the next stage now, whatever the evidence says. What is bad is still taken back."""
    _act(rollout_id, "advance", why, url, key, as_json)


@app.command("approve")
def approve_command(
    rollout_id: RolloutId, why: Why, url: Url = LOCAL, key: Key = None, as_json: AsJson = False
) -> None:
    """Let a rollout that waits for nothing else go on. Refused while it waits for anything else."""
    _act(rollout_id, "approve", why, url, key, as_json)


@app.command("pause")
def pause_command(
    rollout_id: RolloutId, why: Why, url: Url = LOCAL, key: Key = None, as_json: AsJson = False
) -> None:
    """Stay at this stage until somebody resumes. What is bad is still taken back."""
    _act(rollout_id, "pause", why, url, key, as_json)


@app.command("resume")
def resume_command(
    rollout_id: RolloutId, why: Why, url: Url = LOCAL, key: Key = None, as_json: AsJson = False
) -> None:
    """Go on with a paused rollout: its stage begins anew."""
    _act(rollout_id, "resume", why, url, key, as_json)


@app.command("back")
def back_command(
    rollout_id: RolloutId, why: Why, url: Url = LOCAL, key: Key = None, as_json: AsJson = False
) -> None:
    """Take a rollout back: from their next decision on its accounts are served as before, and keep
    all that was learned of them. What was begun last is taken back first."""
    _act(rollout_id, "roll-back", why, url, key, as_json)


@app.command("audit")
def audit_command(
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Events at most.")] = 20,
    url: Url = LOCAL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """What operators did last, newest first: who, when and why."""
    answer = ask(url, key, "GET", f"/v1/audit?limit={limit}")
    if as_json:
        print(json.dumps(answer))
        return
    for one in answer["events"]:
        did = f"{one['actor']}: {one['action'].replace('_', ' ')}, {one['subject']}"
        print(f"{moment(one['at'])}  {did}: {one['reason']}")


def _act(rollout_id: str, action: str, why: str, url: str, key: str | None, as_json: bool) -> None:
    path = f"/v1/rollouts/{rollout_id}/{action}"
    _show_one(ask(url, key, "POST", path, signed(why)), as_json)


def _show_one(rollout: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rollout))
        return
    at = f"{rollout['percent']:g} %, stage {rollout['stage'] + 1} of {rollout['stages']}"
    print(
        f"rollout     {rollout['rollout_id']}: {rollout['policy']} on {rollout['workflow']}, "
        f"against {rollout['against']}"
    )
    print(f"status      {rollout['status']} at {at}, since {moment(rollout['stage_since'])}")
    print(f"why         {rollout['reason']}")
