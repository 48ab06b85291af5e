"""What a model computes: its traced graph, its calls, and what its operators do."""

from lightning_prune.graph.dataflow import Arguments, Flow, arguments_of, called, is_view, module_path
from lightning_prune.graph.interception import Function, Interceptor, interceptor_of, suspended
from lightning_prune.graph.tracing import (
    ExampleInput,
    as_arguments,
    evaluating,
    export,
    holder,
    one_thread,
    stored_tensors,
)

__all__ = [
    "Arguments",
    "ExampleInput",
    "Flow",
    "Function",
    "Interceptor",
    "arguments_of",
    "as_arguments",
    "called",
    "evaluating",
    "export",
    "holder",
    "interceptor_of",
    "is_view",
    "module_path",
    "one_thread",
    "stored_tensors",
    "suspended",
]
