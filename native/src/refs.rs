//! Columns of byte strings by reference: which buffer, from where, how long. A buffer lives as long as a column that refers to it.
//!
//! For Python such a column stands where an object array of bytes objects would: it has `take`, slices, `tolist`. Bytes
//! objects are made only of what is asked for.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::{PyIndexError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator, PyList, PySlice};

/// Size of a null.
const NULL: u32 = u32::MAX;
/// A buffer is not made longer than this, unless a single value is.
pub const BUFFER_BYTES_MAX: usize = 1 << 30;

#[derive(Clone, Copy)]
struct Ref {
    buffer: u32,
    start: u32,
    size: u32,
}

type Buffer = Arc<Vec<u8>>;

/// A column of byte strings or nulls.
#[pyclass(frozen, module = "streams_native")]
pub struct ByteRefs {
    buffers: Vec<Buffer>,
    rows: Vec<Ref>,
}

/// Collects values, one after the other, into buffers of its own.
pub struct Collector {
    buffers: Vec<Buffer>,
    open: Vec<u8>,
    rows: Vec<Ref>,
}

impl Collector {
    pub fn new() -> Self {
        Collector { buffers: Vec::new(), open: Vec::new(), rows: Vec::new() }
    }

    pub fn reserve(&mut self, rows: usize, bytes: usize) {
        self.rows.reserve(rows);
        self.open.reserve(bytes.min(BUFFER_BYTES_MAX));
    }

    /// `None`: the value is too long to be referred to.
    #[inline]
    pub fn push(&mut self, value: Option<&[u8]>) -> Option<()> {
        let Some(bytes) = value else {
            self.rows.push(Ref { buffer: 0, start: 0, size: NULL });
            return Some(());
        };
        if !self.open.is_empty() && self.open.len() + bytes.len() > BUFFER_BYTES_MAX {
            self.buffers.push(Arc::new(std::mem::take(&mut self.open)));
        }
        let size = u32::try_from(bytes.len()).ok().filter(|&size| size != NULL)?;
        let (buffer, start) = (u32::try_from(self.buffers.len()).ok()?, u32::try_from(self.open.len()).ok()?);
        self.open.extend_from_slice(bytes);
        self.rows.push(Ref { buffer, start, size });
        Some(())
    }

    pub fn finish(mut self) -> ByteRefs {
        self.buffers.push(Arc::new(self.open));
        ByteRefs { buffers: self.buffers, rows: self.rows }
    }
}

impl ByteRefs {
    /// Values that lie one after the other in one buffer, each ending where `ends` says; none is null.
    pub fn of_ends(data: Vec<u8>, ends: &[i32]) -> Option<Self> {
        let mut start = 0;
        let mut rows = Vec::with_capacity(ends.len());
        for &end in ends {
            let end = u32::try_from(end).ok()?;
            rows.push(Ref { buffer: 0, start, size: end.checked_sub(start)? });
            start = end;
        }
        (usize::try_from(start).ok()? <= data.len()).then(|| ByteRefs { buffers: vec![Arc::new(data)], rows })
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The value at `row`; None for a null, and where there is no such row.
    #[inline]
    pub fn get(&self, row: usize) -> Option<&[u8]> {
        self.bytes(self.rows.get(row)?)
    }

    #[inline]
    fn bytes(&self, at: &Ref) -> Option<&[u8]> {
        if at.size == NULL {
            return None;
        }
        let start = at.start as usize;
        self.buffers.get(at.buffer as usize)?.get(start..start + at.size as usize)
    }

    fn object<'py>(&self, py: Python<'py>, at: &Ref) -> Option<Bound<'py, PyBytes>> {
        self.bytes(at).map(|bytes| PyBytes::new(py, bytes))
    }

    fn with(&self, rows: Vec<Ref>) -> Self {
        ByteRefs { buffers: self.buffers.clone(), rows }
    }
}

#[pymethods]
impl ByteRefs {
    /// A copy of `values`, a list of bytes objects and None.
    #[staticmethod]
    fn of(values: &Bound<'_, PyList>) -> PyResult<Self> {
        let mut found = Collector::new();
        for value in values.iter() {
            let bytes = if value.is_none() {
                None
            } else {
                Some(value.cast_into::<PyBytes>().map_err(|_| PyTypeError::new_err("neither bytes nor None"))?)
            };
            found.push(bytes.as_ref().map(|bytes| bytes.as_bytes())).ok_or_else(too_long)?;
        }
        Ok(found.finish())
    }

