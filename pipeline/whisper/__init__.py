"""Whisper in torch: the only folder that imports torch. It knows `pipeline.types` and `pipeline.errors`, nothing else.

Importing this package loads nothing: `options` and `locate` are free of torch, the rest is not.
"""
