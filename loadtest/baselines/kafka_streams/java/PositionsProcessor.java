package baseline;

import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.PriorityQueue;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.kstream.internals.Change;
import org.apache.kafka.streams.processor.StateStore;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.internals.InternalProcessorContext;
import org.apache.kafka.streams.processor.internals.ProcessorNode;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.WindowStore;
import org.apache.kafka.streams.state.internals.CachedStateStore;
import org.apache.kafka.streams.state.internals.WrappedStateStore;

/**
 * Decode, validate, drop copies, put in order, fold: one instance for a partition.
 *
 * <p>Two things go beyond the public API, both in favour of Kafka Streams: rows are published when a commit flushes their
 * cache (as a KTable does it), once for each changed key; and the same flush is the sign to store events that still
 * wait, so that one which comes and goes between two commits never reaches RocksDB or a changelog.
 */
final class PositionsProcessor implements Processor<byte[], byte[], byte[], byte[]> {
    static final String SEEN = "seen";
    static final String HELD = "held";
    static final String VEHICLES = "vehicles";
    static final String CLEAN = "clean";
    static final String LATE = "late";
    static final String REJECTS = "rejects";
    static final String STATE = "state";
    static final long BUCKET_MS = 3_600_000L;

    private static final byte[] ONE = {1};
    private static final byte[] FLUSH_SIGN = {0};
    private static final byte[] ROW_PREFIX = {0, 0, 0, 0, 1};

    private final int schemaId;
    private final long latenessMs;
    private final Position event = new Position();
    private final PriorityQueue<Held> waiting = new PriorityQueue<>(1024);
    private ProcessorContext<byte[], byte[]> context;
    private WindowStore<byte[], byte[]> seen;
    private KeyValueStore<byte[], byte[]> held;
    private KeyValueStore<byte[], byte[]> vehicles;
    private long newest = Long.MIN_VALUE;
    private boolean isSigned;

    PositionsProcessor(int schemaId, long latenessMs) {
        this.schemaId = schemaId;
        this.latenessMs = latenessMs;
    }

    @Override public void init(ProcessorContext<byte[], byte[]> given) {
        context = given;
        seen = context.getStateStore(SEEN);
        held = context.getStateStore(HELD);
        vehicles = context.getStateStore(VEHICLES);
        takeUp();
        publishAtCommits();
    }

    private void takeUp() {
        waiting.clear();
        newest = Long.MIN_VALUE;
        try (KeyValueIterator<byte[], byte[]> rows = held.all()) {
            while (rows.hasNext()) {
                KeyValue<byte[], byte[]> row = rows.next();
                ByteBuffer packed = ByteBuffer.wrap(row.value);
                byte[] key = new byte[packed.getShort()];
                packed.get(key);
                byte[] value = new byte[packed.remaining()];
                packed.get(value);
                if (event.read(value, schemaId) && event.isValid(key)) {
                    Held one = new Held(event, event.idBytes(), key, value);
                    one.isStored = true;
                    waiting.add(one);
                    newest = Math.max(newest, one.time);
                }
            }
        }
    }

    @SuppressWarnings({"unchecked", "rawtypes"})
    private void publishAtCommits() {
        InternalProcessorContext internal = (InternalProcessorContext) context;
        ProcessorNode own = internal.currentNode();
        cacheOf(vehicles).setFlushListener(flushed -> {
            Record changed = (Record) flushed;
            byte[] key = (byte[]) changed.key();
            ProcessorNode before = internal.currentNode();
            internal.setCurrentNode(own);
            try {
                if (Arrays.equals(key, FLUSH_SIGN)) {
                    isSigned = false;
                    storeWaiting();
                } else {
                    byte[] row = ((Change<byte[]>) changed.value()).newValue;
                    internal.forward(new Record<>(key, framed(row), changed.timestamp()), STATE);
                }
            } finally {
                internal.setCurrentNode(before);
            }
        }, false);
    }

    private void storeWaiting() {
        for (Held one : waiting) {
            if (!one.isStored) {
                one.isStored = true;
                held.put(one.storeKey(), one.packed());
            }
        }
    }

    @SuppressWarnings("rawtypes")
    private static CachedStateStore cacheOf(StateStore store) {
        StateStore layer = store;
        while (layer instanceof WrappedStateStore) {
            if (layer instanceof CachedStateStore) {
                return (CachedStateStore) layer;
            }
            layer = ((WrappedStateStore) layer).wrapped();
        }
        throw new IllegalStateException("this version of Kafka Streams has no cache where it is looked for");
    }

    @Override public void process(Record<byte[], byte[]> record) {
        byte[] key = record.key();
        byte[] value = record.value();
        if (!event.read(value, schemaId) || !event.isValid(key)) {
            context.forward(record, REJECTS);
            return;
        }
        byte[] id = event.idBytes();
        long bucket = event.eventTime / BUCKET_MS * BUCKET_MS;  // an event's identity has its time: one look-up
        if (seen.fetch(id, bucket) != null) {
            return;
        }
        seen.put(id, ONE, bucket);
        if (newest != Long.MIN_VALUE && event.eventTime < newest - latenessMs) {
            context.forward(record, LATE);
            return;
        }
        newest = Math.max(newest, event.eventTime);
        waiting.add(new Held(event, id, key, value));
        if (!isSigned) {
            isSigned = true;
            vehicles.put(FLUSH_SIGN, ONE);
        }
        release(newest - latenessMs);
    }

    private void release(long watermark) {
        Held one;
        while ((one = waiting.peek()) != null && one.time <= watermark) {
            waiting.poll();
            if (one.isStored) {
                held.delete(one.storeKey());
            }
            vehicles.put(one.key, VehicleRow.after(vehicles.get(one.key), one));
            context.forward(new Record<>(one.key, one.value, one.time), CLEAN);
        }
    }

    private static byte[] framed(byte[] row) {
        byte[] value = Arrays.copyOf(ROW_PREFIX, ROW_PREFIX.length + row.length);
        System.arraycopy(row, 0, value, ROW_PREFIX.length, row.length);
        return value;
    }
}
