"""Pure, columnar operators: data in, data out. No Kafka, no Faust, no clock, no disk."""
