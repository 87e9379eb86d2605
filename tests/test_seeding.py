"""Random numbers that depend on what they are for alone."""

import torch

from common.seeding import stateless_generator


def test_a_generator_depends_on_its_key_alone() -> None:
    first = torch.rand(3, generator=stateless_generator(0, 1, "sst"))
    torch.rand(7)
    assert torch.equal(first, torch.rand(3, generator=stateless_generator(0, 1, "sst")))
    for key in ((0, 1, "sts"), (0, 2, "sst"), (1, 1, "sst"), (0, 1)):
        assert not torch.equal(first, torch.rand(3, generator=stateless_generator(*key)))
