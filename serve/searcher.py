"""The search deployment, for indexes that the gateways do not hold themselves."""

from ray import serve

from serve.served_index import ServedIndex


@serve.deployment(max_ongoing_requests=64, graceful_shutdown_timeout_s=10)
class SearcherDeployment(ServedIndex):
    """One replica of a model's index."""
