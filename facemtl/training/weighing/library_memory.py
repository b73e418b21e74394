"""What methods of torchjd 0.18 remember from step to step: read as tensors, and put back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Adam

# ExcessMTL: our names -> its own
EXCESS = {"weights": "_weights", "squares": "_sq_grad_sum", "first": "_initial_w", "warm_up": "_warmup_w_sum"}


def remembered(instance: nn.Module) -> dict[str, Tensor]:
    """Name -> tensor; empty if it remembers nothing."""
    kind = type(instance).__name__
    if kind == "DWA":
        found = {f"average{i}": value for i, value in enumerate(instance._previous_averages)}
        if instance._loss_sum is not None:
            found |= {"sum": instance._loss_sum, "batches": torch.tensor(instance._n_batches)}
        return found
    if kind == "FAMO":
        state = instance._optimizer.state[instance._w] if instance._optimizer else {}
        return {"logits": instance._w.detach(), **{f"adam_{name}": value for name, value in state.items()}}
    if kind == "NashMTL":
        inner = instance.weighting
        return {
            "step": torch.tensor(inner.step),
            "alpha": torch.tensor(inner.prvs_alpha),
            "norm": torch.tensor(inner.normalization_factor),
        }
    if kind == "PCD" and instance.gramian_weighting._state_key is not None:
        return {"norms": instance.gramian_weighting._sq_norm_ema, "steps": instance.gramian_weighting._n_steps}
    if kind == "GradVac" and instance.gramian_weighting._state_key is not None:
        return {"cosines": instance.gramian_weighting._phi_t}
    if kind == "GramianWeightedAggregator" and instance.gramian_weighting._lambda is not None:  # CR-MOGM
        return {"weights": instance.gramian_weighting._lambda}
    if kind == "ExcessMTL" and instance.weighting._state_key is not None:
        inner = instance.weighting
        found = {name: getattr(inner, own) for name, own in EXCESS.items() if getattr(inner, own) is not None}
        return {**found, "steps": torch.tensor(inner._n_steps)}
    return {}


def put_back(instance: nn.Module, count: int, found: Mapping[str, Tensor], device: torch.device) -> None:
    """The reverse of :func:`remembered`, into a new instance that serves ``count`` tasks on a device."""
    kind = type(instance).__name__
    if kind == "DWA":
        instance._previous_averages = [found[name].to(device) for name in sorted(found) if name.startswith("average")]
        if "sum" in found:
            instance._loss_sum, instance._n_batches = found["sum"].to(device), int(found["batches"])
    elif kind == "FAMO":
        with torch.no_grad():
            instance._w.copy_(found["logits"])
        adam = {name.removeprefix("adam_"): value for name, value in found.items() if name.startswith("adam_")}
        if adam:
            instance._optimizer = Adam([instance._w], lr=instance.lr, weight_decay=instance.weight_decay)
            groups = instance._optimizer.state_dict()["param_groups"]
            instance._optimizer.load_state_dict({"state": {0: adam}, "param_groups": groups})
    elif kind == "NashMTL":
        inner = instance.weighting
        inner.step, inner.prvs_alpha = found["step"].item(), found["alpha"].numpy()
        inner.normalization_factor = found["norm"].numpy()
        inner._init_optim_problem()  # the library does so in its first step alone
    elif kind == "PCD":
        inner = instance.gramian_weighting
        inner._sq_norm_ema, inner._n_steps, inner._state_key = found["norms"], found["steps"], count
    elif kind == "GradVac":
        inner = instance.gramian_weighting
        inner._phi_t, inner._state_key = found["cosines"], (count, found["cosines"].dtype)
    elif kind == "GramianWeightedAggregator":
        instance.gramian_weighting._lambda = found["weights"].to(device)
    elif kind == "ExcessMTL":
        inner = instance.weighting
        for name, own in EXCESS.items():
            if name in found:
                setattr(inner, own, found[name].to(device))
        inner._n_steps, squares = int(found["steps"]), inner._sq_grad_sum
        inner._state_key = (*squares.shape, squares.dtype, squares.device)
