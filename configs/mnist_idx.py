"""`configs/mnist.py` on MNIST's own files.

`--config.data.path=FOLDER` with `*-images-idx3-ubyte[.gz]` and the labels beside them.
"""

from ml_collections import ConfigDict

from configs import mnist


def get_config():
  config = mnist.get_config()
  config.data = ConfigDict(dict(factory="data.idx", path="", held_out=0.1))
  return config
