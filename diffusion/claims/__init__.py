"""Measurements behind the configs' claims: pure functions (config, seed) -> dict of numbers, one file a
family.

A config names one by its dotted path, `config.measure = "claims.unnormalised.gaussian_mean"`; a reader's own
module works the same. `reproduce.py` runs them and writes the ledger.
"""
