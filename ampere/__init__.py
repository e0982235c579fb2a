"""One vector space for product pages, short videos and live-stream clips."""
