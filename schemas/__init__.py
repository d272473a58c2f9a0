"""The tables that bulkscribe writes: one a file, each column with its unit and one sentence. Imports pyarrow only."""
