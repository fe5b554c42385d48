"""Published networks: what each of their files' options and dotted names become here.

Where a network is the library's own, its module is that; each file has the options as its authors name them,
the module that they stand for, and `convert`, from the arrays of a file to the parameters of that module.

| file | networks |
|---|---|
| `song_unet` | EDM's SongUNet (DDPM++ and NCSN++): `networks.UNet` |
| `dhariwal_unet` | EDM's DhariwalUNet: `adm.ADM` |
| `edm2` | EDM2's UNet: `magnitude_preserving.MPUNet` |
| `edm` | EDM's and EDM2's preconditioners around them, as a denoiser of this library |
"""

from types import ModuleType

from diffusion import lazy


def __getattr__(name: str) -> ModuleType:
  return lazy.load(__name__, name)


def __dir__() -> list[str]:
  return sorted({*globals(), *lazy.names(__name__)})
