package baseline;

import java.io.IOException;
import java.nio.ByteBuffer;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.util.Utf8;

/**
 * An event, read from framed Avro of version 1 of the positions' schema, field by field.
 *
 * <p>Generated classes and resolving decoders are slower: this is what a careful user could reach.
 */
final class Position {
    private static final int PREFIX_BYTES = 5;
    private static final double STOPPED_KMH = 3.0;

    Utf8 eventId = new Utf8();
    Utf8 deviceId = new Utf8();
    long sequence;
    long eventTime;
    double latitude;
    double longitude;
    /** NaN: unknown. */
    double speedKmh;

    private BinaryDecoder decoder;

    /** Reads a record's value into this object; false: it is not framed, of another schema, or malformed. */
    boolean read(byte[] value, int schemaId) {
        if (value == null || value.length < PREFIX_BYTES || value[0] != 0 || ByteBuffer.wrap(value, 1, 4).getInt() != schemaId) {
            return false;
        }
        try {
            decoder = DecoderFactory.get().binaryDecoder(value, PREFIX_BYTES, value.length - PREFIX_BYTES, decoder);
            eventId = decoder.readString(eventId);
            deviceId = decoder.readString(deviceId);
            sequence = decoder.readLong();
            eventTime = decoder.readLong();
            latitude = decoder.readDouble();
            longitude = decoder.readDouble();
            speedKmh = decoder.readIndex() == 0 ? Double.NaN : decoder.readDouble();
            if (decoder.readIndex() != 0) {
                decoder.readDouble();
            }
            return decoder.isEnd();
        } catch (IOException | RuntimeException malformed) {
            return false;
        }
    }

    /** Whether the values may be: ranges, ids, and the record's key. A negative speed becomes an unknown one. */
    boolean isValid(byte[] key) {
        if (speedKmh < 0) {
            speedKmh = Double.NaN;
        }
        int ids = eventId.getByteLength();
        return ids > 0 && ids <= 128 && eventTime >= 0
            && latitude >= -90 && latitude <= 90 && longitude >= -180 && longitude <= 180
            && key != null && key.length > 0 && key.length == deviceId.getByteLength()
            && java.util.Arrays.equals(key, 0, key.length, deviceId.getBytes(), 0, key.length);
    }

    boolean isStopped() {
        return speedKmh < STOPPED_KMH;
    }

    /** The event's id as a key: 16 bytes for a UUID in its usual form, else its text. */
    byte[] idBytes() {
        byte[] text = eventId.getBytes();
        int length = eventId.getByteLength();
        if (length == 36 && text[8] == '-' && text[13] == '-' && text[18] == '-' && text[23] == '-') {
            byte[] packed = new byte[16];
            int at = 0;
            for (int i = 0; i < length; i++) {
                if (text[i] == '-') {
                    continue;
                }
                int high = Character.digit(text[i], 16);
                int low = Character.digit(text[++i], 16);
                if ((high | low) < 0) {
                    return java.util.Arrays.copyOf(text, length);
                }
                packed[at++] = (byte) (high << 4 | low);
            }
            return packed;
        }
        return java.util.Arrays.copyOf(text, length);
    }
}
