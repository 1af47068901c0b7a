import pytest
import torch
from training.optimise import Hold
from training.start import held
from training.transformer import _new_transformer


@pytest.mark.slow
def test_an_optimiser_step_moves_all_weights_but_the_held_ones() -> None:
    torch.manual_seed(0)
    model = _new_transformer()
    masks = held(model)
    hold = Hold(model, masks)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    hold.before()
    assert all(
        parameter.grad is not None and not parameter.grad[masks[n]].any() for n, parameter in model.named_parameters()
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    hold.after()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter[masks[name]], before[name][masks[name]])
        assert torch.equal(parameter[~masks[name]], before[name][~masks[name]] + 1)
