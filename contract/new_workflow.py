"""A new workflow file: complete, commented, and served as it is. To be edited by who it is for."""

from __future__ import annotations

from errno import ENOTDIR
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from contract.parts import WorkflowName
from contract.spec import DEFAULT_POLICY

TEMPLATE = f"""\
# One kind of decision: what may be done, in which context, and what counts as success.
#
# Edit it top to bottom. `acclimate check` says what is wrong with it, by line; `acclimate serve`
# serves every file of its folder. docs/workflows.md walks through all of it.
schema: 1
workflow: @NAME@
description: What to do next for an account.

# The policy that learns each account. Without this line it is the default, {DEFAULT_POLICY}, which
# takes any workflow of up to 50 actions, 16 context slots and 4 features an action.
# policy: {DEFAULT_POLICY}
# No other bundle of that name, by the SHA-256 of its manifest (`acclimate check --json` says it).
# policy_sha256: 0123…

# single_step: every decision stands for itself. multi_step: a journey of several decisions whose
# feedback says with `episode_end: true` that it is over.
episodes: single_step

# For how many interactions an account is expected to be there. The policy explores more where more
# are left; below `floor`, a share of them, it never believes to be.
horizon: {{interactions: 100, floor: 0.05}}

# What may be done: 2 to 50 actions. Add new ones at the end: an account remembers them by their
# place. `features` are numbers that are known of an action beforehand, the same names on every
# action; limits may use them, and so may the policy, which then tells similar actions by them.
actions:
  - id: wait
    features: {{cost: 0.0}}
  - id: send_mail
    features: {{cost: 0.1}}
  - id: call
    features: {{cost: 5.0}}

# What is known when a decision is asked for; every request must say all of it. What feeds the
# policy takes slots: a number or a boolean one, a category one a value (here 1 + 3 + 1 = 5 of 16).
# A feature with `feeds: rules` is for limits and fallback alone, and takes none.
context:
  # Outside [min, max]: `refuse` answers 422, `clip` takes the nearest end. /metrics counts both.
  months_as_customer: {{type: number, min: 0, max: 120, out_of_range: clip}}
  plan: {{type: category, values: [free, basic, premium]}}
  is_open_case: {{type: boolean}}
  agreed_to_calls: {{type: boolean, feeds: rules}}

# What feedback may say: a reward in [min, max], or one of these outcomes by name.
reward:
  min: 0
  max: 1
  outcomes: {{bought: 1, replied: 0.3, nothing: 0}}

# How long a decision waits for its feedback, in seconds, and what is learned when none came:
# `default_reward: null` learns nothing. Feedback after the window: `ignore` keeps it in the ledger
# only, `apply` learns it as one interaction more, `rebuild` as if it had come in time. Several
# pieces for one decision: the `earliest` counts, or their latest, sum, mean, min or max.
feedback:
  window_seconds: 604800
  default_reward: 0
  late: apply
  aggregation: earliest

# What must never happen. Each limit is a CEL condition over context.<feature>, action.id and
# action.<feature>; an action for which it is true is never served, by no policy and no fallback.
# Numbers of context and actions are doubles. Comparing them with whole numbers is fine
# (`context.months_as_customer < 3`), calculating with them is not: write
# `context.months_as_customer + 1.0 > 3.0`. A limit that cannot be evaluated forbids. Conditions
# may also ask account.interactions, account.age_days, account.phase and account.recent_reward.
#
# `required`: while `when` is true, or none of its actions was served for `every_seconds`, nothing
# but its actions is served. `caps` and `cooldowns`: how often an account is served some actions.
# `exploration`: how often decisions may deviate from the fallback, and what that may cost;
# `fallback_reward` is what the fallback earns on average. docs/guardrails.md says more.
guardrails:
  limits:
    - name: no_call_without_consent
      forbid: action.id == "call" && !context.agreed_to_calls
    - name: nothing_costly_for_free_plans
      forbid: action.cost > 1 && context.plan == "free"
  # required:
  #   - {{name: a_call_a_year, actions: [call], every_seconds: 31536000}}
  # caps:
  #   - {{name: two_mails_a_month, actions: [send_mail], at_most: 2, window_seconds: 2592000}}
  # cooldowns:
  #   - {{name: a_week_between_mails, actions: [send_mail], seconds: 604800}}
  # exploration:
  #   fallback_reward: 0.3
  #   budgets:
  #     - {{per: account, at_most: 20, window_seconds: 604800}}
  #   conservative: {{alpha: 0.1, credit: 8, level: 0.95}}
  # Served when nothing else is left.
  safe_action: wait

# What is done when the policy cannot decide: the first rule that holds, else `action`. Between the
# two may stand a supervised model, `model: NAME/1`, which `acclimate train-baseline` fits.
fallback:
  rules:
    - when: context.is_open_case
      action: wait
  action: send_mail

# When an account counts as adapted: once the lower bound of its mean reward over the last `window`
# interactions, at confidence `level`, reaches `target`; it has regressed when the upper bound falls
# below target - hysteresis. `within`: by which interaction accounts are to have adapted, which
# metrics and alerts go by; without it, the horizon.
adaptation: {{target: 0.5, window: 10, level: 0.8, hysteresis: 0.05, within: 40}}

# Features by which rewards, adaptation and alarms are looked at: `values` of a category or a
# boolean, or points that cut a number's range; at most 50 buckets in all.
# buckets:
#   plan: values
#   months_as_customer: [3, 12, 48]

# What follows when rewards fall, exploration is lost or a memory is not like those of training:
# `off`, `alert`, `fall_back`, or for one account `reset_memory`. docs/alarms.md says more.
# alarms:
#   reward_shift: {{account: reset_memory, workflow: alert, bucket: fall_back}}
#   exploration_collapse: {{account: alert, workflow: alert, bucket: alert}}
#   memory_health: {{account: fall_back}}
"""

_NAME = TypeAdapter(WorkflowName)


def new_workflow(name: str) -> str:
    """The text of a new workflow file. Raises ValueError for what is no workflow's name."""
    try:
        _NAME.validate_python(name)
    except ValidationError as error:
        raise ValueError(
            "expected lower-case letters, digits and hyphens, beginning with a letter, at most 64 "
            f"of them, as in retention-offer; got {name!r}"
        ) from error
    return TEMPLATE.replace("@NAME@", name)


def write_new_workflow(name: str, folder: Path) -> Path:
    """Writes `<name>.yaml` into `folder`, which is made where it is missing. Raises ValueError,
    FileExistsError and other OSErrors, and has then written nothing."""
    text = new_workflow(name)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(ENOTDIR, "not a folder", str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    return path
