//! Keys of a partition to their slots, for `streams.operators.keyed`.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Mutex;

use numpy::{IntoPyArray, PyArray1};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::refs::ByteRefs;

/// Slots by key, numbered in the order in which keys are first met. The hash is seeded at random, which no result shows.
#[pyclass(frozen, module = "streams_native")]
pub struct KeyMap(Mutex<HashMap<Box<[u8]>, i64>>);

/// The slot of each key, and the keys that were new, in the order of their slots.
type Found<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyList>);

#[pymethods]
impl KeyMap {
    #[new]
    fn new() -> Self {
        KeyMap(Mutex::new(HashMap::new()))
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.0.lock().map_err(broken)?.len())
    }

    /// The slot of each of `keys`, a column by reference or a list of bytes objects; a new key gets the next one.
    fn slots<'py>(&self, py: Python<'py>, keys: &Bound<'py, PyAny>) -> PyResult<Found<'py>> {
        if let Ok(refs) = keys.cast::<ByteRefs>() {
            let column = refs.get();
            let found = py.detach(|| {
                let mut map = self.0.lock().map_err(broken)?;
                let mut found = (Vec::with_capacity(column.len()), Vec::new());
                for row in 0..column.len() {
                    let key = column.get(row).ok_or_else(|| PyValueError::new_err("a key is null"))?;
                    found.0.push(slot(&mut map, key, &mut found.1)?);
                }
                Ok::<_, PyErr>(found)
            })?;
            return Ok((found.0.into_pyarray(py), PyList::new(py, found.1.iter().map(|key| PyBytes::new(py, key)))?));
        }
        let keys = keys.cast::<PyList>()?;
        let mut map = self.0.lock().map_err(broken)?;
        let mut found = (Vec::with_capacity(keys.len()), Vec::new());
        for key in keys.iter() {
            let key = key.cast_into::<PyBytes>().map_err(|_| PyTypeError::new_err("a key is no bytes object"))?;
            found.0.push(slot(&mut map, key.as_bytes(), &mut found.1)?);
        }
        Ok((found.0.into_pyarray(py), PyList::new(py, found.1.iter().map(|key| PyBytes::new(py, key)))?))
    }

    fn clear(&self) -> PyResult<()> {
        *self.0.lock().map_err(broken)? = HashMap::new();
        Ok(())
    }
}

#[inline]
fn slot(map: &mut HashMap<Box<[u8]>, i64>, key: &[u8], new: &mut Vec<Box<[u8]>>) -> PyResult<i64> {
    if let Some(&slot) = map.get(key) {
        return Ok(slot);
    }
    let slot = i64::try_from(map.len())?;
    map.insert(key.into(), slot);
    new.push(key.into());
    Ok(slot)
}

fn broken<T>(_: T) -> PyErr {
    PyRuntimeError::new_err("the key map is broken")
}
