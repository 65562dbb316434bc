//! Output on stdout and stderr, except log lines. Control characters are escaped.

use std::{
    io::{self, Write},
    sync::mpsc::{self, Receiver},
    thread,
};

use crate::{telemetry::escape::escape, timeouts};

/// Control characters that a text of several lines may contain.
const LAYOUT: &[char] = &['\n', '\t'];

/// Prints a text to stdout.
pub fn print(text: &str) {
    // The reader may have closed the pipe.
    let _ = io::stdout().write_all(escape(text, LAYOUT).as_bytes());
}

/// Prints one line to stdout.
pub(crate) fn print_line(line: &str) {
    print(&format!("{}\n", escape(line, &[])));
}

/// Prints a message to stderr.
pub fn print_error(message: &str) {
    let _ = io::stderr().write_all(error_text(message).as_bytes());
}

/// Prints a message to stderr; gives up after [`timeouts::MESSAGE_TIMEOUT`] if nothing reads it.
pub fn print_error_in_time(message: &str) {
    match write_in_thread(io::stderr(), error_text(message)) {
        Ok(written) => drop(written.recv_timeout(timeouts::MESSAGE_TIMEOUT)),
        // No thread could be started: write here, without a timeout.
        Err(_) => print_error(message),
    }
}

/// Prints one line to stdout from a thread of its own, without waiting for the reader.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn announce(line: &str) -> io::Result<()> {
    write_in_thread(io::stdout(), format!("{}\n", escape(line, &[]))).map(drop)
}

fn error_text(message: &str) -> String {
    format!("{}\n", escape(message, LAYOUT))
}

/// Writes from a thread of its own. The receiver is disconnected when the write ends.
fn write_in_thread(mut out: impl Write + Send + 'static, text: String) -> io::Result<Receiver<()>> {
    let (writing, written) = mpsc::channel();
    thread::Builder::new().name("output".to_owned()).spawn(move || {
        let _ = out.write_all(text.as_bytes());
        drop(writing);
    })?;
    Ok(written)
}
