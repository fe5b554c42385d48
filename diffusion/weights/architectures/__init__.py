"""Networks of other libraries as Flax modules, one file an architecture, from their published arrays.

Each file has the module, called as the library's own networks are, or says which of the library's it is, and

  build(config)                        the module of a config.json, as a dict, or of options read from a file
  convert(arrays, config)              its parameters from the arrays of the published file, by dotted name
  export(params, config)               the inverse, bit for bit, where a file is written again
  denoiser(config, ..., arrays)        the library's denoiser; an autoencoder has `codec` in its place

| file | architecture |
|---|---|
| `unet2d` | `UNet2DModel` of diffusers: DDPM, NCSN++ |
| `unet2d_condition` | `UNet2DConditionModel` of diffusers: Stable Diffusion 1 and 2 |
| `clip`, `clip_tokens` | `CLIPTextModel` and `CLIPTokenizer` of transformers: embeddings of their prompts |
| `autoencoder_kl` | `AutoencoderKL` of diffusers: the autoencoder of Stable Diffusion and DiT |
| `dit`, `dit_files` | DiT and SiT: their authors' files, and `DiTTransformer2DModel` of diffusers |
| `song_unet` | EDM's SongUNet (DDPM++, NCSN++): the library's `networks.UNet` |
| `dhariwal_unet` | EDM's DhariwalUNet: `adm.ADM` |
| `edm2` | EDM2's UNet: `magnitude_preserving.MPUNet` |
| `edm` | what EDM and EDM2 put around them: the denoiser of a snapshot |
| `guided_diffusion` | the UNetModel of guided-diffusion (ADM): `adm.ADM`; `guided_diffusion_options` |
| `super_resolution` | its networks of super-resolution, told a small image |
| `noisy_classifier` | its classifier of noisy images, for `guidance.classifier` |
| `consistency_models` | OpenAI's consistency models and their teachers: `adm.ADM` |
| `score_sde`, `score_sde_files` | Score SDE's NCSN++ and DDPM++: `networks.UNet` |
| `score_sde_ddpm` | its DDPM: `networks.UNet` |
| `mean_flow` | MeanFlow's SiT with two times |
| `authors` | which of the last ones a file without a config is |

"""

from types import ModuleType

from diffusion import lazy


def __getattr__(name: str) -> ModuleType:
  return lazy.load(__name__, name)


def __dir__() -> list[str]:
  return sorted({*globals(), *lazy.names(__name__)})
