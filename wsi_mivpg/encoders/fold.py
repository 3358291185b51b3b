"""Fold batch normalisation into the convolution before it: the same function, one pass over memory less.

Only for networks that are not trained any more.
"""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_batch_norms(network: nn.Module, sample: torch.Tensor) -> nn.Module:
    """Return a network that computes the same with the batch norms folded that take what one convolution gives.

    Which those are is seen by running `sample` through the network, whatever its code looks like. timm's batch norms
    that also activate keep their activation. Where the result is not the same on `sample`, as in a network that uses a
    convolution's output twice, the network is returned as it was.

    Args:
        network: in eval mode, on the processor; it is not changed.
        sample: one input; random, so that a difference shows.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    folded = copy.deepcopy(network)
    for convolution, norm in _pairs(folded, sample):
        if norm.running_mean is None or norm.running_var is None:
            continue
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        _leave_the_rest(norm)
    with torch.inference_mode():
        before, after = network(sample), folded(sample)
    is_same = torch.allclose(before, after, rtol=1e-3, atol=1e-4 * float(before.abs().max()))
    return folded if is_same else network


def _pairs(network: nn.Module, sample: torch.Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return convolutions with the batch norm that takes their output, each of both run once."""
    made_by: dict[int, nn.Conv2d] = {}
    kept: list[torch.Tensor] = []  # alive, so that no other tensor has its id
    uses: dict[nn.Module, int] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        uses[module] = uses.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            made_by[id(output)] = module
            kept.append(output)
        elif isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in made_by:
            pairs.append((made_by[id(inputs[0])], module))

    hooks = [
        module.register_forward_hook(after)
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    try:
        with torch.inference_mode():
            network(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return [(convolution, norm) for convolution, norm in pairs if uses[convolution] == uses[norm] == 1]


def _leave_the_rest(norm: nn.BatchNorm2d) -> None:
    """Leave of a batch norm what comes after the normalisation: nothing, or timm's dropout and activation."""
    rest = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if part is not None]
    plain = nn.Sequential(*rest)
    norm.forward = plain.forward  # type: ignore[method-assign]
