"""Makes docs/gallery.md and its pictures: every picture by the command that stands beside it.

python docs/gallery.py --digits=runs/digits --color=runs/digits_color --mnist=runs/mnist
"""

import contextlib
import importlib.util
import io
import os
import pathlib
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from diffusion.commands import train as command
from diffusion.config.errors import UserError

HEAD = """\
# Gallery

Every picture on this page was made by the command beside it; all of them, and the page, by

```bash
python docs/gallery.py --digits=runs/digits --color=runs/digits_color --mnist=runs/mnist
```

The models are small and were trained on a CPU: the first in a few minutes by the main command of the README,
the second on the same digits in colour, the third on MNIST's own files (10,000 images are enough:
`t10k-images-idx3-ubyte.gz` and its labels) by

```bash
python train.py --config=configs/digits.py --workdir=runs/digits
python train.py --config=configs/digits_color.py --workdir=runs/digits_color
python train.py --config=configs/mnist_small.py --config.data.path=FOLDER --workdir=runs/mnist
```

Images of 8x8 pixels are shown magnified. `python sample.py --help` lists what else each task takes.
"""


class Picture(NamedTuple):
  """name: of the PNG; title: heading; flags: of sample.py, or None; made: the command where it is another;
  seen: what one sees.

  measured: None, or what more is to be said of the arrays that the command wrote.
  """

  name: str
  title: str
  flags: str | None
  seen: str
  made: str = ""
  measured: Callable | None = None


def pictures(digits, color, mnist):
  """What the page shows, in its order."""
  on_digits, on_color, on_mnist = f"--workdir={digits}", f"--workdir={color}", f"--workdir={mnist}"
  return [
    Picture(
      "samples",
      "Samples by class, with guidance",
      f"{on_digits} --num=100 --guidance=1 --seed=1",
      SEEN["samples"],
    ),
    Picture(
      "neighbours",
      "Samples beside their nearest training images",
      None,
      SEEN["neighbours"],
      f"python sample.py {on_digits} --evaluate",
    ),
    Picture(
      "trajectory", "From noise to data", None, SEEN["trajectory"], f"python sample.py {on_digits} --evaluate"
    ),
    Picture(
      "inpaint", "Inpainting", f"{on_digits} --task=inpaint --mask=half --num=6 --draws=64", SEEN["inpaint"]
    ),
    Picture(
      "super_resolve",
      "Super-resolution",
      f"{on_digits} --task=super_resolve --factor=2 --num=6 --draws=64",
      SEEN["super_resolve"],
    ),
    Picture(
      "colorize",
      "Colourisation",
      f"{on_color} --task=colorize --method=ddrm --num=6 --draws=64",
      SEEN["colorize"],
      measured=on_hues,
    ),
    Picture(
      "strokes",
      "Strokes to images",
      f"{on_digits} --task=edit --input docs/gallery/guides.npz --strength 0.2 0.4 0.75 1.5 3",
      SEEN["strokes"],
    ),
    Picture(
      "composite",
      "Composites, inside a mask",
      f"{on_digits} --task=edit --input docs/gallery/glued.npz --mask=docs/gallery/seam.png --strength=0.4 "
      "--repeats=3 --draws=16",
      SEEN["composite"],
    ),
    Picture(
      "translate",
      "Class to class, through the latent",
      f"{on_digits} --task=translate --to-label=3 --num=8",
      SEEN["translate"],
    ),
    Picture(
      "classify",
      "A denoiser as a classifier",
      f"{on_digits} --task=classify --first=14 --num=12",
      SEEN["classify"],
    ),
    Picture(
      "mnist_samples", "MNIST: samples by class", f"{on_mnist} --num=100 --guidance=1", SEEN["mnist_samples"]
    ),
    Picture(
      "mnist_inpaint",
      "MNIST: inpainting",
      f"{on_mnist} --task=inpaint --mask=box --num=5 --draws=32",
      SEEN["mnist_inpaint"],
    ),
    Picture(
      "mnist_super_resolve",
      "MNIST: super-resolution",
      f"{on_mnist} --task=super_resolve --factor=4 --num=5 --draws=32",
      SEEN["mnist_super_resolve"],
    ),
  ]


