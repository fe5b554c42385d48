"""Uses of a density: errors of a classifier, data of another kind, samples made up between modes."""
