"""MNIST's own files with a residual MLP, for pictures in minutes on one CPU core.

`--config.data.path=FOLDER`, see `configs/mnist_idx.py`.

The network is narrower than an image, so it can not carry an image's noise to its output: it predicts the
clean image, which has less to say, and the loss is one for that (min-SNR, arXiv:2303.09556).
"""

from ml_collections import ConfigDict

from configs import mnist_idx


def get_config():
  config = mnist_idx.get_config()
  config.process = ConfigDict(dict(factory="processes.vp_cosine"))
  config.network = ConfigDict(dict(factory="networks.MLP", width=512, depth=4, dropout=0.1, num_classes=10))
  config.denoiser = ConfigDict(dict(factory="denoisers.x0", time_input="log_sigma", time_scale=0.25))
  config.loss.weight = ConfigDict(dict(factory="losses.min_snr", gamma=5.0))
  config.loss.times = ConfigDict(dict(factory="losses.uniform_times"))
  config.training.update(
    dict(batch_size=128, steps=3000, ema_half_life_images=(25_000,), checkpoint_every=500)
  )
  config.optimizer.update(dict(learning_rate=1e-3, warmup_steps=100))
  config.sampler.update(dict(solver="dpmpp_2m", steps=24, guidance=1.0))
  return config
