"""The Ray Serve application: a gateway for HTTP, an embedder, and a searcher for each shard; each scales by itself."""
