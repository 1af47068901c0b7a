import pytest
import torch
from training.autoencoder import (
    MEANS,
    cells_of_frames,
    encode_cells,
    new_autoencoder,
    solve_encoder,
    solve_last_layer,
    start_decoder,
)


def test_encode_cells_equals_the_encoder() -> None:
    torch.manual_seed(0)
    vae = new_autoencoder().eval()
    solve_encoder(vae)
    frames = torch.rand(1, 3, 17, 128, 64) * 2 - 1
    with torch.no_grad():
        real = vae.encode(frames).latent_dist.mode()
    assert real.shape == (1, 78, 3, 2, 1)
    torch.testing.assert_close(encode_cells(cells_of_frames(frames)), real, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_the_decoder_starts_as_the_inverse_of_the_encoder() -> None:
    vae = new_autoencoder().eval()
    solve_encoder(vae)
    start_decoder(vae)
    solve_last_layer(vae, seed=0, clips=3)
    frames = torch.zeros(1, 3, 17, 192, 192)
    frames[:, 0, :, 40:150, 60:140] = 0.8
    with torch.no_grad():
        made = vae.decode(encode_cells(cells_of_frames(frames)), torch.tensor([0.05])).sample
    assert made.shape == frames.shape
    assert (made - frames).square().mean() < 0.01


def test_a_still_picture_is_encoded_in_the_mean_latents_only() -> None:
    cells = torch.rand(1, 3, 1, 8, 8).expand(-1, -1, 2, -1, -1)
    latents = encode_cells(cells)[0, :, 0, 0, 0]
    assert latents[MEANS].abs().min() > 0
    latents[MEANS] = 0
    assert latents.abs().max() < 0.01
