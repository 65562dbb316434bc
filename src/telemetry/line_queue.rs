//! Queue of log lines in front of stderr. A separate thread writes them, so that a reader that stops costs only
//! dropped lines, which are counted.

use std::{
    borrow::Cow,
    collections::VecDeque,
    fs::File,
    io::{self, Write as _},
    mem,
    os::fd::AsFd as _,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, poll};
use tracing_subscriber::fmt::MakeWriter;

use super::{drops::Counts, escape::escape};

/// Maximum of queued bytes. The queue's memory is at most this and one [`SEGMENT`].
const CAPACITY: usize = 4 * 1024 * 1024;
/// A full queue accepts lines again at this number of bytes, so that drops form few gaps, each of which is
/// reported.
const RESUME: usize = CAPACITY / 2;
/// Size of the segments of the queue, so that a growing queue copies no bytes.
const SEGMENT: usize = 64 * 1024;
/// Pause between two rounds of writing. The first line after an idle time is written at once; the next ones are
/// batched, without a wake-up of the thread for each.
const PAUSE: Duration = Duration::from_millis(5);
/// Writes of up to this size are not interleaved with those of other processes (`PIPE_BUF` in pipe(7)).
const ATOMIC: usize = 4096;

/// The queue. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct LineQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<QueueState>,
    /// Signals that lines are queued while the writing thread is idle.
    arrived: Condvar,
    /// Signals that all lines are written.
    drained: Condvar,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct QueueState {
    /// Each has complete lines only.
    segments: VecDeque<Vec<u8>>,
    /// Empty segment for reuse.
    spare: Vec<u8>,
    /// Queued bytes, including those that the thread is writing.
    bytes: usize,
    /// Lines are dropped until at most [`RESUME`] bytes are queued.
    is_full: bool,
    /// The writing thread waits for lines.
    is_idle: bool,
}

impl LineQueue {
    /// Starts the thread that writes to stderr. Drops go into `counts`.
    ///
    /// # Errors
    /// When stderr cannot be duplicated or the thread cannot be started.
    pub(super) fn start(counts: Arc<Counts>) -> io::Result<Self> {
        // Not `std::io::stderr`: this thread would hold its lock for as long as a write blocks.
        let out = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        Self::start_with(out, counts)
    }

