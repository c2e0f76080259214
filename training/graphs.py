"""A network's two functions as ONNX graphs, and what each takes and gives, by name.

Inputs of size zero, and inputs a network does not use, are left out of a graph altogether.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from contract.bundle import Graph
from contract.bundle import Tensor as Described
from training.policies.network import Network

OPSET = 20

_DECIDE_INPUTS = (
    "shared",
    "rows",
    "context",
    "action_mask",
    "horizon_left",
    "action_features",
)
_LEARN_INPUTS = ("shared", "rows", "context", "action", "reward", "done", "action_features")


def describe(network: Network) -> dict[str, Graph]:
    """The signatures of `decide` and `learn`."""
    shared, rows = network.blank(1, network.action_range[0])
    G, H = shared.shape[1], rows.shape[2]
    K: Any = "K" if network.action_range[0] < network.action_range[1] else network.action_range[0]
    C, F = network.sizes.context, network.sizes.action_features
    known: dict[str, Described] = {
        "shared": Described(shape=["B", G], dtype="float32"),
        "rows": Described(shape=["B", K, H], dtype="float32"),
        "context": Described(shape=["B", C], dtype="float32"),
        "action_mask": Described(shape=["B", K], dtype="bool"),
        "horizon_left": Described(shape=["B", 2], dtype="float32"),
        "action_features": Described(shape=["B", K, F], dtype="float32"),
        "action": Described(shape=["B"], dtype="int64"),
        "reward": Described(shape=["B"], dtype="float32"),
        "done": Described(shape=["B"], dtype="float32"),
        "probabilities": Described(shape=["B", K], dtype="float32"),
        "value": Described(shape=["B"], dtype="float32"),
        "shared_next": Described(shape=["B", G], dtype="float32"),
        "rows_next": Described(shape=["B", K, H], dtype="float32"),
    }

    def pick(names: tuple[str, ...]) -> dict[str, Described]:
        kept = (name for name in names if name not in network.unused_inputs)
        return {name: known[name] for name in kept if 0 not in known[name].shape}

    return {
        "decide": Graph(inputs=pick(_DECIDE_INPUTS), outputs=pick(("probabilities", "value"))),
        "learn": Graph(inputs=pick(_LEARN_INPUTS), outputs=pick(("shared_next", "rows_next"))),
    }


def build(network: Network, name: str, graph: Graph) -> bytes:
    """The serialised ONNX model of `decide` or `learn`."""
    module = _Called(network, name, list(graph.inputs), list(graph.outputs)).eval()
    actions = max(network.action_range[0], 3)
    if network.action_range[0] == network.action_range[1]:
        actions = network.action_range[0]
    example = example_inputs(graph, batch=2, actions=actions)
    batch_axis, action_axis = torch.export.Dim("B"), torch.export.Dim("K")
    axes: dict[Any, Any] = {"B": batch_axis, "K": action_axis}
    dynamic = tuple(
        {axis: axes[size] for axis, size in enumerate(tensor.shape) if size in axes}
        for tensor in graph.inputs.values()
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            tuple(example[name] for name in graph.inputs),
            dynamo=True,
            dynamic_shapes=(dynamic,),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=OPSET,
            verbose=False,
            external_data=False,
        )
    assert program is not None
    model = program.model_proto
    # The exporter notes where each node was written: paths of this machine, megabytes of them.
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    model.ClearField("metadata_props")
    return bytes(model.SerializeToString())


def example_inputs(graph: Graph, batch: int, actions: int) -> dict[str, Tensor]:
    """Plain inputs of the right shapes, by name."""
    made: dict[str, Tensor] = {}
    for name, tensor in graph.inputs.items():
        shape = [batch if s == "B" else actions if s == "K" else int(s) for s in tensor.shape]
        match tensor.dtype:
            case "float32":
                made[name] = torch.zeros(shape)
            case "int64":
                made[name] = torch.zeros(shape, dtype=torch.int64)
            case "bool":
                made[name] = torch.ones(shape, dtype=torch.bool)
    return made


def call(network: Network, name: str, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """`decide` or `learn` of the torch network on named inputs; those left out are of size 0."""
    shared_like = inputs["shared"] if "shared" in inputs else inputs["rows"]
    batch = shared_like.shape[0]
    actions = inputs["rows"].shape[1] if "rows" in inputs else network.action_range[0]
    absent = {
        "shared": (batch, 0),
        "rows": (batch, actions, 0),
        "context": (batch, 0),
        "horizon_left": (batch, 2),
        "action_features": (batch, actions, 0),
    }
    wanted = _DECIDE_INPUTS if name == "decide" else _LEARN_INPUTS
    given = {key: inputs[key] if key in inputs else torch.zeros(absent[key]) for key in wanted}
    outputs: tuple[Tensor, ...] = getattr(network, name)(**given)
    return outputs


class _Called(nn.Module):
    """One of the network's functions as a module over its named inputs in order."""

    def __init__(
        self, network: Network, function: str, inputs: list[str], outputs: list[str]
    ) -> None:
        super().__init__()
        self.network = network
        self.function = function
        self.inputs = inputs
        self.kept = [
            index
            for index, name in enumerate(
                ("probabilities", "value") if function == "decide" else ("shared_next", "rows_next")
            )
            if name in outputs
        ]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        results = call(self.network, self.function, dict(zip(self.inputs, tensors, strict=True)))
        return tuple(results[index] for index in self.kept)
