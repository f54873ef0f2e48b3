"""A part of a policy run by ONNX Runtime, exported from the weights at hand so that no stale file can be run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from embodied.core.errors import MissingExtraError
from embodied.policies.bc import BCPolicy
from embodied.policies.bc_graphs import exportable


def onnx_part(
    module: nn.Module, examples: Sequence[Tensor], names: Sequence[str], policy: BCPolicy, *, device: torch.device
) -> tuple[Callable[..., Tensor], str]:
    """A function from tensors with the shapes of the examples to one tensor on `device`, and who executes it.

    Args:
        module: has `policy` as an attribute of that name; a copy made for exporting takes its place.
        names: of the inputs.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (torch's exporter needs it, and says so less clearly)
    except ImportError as error:
        raise MissingExtraError("onnx, onnxscript or onnxruntime", "onnx") from error
    module.policy = exportable(policy, encoder=True)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # the comparison decides whether a graph is right
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(), tuple(example.cpu() for example in examples), input_names=list(names),
            output_names=["out"], dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    wanted = ["CUDAExecutionProvider"] * (device.type == "cuda") + ["CPUExecutionProvider"]
    there = [name for name in wanted if name in onnxruntime.get_available_providers()]
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), settings, providers=there)

    def run(*given: Tensor) -> Tensor:
        named = {name: tensor.cpu().numpy() for name, tensor in zip(names, given, strict=True)}
        return torch.from_numpy(session.run(None, named)[0]).to(device)

    return run, session.get_providers()[0].removesuffix("ExecutionProvider")
