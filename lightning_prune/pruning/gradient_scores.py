"""How a loss would change if weights were removed, to first and second order."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_prune.errors import InputError


@torch.no_grad()
def first_order(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `w * dL/dw` of each parameter, of its shape; zero where it has no gradient.

    Reference:
        Molchanov et al., Importance Estimation for Neural Network Pruning, 2019, arXiv:1906.10771, equation 7.
    """
    return {
        name: torch.zeros_like(weight) if weight.grad is None else weight.detach() * weight.grad
        for name, weight in parameters.items()
    }


def second_order(loss: Tensor, parameters: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return `w * h * w` of each parameter, of its shape, where `h` estimates the diagonal of the loss's Hessian.

    Args:
        loss: Scalar with its graph, which is left whole.
        parameters: What it was computed from, of any shapes; zero for those that it does not depend on.
        seed: Of the random signs `v` of the estimate, `v * (H v)`, which are drawn apart from all other numbers.

    Raises:
        InputError: If the loss cannot be differentiated twice.

    Reference:
        LeCun et al., Optimal Brain Damage, 1990; Bekas et al., An Estimator for the Diagonal of a Matrix, 2007.
    """
    weights = list(parameters.values())
    generator = torch.Generator(loss.device).manual_seed(seed)
    signs = [
        torch.randint(2, weight.shape, generator=generator, device=weight.device).mul_(2).sub_(1).to(weight)
        for weight in weights
    ]
    try:
        gradients = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
        used = [(gradient, sign) for gradient, sign in zip(gradients, signs, strict=True) if gradient is not None]
        along = torch.stack([(gradient * sign).sum() for gradient, sign in used]).sum()
        products = torch.autograd.grad(along, weights, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        raise InputError(
            f"expected a loss that can be differentiated twice for a criterion that looks at curvature, got: {error}; "
            "use one that looks at gradients, Fisher() for example"
        ) from error
    return {
        name: torch.zeros_like(weight) if product is None else weight.detach() * sign * product * weight.detach()
        for (name, weight), sign, product in zip(parameters.items(), signs, products, strict=True)
    }
