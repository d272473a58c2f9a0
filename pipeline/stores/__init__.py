"""The stores, a module each: local files, S3, Google Cloud Storage, Azure Blob Storage, the web.

Each offers the functions of `store.Store`, in the words of its own library; `pipeline/storage.py` chooses among them
and is the only door to them.
"""
