//! Records into the librdkafka that confluent-kafka has loaded: a whole batch in one call, without the interpreter lock.
//!
//! The rules for `unsafe` are at the head of `client`.

use std::ffi::{c_int, CStr, CString};
use std::ptr::{null, null_mut};

use numpy::{PyReadonlyArray1, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::client::{api, Api, Argument, ArgumentValue, Bytes, Handle, HeaderArgument};
use crate::refs::ByteRefs;

/// Kinds of arguments of `produceva` (`rd_kafka_vtype_t`).
const TOPIC: c_int = 2;
const PARTITION: c_int = 3;
const VALUE: c_int = 4;
const KEY: c_int = 5;
const FLAGS: c_int = 7;
const TIMESTAMP: c_int = 8;
const HEADER: c_int = 9;
/// librdkafka copies key and value (`RD_KAFKA_MSG_F_COPY`).
const COPY: c_int = 2;
/// `RD_KAFKA_RESP_ERR__INVALID_ARG`: the error for a name that no topic can have.
const INVALID_ARGUMENT: c_int = -186;
/// Place in the arguments of a record; headers follow.
const AT_VALUE: usize = 3;
const AT_KEY: usize = 4;
const AT_TIMESTAMP: usize = 5;
/// How many records ahead the bytes of a value are prefetched: they are seldom in a cache.
const AHEAD: usize = 6;

/// A header's name and its value.
type Header<'py> = (CString, Option<Bound<'py, PyBytes>>);

/// Gives records to a producer. It keeps the producer object alive, and with it the client.
#[pyclass(frozen, module = "streams_native")]
pub struct Producer {
    client: usize,
    _owner: Py<PyAny>,
}

/// Some bytes, or null. Whoever makes one keeps the Python object alive for as long as it is used.
struct Place(*const u8, usize);

// SAFETY: bytes objects and buffers of `ByteRefs` do not change, and any thread may read them.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

impl Place {
    fn of(bytes: Option<&[u8]>) -> Self {
        bytes.map_or(Place(null(), 0), |bytes| Place(bytes.as_ptr(), bytes.len()))
    }
}

/// A header of a record, as `Place`; the name ends with a zero byte.
struct Named(*const i8, Place);

// SAFETY: as of `Place`.
unsafe impl Send for Named {}
// SAFETY: as of `Place`.
unsafe impl Sync for Named {}

/// A topic's handle, destroyed when this is dropped.
struct Topic(Handle, &'static Api);

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: it came from topic_new, and is given back once.
        unsafe { (self.1.topic_destroy)(self.0) };
    }
}

#[pymethods]
impl Producer {
    /// `client` is what `take_client` has returned for the producer `owner`.
    #[new]
    fn new(client: usize, owner: Py<PyAny>) -> PyResult<Self> {
        if client == 0 {
            return Err(PyValueError::new_err("no client"));
        }
        Ok(Producer { client, _owner: owner })
    }

    /// Give the client the records from `start` on; returns how many it took, and the error of the one it did not (0: none).
    ///
    /// `keys` and `values` are columns by reference, or lists of bytes objects and None. `partition` is -1 where the key decides. `headers` has a list of
    /// names and values, or None, for each record.
    #[pyo3(signature = (topic, partition, keys, values, timestamps_ms, headers, start))]
    #[allow(clippy::too_many_arguments)]
    fn produce(
        &self,
        py: Python<'_>,
        topic: &str,
        partition: i32,
        keys: &Bound<'_, PyAny>,
        values: &Bound<'_, PyAny>,
        timestamps_ms: PyReadonlyArray1<'_, i64>,
        headers: Option<&Bound<'_, PyList>>,
        start: usize,
    ) -> PyResult<(usize, i32)> {
        let (api, topic, count) = (api()?, CString::new(topic)?, keys.len()?);
        let is_short = values.len()? != count || timestamps_ms.len() != count;
        if is_short || headers.is_some_and(|headers| headers.len() != count) || start > count {
            return Err(PyValueError::new_err("columns of different lengths"));
        }
        let (keys, values) = (Column::held(keys, start)?, Column::held(values, start)?);
        let headers = headers.map(|headers| headers_from(headers, start)).transpose()?;
        let (keys_at, values_at) = (keys.places(start), values.places(start));
        let headers_at: Option<Vec<Vec<Named>>> = headers.as_ref().map(|rows| {
            rows.iter()
                .map(|row| row.iter().map(|(name, value)| Named(name.as_ptr().cast(), place(value))).collect())
                .collect()
        });
        let times = timestamps_ms.as_slice()?.get(start..).unwrap_or_default().to_vec();
        let client = self.client;
        Ok(py.detach(|| give(api, client, &topic, partition, &keys_at, &values_at, &times, headers_at.as_deref())))
    }
}

