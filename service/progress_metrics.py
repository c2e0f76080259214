"""What accounts earn and how soon they adapt: by age, and by whose decision it was.

Rewards are scaled to [0, 1] by their workflow's range: a sum that only grows can be told to
Prometheus, and workflows lie on one axis. Revised rewards count as they first came.
"""

from __future__ import annotations

from bisect import bisect_left

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

from contract.buckets import buckets_of
from contract.spec import WorkflowSpec
from guardrails.guard import POLICY
from service.ledger.settle import Recorded
from service.rollouts.traffic import HELD_OUT, NOT_IN

INTERACTIONS = (5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200)
BUCKET_INTERACTIONS = (5, 10, 20, 50, 100, 200)
AGES = (1, 2, 3, 5, 10, 15, 20, 35, 50, 100, 200)
"""Where bands of account age end: `5` is interactions 4 and 5, `20` is 16 to 20."""
AGE_LABELS = (*map(str, AGES), "+Inf")
FALLBACK, OTHER = "fallback", "other"
ARMS = {POLICY: POLICY, HELD_OUT: FALLBACK, NOT_IN: FALLBACK}
"""Whose decision it was, by its reason. `fallback`: of accounts that are on it by design, so that
it compares with the policy's; whatever else kept the policy from deciding is `other`."""


class ProgressMetrics:
    """Part of one application's metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._reward = Summary(
            "acclimate_interaction_reward_scaled",
            "Rewards folded, scaled to [0, 1], by the account's age (the interaction at which the "
            "band ends) and by arm: the policy, the fallback of accounts that are on it by design, "
            "other.",
            ["workflow", "age", "arm"],
            registry=registry,
        )
        self._adaptation = Histogram(
            "acclimate_adaptation_interactions",
            "Interactions after which an account first adapted.",
            ["workflow"],
            buckets=INTERACTIONS,
            registry=registry,
        )
        self._due = Counter(
            "acclimate_adaptation_due",
            "Accounts that came to the interaction by which they are to have adapted, by whether "
            "they had: in_time, missed. Those on the fallback by design do not count.",
            ["workflow", "outcome"],
            registry=registry,
        )
        self._bucket_reward = Summary(
            "acclimate_bucket_reward_scaled",
            "Rewards folded, scaled to [0, 1], by the buckets of the decision's context that the "
            "workflow declares, and by arm.",
            ["workflow", "bucket", "arm"],
            registry=registry,
        )
        self._bucket_adaptation = Histogram(
            "acclimate_bucket_adaptation_interactions",
            "Interactions after which an account first adapted, by the buckets of the context it "
            "did so in.",
            ["workflow", "bucket"],
            buckets=BUCKET_INTERACTIONS,
            registry=registry,
        )
        self._bucket_due = Counter(
            "acclimate_bucket_adaptation_due",
            "As acclimate_adaptation_due, by the buckets of the context the account was then in.",
            ["workflow", "bucket", "outcome"],
            registry=registry,
        )
        self._within = Gauge(
            "acclimate_adaptation_target_interactions",
            "The interaction by which accounts are to have adapted.",
            ["workflow"],
            registry=registry,
        )
        self._target = Gauge(
            "acclimate_adaptation_target_reward",
            "Mean reward at which an account counts as adapted, in the reward's own units.",
            ["workflow"],
            registry=registry,
        )
        self._scaled_target = Gauge(
            "acclimate_adaptation_target_reward_scaled",
            "Mean reward at which an account counts as adapted, scaled to [0, 1].",
            ["workflow"],
            registry=registry,
        )

    def expect(self, spec: WorkflowSpec) -> None:
        """Told of a workflow being served: what counts for it counts from 0, beside its targets."""
        name, target = spec.workflow, spec.adaptation.target
        self._within.labels(name).set(within(spec))
        self._target.labels(name).set(target)
        self._scaled_target.labels(name).set(scaled(target, spec))
        self._adaptation.labels(name)
        for outcome in ("in_time", "missed"):
            self._due.labels(name, outcome)
        for age in AGE_LABELS:
            self._reward.labels(name, age, POLICY)

    def observe(self, recorded: Recorded, spec: WorkflowSpec) -> None:
        """Told of what was recorded, a duplicate apart."""
        name, arm = spec.workflow, ARMS.get(recorded.decision.reason, OTHER)
        buckets = buckets_of(spec, recorded.decision.context) if spec.buckets else ()
        for one in (recorded.default, recorded.feedback):
            if one is None or one.head is None or recorded.revised:
                continue
            position, reward = one.head.position, scaled(one.reward, spec)
            age = AGE_LABELS[bisect_left(AGES, position)]
            self._reward.labels(name, age, arm).observe(reward)
            for bucket in buckets:
                self._bucket_reward.labels(name, bucket, arm).observe(reward)
            if position == within(spec) and arm != FALLBACK:
                adapted_at = recorded.adapted_at
                in_time = adapted_at is not None and adapted_at <= position
                outcome = "in_time" if in_time else "missed"
                self._due.labels(name, outcome).inc()
                for bucket in buckets:
                    self._bucket_due.labels(name, bucket, outcome).inc()
        if recorded.newly_adapted_at is not None:
            self._adaptation.labels(name).observe(recorded.newly_adapted_at)
            for bucket in buckets:
                observed = self._bucket_adaptation.labels(name, bucket)
                observed.observe(recorded.newly_adapted_at)


def scaled(reward: float, spec: WorkflowSpec) -> float:
    """A raw reward in [0, 1]."""
    return (reward - spec.reward.min) / (spec.reward.max - spec.reward.min)


def within(spec: WorkflowSpec) -> int:
    """The interaction by which accounts are to have adapted."""
    return spec.adaptation.within or spec.horizon.interactions
