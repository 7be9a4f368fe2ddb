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
mod produce;
mod program;
mod records;
mod words;

use columns::Columns;
use numpy::{IntoPyArray, PyArray1};
use program::{FieldSpec, Program};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

/// What the Python side must find: raised with every change of what is passed in either direction.
const INTERFACE: u32 = 2;

/// How the records of one writer's schema become a flow's columns.
#[pyclass(frozen, name = "Program", module = "streams_native")]
struct PyProgram(Program);

/// Offsets, data, and which are not null.
type TextArrays<'py> = (Bound<'py, PyArray1<i32>>, Bound<'py, PyArray1<u8>>, Bound<'py, PyArray1<bool>>);

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
    texts: Vec<(Py<PyArray1<i32>>, Py<PyArray1<u8>>, Py<PyArray1<bool>>)>,
    id_hi: Py<PyArray1<u64>>,
    id_lo: Py<PyArray1<u64>>,
    id_is_digest: Py<PyArray1<bool>>,
}

struct Batch {
    columns: Columns,
    doubted: Vec<i64>,
    words: (Vec<u64>, Vec<u64>, Vec<bool>),
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
        let mut words = (
            Vec::with_capacity(columns.rows),
            Vec::with_capacity(columns.rows),
            Vec::with_capacity(columns.rows),
        );
        if let Some(ids) = columns.texts.first() {
            for row in 0..columns.rows {
                let (hi, lo, is_digest) = words::words(ids.get(row)?);
                words.0.push(hi);
                words.1.push(lo);
                words.2.push(is_digest);
            }
        }
        Some(Batch { columns, doubted, words })
    }
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
        texts: texts
            .into_iter()
            .map(|text| {
                let made: TextArrays<'_> =
                    (text.offsets.into_pyarray(py), text.data.into_pyarray(py), text.valid.into_pyarray(py));
                (made.0.unbind(), made.1.unbind(), made.2.unbind())
            })
            .collect(),
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
    module.add_class::<records::Reader>()?;
    module.add_class::<records::Records>()?;
    module.add_class::<produce::Producer>()?;
    module.add_function(wrap_pyfunction!(ids::ids_add, module)?)?;
    module.add_function(wrap_pyfunction!(client::load_client, module)?)?;
    module.add_function(wrap_pyfunction!(client::take_client, module)?)
}
