package baseline;

import java.nio.ByteBuffer;

/** An event that waits for the watermark. */
final class Held implements Comparable<Held> {
    final long time;
    final long sequence;
    final double latitude;
    final double longitude;
    final double speedKmh;
    final boolean isStopped;
    final byte[] id;
    final byte[] key;
    final byte[] value;
    /** Whether a commit has found it still waiting, so that it is in the store. */
    boolean isStored;

    Held(Position event, byte[] id, byte[] key, byte[] value) {
        this.time = event.eventTime;
        this.sequence = event.sequence;
        this.latitude = event.latitude;
        this.longitude = event.longitude;
        this.speedKmh = event.speedKmh;
        this.isStopped = event.isStopped();
        this.id = id;
        this.key = key;
        this.value = value;
    }

    @Override public int compareTo(Held other) {
        int order = Long.compare(time, other.time);
        if (order == 0) {
            order = Long.compare(sequence, other.sequence);
        }
        return order != 0 ? order : java.util.Arrays.compareUnsigned(id, other.id);
    }

    byte[] storeKey() {
        return ByteBuffer.allocate(16 + id.length).putLong(time).putLong(sequence).put(id).array();
    }

    byte[] packed() {
        return ByteBuffer.allocate(2 + key.length + value.length).putShort((short) key.length).put(key).put(value).array();
    }
}
