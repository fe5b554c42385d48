"""Time of an image in the Inception features of FID and the Inception score, beside torch-fidelity's.

Both take the same random uint8 images through the whole path of their tool on the same CPU: resize, network,
the mean and covariance of 2048 features, the logits of the Inception score. torch-fidelity runs in a Python
that has it (`--torch`), with random weights as the network here has; it waits while the other works, turn by
turn. The figure is the ratio of times in each round, its median and its middle half, by the clock and by the
time that the cores worked, which others on the machine hardly change; aim at most 1.

  python benchmarks/extraction.py --torch=/path/to/python-with-torch-fidelity
"""

import os
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import timing

from diffusion.metrics.extractors import Extractor, inception
from diffusion.metrics.streaming import ArrayImages, extract
from diffusion.metrics.sums import Wanted

BATCH = 64

THEIRS = """
import sys, time
import numpy as np, torch, torch_fidelity
from torch_fidelity import feature_extractor_inceptionv3 as network
from torch_fidelity.metric_fid import fid_features_to_statistics
from torch_fidelity.utils import get_featuresdict_from_dataset

count, side, batch, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads)
class Random(network.FeatureExtractorInceptionV3):
  def load_state_dict(self, arrays):
    pass
network.load_state_dict_from_url = lambda *args, **kwargs: {}
extractor = Random("inception-v3-compat", ["2048", "logits_unbiased"])
pictures = torch.tensor(np.random.RandomState(0).randint(0, 256, (count, 3, side, side)).astype(np.uint8))
class Pictures(torch.utils.data.Dataset):
  def __len__(self):
    return count
  def __getitem__(self, index):
    return pictures[index]
def run():
  found = get_featuresdict_from_dataset(Pictures(), extractor, batch, False, True, False)
  fid_features_to_statistics(found["2048"])
run()
print("ready", torch_fidelity.__version__, torch.__version__, flush=True)
for line in sys.stdin:
  begun = time.perf_counter(), time.process_time()
  run()
  print(time.perf_counter() - begun[0], time.process_time() - begun[1], flush=True)
"""


def ours(count, side):
  """A function that takes the images through the path here."""
  network = inception.Inception()
  shape = jax.ShapeDtypeStruct((1, inception.SIDE, inception.SIDE, 3), jnp.float32)
  rng = np.random.RandomState(0)
  params = jax.tree.map(
    lambda leaf: (rng.standard_normal(leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32),
    jax.eval_shape(network.init, jax.random.key(0), shape)["params"],
  )
  extractor = Extractor(
    "inception",
    "random",
    inception.SIDE,
    {"pool": 2048, "logits": inception.CLASSES},
    jax.tree.map(jnp.asarray, params),
    lambda params, x, centre: network.apply({"params": params}, (x - centre) / centre),
  )
  images = ArrayImages(np.random.RandomState(0).randint(0, 256, (count, side, side, 3)).astype(np.uint8))
  wanted = Wanted(("pool",), None, np.zeros(count, int))
  return lambda: extract(images, extractor, wanted, resize="tf1_bilinear", batch=BATCH)


def main(argv=None):
  parser = timing.arguments(__doc__)
  parser.add_argument("--torch", metavar="PYTHON", required=True, help="a Python with torch-fidelity")
  parser.add_argument("--count", type=int, default=128, help="images a round")
  parser.add_argument("--side", type=int, default=32, help="pixels of their sides")
  parser.add_argument("--rounds", type=int, default=7)
  flags = parser.parse_args(argv)
  count, rounds = (BATCH, 1) if flags.quick else (flags.count, flags.rounds)
  threads = len(os.sched_getaffinity(0))
  command = [flags.torch, "-c", THEIRS, *map(str, (count, flags.side, BATCH, threads))]
  with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
    said = process.stdout.readline().split()
    if said[:1] != ["ready"]:
      raise SystemExit(f"{flags.torch} does not run torch-fidelity")
    run, times = ours(count, flags.side), {"ours": [], "theirs": []}
    run()
    for turn in range(rounds):
      for who in ("ours", "theirs")[:: 1 if turn % 2 == 0 else -1]:
        if who == "ours":
          before = time.process_time()
          spent = timing.seconds(lambda: run().statistics["pool"].mean), time.process_time() - before
        else:
          process.stdin.write("go\n")
          process.stdin.flush()
          spent = tuple(map(float, process.stdout.readline().split()))
        times[who].append([seconds / count for seconds in spent])
        wall, cpu = (1e3 * seconds / count for seconds in spent)
        print(f"{who:<7} {wall:.1f} ms an image, {cpu:.1f} ms of the cores", flush=True)
    process.stdin.close()
  numbers = {}
  for part, unit in enumerate(("clock", "cores")):
    of = {who: np.asarray(values)[:, part] for who, values in times.items()}
    ratio, (low, high) = timing.ratio(of, "ours", "theirs")
    numbers[unit] = {"ratio": ratio} | {who: values.tolist() for who, values in of.items()}
    mine, other = (1e3 * np.median(of[who]) for who in ("ours", "theirs"))
    print(
      f"by the {unit}: {mine:.0f} ms an image here, {other:.0f} there, ratio {ratio:.2f} (middle half "
      f"{low:.2f} to "
      f"{high:.2f}); aim at most 1"
    )
  print(
    f"{flags.side} pixels, {count} images, {threads} threads, torch-fidelity {said[1]} on torch {said[2]}"
  )
  timing.write(flags.out, numbers)


if __name__ == "__main__":
  main()
