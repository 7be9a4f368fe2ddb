//! Records out of the librdkafka that confluent-kafka has loaded: bytes objects and columns, without a message object each.
//!
//! The rules for `unsafe` are at the head of `client`.

use std::ffi::{CStr, CString};
use std::ptr::null_mut;
use std::sync::Mutex;

use numpy::IntoPyArray;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::client::{Api, Handle, Message, api};

/// Messages, destroyed when this is dropped.
struct Messages(Vec<*mut Message>, &'static Api);

// SAFETY: messages may be used by any thread, one at a time.
unsafe impl Send for Messages {}

impl Drop for Messages {
    fn drop(&mut self) {
        for &message in &self.0 {
            // SAFETY: each was given by consume_batch_queue, and is destroyed once.
            unsafe { (self.1.message_destroy)(message) };
        }
    }
}

/// A header's name, and its value.
type Pair = (String, Option<Py<PyBytes>>);

/// What was read: one row for each record, in order of arrival; and what is no record.
#[pyclass(frozen, get_all, module = "streams_native")]
pub struct Records {
    partition: Py<PyAny>,
    offset: Py<PyAny>,
    timestamp_ms: Py<PyAny>,
    /// 0: none, 1: the producer's, 2: the broker's.
    timestamp_kind: Py<PyAny>,
    leader_epoch: Py<PyAny>,
    key: Py<PyList>,
    value: Py<PyList>,
    /// By row, the headers that can be read, and how many cannot.
    headers: Vec<(usize, Vec<Pair>, usize)>,
    /// Partition, offset, code and words of each error or end of a partition.
    notices: Vec<(i32, i64, i32, String)>,
}

struct Queue(Handle);

// SAFETY: queues of librdkafka may be used by any thread.
unsafe impl Send for Queue {}

/// A queue of our own, to which queues of partitions are forwarded.
#[pyclass(frozen, module = "streams_native")]
pub struct Reader {
    client: usize,
    queue: Mutex<Option<Queue>>,
}

#[pymethods]
impl Reader {
    /// `client` is what `take_client` has returned for a consumer that is not closed.
    #[new]
    fn new(client: usize) -> PyResult<Self> {
        if client == 0 {
            return Err(PyValueError::new_err("no client"));
        }
        // SAFETY: the caller vouches for the client.
        let queue = unsafe { (api()?.queue_new)(client as Handle) };
        Ok(Reader { client, queue: Mutex::new(Some(Queue(queue))) })
    }

    /// Have the records of a partition come to this reader, also if it is assigned only later.
    fn attach(&self, topic: &str, partition: i32) -> PyResult<()> {
        let (api, topic) = (api()?, CString::new(topic)?);
        let guard = self.queue.lock().map_err(poisoned)?;
        let queue = guard.as_ref().ok_or_else(closed)?;
        // SAFETY: an open reader is closed before its client, so the client is there.
        unsafe {
            let own = (api.queue_get_partition)(self.client as Handle, topic.as_ptr(), partition);
            if own.is_null() {
                return Err(PyRuntimeError::new_err(format!("no queue of partition {partition}")));
            }
            (api.queue_forward)(own, queue.0);
            (api.queue_destroy)(own);
        }
        Ok(())
    }

    /// Up to `max` records that come within `timeout_ms`; None if nothing comes.
    fn poll(&self, py: Python<'_>, max: usize, timeout_ms: i32) -> PyResult<Option<Records>> {
        let api = api()?;
        let max = max.min(1 << 20);
        let messages = py.detach(|| {
            let guard = self.queue.lock().map_err(poisoned)?;
            let queue = guard.as_ref().ok_or_else(closed)?;
            let mut found: Vec<*mut Message> = vec![null_mut(); max];
            // SAFETY: `found` has place for `max` pointers; the queue is open.
            let count = unsafe { (api.consume_batch_queue)(queue.0, timeout_ms, found.as_mut_ptr(), max) };
            found.truncate(usize::try_from(count).unwrap_or_default());
            Ok::<_, PyErr>(Messages(found, api))
        })?;
        if messages.0.is_empty() {
            return Ok(None);
        }
        let records = read(py, &messages)?;
        py.detach(|| drop(messages));
        Ok(Some(records))
    }

    /// Let the queue go; to be called before the client is closed. A second call does nothing.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let api = api()?;
        py.detach(|| {
            if let Some(queue) = self.queue.lock().map_err(poisoned)?.take() {
                // SAFETY: nobody else has it any more.
                unsafe { (api.queue_destroy)(queue.0) };
            }
            Ok(())
        })
    }
}

