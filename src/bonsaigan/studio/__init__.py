"""A local web page to explore a generator and to watch a training."""
