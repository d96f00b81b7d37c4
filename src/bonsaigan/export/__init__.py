"""Generators in other programs' forms. Each module reloads what it wrote and compares the pictures."""
