"""The bundles in a directory, each verified on this machine before anything is served by it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from contract.baseline import Baseline, load_baseline
from contract.bundle import BundleError
from contract.policy import OnnxPolicy, Parity, verify_parity
from service.memory.store import PolicyIdentity


@dataclass(frozen=True)
class Policy:
    """One verified bundle."""

    onnx: OnnxPolicy
    parity: Parity
    identity: PolicyIdentity


class Bundles:
    """`<name>/<version>/` under one directory, each loaded once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._verified: dict[str, Policy] = {}
        self._baselines: dict[str, Baseline] = {}

    def policy(self, name: str) -> Policy:
        """The policy of that name and version. Raises BundleError."""
        if name not in self._verified:
            home = self.directory / name
            if not home.exists() and (known := self._known()):
                raise BundleError(f"{home}: no such bundle, there are {', '.join(known)}")
            policy = load_policy(home)
            if policy.identity.policy != name:
                raise BundleError(
                    f"{home}: expected policy {name}, its manifest says {policy.identity.policy}"
                )
            self._verified[name] = policy
        return self._verified[name]

    def baseline(self, name: str) -> Baseline:
        """The supervised baseline of that name and version. Raises BundleError."""
        if name not in self._baselines:
            baseline = load_baseline(self.directory / name)
            if baseline.manifest.baseline != name:
                raise BundleError(
                    f"{self.directory / name}: expected baseline {name}, its manifest says "
                    f"{baseline.manifest.baseline}"
                )
            self._baselines[name] = baseline
        return self._baselines[name]

    def _known(self) -> list[str]:
        """Names and versions of what looks like a bundle."""
        manifests = self.directory.glob("*/*/manifest.json")
        return sorted(f"{one.parent.parent.name}/{one.parent.name}" for one in manifests)


def load_policy(directory: Path) -> Policy:
    """The bundle, after it passed its parity vectors on this machine. Raises BundleError."""
    onnx = OnnxPolicy.load(directory)
    parity = verify_parity(onnx, directory)
    manifest = onnx.manifest
    digest = hashlib.sha256(
        "|".join(
            (manifest.policy, manifest.sha256["learn.onnx"], ort.__version__, parity.fingerprint)
        ).encode()
    ).digest()
    return Policy(
        onnx,
        parity,
        PolicyIdentity(manifest.policy, digest, manifest.shared_size, manifest.row_size),
    )
