"""Who speaks in a passage: models that tell voices apart, and what a voice sounds like.

Beside `whisper/` the only folder that imports torch. Knows types and errors, nothing else of the pipeline.
"""
