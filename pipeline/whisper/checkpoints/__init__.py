"""Checkpoints: what they hold, read from each format into the names and shapes of our network.

Importing this package loads nothing. `files` and `vocabulary` are free of torch, the readers are not.
"""
