"""What `sample.py --task=...` does: images in, restored, edited, translated or classified images out, by the
parts of `diffusion.tasks`."""
