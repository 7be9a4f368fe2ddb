package baseline;

import java.nio.ByteBuffer;

/** A vehicle's row as it is kept and published: what {@code logistics.VehicleState} has, in 88 bytes. */
final class VehicleRow {
    private static final int BYTES = 88;
    private static final double EARTH_KM = 6371.0088;
    private static final long NEVER = Long.MIN_VALUE;

    private VehicleRow() { }

    /** The row after an event; {@code before} null: there is none yet. */
    static byte[] after(byte[] before, Held event) {
        long events = 0;
        long first = event.time;
        double odometerKm = 0;
        double speedSum = 0;
        long speeds = 0;
        double speedMax = Double.NaN;
        long stoppedSince = NEVER;
        if (before != null) {
            ByteBuffer row = ByteBuffer.wrap(before);
            events = row.getLong();
            first = row.getLong();
            row.getLong();
            row.getLong();
            double latitude = row.getDouble();
            double longitude = row.getDouble();
            odometerKm = row.getDouble() + distanceKm(latitude, longitude, event.latitude, event.longitude);
            speedSum = row.getDouble();
            speeds = row.getLong();
            speedMax = row.getDouble();
            stoppedSince = row.getLong();
        }
        if (!Double.isNaN(event.speedKmh)) {
            speedSum += event.speedKmh;
            speeds++;
            speedMax = Double.isNaN(speedMax) ? event.speedKmh : Math.max(speedMax, event.speedKmh);
            stoppedSince = event.isStopped ? (stoppedSince == NEVER ? event.time : stoppedSince) : NEVER;
        }
        return ByteBuffer.allocate(BYTES)
            .putLong(events + 1).putLong(first).putLong(event.time).putLong(event.sequence)
            .putDouble(event.latitude).putDouble(event.longitude).putDouble(odometerKm)
            .putDouble(speedSum).putLong(speeds).putDouble(speedMax).putLong(stoppedSince).array();
    }

    private static double distanceKm(double latitude1, double longitude1, double latitude2, double longitude2) {
        double a = Math.toRadians(latitude1);
        double b = Math.toRadians(latitude2);
        double north = Math.sin((b - a) / 2);
        double east = Math.sin(Math.toRadians(longitude2 - longitude1) / 2);
        return 2 * EARTH_KM * Math.asin(Math.min(1, Math.sqrt(north * north + Math.cos(a) * Math.cos(b) * east * east)));
    }
}