    fn start_with(out: File, counts: Arc<Counts>) -> io::Result<Self> {
        let (state, arrived, drained) = (Mutex::default(), Condvar::new(), Condvar::new());
        let queue = Self(Arc::new(Shared { state, arrived, drained, counts }));
        let writing = queue.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || writing.run(&out))?;
        Ok(queue)
    }

    /// Queues a line, or counts it as dropped. Never waits for the reader.
    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if !state.takes(line) {
            drop(state);
            self.0.counts.add_dropped(1);
            return;
        }
        let was_idle = mem::take(&mut state.is_idle);
        drop(state);
        if was_idle {
            self.0.arrived.notify_one();
        }
    }

    /// Waits until all lines are written, at most for `timeout`.
    pub(super) fn flush(&self, timeout: Duration) {
        let is_unfinished = |state: &mut QueueState| !state.is_idle || !state.segments.is_empty();
        let _ = self
            .0
            .drained
            .wait_timeout_while(self.lock(), timeout, is_unfinished)
            .unwrap_or_else(PoisonError::into_inner);
    }

    /// Writes lines; never returns.
    fn run(&self, out: &File) {
        let mut reported = 0;
        loop {
            let segment = self.next_segment();
            let mut rest = &segment[..];
            while !rest.is_empty() {
                let (chunk, later) = rest.split_at(chunk_length(rest));
                rest = later;
                let written = write_all(out, chunk);
                if written.is_err() {
                    let lines = memchr::memchr_iter(b'\n', chunk).count();
                    self.0.counts.add_undelivered(lines);
                }
                let is_full = self.lock().release(chunk.len());
                if written.is_ok() && !is_full {
                    self.report(&mut reported);
                }
            }
            let is_last = self.lock().reuse(segment);
            if is_last {
                thread::sleep(PAUSE);
            }
        }
    }

    fn next_segment(&self) -> Vec<u8> {
        let mut state = self.lock();
        loop {
            if let Some(segment) = state.segments.pop_front() {
                return segment;
            }
            state.is_idle = true;
            self.0.drained.notify_all();
            let woken = self.0.arrived.wait_while(state, |state| state.is_idle);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes one line about the lines dropped since the last report, at the position of the gap.
    fn report(&self, reported: &mut u64) {
        let in_all = self.0.counts.sum();
        let lost = in_all - mem::replace(reported, in_all);
        if lost > 0 {
            let Counts { exporter, signal, .. } = *self.0.counts;
            tracing::warn!(
                exporter,
                signal,
                lost,
                in_all,
                "log lines were lost: stderr was not read"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    /// Queues a line if it fits. True: queued.
    fn takes(&mut self, line: &[u8]) -> bool {
        // The last condition: a line longer than the queue must not mark it as full.
        self.is_full |= self.bytes + line.len() > CAPACITY && self.bytes > 0;
        if self.is_full || line.len() > CAPACITY {
            return false;
        }
        self.bytes += line.len();
        match self.segments.back_mut() {
            Some(last) if last.len() + line.len() <= SEGMENT => last.extend_from_slice(line),
            _ => {
                let mut segment = mem::take(&mut self.spare);
                segment.reserve(line.len());
                segment.extend_from_slice(line);
                self.segments.push_back(segment);
            }
        }
        true
    }

    /// Removes written bytes from the count. True: lines are still dropped.
    fn release(&mut self, bytes: usize) -> bool {
        self.bytes -= bytes;
        self.is_full &= self.bytes > RESUME;
        self.is_full
    }

    /// Takes back a written segment for reuse. True: the queue is empty.
    fn reuse(&mut self, mut segment: Vec<u8>) -> bool {
        segment.clear();
        segment.shrink_to(SEGMENT);
        self.spare = segment;
        self.segments.is_empty()
    }
}

/// Length of the leading complete lines that fit into one atomic write, or of one line that is longer.
fn chunk_length(lines: &[u8]) -> usize {
    if lines.len() <= ATOMIC {
        return lines.len();
    }
    let end = memchr::memrchr(b'\n', &lines[..ATOMIC]).or_else(|| memchr::memchr(b'\n', lines));
    end.map_or(lines.len(), |end| end + 1)
}

/// As `Write::write_all`, and waits for `POLLOUT` if another owner of the pipe has made it non-blocking.
fn write_all(mut out: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(out, PollFlags::OUT)], None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// Writer of one formatted event; escapes control characters except ESC. On a terminal the formatter uses ESC for
/// colours, and values contain none ([`super::lines::text_fields`]); in JSON it is escaped already.
pub(super) struct Line<'a>(&'a LineQueue);

impl io::Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        match escape(text.strip_suffix('\n').unwrap_or(&text), &['\u{1b}']) {
            Cow::Borrowed(_) => self.0.push(bytes),
            Cow::Owned(escaped) => self.0.push(format!("{escaped}\n").as_bytes()),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{PipeReader, Read as _},
        os::fd::OwnedFd,
    };

    use tracing_subscriber::{fmt, layer::SubscriberExt as _, registry};

    use super::{
        super::{drops::Drops, lines::text_fields},
        *,
    };

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn queue() -> (LineQueue, PipeReader) {
        let (reader, writer) = io::pipe().expect("a pipe");
        let counts = Drops::default().counts("stderr", "logs");
        let out = File::from(OwnedFd::from(writer));
        (LineQueue::start_with(out, counts).expect("a thread"), reader)
    }

    #[test]
    fn queued_lines_are_bounded_and_dropped_lines_are_counted() {
        const LINE: usize = 8000;
        let (queue, mut reader) = queue();
        let line = |number: usize| format!("{number:0width$}\n", width = LINE - 1);
        for number in 0..1000 {
            queue.push(line(number).as_bytes());
        }
        let lost = usize::try_from(queue.0.counts.sum()).expect("a number");
        let taken = 1000 - lost;
        // The pipe holds 64 KiB.
        assert!(taken * LINE <= CAPACITY + SEGMENT, "{taken}");
        assert!((taken + 1) * LINE > CAPACITY, "{taken}");
        assert!(queue.lock().segments.iter().map(Vec::capacity).sum::<usize>() <= CAPACITY * 2);

        let mut read = vec![0; taken * LINE];
        reader.read_exact(&mut read).expect("lines");
        queue.flush(TIMEOUT);
        let expected: String = (0..taken).map(line).collect();
        assert!(read == expected.as_bytes(), "whole lines, in order");
        queue.push(b"later\n");
        queue.flush(TIMEOUT);
        assert_eq!(queue.0.counts.sum(), lost as u64);
        let mut later = [0; 6];
        reader.read_exact(&mut later).expect("a line");
        assert_eq!(&later, b"later\n");
    }

    #[test]
    fn a_line_longer_than_the_queue_drops_no_other_line() {
        let (queue, mut reader) = queue();
        queue.push(&vec![b'x'; CAPACITY + 1]);
        queue.push(b"short\n");
        queue.flush(TIMEOUT);
        assert_eq!(queue.0.counts.sum(), 1);
        let mut read = [0; 6];
        reader.read_exact(&mut read).expect("a line");
        assert_eq!(&read, b"short\n");
    }

    #[test]
    fn each_write_has_complete_lines_and_is_atomic_where_possible() {
        let line = |length: usize| [vec![b'x'; length - 1], vec![b'\n']].concat();
        let of = |lengths: &[usize]| lengths.iter().copied().flat_map(line).collect::<Vec<_>>();
        for (lengths, expected) in [
            (vec![10, 10], 20),
            (vec![4000, 96, 1], 4096),
            (vec![4000, 97], 4000),
            (vec![5000, 10], 5000),
        ] {
            assert_eq!(chunk_length(&of(&lengths)), expected, "{lengths:?}");
        }
    }

    /// On a terminal (coloured) and elsewhere (JSON).
    #[test]
    fn control_characters_in_any_field_are_escaped_in_log_lines() {
        const HOSTILE: &str = "\u{9b}31m\u{202e}\u{7f}\r\nforged\u{61c}\u{1b}[2K";
        let (queue, reader) = queue();
        let json = fmt::layer().json().flatten_event(true).with_writer(queue.clone());
        let text =
            fmt::layer().with_ansi(true).fmt_fields(text_fields()).with_writer(queue.clone());
        let subscriber = registry().with(json).with(text);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(shown = %HOSTILE, quoted = HOSTILE, debugged = ?HOSTILE, "{HOSTILE}");
        });
        queue.flush(TIMEOUT);
        let mut written = vec![0; 64 * 1024];
        let length = (&reader).read(&mut written).expect("lines");
        let written = String::from_utf8_lossy(&written[..length]).into_owned();
        let lines: Vec<_> = written.lines().collect();
        let [json, text] = lines[..] else { panic!("two lines: {written}") };
        let is_hostile = |c: char| HOSTILE.contains(c) && !c.is_ascii_graphic();
        assert!(!json.contains(is_hostile), "{json}");
        assert!(!text.replace('\u{1b}', "").contains(is_hostile), "{text}");
        assert!(!text.contains("\u{1b}[2K"), "only the formatter's own colours: {text}");
        let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(json["message"], HOSTILE);
        assert_eq!(json["quoted"], HOSTILE);
    }
}
