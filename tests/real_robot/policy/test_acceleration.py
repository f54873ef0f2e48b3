"""Faster ways are taken where they work and give the same."""

import logging

import pytest
import torch

from embodied.real_robot.policy import acceleration
from embodied.real_robot.policy.acceleration import Staging, accelerate


def double(x):
    return 2 * x


def test_a_cpu_runs_functions_as_they_are():
    fast = accelerate(double, [torch.ones(2)], "auto", name="double")
    assert fast.how == "eager" and fast.call(torch.tensor([3.0, 4.0])).tolist() == [6.0, 8.0]


def test_a_way_that_does_not_work_is_left_out_with_its_reason(caplog):
    with caplog.at_level(logging.WARNING):
        fast = accelerate(double, [torch.ones(2)], "graph", name="double")
    assert fast.how == "eager"
    assert "double: no graph: a CUDA graph needs a CUDA device, not cpu" in caplog.text


def test_a_way_that_gives_something_else_is_left_out(monkeypatch, caplog):
    monkeypatch.setattr(acceleration, "_compiled", lambda function: lambda x: 2.1 * x)
    fast = accelerate(double, [torch.ones(2)], "compile", name="double")
    assert fast.how == "eager" and "no compile: it differs by 0.05" in caplog.text
    monkeypatch.setattr(acceleration, "_compiled", lambda function: lambda x: x + x)
    assert accelerate(double, [torch.ones(2)], "compile", name="double").how == "compile"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_graph_gives_what_the_function_gives_and_keeps_results_apart():
    device = torch.device("cuda")
    fast = accelerate(double, [torch.ones(3, device=device)], "auto", name="double")
    assert fast.how == "graph"
    stage = Staging(device)
    first = fast.call(stage("x", torch.tensor([1.0, 2.0, 3.0]).numpy()))
    second = fast.call(stage("x", torch.tensor([4.0, 5.0, 6.0]).numpy()))
    assert first.tolist() == [2.0, 4.0, 6.0] and second.tolist() == [8.0, 10.0, 12.0]
