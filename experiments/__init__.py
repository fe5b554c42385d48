"""What papers claim, and how it is measured: a folder a paper.

A config holds the claims as data and names its measurement by a dotted path,
`measure="experiments.meco.unnormalised.gaussian_mean"`: a function (config, seed) -> {metric: number}, in the
same folder or in a module of the reader's own. `python reproduce.py` runs them and keeps the ledger. None of
this is part of the installed package.
"""