    /// The rows of all `parts`, one after the other.
    #[staticmethod]
    fn concat(parts: Vec<PyRef<'_, ByteRefs>>) -> PyResult<Self> {
        let mut buffers: Vec<Buffer> = Vec::new();
        let mut places: HashMap<*const Vec<u8>, u32> = HashMap::new();
        let mut rows = Vec::with_capacity(parts.iter().map(|part| part.rows.len()).sum());
        for part in &parts {
            let mut place = Vec::with_capacity(part.buffers.len());
            for buffer in &part.buffers {
                let next = u32::try_from(buffers.len()).map_err(|_| too_long())?;
                place.push(*places.entry(Arc::as_ptr(buffer)).or_insert_with(|| {
                    buffers.push(Arc::clone(buffer));
                    next
                }));
            }
            rows.extend(
                part.rows
                    .iter()
                    .map(|at| Ref { buffer: place.get(at.buffer as usize).copied().unwrap_or_default(), ..*at }),
            );
        }
        Ok(ByteRefs { buffers, rows })
    }

    fn __len__(&self) -> usize {
        self.rows.len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.tolist(py)?.try_iter()
    }

    /// A value by its row, or the column of a slice.
    fn __getitem__<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let count = isize::try_from(self.rows.len())?;
        if let Ok(slice) = key.cast::<PySlice>() {
            let range = slice.indices(count)?;
            let rows = if range.step == 1 {
                let start = usize::try_from(range.start)?;
                self.rows.get(start..start + range.slicelength).unwrap_or_default().to_vec()
            } else {
                let step = |place: usize| range.start + isize::try_from(place).unwrap_or_default() * range.step;
                (0..range.slicelength)
                    .filter_map(|place| self.rows.get(usize::try_from(step(place)).ok()?).copied())
                    .collect()
            };
            return Ok(self.with(rows).into_pyobject(py)?.into_any());
        }
        let row: isize = key.extract()?;
        let row = if row < 0 { row + count } else { row };
        let found = usize::try_from(row)
            .ok()
            .and_then(|row| self.rows.get(row))
            .ok_or_else(|| PyIndexError::new_err("no such row"))?;
        Ok(match self.object(py, found) {
            Some(bytes) => bytes.into_any(),
            None => py.None().into_bound(py),
        })
    }

    /// The column of the values at `rows`, in that order.
    fn take(&self, rows: PyReadonlyArray1<'_, i64>) -> PyResult<Self> {
        let mut found = Vec::with_capacity(rows.as_array().len());
        for &row in rows.as_array() {
            let at = usize::try_from(row).ok().and_then(|row| self.rows.get(row));
            found.push(*at.ok_or_else(|| PyIndexError::new_err("no such row"))?);
        }
        Ok(self.with(found))
    }

    /// Bytes objects, None where it is null.
    fn tolist<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.rows.iter().map(|at| self.object(py, at)))
    }

    /// Bytes of each value; 0 of a null.
    fn sizes<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        let sizes: Vec<i64> = self.rows.iter().map(|at| if at.size == NULL { 0 } else { i64::from(at.size) }).collect();
        sizes.into_pyarray(py)
    }

    /// The same values in a buffer of their own, so that no other one is kept for them.
    fn compact(&self, py: Python<'_>) -> PyResult<Self> {
        py.detach(|| {
            let mut found = Collector::new();
            let bytes = self.rows.iter().filter(|at| at.size != NULL).map(|at| at.size as usize).sum();
            found.reserve(self.rows.len(), bytes);
            for at in &self.rows {
                found.push(self.bytes(at))?;
            }
            Some(found.finish())
        })
        .ok_or_else(too_long)
    }

    /// The sizes of all values as 32-bit numbers, and then all of them: as `streams.state.codec.pack_texts` writes them.
    fn pack<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let packed = py.detach(|| {
            let bytes: usize = self.rows.iter().filter(|at| at.size != NULL).map(|at| at.size as usize).sum();
            let mut packed = Vec::with_capacity(4 * self.rows.len() + bytes);
            for at in &self.rows {
                if at.size == NULL {
                    return None;
                }
                packed.extend_from_slice(&at.size.to_le_bytes());
            }
            for at in &self.rows {
                packed.extend_from_slice(self.bytes(at)?);
            }
            Some(packed)
        });
        Ok(PyBytes::new(py, &packed.ok_or_else(|| PyValueError::new_err("a null cannot be packed"))?))
    }
}

pub fn too_long() -> PyErr {
    PyOverflowError::new_err("a value of 4 GiB or more")
}
