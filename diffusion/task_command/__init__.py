"""`sample.py --task=...`: images restored, edited, translated or classified.

Images go in and come out, by the parts of `diffusion.tasks`.
"""
