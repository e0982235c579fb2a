"""The Ray Serve application: a gateway that answers over HTTP and searches, and an embedder.

Each is a deployment of its own and scales on its own, as do searchers and engines, which are
optional.
"""
