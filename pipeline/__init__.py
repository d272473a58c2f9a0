"""The library: pure functions on small frozen types, from audio by URI to transcripts in Parquet.

Importing it loads neither ray nor torch: `run.py` alone knows the first, `whisper/` alone the second.
"""
