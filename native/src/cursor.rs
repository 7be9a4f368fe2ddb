//! Reads Avro's binary encoding out of a slice. `None` is doubt: the caller leaves the record to the Python decoder.
#![forbid(unsafe_code)]

pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes }
    }

    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    #[inline]
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    #[inline]
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    /// A number in base 128 of at most 64 bits, in no more bytes than it needs.
    #[inline]
    fn unsigned(&mut self) -> Option<u64> {
        let first = *self.rest.first()?;
        if first < 0x80 {
            self.rest = &self.rest[1..];
            return Some(u64::from(first));
        }
        self.unsigned_of_several()
    }

    fn unsigned_of_several(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for (place, &byte) in self.rest.iter().enumerate().take(10) {
            if place == 9 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                if byte == 0 {
                    return None;
                }
                self.rest = &self.rest[place + 1..];
                return Some(value);
            }
        }
        None
    }

    /// An `int` or a `long`.
    #[inline]
    pub fn long(&mut self) -> Option<i64> {
        let coded = self.unsigned()?;
        Some((coded >> 1).cast_signed() ^ -(coded & 1).cast_signed())
    }

    /// A length or a count; a negative one is doubt.
    #[inline]
    pub fn size(&mut self) -> Option<usize> {
        usize::try_from(self.long()?).ok()
    }

    #[inline]
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let size = self.size()?;
        self.take(size)
    }

    #[inline]
    pub fn text(&mut self) -> Option<&'a [u8]> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).ok()?;
        Some(bytes)
    }

    #[inline]
    pub fn boolean(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}
