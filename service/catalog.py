"""The workflows being served, each compiled against its bundle; and the specs of the past.

A workflow file with a mistake, or a bundle that fails its parity vectors, is never served.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from contract.baseline import Baseline
from contract.bundle import BundleError
from contract.encode import (
    check_context,
    encode_action_features,
    encode_contexts,
    encode_reward,
    horizon_left,
)
from contract.policy import Memory
from contract.spec import SpecError, WorkflowSpec
from guardrails.fallback import Expected, Fallback
from guardrails.guard import Guard
from guardrails.limits import Limits
from service.bundles import Bundles, Policy
from service.check import check_files
from service.ledger.ledger import Ledger
from service.ledger.records import Head, Interaction
from service.memory.store import StoredMemory
from service.pins import Pins

Array = NDArray[Any]

log = logging.getLogger(__name__)


class Workflow:
    """One workflow as it is served: spec, limits, fallback and policy."""

    def __init__(
        self, spec: WorkflowSpec, version: int, policy: Policy, baseline: Baseline | None = None
    ) -> None:
        """Raises SpecError or BundleError when the parts do not fit."""
        policy.onnx.manifest.refuse_misfit(spec)
        self.spec = spec
        self.version = version
        self.policy = policy
        self.limits = Limits(spec)
        self.baseline = baseline
        """The fallback's model, if it has one."""
        self.fallback = Fallback(spec, expected_of(baseline, spec) if baseline else None)
        self.guard = Guard(spec, self.limits, self.fallback)
        self.before: Workflow | None = None
        """The same workflow on the policy it had before, which serves an account until its memory
        is brought over; None when it never had another."""
        self.not_ready_for: str | None = None
        """The policy whose place this one keeps until an account's memory is brought over; None:
        it is the one to serve."""
        self._features: dict[str, Array] = {}

    @property
    def name(self) -> str:
        """The workflow's name."""
        return self.spec.workflow

    @property
    def policy_name(self) -> str:
        """Name and version of the policy it is served by here."""
        return self.policy.identity.policy

    def blank(self) -> Memory:
        """The memory of an account nothing is known of."""
        return self.policy.onnx.blank(1, len(self.spec.actions))

    @cached_property
    def unknown(self) -> StoredMemory:
        """The memory at the first head of every account."""
        return StoredMemory(self.blank(), Head())

    def with_rows(self, memory: Memory, actions: int) -> Memory:
        """The memory with a blank row for every action up to `actions` that it has none for."""
        missing = actions - memory.rows.shape[1]
        if missing <= 0:
            return memory
        rows = self.policy.onnx.blank(1, missing).rows
        return Memory(memory.shared, np.concatenate([memory.rows, rows], axis=1))

    def probabilities(
        self,
        stored: Sequence[StoredMemory],
        contexts: Sequence[Mapping[str, Any]],
        masks: Array,
        options: ort.RunOptions | None = None,
    ) -> Array:
        """The policy's distributions `[B, K]` over what `masks` `[B, K]` leave; `options` may end
        the call."""
        actions = len(self.spec.actions)
        rows = [one.memory.rows for one in stored]
        if any(one.shape[1] != actions for one in rows):
            rows = [self.with_rows(one.memory, actions).rows[:, :actions] for one in stored]
        horizon = self.spec.horizon
        probabilities, _ = self.policy.onnx.decide(
            Memory(np.concatenate([one.memory.shared for one in stored]), np.concatenate(rows)),
            action_mask=masks,
            horizon_left=horizon_left(
                [one.head.position for one in stored], horizon.interactions, horizon.floor
            ),
            context=encode_contexts(self.spec, contexts, self.policy.onnx.manifest.context_size),
            action_features=self._action_features(self.spec)[None].repeat(len(stored), axis=0),
            options=options,
        )
        return probabilities

    def fold(self, memory: Memory, interaction: Interaction, spec: WorkflowSpec) -> Memory:
        """The memory with one interaction, made under `spec`, folded in: what was decided on, so
        with the context clipped as it was then.

        Rows of actions that `spec` does not know yet, or no more, rest.
        """
        (folded,), _ = self.fold_each([memory], [interaction], spec)
        return folded

    def fold_each(
        self, memories: Sequence[Memory], interactions: Sequence[Interaction], spec: WorkflowSpec
    ) -> tuple[list[Memory], NDArray[np.bool_]]:
        """`fold` for several accounts, and which `[B]` of the memories are finite, by one call of
        the network: at most `policy.parity.batch`, so that each gets the bits it would get alone.
        """
        actions = len(spec.actions)
        whole = [self.with_rows(memory, actions) for memory in memories]
        always_done = spec.episodes == "single_step"
        size = self.policy.onnx.manifest.context_size
        contexts = [check_context(spec, one.context)[0] if size else {} for one in interactions]
        learned = self.policy.onnx.learn(
            Memory(
                np.concatenate([one.shared for one in whole]),
                np.concatenate([one.rows[:, :actions] for one in whole]),
            ),
            action=np.array([spec.action_ids.index(one.action) for one in interactions], np.int64),
            reward=encode_reward(
                [one.reward for one in interactions], spec.reward.min, spec.reward.max
            ),
            done=np.array([always_done or one.episode_end for one in interactions], np.float32),
            context=encode_contexts(spec, contexts, size),
            action_features=np.stack([self._action_features(spec)] * len(whole)),
        )
        folded = []
        for i, one in enumerate(whole):  # copies: a memory must not keep a whole batch alive
            rows = learned.rows[i : i + 1].copy()
            resting = one.rows[:, actions:]
            if resting.shape[1]:
                rows = np.concatenate([rows, resting], axis=1)
            folded.append(Memory(learned.shared[i : i + 1].copy(), rows))
        finite: NDArray[np.bool_] = np.logical_and(
            np.isfinite(learned.shared).all(axis=1), np.isfinite(learned.rows).all(axis=(1, 2))
        )
        return folded, finite

    def _action_features(self, spec: WorkflowSpec) -> Array:
        """`[K, F]`, once a spec version."""
        known = self._features.get(spec.sha256)
        if known is None:
            size = self.policy.onnx.manifest.action_feature_size
            known = self._features[spec.sha256] = encode_action_features(spec, size)
        return known


