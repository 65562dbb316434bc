//! Text for people on stdout and stderr, apart from log lines. Control characters are escaped.

use std::{
    io::{self, Write},
    sync::mpsc::{self, Receiver},
    thread,
};

use crate::{telemetry::escape::escape, timeouts};

/// Characters that lay out a text of several lines.
const LAYOUT: &[char] = &['\n', '\t'];

/// Prints a text to stdout.
pub fn print(text: &str) {
    // A reader that closed the pipe needs no more.
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

/// Prints a message to stderr; gives up when it is not read for [`timeouts::MESSAGE`].
pub fn print_error_in_time(message: &str) {
    match write_aside(io::stderr(), error_text(message)) {
        Ok(written) => drop(written.recv_timeout(timeouts::MESSAGE)),
        // Without another thread it may wait.
        Err(_) => print_error(message),
    }
}

/// Prints one line to stdout from a thread of its own. Never waits for the reader.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn announce(line: &str) -> io::Result<()> {
    write_aside(io::stdout(), format!("{}\n", escape(line, &[]))).map(drop)
}

fn error_text(message: &str) -> String {
    format!("{}\n", escape(message, LAYOUT))
}

/// Writes from a thread of its own. The receiver is disconnected when that is done.
fn write_aside(mut out: impl Write + Send + 'static, text: String) -> io::Result<Receiver<()>> {
    let (writing, written) = mpsc::channel();
    thread::Builder::new().name("output".to_owned()).spawn(move || {
        let _ = out.write_all(text.as_bytes());
        drop(writing);
    })?;
    Ok(written)
}
