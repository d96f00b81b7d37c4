"""Networks. They know no losses and no data; `training/recipes.py` brings the three together."""
