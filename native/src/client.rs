//! The librdkafka that confluent-kafka has loaded: its functions, and the handles of its clients.
//!
//! With `records` and `produce` this is where `unsafe` is. Rules that keep it sound:
//! - functions of librdkafka are found once, by name, in the library that is loaded already;
//! - a client's handle is what librdkafka itself gives the interceptor, in the thread that makes the client;
//! - messages live in `records::Messages`, which destroys them; what is taken from them is copied before;
//! - a `records::Reader` is closed before its client: an open one holds the client's queue, and the client's `close` would
//!   wait for it;
//! - a `produce::Producer` keeps its client alive; what it hands over is held for the length of a call, in which librdkafka
//!   copies it.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

use libloading::Library;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

pub type Handle = *mut c_void;

/// `rd_kafka_message_t` of librdkafka 2, unchanged since 0.9.
#[repr(C)]
pub struct Message {
    pub err: c_int,
    topic: Handle,
    pub partition: i32,
    pub payload: *const u8,
    pub len: usize,
    pub key: *const u8,
    pub key_len: usize,
    pub offset: i64,
    _private: Handle,
}

/// `rd_kafka_vu_t` of librdkafka 2: an argument of `produceva`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Argument {
    pub kind: c_int,
    pub value: ArgumentValue,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub union ArgumentValue {
    pub topic: Handle,
    pub int: c_int,
    pub partition: i32,
    pub timestamp_ms: i64,
    pub bytes: Bytes,
    pub header: HeaderArgument,
    _size: [u8; 64],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Bytes {
    pub data: *const u8,
    pub len: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct HeaderArgument {
    pub name: *const c_char,
    pub data: *const u8,
    pub len: isize,
}

type OnNew = unsafe extern "C" fn(Handle, Handle, Handle, *mut c_char, usize) -> c_int;

pub struct Api {
    pub queue_new: unsafe extern "C" fn(Handle) -> Handle,
    pub queue_get_partition: unsafe extern "C" fn(Handle, *const c_char, i32) -> Handle,
    pub queue_forward: unsafe extern "C" fn(Handle, Handle),
    pub queue_destroy: unsafe extern "C" fn(Handle),
    pub consume_batch_queue: unsafe extern "C" fn(Handle, c_int, *mut *mut Message, usize) -> isize,
    pub message_destroy: unsafe extern "C" fn(*mut Message),
    pub message_timestamp: unsafe extern "C" fn(*const Message, *mut c_int) -> i64,
    pub message_headers: unsafe extern "C" fn(*const Message, *mut Handle) -> c_int,
    pub message_leader_epoch: unsafe extern "C" fn(*const Message) -> i32,
    pub message_errstr: unsafe extern "C" fn(*const Message) -> *const c_char,
    pub header_get_all: unsafe extern "C" fn(Handle, usize, *mut *const c_char, *mut *const u8, *mut usize) -> c_int,
    pub add_on_new: unsafe extern "C" fn(Handle, *const c_char, OnNew, Handle) -> c_int,
    pub topic_new: unsafe extern "C" fn(Handle, *const c_char, Handle) -> Handle,
    pub topic_destroy: unsafe extern "C" fn(Handle),
    pub produceva: unsafe extern "C" fn(Handle, *const Argument, usize) -> Handle,
    pub error_code: unsafe extern "C" fn(Handle) -> c_int,
    pub error_destroy: unsafe extern "C" fn(Handle),
    _library: Library,
}

static API: OnceLock<Api> = OnceLock::new();

thread_local! {
    /// The client that was made last in this thread.
    static MADE: Cell<usize> = const { Cell::new(0) };
}

pub fn api() -> PyResult<&'static Api> {
    API.get().ok_or_else(|| PyRuntimeError::new_err("load_client has not been called"))
}

/// Find librdkafka in the extension module of the Python client, which has loaded it.
#[pyfunction]
pub fn load_client(path: &str) -> PyResult<()> {
    if API.get().is_some() {
        return Ok(());
    }
    let failed = |error: libloading::Error| PyRuntimeError::new_err(error.to_string());
    // SAFETY: the library is loaded already, so no code of it runs now; the types are those of rdkafka.h.
    let found = unsafe {
        let library = Library::new(path).map_err(failed)?;
        macro_rules! symbol {
            ($name:literal) => {
                *library.get(concat!("rd_kafka_", $name, "\0").as_bytes()).map_err(failed)?
            };
        }
        Api {
            queue_new: symbol!("queue_new"),
            queue_get_partition: symbol!("queue_get_partition"),
            queue_forward: symbol!("queue_forward"),
            queue_destroy: symbol!("queue_destroy"),
            consume_batch_queue: symbol!("consume_batch_queue"),
            message_destroy: symbol!("message_destroy"),
            message_timestamp: symbol!("message_timestamp"),
            message_headers: symbol!("message_headers"),
            message_leader_epoch: symbol!("message_leader_epoch"),
            message_errstr: symbol!("message_errstr"),
            header_get_all: symbol!("header_get_all"),
            add_on_new: symbol!("conf_interceptor_add_on_new"),
            topic_new: symbol!("topic_new"),
            topic_destroy: symbol!("topic_destroy"),
            produceva: symbol!("produceva"),
            error_code: symbol!("error_code"),
            error_destroy: symbol!("error_destroy"),
            _library: library,
        }
    };
    let _ = API.set(found);
    Ok(())
}

unsafe extern "C" fn on_new(client: Handle, _: Handle, _: Handle, _: *mut c_char, _: usize) -> c_int {
    MADE.set(client as usize);
    0
}

/// What librdkafka calls for `plugin.library.paths`, in the thread that sets the configuration.
///
/// # Safety
/// Only librdkafka calls it, with a configuration of its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn conf_init(conf: Handle, _: *mut Handle, _: *mut c_char, _: usize) -> c_int {
    match API.get() {
        // SAFETY: `conf` is librdkafka's; the name is copied by it.
        Some(api) => unsafe { (api.add_on_new)(conf, c"streams_native".as_ptr(), on_new, null_mut()) },
        None => -1,
    }
}

/// The client that was made last in this thread, once; 0: none.
#[pyfunction]
pub fn take_client() -> usize {
    MADE.take()
}

