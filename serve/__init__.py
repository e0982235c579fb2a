"""The Ray Serve application: a gateway for HTTP, an embedder, and a searcher, each scaling by itself."""