/// A column, held for the length of a call.
enum Column<'py> {
    Refs(Bound<'py, ByteRefs>),
    /// The bytes objects, from the first requested row on.
    Objects(Vec<Option<Bound<'py, PyBytes>>>),
}

impl<'py> Column<'py> {
    fn held(column: &Bound<'py, PyAny>, start: usize) -> PyResult<Self> {
        if let Ok(refs) = column.cast::<ByteRefs>() {
            return Ok(Column::Refs(refs.clone()));
        }
        Ok(Column::Objects(column.cast::<PyList>()?.iter().skip(start).map(optional).collect::<PyResult<_>>()?))
    }

    fn places(&self, start: usize) -> Vec<Place> {
        match self {
            Column::Refs(refs) => (start..refs.get().len()).map(|row| Place::of(refs.get().get(row))).collect(),
            Column::Objects(column) => column.iter().map(place).collect(),
        }
    }
}

fn optional(object: Bound<'_, PyAny>) -> PyResult<Option<Bound<'_, PyBytes>>> {
    if object.is_none() {
        return Ok(None);
    }
    Ok(Some(object.cast_into::<PyBytes>().map_err(|_| PyValueError::new_err("neither bytes nor None"))?))
}

fn place(bytes: &Option<Bound<'_, PyBytes>>) -> Place {
    Place::of(bytes.as_ref().map(|bytes| bytes.as_bytes()))
}

/// Headers of the records from `start` on. A name ends at its first zero byte, as librdkafka has it.
fn headers_from<'py>(column: &Bound<'py, PyList>, start: usize) -> PyResult<Vec<Vec<Header<'py>>>> {
    let mut found = Vec::with_capacity(column.len().saturating_sub(start));
    for each in column.iter().skip(start) {
        let mut row = Vec::new();
        if !each.is_none() {
            for pair in each.try_iter()? {
                let (name, value): (String, Bound<'py, PyAny>) = pair?.extract()?;
                let name = name.split('\0').next().unwrap_or_default();
                row.push((CString::new(name)?, optional(value)?));
            }
        }
        found.push(row);
    }
    Ok(found)
}

#[allow(clippy::too_many_arguments)]
fn give(
    api: &'static Api,
    client: usize,
    topic: &CStr,
    partition: i32,
    keys: &[Place],
    values: &[Place],
    times: &[i64],
    headers: Option<&[Vec<Named>]>,
) -> (usize, i32) {
    let client = client as Handle;
    // SAFETY: the client is there; librdkafka copies the name. Without a configuration it takes the client's own.
    let found = unsafe { (api.topic_new)(client, topic.as_ptr(), null_mut()) };
    if found.is_null() {
        return (0, INVALID_ARGUMENT);
    }
    let topic = Topic(found, api);
    let mut arguments = vec![
        Argument { kind: TOPIC, value: ArgumentValue { topic: topic.0 } },
        Argument { kind: PARTITION, value: ArgumentValue { partition } },
        Argument { kind: FLAGS, value: ArgumentValue { int: COPY } },
        Argument { kind: VALUE, value: bytes(&Place(null(), 0)) },
        Argument { kind: KEY, value: bytes(&Place(null(), 0)) },
        Argument { kind: TIMESTAMP, value: ArgumentValue { timestamp_ms: 0 } },
    ];
    let fixed = arguments.len();
    for (row, ((key, value), &timestamp_ms)) in keys.iter().zip(values).zip(times).enumerate() {
        if let Some(Place(data, _)) = values.get(row + AHEAD) {
            prefetch(*data);
        }
        arguments[AT_VALUE].value = bytes(value);
        arguments[AT_KEY].value = bytes(key);
        arguments[AT_TIMESTAMP].value = ArgumentValue { timestamp_ms };
        arguments.truncate(fixed);
        for Named(name, Place(data, len)) in headers.and_then(|rows| rows.get(row)).into_iter().flatten() {
            let header =
                HeaderArgument { name: name.cast(), data: *data, len: isize::try_from(*len).unwrap_or_default() };
            arguments.push(Argument { kind: HEADER, value: ArgumentValue { header } });
        }
        // SAFETY: the arguments are of the kinds that they say, and what they point to is held by the caller.
        let error = unsafe { (api.produceva)(client, arguments.as_ptr(), arguments.len()) };
        if !error.is_null() {
            // SAFETY: an error that was just returned, and is destroyed once.
            let code = unsafe {
                let code = (api.error_code)(error);
                (api.error_destroy)(error);
                code
            };
            return (row, code);
        }
    }
    (keys.len(), 0)
}

fn bytes(place: &Place) -> ArgumentValue {
    ArgumentValue { bytes: Bytes { data: place.0, len: place.1 } }
}

#[inline]
fn prefetch(data: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(data.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
}
