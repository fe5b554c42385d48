"""Posterior sampling of inverse problems, beside exact posteriors."""
