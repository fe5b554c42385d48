"""Sampling towards a reward by candidates and their soft values, beside laws that are tilted exactly."""
