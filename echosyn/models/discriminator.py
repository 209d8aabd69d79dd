"""An adversary for the VAE: a PatchGAN that trains beside it, in one forward and one backward."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.func import functional_call

from echosyn.models.vae import Vae

MOST = 1e4  # largest factor between the two gradients (Esser 2021, released code)


class _Conv(nn.Conv2d):
    """A convolution whose weights have unit sd and are scaled when used (Karras 2018, 4.1).

    The loop has one learning rate for both networks. So Adam's steps are as large beside these
    weights whatever the layer; beside the usual ones, of sd 0.02, the demo's rate is a tenth, and
    the discriminator never learnt.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 4, stride, 1, bias=bias)
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * (2 / self.weight[0].numel()) ** 0.5
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola 2017, 6.1.2): a logit for each 70x70 patch of a grey frame.

    GroupNorm, not BatchNorm: a frame is then rated alone, so that the loss does not depend on how
    a batch is shared by processes, and real and decoded frames need no pass in common.
    """

    def __init__(self, width: int) -> None:
        """width: channels of the first level, a multiple of 8; the others have 2, 4, 8 times it."""
        super().__init__()
        layers: list[nn.Module] = [_Conv(1, width, 2), nn.LeakyReLU(0.2)]
        for k, stride in ((2, 2), (4, 2), (8, 1)):
            layers += [
                _Conv(width * k // 2, width * k, stride, bias=False),
                nn.GroupNorm(8, width * k),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, _Conv(8 * width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Frames (N, 1, H, W) in [-1, 1] to logits (N, 1, H / 8 - 2, W / 8 - 2)."""
        return self.layers(x)


class AdversarialOutput(NamedTuple):
    """A training pass of `AdversarialVae`: what Vae gives, and the two adversarial terms.

    generator reaches the VAE only, discriminator the discriminator only; both are 0 until the
    adversary's start.
    """

    output: Tensor
    mean: Tensor
    logvar: Tensor
    generator: Tensor
    discriminator: Tensor


class AdversarialVae(nn.Module):
    """A VAE and its discriminator, with hinge losses (Lim 2017, eqs. 3 and 4).

    Args:
        weight: norm of the generator term's gradient in that of all other terms; see `_Balance`.
        start: training passes before the terms count. They are counted in a buffer, so a resumed
            run goes on where it was.
    """

    passes: Tensor

    def __init__(self, vae: Vae, width: int, weight: float, start: int) -> None:
        super().__init__()
        self.vae, self.discriminator = vae, PatchDiscriminator(width)
        self.weight, self.start = weight, start
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, noise: Tensor) -> AdversarialOutput:
        """As Vae.forward, and the losses of both sides."""
        if self.training:
            self.passes += 1
        on = (self.passes > self.start).float()
        decoded, mean, logvar = self.vae(x, noise)
        output, seen = _Balance.apply(decoded, self.weight)
        real, fake = self.vae.to_grey(x), self.vae.to_grey(seen)
        frozen = {k: p.detach() for k, p in self.discriminator.named_parameters()}
        generator = -functional_call(self.discriminator, frozen, (fake,)).float().mean()
        on_real, on_fake = self.discriminator(real), self.discriminator(fake.detach())
        hinge = F.relu(1 - on_real.float()).mean() + F.relu(1 + on_fake.float()).mean()
        return AdversarialOutput(output, mean, logvar, on * generator, on * hinge / 2)


class _Balance(Function):
    """Two copies of a tensor (N, ...). Backward scales the second's gradient, frame by frame, to
    `weight` times the norm of the first's, and adds both.

    This is the adaptive weight of VQGAN (Esser 2021, eq. 7) with the gradients taken at the decoded
    frames instead of the last layer's weights: so it needs no second pass of autograd, and a
    frame's weight does not depend on the batch that it is in. A plain weight would mean another
    balance for every scale of the other terms.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        ctx.weight = weight
        return x.view_as(x), x.view_as(x)

    @staticmethod
    def backward(ctx: Any, plain: Tensor, seen: Tensor) -> tuple[Tensor, None]:
        norms = [g.float().flatten(1).norm(dim=1) for g in (plain, seen)]
        tiny = torch.finfo(torch.float32).tiny
        ratio = ctx.weight * (norms[0] / norms[1].clamp_min(tiny)).clamp_max(MOST)
        return plain + seen * ratio.view(-1, *[1] * (seen.ndim - 1)).to(seen.dtype), None
