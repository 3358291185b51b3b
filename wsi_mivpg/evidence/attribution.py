"""How much each tile of a case supports a part of its report: one function, three methods.

What a map is worth is measured in `curves`; pictures of it are drawn elsewhere.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wsi_mivpg.captioner import CaseBags, SlideCaptioner, pack, report_attention, report_logprobs, visual_rollout
from wsi_mivpg.errors import ModelError
from wsi_mivpg.evidence.groups import neighbour_groups
from wsi_mivpg.evidence.variants import variant_logprobs
from wsi_mivpg.mivpg.chunks import as_tensor


def attribute(
    captioner: SlideCaptioner,
    case: CaseBags,
    token_ids: Sequence[int],
    targets: Sequence[range],
    method: str,
    *,
    prompt: str | None = None,
) -> Tensor:
    """Weigh each instance of a case for parts of its report.

    Args:
        captioner: in evaluation mode.
        case: what the report was written about.
        token_ids: the report, T tokens.
        targets: places in `token_ids`: one token, a sentence, or the whole report.
        method: "attention", "gradient" or "leave-out"; see the functions of this module.
        prompt: what was asked; ``None``: the model's own prompt.

    Returns:
        float32 (targets, M) on the CPU, slide after slide, in bag order. Attention is a share of 1; gradient and
        leave-out are signed, in nats: positive where the instance makes the target more likely.

    Raises:
        ModelError: an unknown method, a target without tokens or beyond the report, training mode, a case that does not
            fit the model, or one that the method cannot be used on.
    """
    if method not in METHODS:
        raise ModelError(f"the method {method!r} is unknown; choose from {', '.join(map(repr, METHODS))}")
    if captioner.training:
        raise ModelError("weighing tiles needs evaluation mode; call .eval() first")
    check_targets(token_ids, targets)
    return METHODS[method](captioner, case, token_ids, targets, prompt)


def check_targets(token_ids: Sequence[int], targets: Sequence[range]) -> None:
    """Refuse targets without tokens or beyond the report.

    Raises:
        ModelError: naming the target and the number of tokens.
    """
    for target in targets:
        if not len(target) or min(target) < 0 or max(target) >= len(token_ids):
            raise ModelError(f"the target {target} is not within the report's {len(token_ids)} tokens, or has none")
    if not targets:
        raise ModelError("no target was given; give the tokens of a sentence, or range(len(token_ids))")


@torch.no_grad()
def attention(
    captioner: SlideCaptioner, case: CaseBags, token_ids: Sequence[int], targets: Sequence[range], prompt: str | None
) -> Tensor:
    """Multiply what the language model read of the visual tokens with what these read of the instances.

    Cheap: one pass, whatever the number of targets. A hint at where the model looked, not a proof.
    """
    visual, instances = visual_rollout(captioner, case)
    read = report_attention(captioner, visual, token_ids, prompt)
    weights = torch.stack([read[list(target)].mean(dim=0) for target in targets]) @ instances
    return (weights / weights.sum(dim=1, keepdim=True)).cpu()


def gradient(
    captioner: SlideCaptioner, case: CaseBags, token_ids: Sequence[int], targets: Sequence[range], prompt: str | None
) -> Tensor:
    """Multiply the gradient of the target's log-likelihood with the instance less the case's mean instance.

    Summed over the features, it is what the likelihood would lose, to first order, if the instance were like the mean.
    The mean, not zero, is what instances are compared with: adapters begin with a layer norm, which does not change
    when an instance is scaled, so that plain gradient x input is zero for all of them. One backward pass per target.
    """
    device = captioner.language_projection.weight.device
    instances = as_tensor(case.instances).to(device, torch.float32, copy=True).requires_grad_()
    packed = pack([case], mapped=True)
    with torch.enable_grad():
        visual, _ = captioner.visual_prompt(instances, packed["slide_sizes"], packed["coords"])
        read = visual.detach().requires_grad_()
        logprobs = report_logprobs(captioner, read, token_ids, prompt)[0]
    mean = instances.detach().mean(dim=0)
    weights = []
    for target in targets:
        (of_visual,) = torch.autograd.grad(logprobs[list(target)].sum(), read, retain_graph=True)
        (of_instances,) = torch.autograd.grad(visual, instances, of_visual, retain_graph=True)
        weights.append(torch.einsum("md,md->m", of_instances, instances.detach()) - of_instances @ mean)
    return torch.stack(weights).cpu()


def leave_out(
    captioner: SlideCaptioner, case: CaseBags, token_ids: Sequence[int], targets: Sequence[range], prompt: str | None
) -> Tensor:
    """Take groups of neighbouring instances out of the bag, one after another, and see what the target loses.

    The slow reference: the model reads the case once for each group (`neighbour_groups`). Each instance is given an
    equal share of what its group is worth.

    Raises:
        ModelError: the case has one instance.
    """
    if len(case) < 2:
        raise ModelError(
            f"case {case.case_id!r} has one tile, without which there is nothing to read; weigh it with 'attention' or "
            "'gradient'"
        )
    groups = neighbour_groups(case)
    sizes = groups.bincount()
    places = torch.arange(len(case))
    kept = (places if group < 0 else places[groups != group] for group in range(-1, len(sizes)))
    logprobs = variant_logprobs(captioner, case, kept, token_ids, prompt=prompt)
    likelihoods = torch.stack([logprobs[:, list(target)].sum(dim=1) for target in targets])
    worth = (likelihoods[:, :1] - likelihoods[:, 1:]) / sizes
    return worth[:, groups]


METHODS: dict[str, Callable[..., Tensor]] = {"attention": attention, "gradient": gradient, "leave-out": leave_out}
"""Name -> method; all are called alike."""
