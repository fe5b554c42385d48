"""The networks of benchmarks/throughput.py in PyTorch.

The two are the same layer for layer; around them is a minimal training loop.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Noise(nn.Module):
  """Features of log sigma and of the class, two dense layers; fourier or positional."""

  def __init__(self, features, size, kind, classes):
    super().__init__()
    self.kind, self.size = kind, size
    if kind == "fourier":
      self.frequencies = nn.Parameter(torch.randn(size), requires_grad=False)
    self.first = nn.Linear(2 * size if kind == "fourier" else size, features)
    self.label = nn.Embedding(classes + 1, features, padding_idx=classes)
    self.second = nn.Linear(features, features)

  def forward(self, t, label):
    if self.kind == "fourier":
      angle = 2 * math.pi * t[:, None] * self.frequencies
    else:
      half = self.size // 2
      angle = t[:, None] * torch.exp(torch.arange(half) * (-math.log(10000.0) / (half - 1)))
    h = self.first(torch.cat([torch.sin(angle), torch.cos(angle)], 1)) + self.label(label)
    return F.silu(self.second(F.silu(h)))


class MLP(nn.Module):
  """`networks.MLP`."""

  def __init__(self, values, width, depth, dropout, classes):
    super().__init__()
    self.noise = Noise(width, max(width // 4, 4), "fourier", classes)
    self.first, self.last = nn.Linear(values, width), nn.Linear(width, values)
    self.width, self.drop = width, nn.Dropout(dropout)
    self.blocks = nn.ModuleList(
      nn.ModuleList([nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)])
      for _ in range(depth)
    )

  def forward(self, x, t, label):
    e, h = self.noise(t, label), self.first(x.flatten(1))
    norm = lambda value: F.layer_norm(value, (self.width,), eps=1e-6)
    for inner, modulation, outer in self.blocks:
      scale, shift = modulation(e).chunk(2, 1)
      h = h + outer(self.drop(F.silu(inner(norm(h)) * (1 + scale) + shift)))
    return self.last(F.silu(norm(h))).view_as(x)


def norm(channels):
  groups = max(min(channels // 4, 32), 1)
  while channels % groups:
    groups -= 1
  return nn.GroupNorm(groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
  """BigGAN's block of `networks.UNet`, which may change the size."""

  def __init__(self, inputs, outputs, embedding, resample=None):
    super().__init__()
    self.norm_0, self.norm_1, self.resample = norm(inputs), norm(outputs), resample
    self.conv_0, self.conv_1 = (
      nn.Conv2d(inputs, outputs, 3, padding=1),
      nn.Conv2d(outputs, outputs, 3, padding=1),
    )
    self.embedding = nn.Linear(embedding, outputs)
    self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs or resample else nn.Identity()

  def forward(self, x, e):
    h = F.silu(self.norm_0(x))
    if self.resample == "down":
      h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
    elif self.resample == "up":
      h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
    h = self.conv_0(h) + self.embedding(e)[:, :, None, None]
    return (self.shortcut(x) + self.conv_1(F.silu(self.norm_1(h)))) * 0.5**0.5


class Attention(nn.Module):
  """One head over all positions."""

  def __init__(self, channels):
    super().__init__()
    self.norm = norm(channels)
    self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))

  def forward(self, x):
    h = self.norm(x).flatten(2).transpose(1, 2)
    h = self.out(F.scaled_dot_product_attention(self.query(h), self.key(h), self.value(h)))
    return (x + h.transpose(1, 2).reshape(x.shape)) * 0.5**0.5


class UNet(nn.Module):
  """`networks.UNet` as DDPM++ with attention in the middle alone."""

  def __init__(self, channels, width, multipliers, blocks, classes):
    super().__init__()
    e = 4 * width
    widths, block = (
      [width * m for m in multipliers],
      lambda *args: ResidualBlock(args[0], args[1], e, *args[2:]),
    )
    self.noise = Noise(e, width, "positional", classes)
    self.first, self.down, self.up, skips, now = (
      nn.Conv2d(channels, width, 3, padding=1),
      nn.ModuleList(),
      nn.ModuleList(),
      [width],
      width,
    )
    for level, size in enumerate(widths):
      for _ in range(blocks):
        self.down.append(block(now, size))
        now = size
        skips.append(now)
      if level < len(widths) - 1:
        self.down.append(block(now, now, "down"))
        skips.append(now)
    self.middle = nn.ModuleList([block(now, now), Attention(now), block(now, now)])
    for level, size in reversed(list(enumerate(widths))):
      for _ in range(blocks + 1):
        self.up.append(block(now + skips.pop(), size))
        now = size
      if level:
        self.up.append(block(now, now, "up"))
    self.last = nn.Sequential(norm(now), nn.SiLU(), nn.Conv2d(now, channels, 3, padding=1))

  def forward(self, x, t, label):
    e = self.noise(t, label)
    skips = [self.first(x)]
    for layer in self.down:
      skips.append(layer(skips[-1], e))
    h = self.middle[2](self.middle[1](self.middle[0](skips[-1], e)), e)
    for layer in self.up:
      h = layer(h if layer.resample else torch.cat([h, skips.pop()], 1), e)
    return self.last(h)


def parameters(network):
  """How many numbers it has; the row of the absent class, which is fixed at zero, left out."""
  absent = network.noise.label.embedding_dim
  return sum(leaf.numel() for leaf in network.parameters()) - absent


class Loop:
  """EDM's loss, Adam, clipping and an average of the weights on arrays x [N, C, H, W] and label [N]; `step`
  takes one step."""

  def __init__(self, network, x, label, batch, config):
    self.network, self.x, self.label, self.batch, self.config = (
      network.train(),
      torch.as_tensor(x),
      torch.as_tensor(label).long(),
      batch,
      config,
    )
    self.trained = [leaf for leaf in network.parameters() if leaf.requires_grad]
    section = config.optimizer
    self.adam = torch.optim.Adam(
      self.trained, section.learning_rate, (section.b1, section.b2), section.eps, fused=True
    )
    self.average = [leaf.detach().clone() for leaf in self.trained]

  def step(self):
    loss, std = self.config.loss, self.config.loss.weight.data_std
    rows = torch.randint(len(self.x), (self.batch,))
    x, label = self.x[rows], self.label[rows]
    sigma = torch.exp(loss.times.mean + loss.times.std * torch.randn(self.batch, 1, 1, 1))
    noisy, total = x + sigma * torch.randn_like(x), torch.sqrt(sigma**2 + std**2)
    label = torch.where(
      torch.rand(self.batch) < loss.condition_dropout, self.network.noise.label.padding_idx, label
    )
    clean = std**2 / total**2 * noisy + sigma * std / total * self.network(
      noisy / total, 0.25 * torch.log(sigma).view(-1), label
    )
    value = ((total / (sigma * std)) ** 2 * (clean - x) ** 2).mean()
    self.adam.zero_grad()
    value.backward()
    torch.nn.utils.clip_grad_norm_(self.trained, self.config.optimizer.clip)
    self.adam.step()
    with torch.no_grad():
      torch._foreach_lerp_(self.average, self.trained, 0.001)
    return value