def expected_of(baseline: Baseline, spec: WorkflowSpec) -> Expected:
    """What the fallback asks of its model, which must not fail it."""

    def expected(context: Mapping[str, Any]) -> NDArray[np.float64] | None:
        try:
            return baseline.rewards(spec, context)
        except Exception:  # whatever onnxruntime raises, there is an answer
            log.exception("baseline %s failed, the fixed action is served", spec.fallback.model)
            return None

    return expected


class Catalog:
    """Every workflow being served by name, and every spec version that events were made under."""

    def __init__(
        self,
        workflows: Mapping[str, Workflow],
        past: Mapping[str, Mapping[int, WorkflowSpec]],
        ledger: Ledger,
        bundles: Bundles,
    ) -> None:
        self.workflows = dict(workflows)
        self.bundles = bundles
        self._ledger = ledger
        self._serving: dict[str, tuple[Sequence[Workflow], Sequence[Workflow]]] = {}
        """Of workflows that were rolled out on: on every policy that serves, and that ever did."""
        self._specs = {(w.name, w.version): w.spec for w in workflows.values()}
        for workflow, versions in past.items():
            self._specs |= {(workflow, version): spec for version, spec in versions.items()}

    def serving(self, workflow: str) -> list[Workflow]:
        """The workflow on every policy that may serve an account of it, the newest first."""
        served = self.workflows.get(workflow)
        if served is None:
            return []
        return _with_those_before(self._serving.get(workflow, ([served], []))[0])

    def known(self, workflow: str) -> list[Workflow]:
        """The workflow on every policy that may have memories of its accounts."""
        return [*self.serving(workflow), *self._serving.get(workflow, ([], []))[1]]

    def adopt(
        self,
        workflow: str,
        current: Workflow,
        serving: Sequence[Workflow],
        retired: Sequence[Workflow],
    ) -> None:
        """From now on `current` is the workflow, `serving` are those that may serve an account of
        it, and `retired` those that did."""
        self.workflows[workflow] = current
        self._serving[workflow] = (serving, retired)

    def spec(self, workflow: str, version: int) -> WorkflowSpec:
        """The spec version that an event names. Blocks when another replica made it since."""
        known = self._specs.get((workflow, version))
        if known is None:
            known = self._specs[workflow, version] = self._ledger.spec_version(workflow, version)
        return known


def open_catalog(
    workflows: Path, policies: Path, ledger: Ledger, now_us: int, pins: Pins | None = None
) -> Catalog:
    """Loads, verifies and registers every workflow file in `workflows`. Blocks.

    Raises SpecError and BundleError, naming file and field.
    """
    paths = sorted([*workflows.glob("*.yaml"), *workflows.glob("*.yml")])
    if not paths:
        raise SpecError(f"{workflows}: expected at least one workflow file, *.yaml")
    bundles = Bundles(policies, pins)
    prepared: dict[str, Workflow] = {}
    for checked in check_files(paths, bundles):
        spec, policy = checked.accepted()
        for warning in checked.warnings:
            log.warning("%s", warning)
        prepared[spec.workflow] = Workflow(spec, 0, policy, checked.baseline)
    past = {name: ledger.spec_versions(name) for name in prepared}
    for name, workflow in prepared.items():
        for version, spec in past[name].items():
            try:
                workflow.policy.onnx.manifest.refuse_misfit(spec)
            except BundleError as error:
                raise BundleError(f"version {version}, which accounts remember: {error}") from error
    # Everything is sound: only now does the ledger learn of the specs.
    for workflow in prepared.values():
        workflow.version = ledger.register_spec(workflow.spec, now_us)
        workflow.before = _before(workflow, past[workflow.name], bundles)
    return Catalog(prepared, past, ledger, bundles)


def _with_those_before(serving: Sequence[Workflow]) -> list[Workflow]:
    """These and those whose place they take, each policy once."""
    found: dict[str, Workflow] = {}
    for one in serving:
        for served in (one, one.before):
            if served is not None:
                found.setdefault(served.policy_name, served)
    return list(found.values())


def _before(
    workflow: Workflow, past: Mapping[int, WorkflowSpec], bundles: Bundles
) -> Workflow | None:
    """The workflow on the policy that its newest earlier version with another one names, if that
    can still be served."""
    others = [past[version].policy for version in sorted(past)]
    others = [policy for policy in others if policy != workflow.spec.policy]
    if not others:
        return None
    try:
        before = Workflow(
            workflow.spec, workflow.version, bundles.policy(others[-1]), workflow.baseline
        )
        before.not_ready_for = workflow.policy_name
        for spec in past.values():
            before.policy.onnx.manifest.refuse_misfit(spec)
    except BundleError as error:
        log.warning("%s: accounts are replayed at once: %s", workflow.name, error)
        return None
    return before