SEEN = dict(
  samples="A column a class, 0 to 9. All but a few can be read; the eights are the least sure, and some ones "
  "have the thick stem of the data's own.",
  neighbours="The samples resemble training images and copy none: they are as far from them as held-out "
  "images are (neighbour ratio 0.98 in `metrics.json`). The command writes it as `samples.png` into the "
  "run's folder.",
  trajectory="Down to a noise level of about one nothing can be told; between 0.6 and 0.1 the digit is "
  "decided, and below that only its edges are cleaned.",
  inpaint="The left half comes back as it was, so its spread is black. A half 0 leaves little doubt; the "
  "half 2 of the fifth row is completed as 2, 9 and 3, and its mean is none of them.",
  super_resolve="Sixteen means leave strokes open: most samples keep the digit, one of the 0 of the first "
  "row is nearly an 8, and the spread is largest where a hole may be or not.",
  colorize="Each digit of the data has one random hue, of which its grey picture tells nothing: samples "
  "should have all hues, each one hue, and their mean none. So they do, but for shades of a hue side by side "
  "(the 7); the tint of the mean is what 64 hues leave. Over 100 images with 32 samples each the circular "
  "variance of an image's hues is 0.85 with `ddrm`, 0.85 `daps`, 0.84 `replacement`, but 0.77 with the "
  "default `pigdm`, with 160 steps as with 40, and 0.73 with `dps`: they favour some hues (uniform ones: "
  "0.84; error of each: 0.01).",
  strokes="Means of 2x2 pixels in four greys, as strokes. At 0.2 blocks can still be seen, about 0.75 most "
  "are plausible digits where the paint was, at 3 the paint is forgotten (the 6 of the third row became a "
  "4). The first guide was a 0 and is never one again: its hole was painted over. The faint dots of the "
  "background are pixels of value 1 of 16.",
  composite="The upper half of one digit on the lower half of another, two rows of pixels made anew at their "
  "seam. All else comes back exactly. The 7 on a 2 becomes a clean 2 and the 9 on a 3 one stroke that may be "
  "either; the 0 on an 8 is closed to an 8 in some results and left open in others.",
  translate="Each digit becomes a 3 through its latent, and returns. Slant and weight of the stroke carry "
  "over, though not always: the fourth and the sixth result are poor threes.",
  classify="Sure and right for eleven; the 9 of the fifth row it takes for a 7, and says that it is not "
  "sure.",
  mnist_samples="A column a class. All but a handful can be read (the fives and a 3 of the eighth row are "
  "the worst); a faint smudge around strokes shows that the model is a small MLP, trained on 9,000 images "
  "for half an hour of a busy core.",
  mnist_inpaint="The sevens leave no doubt but for the edges of their strokes. Of the fours so little is "
  "seen that they come back as 4, 9 and broken strokes, and the 9 of the third row not at all: an unusual "
  "digit, and a small model. What is seen is put back at the end, and not every stroke reaches it (the upper "
  "right of the first 4): the network's Jacobian is not that of an exact denoiser, so before that the "
  "samples are off there.",
  mnist_super_resolve="From 7x7 means the sevens and fours come back with sharp edges, and their spread lies "
  "along these; the 9 stays doubtful.",
)

CLAIMED = [
  Picture(
    "../sdedit",
    "How much noise an edit needs",
    None,
    "Crude paintings of 359 held-out digits, edited by a small unconditional model: the more noise, the "
    "farther from the guide and the nearer to real digits. `tasks.recommended` takes the least noise that "
    "closes nine tenths of the gap between the guides and the best level, 0.75 here. The curve says "
    "realistic and not correct: so little is left of the digits in four by four greys that of the five "
    "examples only the 6 is one again.",
    "python reproduce.py experiments/sdedit/digits.py",
  ),
  Picture(
    "../posterior_covariance",
    "What a denoiser is not sure of",
    None,
    "Held-out digits, noisy, the mean given that, and the mean moved along the direction of most doubt; red "
    "and blue are the main directions. Among the training digits as the only possible ones that leads from "
    "one digit to another (fourth row: a 1 and a 9); the denoiser's directions are blurrier and resemble the "
    "exact ones only roughly.",
    "python reproduce.py experiments/high_order/digit_uncertainty.py",
  ),
]


HUE_BINS = 24


def hues(stored):
  """How the hues of colourisations of `data.color_digits` lie: (circular variance, share of bins hit, share
  of one hue, saturation).

  Given the grey picture the hue is uniform on the circle and one for all pixels, so of exact samples the
  first two are those of as many uniform hues, and the last two are 1.

  Args:
    stored: [images, draws, H, W, 3].
  """
  from diffusion.data.painted_digits import chroma

  z = chroma(stored)
  whole = z.sum((-2, -1))  # its angle is the hue of most of the paint
  turns = np.angle(whole) / (2.0 * np.pi) % 1.0
  spread = 1.0 - np.abs(np.exp(2j * np.pi * turns).mean(axis=1)).mean()
  hit = np.mean([len(np.unique(np.floor(row * HUE_BINS))) / HUE_BINS for row in turns])
  return spread, hit, np.abs(whole).sum() / np.abs(z).sum(), np.abs(z).sum() / np.mean(stored, axis=-1).sum()


def on_hues(arrays):
  """`hues` of the samples of --task=colorize in words, beside what they are for exact samples."""
  stored, truth = np.asarray(arrays["stored"]), np.asarray(arrays["input"])
  draws = stored.shape[1]
  gap = np.sqrt(np.mean(np.square(stored.mean(-1) - truth.mean(-1)[:, None])))
  spread, hit, one, strong = hues(stored)
  return (
    f"Rounded and cut to the data's values, 0 to 255, the mean of channels is off by {gap:.2g}. Circular "
    f"variance of the hues of an image {spread:.2f} (of {draws} uniform ones "
    f"{1.0 - np.sqrt(np.pi / draws) / 2:.2f}), in {hit:.0%} of {HUE_BINS} bins (uniform "
    f"{1.0 - (1.0 - 1.0 / HUE_BINS) ** draws:.0%}); {one:.1%} of a sample's colour has its one hue, with a "
    f"saturation of {strong:.1%} (in the data all, and 100%)"
  )


