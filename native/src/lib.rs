//! Avro records to columns, for `streams.avro.native`: the Python decoder remains the judge of every record in doubt.
//!
//! Decoding is done without the interpreter lock and without `unsafe`; a panic becomes a Python exception. `records` takes
//! records from the Kafka client and `produce` gives it records, for `streams.kafka.native_client`; `ids` inserts into the
//! id set of `streams.operators.dedup`.

mod client;
mod columns;
mod cursor;
mod decode;
mod ids;
mod keys;
mod produce;
mod program;
mod records;
mod refs;
mod valid;
mod words;

use columns::{Columns, Texts};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use program::{FieldSpec, Program};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use refs::ByteRefs;
use valid::Rules;

/// Version that the Python side must find: raised with every change of what is passed in either direction.
const INTERFACE: u32 = 3;

/// How the records of one writer's schema become a flow's columns.
#[pyclass(frozen, name = "Program", module = "streams_native")]
struct PyProgram(Program);

/// Offsets, data, and which are not null.
type TextArrays = (Py<PyArray1<i32>>, Py<PyArray1<u8>>, Py<PyArray1<bool>>);

/// What `decode` returns. All arrays have one row for each record that is decoded, in order.
#[pyclass(frozen, get_all, module = "streams_native")]
struct Decoded {
    rows: usize,
    /// Positions of the values that are left to the Python decoder.
    doubted: Py<PyArray1<i64>>,
    longs: Vec<Py<PyArray1<i64>>>,
    /// Number columns one after the other; a null is NaN, and marked in `nulls`.
    numbers: Py<PyArray1<f64>>,
    nulls: Py<PyArray1<bool>>,
    texts: Vec<TextArrays>,
    id_hi: Py<PyArray1<u64>>,
    id_lo: Py<PyArray1<u64>>,
    id_is_digest: Py<PyArray1<bool>>,
}

/// What `decode_refs` returns: one row for each record that is decoded and valid, in order.
#[pyclass(frozen, get_all, module = "streams_native")]
struct DecodedRefs {
    /// Positions of the values that these are, and of the others, which are left to Python.
    rows: Py<PyArray1<i64>>,
    others: Py<PyArray1<i64>>,
    event_id: Py<ByteRefs>,
    longs: Vec<Py<PyArray1<i64>>>,
    /// As in `Decoded`.
    numbers: Py<PyArray1<f64>>,
    /// Text columns but for id and key.
    texts: Vec<TextArrays>,
    id_hi: Py<PyArray1<u64>>,
    id_lo: Py<PyArray1<u64>>,
    /// With time, as `streams.batch.event_ids.time_word` makes it.
    id_word: Py<PyArray1<u64>>,
}

struct Batch {
    columns: Columns,
    doubted: Vec<i64>,
    words: Words,
}

impl PyProgram {
    /// `None`: some value does not begin with `frame`, or is longer than `bytes_max`.
    fn run(&self, values: &[&[u8]], frame: &[u8], bytes_max: usize) -> Option<Batch> {
        let program = &self.0;
        let mut columns = Columns::new(program.longs, program.numbers, program.texts, values.len());
        let mut doubted = Vec::new();
        for (row, value) in (0i64..).zip(values) {
            let body = value.strip_prefix(frame).filter(|_| value.len() <= bytes_max)?;
            if decode::record(program, body, &mut columns).is_some() {
                columns.accept();
            } else {
                columns.refuse();
                doubted.push(row);
            }
        }
        columns.finish();
        let words = words_of(&columns)?;
        Some(Batch { columns, doubted, words })
    }

    /// Rows that are decoded and valid, and the others.
    fn run_refs(&self, values: &ByteRefs, keys: &ByteRefs, limits_ms: &[i64], rules: &Rules<'_>) -> Option<RefsBatch> {
        let program = &self.0;
        let mut columns = Columns::new(program.longs, program.numbers, program.texts, values.len());
        let (mut rows, mut others) = (Vec::with_capacity(values.len()), Vec::new());
        for (row, &limit_ms) in limits_ms.iter().enumerate() {
            let body = values
                .get(row)
                .filter(|value| value.len() <= rules.bytes_max)
                .and_then(|value| value.strip_prefix(rules.frame));
            let is_valid = body.and_then(|body| decode::record(program, body, &mut columns)).is_some()
                && keys.get(row).is_some_and(|key| rules.accept(&columns, key, limit_ms));
            if is_valid {
                columns.accept();
                rows.push(i64::try_from(row).ok()?);
            } else {
                columns.refuse();
                others.push(i64::try_from(row).ok()?);
            }
        }
        columns.finish();
        let words = words_of(&columns)?;
        Some(RefsBatch { rows, others, columns, words })
    }
}

type Words = (Vec<u64>, Vec<u64>, Vec<bool>);

struct RefsBatch {
    rows: Vec<i64>,
    others: Vec<i64>,
    columns: Columns,
    words: Words,
}

fn words_of(columns: &Columns) -> Option<Words> {
    let mut words =
        (Vec::with_capacity(columns.rows), Vec::with_capacity(columns.rows), Vec::with_capacity(columns.rows));
    if let Some(ids) = columns.texts.first() {
        for row in 0..columns.rows {
            let (hi, lo, is_digest) = words::words(ids.get(row)?);
            words.0.push(hi);
            words.1.push(lo);
            words.2.push(is_digest);
        }
    }
    Some(words)
}

#[pymethods]
impl PyProgram {
    /// `fields`: for each field of the writer its type in preorder and the places that its values go to.
    #[new]
    fn new(fields: Vec<FieldSpec>, numbers: usize, texts: usize) -> PyResult<Self> {
        let program = Program::new(&fields, numbers, texts).map_err(PyValueError::new_err)?;
        Ok(PyProgram(program))
    }

