//! Whether a decoded record is a valid event. Python decodes the others again and gives the reason.
#![forbid(unsafe_code)]

use crate::columns::Columns;

/// Columns of longs: `streams.avro.native` numbers them.
const TIME: usize = 0;
/// Columns of texts.
const ID: usize = 0;
const KEY: usize = 1;

pub struct Rules<'a> {
    pub frame: &'a [u8],
    pub bytes_max: usize,
    /// Column, least and greatest value.
    pub ranges: &'a [(usize, f64, f64)],
    /// Of an id, and of any other text but the key.
    pub id_bytes_max: usize,
    pub key_bytes_max: usize,
}

impl Rules<'_> {
    /// Whether the record in the next row is valid: it came with `key`, and its time may not be after `limit_ms`.
    #[inline]
    pub fn accept(&self, columns: &Columns, key: &[u8], limit_ms: i64) -> bool {
        self.check(columns, key, limit_ms).is_some()
    }

    #[inline]
    fn check(&self, columns: &Columns, key: &[u8], limit_ms: i64) -> Option<()> {
        let row = columns.rows;
        let time = *columns.longs.get(TIME)?.get(row)?;
        let sized = |size: usize, max: usize| (1..=max).contains(&size);
        let texts = &columns.texts;
        let is_valid = (0..=limit_ms).contains(&time)
            && sized(texts.get(ID)?.get(row)?.len(), self.id_bytes_max)
            && sized(key.len(), self.key_bytes_max)
            && texts.get(KEY)?.get(row)? == key
            && texts.iter().skip(KEY + 1).all(|text| text.get(row).is_some_and(|text| text.len() <= self.id_bytes_max))
            && self.ranges.iter().all(|&(column, least, greatest)| columns.is_number(column, least, greatest));
        is_valid.then_some(())
    }
}