def guides(folder, digits):
  """guides.npz (crude paintings of held-out digits), glued.npz (two digits glued at their middle) and
  seam.png (where to mend them)."""
  from PIL import Image

  from diffusion.data import load
  from diffusion.run.opening import open_run

  dataset = open_run(digits).parts.dataset
  held = load(dataset.held_out)
  x, label = np.asarray(held["x"]), np.asarray(held["label"])
  means = np.asarray(x[:6], np.float32).reshape(6, 4, 2, 4, 2, 1).mean((2, 4))
  crude = (np.round(means * 3.0 / 16.0) * 16.0 / 3.0).repeat(2, axis=1).repeat(2, axis=2)  # in four greys
  np.savez(folder / "guides.npz", stored=np.round(crude).astype(np.uint8))
  one = lambda digit, number: x[np.flatnonzero(label == digit)[number]]
  pairs = [(one(7, 0), one(2, 0)), (one(5, 1), one(6, 1)), (one(9, 2), one(3, 2)), (one(0, 0), one(8, 1))]
  glued = np.stack([np.concatenate([top[:4], bottom[4:]]) for top, bottom in pairs])
  np.savez(folder / "glued.npz", stored=glued)
  seam = np.zeros((8, 8), np.uint8)
  seam[3:5] = 255
  Image.fromarray(seam).save(folder / "seam.png")


def sample(flags):
  """What sample.py prints."""
  spec = importlib.util.spec_from_file_location("sample", ROOT / "sample.py")
  script = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(script)
  said = io.StringIO()
  with contextlib.redirect_stdout(said):
    script.main(shlex.split(flags))
  return said.getvalue().strip()


def section(picture, command_line, said, more=""):
  """One picture with its command and its sentence; more: what was measured besides."""
  lines = [
    f"## {picture.title}",
    "",
    f"```bash\n{command_line}\n```",
    "",
    f"![{picture.title}](gallery/{picture.name}.png)",
    "",
    picture.seen,
  ]
  if said:
    # Seconds differ from machine to machine, and the files are those above.
    said = re.sub(r" in [\d.]+ s \(compilation included\)|; wrote .*", "", said)
    lines[-1] += f" The command said: *{said}.*"
  if more:
    lines[-1] += f" {more}."
  return "\n".join(lines).replace("gallery/../", "") + "\n"


def main(argv):
  parser = command.Parser(prog="docs/gallery.py", description=__doc__)
  parser.add_argument(
    "--digits",
    default="runs/digits",
    metavar="FOLDER",
    help="run of configs/digits.py (default: runs/digits)",
  )
  parser.add_argument(
    "--color",
    default="runs/digits_color",
    metavar="FOLDER",
    help="run of configs/digits_color.py (default: runs/digits_color)",
  )
  parser.add_argument(
    "--mnist",
    default="runs/mnist",
    metavar="FOLDER",
    help="run of configs/mnist_small.py (default: runs/mnist)",
  )
  parser.add_argument(
    "--only", nargs="*", metavar="NAME", help="make these pictures alone; the page keeps what the others said"
  )
  args = parser.parse_args(argv)
  os.chdir(ROOT)
  folder, page = ROOT / "docs" / "gallery", ROOT / "docs" / "gallery.md"
  folder.mkdir(exist_ok=True)
  before = page.read_text() if page.exists() else ""
  guides(folder, args.digits)
  parts = [HEAD]
  for picture in [*pictures(args.digits, args.color, args.mnist), *CLAIMED]:
    out = f"docs/gallery/{picture.name}"
    if picture.flags is None:
      if not picture.name.startswith(".."):
        made = os.path.join(args.digits, f"{dict(neighbours='samples').get(picture.name, picture.name)}.png")
        if not os.path.exists(made):
          raise UserError(f"there is no {made}: make it with {picture.made}")
        shutil.copyfile(made, out + ".png")
      parts.append(section(picture, picture.made, ""))
      continue
    command_line = f"python sample.py {picture.flags} --out={out}"
    known = re.search(
      rf"{re.escape(command_line)}\n```\n.*?The command said: \*(.*?)\.\*(?: ([^\n]*)\.)?\n", before, re.S
    )
    if args.only is not None and picture.name not in args.only:
      said, more = known.groups("") if known else ("", "")
    else:
      print(command_line, flush=True)
      said = sample(f"{picture.flags} --out={out} --quiet")
      more = ""
      if picture.measured is not None:
        with np.load(out + ".npz") as arrays:
          more = picture.measured(arrays)
      os.remove(out + ".npz")
    parts.append(section(picture, command_line, said, more))
  page.write_text("\n".join(parts))
  print(f"wrote {page} and the pictures in {folder}")


if __name__ == "__main__":
  sys.exit(command.run(main))
