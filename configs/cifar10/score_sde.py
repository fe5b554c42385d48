"""What the CIFAR-10 experiments of Score SDE share (arXiv:2011.13456, sections 4 and appendix H).

Values are those of the authors' published configs. A file beside this one joins a process and a network:
`experiment(ve(), ncsnpp("fourier"), claim(...))`.
"""

import math

from ml_collections import ConfigDict

BATCH = 128


def vp(sub=False):
  """The (sub-)VP SDE: noise prediction, loss averaged over pixels in [-1, 1], Euler-Maruyama of 1000
  steps."""
  return dict(
    centered=True,
    ema_decay=0.9999,
    process=dict(factory="processes.subvp" if sub else "processes.vp_linear", beta_min=0.1, beta_max=20.0),
    denoiser=dict(factory="denoisers.eps", time_input="t", time_scale=999.0),
    loss=dict(per_dimension=True, times=dict(factory="losses.uniform_times", t_min=1e-5, t_max=1.0)),
    # evaluations at linspace(1, 1e-3, 1000), the last of which ends in clean data
    sampler=dict(solver="euler_maruyama", steps=1000, grid=dict(factory="solvers.grids.uniform", clean=True)),
  )


def ddpm_ladder(solver="ancestral"):
  """DDPM's 1000 steps, rung i at t = i / 1000; the network is handed i - 1, as in DDPM."""
  return vp() | dict(
    process=dict(factory="processes.ddpm_ladder", num_steps=1000, beta_min=0.1, beta_max=20.0),
    denoiser=dict(factory="denoisers.eps", time_input="t", time_scale=1000.0, time_shift=-1.0),
    loss=dict(per_dimension=True, times=dict(factory="losses.ladder_times", num_steps=1000)),
    # every node a rung, and a last step from rung 1 to clean data
    sampler=dict(solver=solver, steps=1000, grid=dict(factory="solvers.grids.uniform", clean=True)),
  )


def ve():
  """The VE SDE: sigma times the score, half the loss summed over pixels in [0, 1], predictor and Langevin
  corrector."""
  return dict(
    centered=False,
    ema_decay=0.999,
    process=dict(factory="processes.ve", sigma_min=0.01, sigma_max=50.0),
    denoiser=dict(factory="denoisers.scaled_score", time_input="log_sigma", time_scale=1.0),
    loss=dict(
      per_dimension=False,
      transforms=(dict(factory="losses.scale", factor=0.5),),
      times=dict(factory="losses.uniform_times", t_min=1e-5, t_max=1.0),
    ),
    # norm='batch' is the published corrector; with it the samples of a batch depend on each other.
    # 1000 nodes, and at the last one a denoising to sigma = 0
    sampler=dict(
      solver="predictor_corrector",
      steps=999,
      grid="uniform",
      options=dict(snr=0.16, n_corrector=1, norm="batch"),
    ),
  )


def ncsn_ladder():
  """NCSN's 1000 geometric levels, rung i at t = i / 1000; the network is handed 1000 - i, 0 for the
  largest."""
  continuous = ve()
  return continuous | dict(
    process=dict(factory="processes.ncsn_ladder", num_steps=1000, sigma_min=0.01, sigma_max=50.0),
    denoiser=dict(factory="denoisers.scaled_score", time_input="t", time_scale=-1000.0, time_shift=1000.0),
    loss=continuous["loss"] | dict(times=dict(factory="losses.ladder_times", num_steps=1000)),
    sampler=continuous["sampler"],
  )


def ddpm():
  """The network of DDPM (arXiv:2006.11239), in Score SDE's form."""
  return dict(
    factory="networks.UNet",
    width=128,
    channel_multipliers=(1, 2, 2, 2),
    num_res_blocks=2,
    attention_resolutions=(16,),
    block="ddpm",
    resample_with_conv=True,
    skip_rescale=False,
    init_scale=0.0,
    embedding="positional",
    dropout=0.1,
  )


def ddpmpp(deep=False):
  """DDPM++: BigGAN's residual blocks, rescaled skips, 4 blocks on a level, or 8."""
  return ddpm() | dict(block="biggan", skip_rescale=True, num_res_blocks=8 if deep else 4)


def ncsnpp(embedding="positional", deep=False):
  """NCSN++: DDPM++ with filtered resampling and the image as a residual stream of the encoder."""
  return ddpmpp(deep) | dict(
    fir=True,
    fir_kernel=(1, 3, 3, 1),
    progressive="none",
    progressive_input="residual",
    combine="sum",
    embedding=embedding,
    fourier_scale=16.0,
  )


def claim(table, metric=None, reported=None, **others):
  """What the paper reports for this experiment; reported=None where it gives no number of this experiment."""
  return dict(
    source=f"arXiv:2011.13456, {table}", metric=metric, reported=reported, tolerance=None, others=others
  )


def experiment(sde, network, claim, steps=1_300_001):
  """The whole config; deep networks are trained for 950,001 steps, the others for 1,300,001."""
  sde = dict(sde)
  centered, decay = sde.pop("centered"), sde.pop("ema_decay")
  loss = dict(
    factory="losses.denoising_score_matching", weight=dict(factory="losses.uniform"), condition_dropout=0.0
  )
  return ConfigDict(
    dict(
      seed=42,
      data=dict(
        factory="data.tfds",
        name="cifar10",
        path="",
        image_size=32,
        channels=3,
        num_classes=0,
        random_flip=True,
        centered=centered,
        dequantization="none",
      ),
      process=sde["process"],
      network=network | dict(centered=centered, num_classes=0, dtype="float32", remat=False),
      denoiser=sde["denoiser"],
      loss=loss | sde["loss"],
      optimizer=dict(
        learning_rate=2e-4, warmup_steps=5000, b1=0.9, b2=0.999, eps=1e-8, clip=1.0, weight_decay=0.0
      ),
      training=dict(
        batch_size=BATCH,
        steps=steps,
        log_every=50,
        checkpoint_every=10_000,
        keep=3,
        layout="replicated",
        # the half-life of a decay of 0.999 (VE) or 0.9999 (VP, sub-VP) a step
        ema_half_life_images=(round(BATCH * math.log(2) / -math.log(decay)),),
      ),
      sampler=dict(guidance=0.0, interval=(), options=dict(), denoise=True) | sde["sampler"],
      evaluation=dict(num_samples=1000, batch=250, seed=0, held_out=512),
      claim=claim,
    )
  )
