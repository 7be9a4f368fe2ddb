//! First-wins insertion into the id set of `streams.operators.dedup.id_set`, over the same three arrays and the same hash.
#![forbid(unsafe_code)]

use std::hint::black_box;

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadwriteArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Number of places that are read before the first of them is decided, so that the reads overlap.
const AT_ONCE: usize = 16;

/// An identity has the same place in all three; `word` is 0 in a free place. The length is a power of two.
struct Table<'a> {
    hi: &'a mut [u64],
    lo: &'a mut [u64],
    word: &'a mut [u64],
}

struct Rows<'a> {
    hi: &'a [u64],
    lo: &'a [u64],
    word: &'a [u64],
}

/// `event_ids.mix`.
fn mix(hi: u64, lo: u64, word: u64, seed: u64) -> u64 {
    let mut value = (hi ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    value ^= value >> 32;
    value = (value ^ lo).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value ^= value >> 29;
    value = (value ^ word).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^= value >> 32;
    value.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Table<'_> {
    /// Which rows were new; None if there is no free place for one, and then the table must not be used again.
    fn add(&mut self, rows: &Rows<'_>, seed: u64) -> Option<Vec<bool>> {
        let (count, mask) = (rows.word.len(), self.word.len() - 1);
        let shift = u64::BITS - mask.count_ones();
        let mut new = Vec::with_capacity(count);
        let mut hashes = [0; AT_ONCE];
        for first in (0..count).step_by(AT_ONCE) {
            let some = AT_ONCE.min(count - first);
            let mut seen = 0;
            for (place, hash) in hashes.iter_mut().enumerate().take(some) {
                let row = first + place;
                *hash = mix(rows.hi[row], rows.lo[row], rows.word[row], seed);
                let at = (*hash >> shift) as usize;
                seen ^= self.word[at] ^ self.hi[at] ^ self.lo[at];
            }
            black_box(seen);
            for (place, hash) in hashes.iter().enumerate().take(some) {
                new.push(self.insert(rows, first + place, *hash, shift, mask)?);
            }
        }
        Some(new)
    }

    fn insert(&mut self, rows: &Rows<'_>, row: usize, hash: u64, shift: u32, mask: usize) -> Option<bool> {
        let (hi, lo, word) = (rows.hi[row], rows.lo[row], rows.word[row]);
        // An odd step visits every place.
        let (mut at, step) = ((hash >> shift) as usize, (hash as usize & mask) | 1);
        for _ in 0..=mask {
            if self.word[at] == 0 {
                (self.hi[at], self.lo[at], self.word[at]) = (hi, lo, word);
                return Some(true);
            }
            if self.word[at] == word && self.hi[at] == hi && self.lo[at] == lo {
                return Some(false);
            }
            at = at.wrapping_add(step) & mask;
        }
        None
    }
}

/// Insert identities in row order; returns for each row whether it was new. The first three arrays are the set.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn ids_add(
    py: Python<'_>,
    mut table_hi: PyReadwriteArray1<'_, u64>,
    mut table_lo: PyReadwriteArray1<'_, u64>,
    mut table_word: PyReadwriteArray1<'_, u64>,
    seed: u64,
    hi: PyReadonlyArray1<'_, u64>,
    lo: PyReadonlyArray1<'_, u64>,
    word: PyReadonlyArray1<'_, u64>,
) -> PyResult<Py<PyArray1<bool>>> {
    let mut table =
        Table { hi: table_hi.as_slice_mut()?, lo: table_lo.as_slice_mut()?, word: table_word.as_slice_mut()? };
    let rows = Rows { hi: hi.as_slice()?, lo: lo.as_slice()?, word: word.as_slice()? };
    let (capacity, count) = (table.word.len(), rows.word.len());
    if capacity < 2 || !capacity.is_power_of_two() || table.hi.len() != capacity || table.lo.len() != capacity {
        return Err(PyValueError::new_err("the arrays of the set are not of one length that is a power of two"));
    }
    if rows.hi.len() != count || rows.lo.len() != count {
        return Err(PyValueError::new_err("columns of different lengths"));
    }
    let new = py.detach(|| table.add(&rows, seed)).ok_or_else(|| PyValueError::new_err("the set is full"))?;
    Ok(new.into_pyarray(py).unbind())
}
