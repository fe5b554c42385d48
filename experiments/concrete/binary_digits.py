"""Black and white digits: the ratios of turning each of 64 pixels over, learned by `train.py` at all noise
levels, drawn by Gibbs sampling.

python train.py --config=experiments/concrete/binary_digits.py --workdir=/tmp/binary_digits
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  source = "arXiv:2211.00802, binarised MNIST; here 8x8 digits"
  shape = (8, 8, 1)
  return ConfigDict(
    dict(
      seed=0,
      data=dict(factory="data.binary_digits"),
      process=dict(factory="processes.uniform_resample", sizes=2, shape=shape, t_min=0.01),
      network=dict(
        factory="networks.ConcreteFlips",
        resampled=True,
        network=dict(factory="networks.MLP", width=192, depth=2, num_classes=10, fourier_scale=1.0),
      ),
      loss=dict(
        factory="losses.denoising_concrete_score_matching",
        neighbourhood=dict(factory="processes.neighbourhoods.bit_flips", shape=shape),
        weight=dict(factory="losses.balanced"),
        times=dict(
          factory="losses.low_discrepancy", base=dict(factory="losses.logit_normal", mean=-1.0, std=1.5)
        ),
      ),
      optimizer=dict(
        learning_rate=1e-3,
        schedule="cosine",
        warmup_steps=100,
        b1=0.9,
        b2=0.99,
        eps=1e-8,
        clip=1.0,
        weight_decay=0.0,
      ),
      training=dict(
        batch_size=256,
        steps=1000,
        ema_half_life_images=(25_000,),
        ema_ramp=0.05,
        accumulate=1,
        log_every=100,
        checkpoint_every=1000,
        keep=1,
        warm_start=None,
        layout="replicated",
      ),
      evaluation=dict(
        held_out=256,
        own=dict(
          factory="experiments.concrete.drawn_digits.evaluate",
          samples=300,
          levels=16,
          lowest=0.01,
          sweeps=1,
          seed=0,
          picture="samples.png",
        ),
      ),
      measure="experiments.concrete.drawn_digits.measure",
      claim=[
        dict(
          source=source,
          metric="accuracy",
          true=0.9,
          tolerance=0.0,
          bound="at_least",
          unit="of 300 class-conditional samples",
          note="by a support vector machine on the real training images; the criterion is ours",
        )
      ],
    )
  )
