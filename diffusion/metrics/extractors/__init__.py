"""Networks whose features distances are measured in, and files of their weights.

inception.py    the network of FID, sFID, KID and the Inception score
dinov2.py       the transformers of FD-DINOv2
files.py        which of them a file is: `load`
extractor.py    what all have in common: `Extractor`
"""

from diffusion.metrics.extractors.extractor import Extractor
from diffusion.metrics.extractors.files import load

__all__ = ["Extractor", "load"]