    /// Columns of `values`, which are bytes objects; each begins with `frame`, which is not decoded.
    ///
    /// None if some value is none, does not begin with `frame`, or is longer than `bytes_max`.
    fn decode(
        &self,
        py: Python<'_>,
        values: &Bound<'_, PyList>,
        frame: &[u8],
        bytes_max: usize,
    ) -> PyResult<Option<Decoded>> {
        let mut kept = Vec::with_capacity(values.len());
        for value in values.iter() {
            match value.cast_into::<PyBytes>() {
                Ok(bytes) => kept.push(bytes),
                Err(_) => return Ok(None),
            }
        }
        let slices: Vec<&[u8]> = kept.iter().map(|bytes| bytes.as_bytes()).collect();
        let Some(batch) = py.detach(|| self.run(&slices, frame, bytes_max)) else {
            return Ok(None);
        };
        Ok(Some(arrays(py, batch)))
    }

    /// Columns of the values that are valid, and which are left to Python.
    ///
    /// A value is valid if it begins with `frame`, is no longer than `bytes_max` and not in doubt, its id, key and texts are of
    /// the length that they may have, its key is the record's, its time is between 0 and its `limits_ms`, and
    /// its numbers are null, or finite and in the range that `ranges` (column, least, greatest) gives.
    ///
    /// None if the program has no id, key or time.
    #[allow(clippy::too_many_arguments)]
    fn decode_refs(
        &self,
        py: Python<'_>,
        values: &Bound<'_, ByteRefs>,
        keys: &Bound<'_, ByteRefs>,
        limits_ms: PyReadonlyArray1<'_, i64>,
        frame: &[u8],
        bytes_max: usize,
        ranges: Vec<(usize, f64, f64)>,
        id_bytes_max: usize,
        key_bytes_max: usize,
    ) -> PyResult<Option<DecodedRefs>> {
        let (values, keys, limits_ms) = (values.get(), keys.get(), limits_ms.as_slice()?);
        if keys.len() != values.len() || limits_ms.len() != values.len() {
            return Err(PyValueError::new_err("columns of different lengths"));
        }
        let rules = Rules { frame, bytes_max, ranges: &ranges, id_bytes_max, key_bytes_max };
        let batch = py.detach(|| self.run_refs(values, keys, limits_ms, &rules));
        batch.map(|batch| refs_arrays(py, batch)).transpose().map(Option::flatten)
    }
}

fn refs_arrays(py: Python<'_>, batch: RefsBatch) -> PyResult<Option<DecodedRefs>> {
    let RefsBatch { rows, others, columns, words } = batch;
    let Columns { longs, numbers, texts, .. } = columns;
    let Some(times) = longs.first() else {
        return Ok(None);
    };
    let id_word: Vec<u64> = times
        .iter()
        .zip(&words.2)
        .map(|(&time, &is_digest)| (time.cast_unsigned() << 1).wrapping_add(u64::from(is_digest)).wrapping_add(1))
        .collect();
    let mut texts = texts.into_iter();
    let (Some(ids), Some(_)) = (texts.next(), texts.next()) else {
        return Ok(None);
    };
    let Some(event_id) = ByteRefs::of_ends(ids.data, ids.offsets.get(1..).unwrap_or_default()) else {
        return Ok(None);
    };
    Ok(Some(DecodedRefs {
        rows: rows.into_pyarray(py).unbind(),
        others: others.into_pyarray(py).unbind(),
        event_id: Py::new(py, event_id)?,
        longs: longs.into_iter().map(|column| column.into_pyarray(py).unbind()).collect(),
        numbers: numbers.into_pyarray(py).unbind(),
        texts: texts.map(|text| text_arrays(py, text)).collect(),
        id_hi: words.0.into_pyarray(py).unbind(),
        id_lo: words.1.into_pyarray(py).unbind(),
        id_word: id_word.into_pyarray(py).unbind(),
    }))
}

fn text_arrays(py: Python<'_>, text: Texts) -> TextArrays {
    (text.offsets.into_pyarray(py).unbind(), text.data.into_pyarray(py).unbind(), text.valid.into_pyarray(py).unbind())
}

fn arrays(py: Python<'_>, batch: Batch) -> Decoded {
    let Batch { columns, doubted, words } = batch;
    let Columns { rows, longs, numbers, nulls, texts, .. } = columns;
    Decoded {
        rows,
        doubted: doubted.into_pyarray(py).unbind(),
        longs: longs.into_iter().map(|column| column.into_pyarray(py).unbind()).collect(),
        numbers: numbers.into_pyarray(py).unbind(),
        nulls: nulls.into_pyarray(py).unbind(),
        texts: texts.into_iter().map(|text| text_arrays(py, text)).collect(),
        id_hi: words.0.into_pyarray(py).unbind(),
        id_lo: words.1.into_pyarray(py).unbind(),
        id_is_digest: words.2.into_pyarray(py).unbind(),
    }
}

#[pymodule]
fn streams_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("INTERFACE", INTERFACE)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<PyProgram>()?;
    module.add_class::<Decoded>()?;
    module.add_class::<DecodedRefs>()?;
    module.add_class::<ByteRefs>()?;
    module.add_class::<keys::KeyMap>()?;
    module.add_class::<records::Reader>()?;
    module.add_class::<records::Records>()?;
    module.add_class::<produce::Producer>()?;
    module.add_function(wrap_pyfunction!(ids::ids_add, module)?)?;
    module.add_function(wrap_pyfunction!(client::load_client, module)?)?;
    module.add_function(wrap_pyfunction!(client::take_client, module)?)
}
