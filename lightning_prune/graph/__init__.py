"""What a model computes: its traced graph, its calls, and what its operators do."""

from lightning_prune.torchvision_operators import DECLARED as _DECLARED  # noqa: F401  # before Lightning is imported

# isort: split
from lightning_prune.graph.dataflow import (
    Arguments,
    Dataflow,
    arguments_of,
    called,
    module_path,
    nodes_in,
    written_by,
)
from lightning_prune.graph.interception import Function, Interceptor, interceptor_of, suspended
from lightning_prune.graph.layer_patterns import LayerPatterns, by_layer, check_each, check_patterns
from lightning_prune.graph.operator_kinds import Kind, is_kind, keeps_zero, operators
from lightning_prune.graph.run_modes import evaluating, one_thread
from lightning_prune.graph.stored import holder, stored_tensors
from lightning_prune.graph.tracing import ExampleInput, as_arguments, trace

__all__ = [
    "Arguments",
    "Dataflow",
    "ExampleInput",
    "Function",
    "Interceptor",
    "Kind",
    "LayerPatterns",
    "arguments_of",
    "as_arguments",
    "by_layer",
    "called",
    "check_each",
    "check_patterns",
    "evaluating",
    "holder",
    "interceptor_of",
    "is_kind",
    "keeps_zero",
    "module_path",
    "nodes_in",
    "one_thread",
    "operators",
    "stored_tensors",
    "suspended",
    "trace",
    "written_by",
]
