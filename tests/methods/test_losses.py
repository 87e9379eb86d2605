"""Losses against torch's own modules and closed forms."""

import math

import pytest
import torch

from common.methods.losses import LOSSES, bce, cosine_embedding, cross_entropy, mse


def test_cross_entropy_of_uniform_logits_is_log_of_classes():
    assert cross_entropy(torch.zeros(3, 5), torch.tensor([0.0, 2.0, 4.0])).item() == pytest.approx(math.log(5))


def test_bce_equals_its_formula():
    logits, labels = torch.tensor([[2.0], [-1.0]]), torch.tensor([1.0, 1.0])
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(1))) / 2
    assert bce(logits, labels).item() == pytest.approx(expected)


def test_mse_keeps_fractional_labels():
    assert mse(torch.tensor([[4.0]]), torch.tensor([4.6])).item() == pytest.approx(0.36, abs=1e-6)


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_cosine_embedding_equals_torch_on_the_embeddings(margin):
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 40, 6, generator=generator)
    labels = torch.randint(0, 2, (40,), generator=generator).float()
    cosines = torch.cosine_similarity(first, second).unsqueeze(-1)
    expected = torch.nn.CosineEmbeddingLoss(margin=margin)(first, second, 2 * labels - 1)
    torch.testing.assert_close(cosine_embedding(cosines, labels, margin), expected)


def test_cosine_embedding_pushes_unlike_pairs_apart():
    cosines = torch.tensor([[0.5], [0.5]], requires_grad=True)
    cosine_embedding(cosines, torch.tensor([1.0, 0.0])).backward()
    assert cosines.grad.squeeze().tolist() == [-0.5, 0.5]


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_a_mean_over_the_batch(name):
    output = torch.tensor([[0.3, 0.1, 0.2, 0.0, -0.4]] if name == "cross_entropy" else [[0.3]])
    label = torch.tensor([1.0])
    once = LOSSES[name](output, label)
    torch.testing.assert_close(LOSSES[name](output.repeat(4, 1), label.repeat(4)), once)
