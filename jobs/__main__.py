"""`python -m jobs COMMAND`: the same as `bulkscribe COMMAND`, for clusters that are given a working directory."""

from __future__ import annotations

from jobs import main

if __name__ == "__main__":
    main(prog_name="python -m jobs")
