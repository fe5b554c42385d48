"""Networks of other libraries as Flax modules, one file an architecture, from their published arrays.

Each file has the module, called as the library's own networks are, and

  build(config)                        the module of a config.json, as a dict
  convert(arrays, config)              its parameters from the arrays of the published file, by dotted name
  export(params, config)               the inverse, bit for bit
  denoiser(config, scheduler, arrays)  the library's denoiser; an autoencoder has `codec` in its place

| file | architecture |
|---|---|
| `unet2d` | `UNet2DModel` of diffusers: DDPM, NCSN++ |
| `autoencoder_kl` | `AutoencoderKL` of diffusers: the autoencoder of Stable Diffusion and DiT |
| `dit`, `dit_files` | DiT and SiT: their authors' files, and `DiTTransformer2DModel` of diffusers |
"""

from types import ModuleType

from diffusion import lazy


def __getattr__(name: str) -> ModuleType:
  return lazy.load(__name__, name)


def __dir__() -> list[str]:
  return sorted({*globals(), *lazy.names(__name__)})
