//! Records out of the librdkafka that confluent-kafka has loaded: columns, without a message or a bytes object for each.
//!
//! The rules for `unsafe` are at the head of `client`.

use std::ffi::{c_int, CStr, CString};
use std::ptr::null_mut;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use numpy::IntoPyArray;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::client::{api, Api, Handle, Message};
use crate::refs::{too_long, ByteRefs, Collector};

/// Number of messages taken from the client at a time: so few that they and their bytes stay in a cache until they are columns.
const PIECE: usize = 1_000;

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

/// Headers of a row that can be read, and how many cannot.
type HeadersOfRow = (usize, Vec<(String, Option<Vec<u8>>)>, usize);

/// What was read: one row for each record, in order of arrival; and errors and ends of partitions.
#[pyclass(frozen, get_all, module = "streams_native")]
pub struct Records {
    partition: Py<PyAny>,
    offset: Py<PyAny>,
    timestamp_ms: Py<PyAny>,
    /// 0: none, 1: the producer's, 2: the broker's.
    timestamp_kind: Py<PyAny>,
    leader_epoch: Py<PyAny>,
    key: Py<ByteRefs>,
    value: Py<ByteRefs>,
    /// By row, the headers that can be read, and how many cannot.
    headers: Vec<(usize, Vec<Pair>, usize)>,
    /// Partition, offset, code and words of each error or end of a partition.
    notices: Vec<(i32, i64, i32, String)>,
}

/// The same, before it is converted to Python objects.
struct Gathered {
    partition: Vec<i64>,
    offset: Vec<i64>,
    timestamp_ms: Vec<i64>,
    timestamp_kind: Vec<i32>,
    leader_epoch: Vec<i32>,
    key: Collector,
    value: Collector,
    headers: Vec<HeadersOfRow>,
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

    /// Forward the records of a partition to this reader, also if the partition is assigned only later.
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
        let wait = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or_default());
        let gathered = py.detach(|| {
            let guard = self.queue.lock().map_err(poisoned)?;
            let queue = guard.as_ref().ok_or_else(closed)?;
            let (started, mut gathered) = (Instant::now(), Gathered::new());
            let mut left = max.min(1 << 20);
            while left > 0 {
                let piece = left.min(PIECE);
                let mut found: Vec<*mut Message> = vec![null_mut(); piece];
                let wait_ms = wait.saturating_sub(started.elapsed()).as_millis();
                let wait_ms = c_int::try_from(wait_ms).unwrap_or(c_int::MAX);
                // SAFETY: `found` has place for `piece` pointers; the queue is open.
                let count = unsafe { (api.consume_batch_queue)(queue.0, wait_ms, found.as_mut_ptr(), piece) };
                found.truncate(usize::try_from(count).unwrap_or_default());
                let messages = Messages(found, api);
                gathered.add(&messages).ok_or_else(too_long)?;
                if messages.0.len() < piece {
                    break; // nothing more has come in time
                }
                left -= piece;
            }
            Ok::<_, PyErr>(gathered)
        })?;
        gathered.into_records(py)
    }

    /// Release the queue; to be called before the client is closed. A second call does nothing.
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

impl Gathered {
    fn new() -> Self {
        Gathered {
            partition: Vec::new(),
            offset: Vec::new(),
            timestamp_ms: Vec::new(),
            timestamp_kind: Vec::new(),
            leader_epoch: Vec::new(),
            key: Collector::new(),
            value: Collector::new(),
            headers: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// Copy keys, values and headers of the messages. `None`: one of them is too long for a reference.
    fn add(&mut self, messages: &Messages) -> Option<()> {
        let api = messages.1;
        for &pointer in &messages.0 {
            // SAFETY: a message that `messages` holds; nothing writes to it.
            let message = unsafe { &*pointer };
            if message.err != 0 {
                // SAFETY: as above; the text lives as long as the message.
                let words = unsafe {
                    let text = (api.message_errstr)(pointer);
                    if text.is_null() {
                        String::new()
                    } else {
                        CStr::from_ptr(text).to_string_lossy().into_owned()
                    }
                };
                self.notices.push((message.partition, message.offset, message.err, words));
                continue;
            }
            let mut kind = 0;
            // SAFETY: as above.
            let (at, epoch) =
                unsafe { ((api.message_timestamp)(pointer, &mut kind), (api.message_leader_epoch)(pointer)) };
            self.partition.push(i64::from(message.partition));
            self.offset.push(message.offset);
            self.timestamp_ms.push(at);
            self.timestamp_kind.push(kind);
            self.leader_epoch.push(epoch);
            // SAFETY: key and value live as long as the message.
            unsafe {
                self.key.push(pointed(message.key, message.key_len))?;
                self.value.push(pointed(message.payload, message.len))?;
            }
            if let Some((found, lost)) = headers_of(api, pointer) {
                self.headers.push((self.offset.len() - 1, found, lost));
            }
        }
        Some(())
    }

    fn into_records(self, py: Python<'_>) -> PyResult<Option<Records>> {
        if self.offset.is_empty() && self.notices.is_empty() {
            return Ok(None);
        }
        let object = |value: Option<Vec<u8>>| value.map(|bytes| PyBytes::new(py, &bytes).unbind());
        let headers = self.headers.into_iter().map(|(row, pairs, lost)| {
            (row, pairs.into_iter().map(|(name, value)| (name, object(value))).collect(), lost)
        });
        Ok(Some(Records {
            partition: self.partition.into_pyarray(py).into_any().unbind(),
            offset: self.offset.into_pyarray(py).into_any().unbind(),
            timestamp_ms: self.timestamp_ms.into_pyarray(py).into_any().unbind(),
            timestamp_kind: self.timestamp_kind.into_pyarray(py).into_any().unbind(),
            leader_epoch: self.leader_epoch.into_pyarray(py).into_any().unbind(),
            key: Py::new(py, self.key.finish())?,
            value: Py::new(py, self.value.finish())?,
            headers: headers.collect(),
            notices: self.notices,
        }))
    }
}

/// What a pointer of librdkafka points to; None for a null pointer.
///
/// # Safety
/// A pointer that is not null points to `len` bytes that nothing writes to while the result is used.
unsafe fn pointed<'a>(data: *const u8, len: usize) -> Option<&'a [u8]> {
    // SAFETY: as the caller says.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data, len) })
}

/// Headers whose names are UTF-8, and how many others there are; None where there are no headers.
fn headers_of(api: &Api, message: *const Message) -> Option<(Vec<(String, Option<Vec<u8>>)>, usize)> {
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
            // SAFETY: the value lives as long as the message.
            Ok(name) => found.push((name.to_owned(), unsafe { pointed(value, size) }.map(<[u8]>::to_vec))),
            Err(_) => lost += 1,
        }
    }
    (!found.is_empty() || lost > 0).then_some((found, lost))
}
