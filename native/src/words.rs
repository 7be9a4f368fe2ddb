//! The identity of an event in words, as `streams.batch.event_ids` defines it.
#![forbid(unsafe_code)]

use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest};

const UUID_TEXT_BYTES: usize = 36;
const NONE: u8 = 255;

const fn nibbles() -> [u8; 256] {
    let mut table = [NONE; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    table
}

static NIBBLES: [u8; 256] = nibbles();

/// The 16 bytes of a UUID in canonical text form, or the digest of any other id; and whether it is a digest.
pub fn words(id: &[u8]) -> (u64, u64, bool) {
    if let Some(value) = uuid(id) {
        return ((value >> 64) as u64, value as u64, false);
    }
    let digest: [u8; 16] = Blake2b::<U16>::digest(id).into();
    let value = u128::from_be_bytes(digest);
    ((value >> 64) as u64, value as u64, true)
}

/// Where the digits of each byte stand in the text.
const DIGITS: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

fn uuid(id: &[u8]) -> Option<u128> {
    let text: &[u8; UUID_TEXT_BYTES] = id.try_into().ok()?;
    let mut bytes = [0u8; 16];
    let mut wrong = (text[8] ^ b'-') | (text[13] ^ b'-') | (text[18] ^ b'-') | (text[23] ^ b'-');
    for (byte, place) in bytes.iter_mut().zip(DIGITS) {
        let (high, low) = (NIBBLES[usize::from(text[place])], NIBBLES[usize::from(text[place + 1])]);
        wrong |= (high | low) & 0xf0;
        *byte = high << 4 | (low & 0x0f);
    }
    (wrong == 0).then(|| u128::from_be_bytes(bytes))
}
