// Messages of the server (streams/fleet/frames.py): a length, a kind, then JSON or positions in columns.
const JSON_KIND = 1;
const POSITIONS_KIND = 2;
const HEAD_BYTES = 8;
const COUNT_BYTES = 16;
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;
export const NOWHERE = -2147483648;
export const UNKNOWN = 65535;
export const DEGREE = 1e7;

// Columns of a message of positions, as views of its bytes.
function positionsOf(buffer) {
  const head = new DataView(buffer, 0, COUNT_BYTES);
  const n = head.getUint32(0, true);
  let at = COUNT_BYTES;
  const view = (kind) => {
    const found = new kind(buffer, at, n);
    at += n * kind.BYTES_PER_ELEMENT;
    return found;
  };
  return {
    count: n,
    now: head.getFloat64(8, true),
    time: view(Float64Array),
    vehicle: view(Uint32Array),
    latitude: view(Int32Array),
    longitude: view(Int32Array),
    speed: view(Uint16Array),
    heading: view(Uint16Array),
    state: view(Uint8Array),
  };
}

function messageOf(kind, buffer) {
  if (kind === POSITIONS_KIND) return { positions: positionsOf(buffer) };
  if (kind === JSON_KIND) return JSON.parse(new TextDecoder().decode(buffer));
  return {}; // of a newer server
}

// The one message of an answer.
export function onlyMessage(buffer) {
  const head = new DataView(buffer, 0, HEAD_BYTES);
  return messageOf(head.getUint32(4, true), buffer.slice(HEAD_BYTES, HEAD_BYTES + head.getUint32(0, true)));
}

// Gives each message of a stream of bytes to `take`, however the bytes are cut.
export async function eachMessage(reader, take) {
  let kept = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    let bytes = value;
    if (kept.length) {
      bytes = new Uint8Array(kept.length + value.length);
      bytes.set(kept);
      bytes.set(value, kept.length);
    }
    let at = 0;
    while (bytes.length - at >= HEAD_BYTES) {
      const head = new DataView(bytes.buffer, bytes.byteOffset + at, HEAD_BYTES);
      const length = head.getUint32(0, true);
      if (length > MESSAGE_BYTES_MAX) throw new Error("a message is too long");
      if (bytes.length - at < HEAD_BYTES + length) break;
      const first = bytes.byteOffset + at + HEAD_BYTES;
      take(messageOf(head.getUint32(4, true), bytes.buffer.slice(first, first + length)));
      at += HEAD_BYTES + length;
    }
    kept = bytes.slice(at);
  }
}
