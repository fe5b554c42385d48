"""A DiT on the latents of a published autoencoder, from a folder of images (arXiv:2212.09748).

    python train.py --config=configs/latent_images.py --config.data.path=photos \
      --config.codec.path=sd-vae-ft-mse --workdir=runs/photos

`config.codec.path` is a file or folder of an AutoencoderKL of diffusers. Training sees draws of its encoder's
Gaussian, times its own scaling_factor, and DDPM's noise at 1,000 levels, as DiT did; the network is DiT-S/2
with the condition of a class where the images lie in folders of classes. The learned variance is left out.
Sides of images are multiples of 16 with Stable Diffusion's autoencoder: 8 of the codec times 2 of the patch.
"""

from ml_collections import ConfigDict


def get_config():
  return ConfigDict(
    dict(
      seed=0,
      data=dict(factory="data.images", path="photos", image_size=256, channels=3, random_flip=True),
      process=dict(factory="processes.ddpm_ladder"),
      network=dict(
        factory="networks.DiT", width=384, depth=12, num_heads=6, patch=2, num_classes=0, dtype="float32"
      ),
      codec=dict(factory="weights.autoencoder_kl", path="vae", sampled=True, dtype="float32"),
      denoiser=dict(factory="denoisers.eps", time_scale=1000.0, time_shift=-1.0),
      loss=dict(
        factory="losses.denoising_score_matching",
        target="eps",
        per_dimension=True,
        times=dict(factory="losses.ladder_times", num_steps=1000),
        condition_dropout=0.0,
      ),
      optimizer=dict(
        learning_rate=1e-4,
        schedule="constant",
        warmup_steps=0,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        clip=0.0,
        weight_decay=0.0,
      ),
      training=dict(
        batch_size=256,
        steps=400_000,
        ema_half_life_images=(1_774_000,),  # a decay of 0.9999 at batches of 256
        ema_ramp=None,
        accumulate=1,
        log_every=100,
        checkpoint_every=5000,
        keep=2,
        warm_start=None,
        layout="replicated",
      ),
      sampler=dict(
        solver="dpmpp_2m", steps=25, grid="", guidance=0.0, interval=None, options=dict(), denoise=True
      ),
      evaluation=dict(num_samples=1000, batch=100, seed=0, held_out=512),
    )
  )
