"""Ways to walk in what a generator learnt: paths, directions, mixing, inversion, films."""
