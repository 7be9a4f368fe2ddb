"""How lag and throughput went over hours, and what happened meanwhile: kept in memory, or asked of Prometheus."""
