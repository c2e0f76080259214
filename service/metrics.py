"""The service's Prometheus metrics. An account id is never a label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from contract.adaptation import Phase
from contract.encode import ContextError
from contract.spec import BooleanFeature, NumberFeature, WorkflowSpec
from service.progress_metrics import ProgressMetrics
from service.steps import Step

SECONDS = (
    0.0001,
    0.0002,
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
)
JOB_SECONDS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0)
STEPS = ("guard", "memory", "infer", "ledger")
"""Of a decision."""
DELAYS = (0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0)
GROUPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


REFUSALS = (401, 403, 413, 429)
OPENMETRICS = "application/openmetrics-text"
OBJECTIVE_SECONDS = {"decision": 0.05, "ledger_commit": 0.2}
"""How long these may take: bounds of buckets, so that what is slower can be counted."""
OBJECTIVE_SHARES = {"decision_in_time": 0.99, "policy_decides": 0.99, "request_answered": 0.999}
"""How much of what is asked is to go well; what the alerts on burn rates rest on."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each one there is


class Metrics:
    """One application's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.progress = ProgressMetrics(r)
        ProcessCollector(registry=r)
        self.objective_seconds = Gauge(
            "acclimate_objective_seconds",
            "How long it may take: decision, from request to commit; ledger_commit, 99 in 100.",
            ["objective"],
            registry=r,
        )
        for objective, bound in OBJECTIVE_SECONDS.items():
            self.objective_seconds.labels(objective).set(bound)
        self.objective_share = Gauge(
            "acclimate_objective_share",
            "How much is to go well: decisions in time, decisions by the policy where nothing "
            "else was meant to decide, requests answered.",
            ["objective"],
            registry=r,
        )
        for objective, bound in OBJECTIVE_SHARES.items():
            self.objective_share.labels(objective).set(bound)
        self.refusals = Counter(
            "acclimate_requests_refused",
            "Requests refused before anything was done, by status: 401 no valid key, 403 not for "
            "this key, 413 too large, 429 too often.",
            ["status"],
            registry=r,
        )
        for status in REFUSALS:
            self.refusals.labels(str(status))
        self.requests = Counter(
            "acclimate_requests",
            "Requests by route and by the status they were answered with; `gone`: whoever asked "
            "had left.",
            ["route", "status"],
            registry=r,
        )
        self.decisions = Counter(
            "acclimate_decisions",
            "Decisions committed, by what chose the action.",
            ["workflow", "policy", "reason"],
            registry=r,
        )
        self.decision_seconds = Histogram(
            "acclimate_decision_seconds",
            "From a decision's request to its commit.",
            ["workflow"],
            buckets=SECONDS,
            registry=r,
        )
        self.step_seconds = Histogram(
            "acclimate_decision_step_seconds",
            "Seconds of one step for the decisions that are made together: guard, memory, infer, "
            "ledger.",
            ["step"],
            buckets=SECONDS,
            registry=r,
        )
        self._steps = {name: self.step_seconds.labels(name) for name in STEPS}
        self.fallbacks = Counter(
            "acclimate_fallbacks",
            "Decisions that the policy did not make, by cause.",
            ["workflow", "cause"],
            registry=r,
        )
        self.limits = Counter(
            "acclimate_limits_applied",
            "Decisions from which a hard limit removed an action.",
            ["workflow", "limit"],
            registry=r,
        )
        self.circuit_open = Gauge(
            "acclimate_circuit_open",
            "1 while the memory store, or a policy's network, is left alone after failing several "
            "times in a row.",
            ["part"],
            registry=r,
        )
        self.guardrail_seconds = Counter(
            "acclimate_guardrail_seconds",
            "Time spent on what may be done: limits, caps, budgets; a batch's is counted once.",
            ["workflow"],
            registry=r,
        )
        self.deviations = Counter(
            "acclimate_deviations",
            "Decisions that deviated from the fallback, where an exploration budget is declared.",
            ["workflow"],
            registry=r,
        )
        self.budget = Gauge(
            "acclimate_exploration_budget_decisions",
            "Decisions that may deviate from the fallback in a window, by whose they are.",
            ["workflow", "per"],
            registry=r,
        )
        self.clipped = Counter(
            "acclimate_context_clipped",
            "Context values outside their declared range that were clipped.",
            ["workflow", "feature"],
            registry=r,
        )
        self.refused = Counter(
            "acclimate_context_refused",
            "Requests for a decision that were refused for a context value, by what was off; one "
            "that no workflow declares has no feature.",
            ["workflow", "feature", "cause"],
            registry=r,
        )
        self.feedback = Counter(
            "acclimate_feedback",
            "Feedback by what became of it: folded, revised, recorded, duplicate, default (told by "
            "nobody).",
            ["workflow", "status"],
            registry=r,
        )
        self.feedback_late = Counter(
            "acclimate_feedback_late",
            "Feedback that came after its decision's window.",
            ["workflow"],
            registry=r,
        )
        self.feedback_dangling = Counter(
            "acclimate_feedback_dangling", "Feedback for a decision nobody knows.", registry=r
        )
        self.feedback_out_of_order = Counter(
            "acclimate_feedback_out_of_order",
            "Feedback folded after that of a later decision of its account. Each replica counts "
            "what it took itself.",
            ["workflow"],
            registry=r,
        )
        self.feedback_refused = Counter(
            "acclimate_feedback_refused",
            "Feedback for a known decision that was not taken, by cause: conflict (its id came "
            "with another body), erased, invalid, not_active.",
            ["cause"],
            registry=r,
        )
        self.feedback_delay = Histogram(
            "acclimate_feedback_delay_seconds",
            "From a decision to what is told of it, defaults apart.",
            ["workflow"],
            buckets=DELAYS,
            registry=r,
        )
        self.feedback_seconds = Histogram(
            "acclimate_feedback_seconds",
            "From feedback's request to its commit and fold.",
            ["workflow"],
            buckets=SECONDS,
            registry=r,
        )
        self.reward = Counter(
            "acclimate_reward_scaled",
            "Sum of folded rewards, each scaled to [0, 1] by its workflow's range.",
            ["workflow"],
            registry=r,
        )
        self.accounts = Gauge(
            "acclimate_accounts", "Accounts by phase.", ["workflow", "phase"], registry=r
        )
        self.memory_rebuilds = Counter(
            "acclimate_memory_rebuilds",
            "Memories brought to their account's head by replay, by cause.",
            ["workflow", "cause"],
            registry=r,
        )
        self.memory_rebuilt_interactions = Counter(
            "acclimate_memory_rebuilt_interactions",
            "Interactions folded by replays.",
            ["workflow"],
            registry=r,
        )
        self.memory_incomplete = Counter(
            "acclimate_memory_incomplete",
            "Replays of accounts whose early events retention has deleted, without a snapshot.",
            ["workflow"],
            registry=r,
        )
        self.feedback_to_behaviour = Histogram(
            "acclimate_feedback_to_behaviour_decisions",
            "Decisions of an account between a feedback and the first that uses it; 0: the next. "
            "Each replica counts what it made itself.",
            ["workflow"],
            buckets=(0, 1, 2, 5, 10),
            registry=r,
        )
        self.not_ready = Counter(
            "acclimate_policy_not_ready",
            "Decisions that the policy before made, as the account was not brought over yet.",
            ["workflow", "policy"],
            registry=r,
        )
        self.rollout_percent = Gauge(
            "acclimate_rollout_percent",
            "Of the accounts, exposed to the rollout that is on its way; 0: none is, or in shadow.",
            ["workflow"],
            registry=r,
        )
        self.rollout_stage_since = Gauge(
            "acclimate_rollout_stage_timestamp_seconds",
            "When the rollout that is on its way came to its stage, in Unix time; 0: none is.",
            ["workflow"],
            registry=r,
        )
        self.rollout_paused = Gauge(
            "acclimate_rollout_paused",
            "1 while a rollout waits for somebody to look at it.",
            ["workflow"],
            registry=r,
        )
        self.rollout_transitions = Counter(
            "acclimate_rollout_transitions",
            "Transitions that verdicts made: advance, pause, rollback.",
            ["workflow", "verdict"],
            registry=r,
        )
        self.kill_switch = Gauge(
            "acclimate_kill_switch",
            "1 while the fallback decides because somebody said so; * is all workflows.",
            ["workflow"],
            registry=r,
        )
        self.memory_conflicts = Counter(
            "acclimate_memory_conflicts",
            "Decisions or folds that found the memory moved on.",
            ["workflow"],
            registry=r,
        )
        self.memory_corrupt = Counter(
            "acclimate_memory_corrupt",
            "Stored memories that were refused, by what was off.",
            ["cause"],
            registry=r,
        )
        self.memory_unavailable = Counter(
            "acclimate_memory_unavailable", "Calls that the memory store failed.", registry=r
        )
        self.commit_seconds = Histogram(
            "acclimate_ledger_commit_seconds",
            "Seconds of one group commit.",
            buckets=SECONDS,
            registry=r,
        )
        self.commit_writes = Histogram(
            "acclimate_ledger_commit_writes",
            "Writes in one group commit.",
            buckets=GROUPS,
            registry=r,
        )
        self.alarms_raised = Counter(
            "acclimate_alarms_raised",
            "Alarms that this process raised, by what they are about.",
            ["workflow", "kind", "scope"],
            registry=r,
        )
        self.alarms_open = Gauge(
            "acclimate_alarms_open",
            "Alarms that are not cleared, by what they are about; of accounts, how many.",
            ["workflow", "kind", "scope", "bucket"],
            registry=r,
        )
        self.job_runs = Counter(
            "acclimate_job_runs",
            "Runs of jobs, by how they ended: done, failed, skipped as another ran it, lost to "
            "another while asleep.",
            ["task", "outcome"],
            registry=r,
        )
        self.job_seconds = Histogram(
            "acclimate_job_seconds",
            "Seconds of one run of a job.",
            ["task"],
            buckets=JOB_SECONDS,
            registry=r,
        )
        self.job_period = Gauge(
            "acclimate_job_period_seconds",
            "Seconds after which a job runs again.",
            ["task"],
            registry=r,
        )
        self.job_done = Gauge(
            "acclimate_job_done_timestamp_seconds",
            "When a run of a job last ended well, in Unix time, wherever it ran, as far as the "
            "ledger or this process knows; absent while neither knows of one.",
            ["task"],
            registry=r,
        )
        self.parity = Gauge(
            "acclimate_policy_parity_difference",
            "Largest difference to the bundle's parity vectors on this machine.",
            ["policy"],
            registry=r,
        )

    def expect_context(self, spec: WorkflowSpec) -> None:
        """Told of a workflow being served: what of its context may come out of range is counted
        from 0."""
        for name, feature in spec.context.items():
            if isinstance(feature, NumberFeature) and feature.out_of_range == "clip":
                self.clipped.labels(spec.workflow, name)
            elif not isinstance(feature, BooleanFeature):
                self.refused.labels(spec.workflow, name, "out_of_range")

    def expect_exploration(self, spec: WorkflowSpec) -> None:
        """Told of a workflow being served: its budgets, beside what they bound."""
        exploration = spec.guardrails.exploration
        if exploration is not None:
            self.deviations.labels(spec.workflow)
            for budget in exploration.budgets:
                self.budget.labels(spec.workflow, budget.per).set(budget.at_most)

    def expect_events(self, spec: WorkflowSpec) -> None:
        """Told of a workflow being served: what seldom happens counts from 0, so that the first
        time is seen."""
        for cause in ("missing", "behind"):
            self.memory_rebuilds.labels(spec.workflow, cause)
        for verdict in ("advance", "pause", "rollback"):
            self.rollout_transitions.labels(spec.workflow, verdict)

    def observe_refusal(self, workflow: str, error: ContextError) -> None:
        """Told of a request refused for its context. What nobody declared is no label."""
        feature = "" if error.cause == "undeclared" else error.feature
        self.refused.labels(workflow, feature, error.cause).inc()

    def observe_steps(self, steps: Iterable[Step]) -> None:
        """Told of what was done for decisions that are made together."""
        for step in steps:
            self._steps[step.name].observe(step.ended - step.began)

    def observe_request(self, route: str, status: int | None) -> None:
        """Told of every request that is over; a path that is no route's has none."""
        self.requests.labels(route, "gone" if status is None else str(status)).inc()

    def observe_status(self, status: int) -> None:
        """Told the status of every answer."""
        if status in REFUSALS:
            self.refusals.labels(str(status)).inc()

    def observe_commit(self, writes: int, seconds: float) -> None:
        """Told of every group commit."""
        self.commit_writes.observe(writes)
        self.commit_seconds.observe(seconds)

    def observe_alarms(self, counts: Mapping[tuple[str, str, str, str], int]) -> None:
        """Told how many alarms are open by (workflow, kind, scope, bucket)."""
        self.alarms_open.clear()
        for labels, count in counts.items():
            self.alarms_open.labels(*labels).set(count)

    def observe_phases(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Told how many accounts there are by (workflow, phase); a phase without one counts 0."""
        self.accounts.clear()
        for workflow in {workflow for workflow, _ in counts}:
            for phase in get_args(Phase):
                self.accounts.labels(workflow, phase).set(counts.get((workflow, phase), 0))

    def exposition(self, accept: str = OPENMETRICS) -> tuple[bytes, str]:
        """Everything, and its media type: OpenMetrics, with exemplars, or Prometheus's own text
        format where `accept` names that alone."""
        wanted = accept if OPENMETRICS in accept or "text/plain" in accept else OPENMETRICS
        encode, media_type = choose_encoder(wanted)
        return encode(self.registry), media_type
