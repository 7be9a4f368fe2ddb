"""Events of an MQTT broker into source topics (`streams bridge mqtt`): QoS 1, acknowledged once Kafka has."""