fn poisoned<T>(_: T) -> PyErr {
    PyRuntimeError::new_err("the reader is broken")
}

fn closed() -> PyErr {
    PyRuntimeError::new_err("the reader is closed")
}

/// A copy of what a pointer of librdkafka points to; None for a null pointer.
fn copied(py: Python<'_>, data: *const u8, len: usize) -> Option<Bound<'_, PyBytes>> {
    // SAFETY: a pointer that is not null points to `len` bytes, as long as its message is there.
    (!data.is_null()).then(|| PyBytes::new(py, unsafe { std::slice::from_raw_parts(data, len) }))
}

fn read(py: Python<'_>, messages: &Messages) -> PyResult<Records> {
    let api = messages.1;
    let count = messages.0.len();
    let mut columns = (Vec::with_capacity(count), Vec::with_capacity(count), Vec::with_capacity(count));
    let (mut kinds, mut epochs) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let (mut keys, mut values) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let (mut headers, mut notices) = (Vec::new(), Vec::new());
    for &pointer in &messages.0 {
        // SAFETY: a message that `messages` holds; nothing writes to it.
        let message = unsafe { &*pointer };
        if message.err != 0 {
            // SAFETY: as above; the text lives as long as the message.
            let words = unsafe {
                let text = (api.message_errstr)(pointer);
                if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
            };
            notices.push((message.partition, message.offset, message.err, words));
            continue;
        }
        let mut kind = 0;
        // SAFETY: as above.
        let (at, epoch) = unsafe { ((api.message_timestamp)(pointer, &mut kind), (api.message_leader_epoch)(pointer)) };
        columns.0.push(i64::from(message.partition));
        columns.1.push(message.offset);
        columns.2.push(at);
        kinds.push(kind);
        epochs.push(epoch);
        keys.push(copied(py, message.key, message.key_len));
        values.push(copied(py, message.payload, message.len));
        if let Some((found, lost)) = headers_of(py, api, pointer) {
            headers.push((values.len() - 1, found, lost));
        }
    }
    Ok(Records {
        partition: columns.0.into_pyarray(py).into_any().unbind(),
        offset: columns.1.into_pyarray(py).into_any().unbind(),
        timestamp_ms: columns.2.into_pyarray(py).into_any().unbind(),
        timestamp_kind: kinds.into_pyarray(py).into_any().unbind(),
        leader_epoch: epochs.into_pyarray(py).into_any().unbind(),
        key: PyList::new(py, keys)?.unbind(),
        value: PyList::new(py, values)?.unbind(),
        headers,
        notices,
    })
}

/// Headers whose names are UTF-8, and how many others there are; None where there are no headers.
fn headers_of(py: Python<'_>, api: &Api, message: *const Message) -> Option<(Vec<Pair>, usize)> {
    let mut all = null_mut();
    // SAFETY: the message is there; librdkafka keeps the headers with it.
    if unsafe { (api.message_headers)(message, &mut all) } != 0 {
        return None;
    }
    let (mut found, mut lost) = (Vec::new(), 0);
    for place in 0.. {
        let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
        // SAFETY: it answers with an error for a place after the last one.
        if unsafe { (api.header_get_all)(all, place, &mut name, &mut value, &mut size) } != 0 {
            break;
        }
        // SAFETY: names end with a zero byte.
        match unsafe { CStr::from_ptr(name) }.to_str() {
            Ok(name) => found.push((name.to_owned(), copied(py, value, size).map(Bound::unbind))),
            Err(_) => lost += 1,
        }
    }
    (!found.is_empty() || lost > 0).then_some((found, lost))
}
