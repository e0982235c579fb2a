"""The Ray Serve application: an HTTP gateway, an embedder, and a searcher for each index shard.

Each is a deployment of its own and scales on its own.
"""
