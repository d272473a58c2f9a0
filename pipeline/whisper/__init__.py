"""Whisper in torch. Of the pipeline it knows `pipeline.types` and `pipeline.errors`, nothing else.

Importing this package loads nothing: `options`, `locate`, `tokens` and what these need are free of torch.
"""
