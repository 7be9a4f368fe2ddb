package baseline;

import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler;
import org.apache.kafka.streams.state.Stores;

/**
 * The worker's task on positions as a tuned Kafka Streams application: exactly once (v2), state with changelogs.
 *
 * <p>Configured by {@code BASELINE_*} variables. Prints {@code ready} when it processes; SIGTERM stops it.
 */
public final class GpsBaseline {
    private GpsBaseline() { }

    public static void main(String[] arguments) {
        String target = variable("BASELINE_TARGET");
        KafkaStreams streams = new KafkaStreams(topology(variable("BASELINE_SOURCE"), target), settings());
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.RUNNING) {
                System.out.println("ready");
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
        streams.start();
    }

    private static Topology topology(String source, String target) {
        int schemaId = Integer.parseInt(variable("BASELINE_SCHEMA_ID"));
        long latenessMs = Long.parseLong(variable("BASELINE_LATENESS_MS"));
        Serde<byte[]> bytes = Serdes.ByteArray();
        ByteArraySerializer out = new ByteArraySerializer();
        String own = "positions";
        Topology topology = new Topology();
        topology.addSource("in", new ByteArrayDeserializer(), new ByteArrayDeserializer(), source);
        topology.addProcessor(own, () -> new PositionsProcessor(schemaId, latenessMs), "in");
        topology.addStateStore(
            Stores.windowStoreBuilder(
                Stores.persistentWindowStore(
                    PositionsProcessor.SEEN, Duration.ofHours(25), Duration.ofMillis(PositionsProcessor.BUCKET_MS), false
                ), bytes, bytes
            ).withCachingDisabled(), own);  // nearly every id is new: nothing for a cache to merge
        topology.addStateStore(
            Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(PositionsProcessor.HELD), bytes, bytes)
                .withCachingDisabled(), own);
        topology.addStateStore(
            Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(PositionsProcessor.VEHICLES), bytes, bytes)
                .withCachingEnabled(), own);
        topology.addSink(PositionsProcessor.CLEAN, target, out, out, own);
        topology.addSink(PositionsProcessor.LATE, target + ".late", out, out, own);
        topology.addSink(PositionsProcessor.REJECTS, target + ".rejects", out, out, own);
        topology.addSink(PositionsProcessor.STATE, target + ".state", out, out, own);
        return topology;
    }

    private static Properties settings() {
        Properties set = new Properties();
        set.put(StreamsConfig.APPLICATION_ID_CONFIG, variable("BASELINE_ID"));
        set.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, variable("BASELINE_BOOTSTRAP"));
        set.put(StreamsConfig.STATE_DIR_CONFIG, variable("BASELINE_DATA_DIR"));
        set.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, Integer.parseInt(variable("BASELINE_THREADS")));
        set.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, Integer.parseInt(variable("BASELINE_COMMIT_INTERVAL_MS")));
        set.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        set.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        set.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        set.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        set.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 128L << 20);
        set.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 5_000);
        set.put(StreamsConfig.ROCKSDB_CONFIG_SETTER_CLASS_CONFIG, RocksSettings.class);
        set.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        set.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5_000);
        set.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.FETCH_MIN_BYTES_CONFIG), 65_536);
        set.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG), 50);
        set.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 2 << 20);
        set.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        set.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 100);
        set.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 512 << 10);
        set.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), 256L << 20);
        // A broker may answer "concurrent transactions" just after a commit; the default pause is half a commit interval.
        set.put(StreamsConfig.producerPrefix(ProducerConfig.RETRY_BACKOFF_MS_CONFIG), 5);
        return set;
    }

    private static String variable(String name) {
        String value = System.getenv(name);
        if (value == null || value.isEmpty()) {
            throw new IllegalArgumentException(name + " is not set");
        }
        return value;
    }
}
