"""The process of a sink (`streams sink NAME`): a topic's committed records into a target outside of Kafka."""
