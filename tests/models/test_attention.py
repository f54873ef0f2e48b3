import pytest
import torch
from torch.nn import functional as F

from embodied.models.attention import attention


def parts(dtype, *, learn=True):
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(2, 3, 17, 16, generator=generator) for _ in range(3)]
    return [each.to(dtype).requires_grad_(learn) for each in made]


def outcome(function, inputs):
    """What it gives and the gradients of a weighted sum of it, in float64."""
    out = function(*inputs)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
    gradients = torch.autograd.grad((out.double() * weights).sum(), inputs)
    return [out.detach().double(), *(each.double() for each in gradients)]


def test_bfloat16_is_as_exact_as_the_fused_kernel():
    exact = outcome(
        F.scaled_dot_product_attention, [each.detach().double().requires_grad_() for each in parts(torch.bfloat16)]
    )
    fused = outcome(F.scaled_dot_product_attention, parts(torch.bfloat16))
    ours = outcome(attention, parts(torch.bfloat16))
    for found, usual, wanted in zip(ours, fused, exact, strict=True):
        scale = wanted.abs().mean()
        assert (found - wanted).abs().mean() / scale < max(2 * (usual - wanted).abs().mean() / scale, 4e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [True, False])
def test_it_is_the_fused_kernel_elsewhere(dtype, masked):
    inputs = parts(dtype, learn=masked and dtype == torch.bfloat16)
    mask = torch.ones(17, 17, dtype=torch.bool).tril() if masked else None
    expected = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
    assert torch.equal(attention(*inputs, mask=mask), expected)


def test_in_autocast_it_learns_in_bfloat16():
    inputs = parts(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        made = attention(*(each.to(torch.bfloat16) for each in inputs))
        assert made.dtype == torch.bfloat16
    made.float().sum().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in inputs)
