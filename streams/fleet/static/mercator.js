// Web Mercator: longitude and latitude in degrees to a square from 0 to 1, and back.
export const LATITUDE_MAX = 85.05112878;
export const EARTH_KM = 40075.017;

export function worldX(longitude) {
  return (longitude + 180) / 360;
}

export function worldY(latitude) {
  const kept = Math.max(-LATITUDE_MAX, Math.min(LATITUDE_MAX, latitude));
  const sine = Math.sin((kept * Math.PI) / 180);
  return 0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI);
}

export function latitudeOf(y) {
  return (Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180) / Math.PI;
}

// Kilometres on the ground of one unit of the square at this height.
export function kilometresAt(y) {
  return EARTH_KM * Math.cos((latitudeOf(y) * Math.PI) / 180);
}
