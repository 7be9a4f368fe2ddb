"""What the monitor shows over HTTP: the page, its live data, Prometheus' metrics, and Burrow's API."""
