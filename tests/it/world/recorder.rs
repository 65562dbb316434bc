//! An upstream with a strict parser that records requests.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// Received requests, and errors in unreadable ones.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) targets: Vec<String>,
    pub(crate) malformed: Vec<String>,
}

/// The upstream.
pub(crate) struct Recorder {
    pub(crate) url: String,
    record: Arc<Mutex<Record>>,
}

impl Recorder {
    pub(crate) async fn start() -> Self {
        Self::answering("200 OK\r\nContent-Length: 2\r\n\r\nok").await
    }

    /// Starts with another answer: everything after the HTTP version.
    pub(crate) async fn answering(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let record = Arc::new(Mutex::new(Record::default()));
        let into = Arc::clone(&record);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer, Arc::clone(&into)));
            }
        });
        Self { url, record }
    }

    /// Returns and clears the record.
    pub(crate) fn take(&self) -> Record {
        std::mem::take(&mut *self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn serve(stream: TcpStream, answer: &'static str, record: Arc<Mutex<Record>>) {
    let mut stream = BufReader::new(stream);
    loop {
        match request(&mut stream).await {
            Ok(Some(target)) => {
                record.lock().unwrap_or_else(PoisonError::into_inner).targets.push(target);
            }
            Ok(None) => return,
            Err(problem) => {
                record.lock().unwrap_or_else(PoisonError::into_inner).malformed.push(problem);
                return;
            }
        }
        if stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Reads one complete request and returns its target. `None`: the connection ended before the
/// request did.
async fn request(stream: &mut BufReader<TcpStream>) -> Result<Option<String>, String> {
    let Some(line) = line(stream).await? else { return Ok(None) };
    let [_, target, "HTTP/1.1"] = line.split(' ').collect::<Vec<_>>()[..] else {
        return Err(line);
    };
    let (mut length, mut is_chunked) = (None, false);
    loop {
        let Some(field) = self::line(stream).await? else { return Ok(None) };
        if field.is_empty() {
            break;
        }
        let (name, value) = field.split_once(": ").ok_or_else(|| field.clone())?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" if length.is_none() => {
                length = Some(value.parse::<u64>().map_err(|_| field.clone())?);
            }
            "transfer-encoding" if !is_chunked && value == "chunked" => is_chunked = true,
            "content-length" | "transfer-encoding" => return Err(field),
            name if name.contains(|c: char| !c.is_ascii_graphic()) => return Err(field),
            _ => {}
        }
    }
    if is_chunked && length.is_some() {
        return Err(format!("two framings: {line}"));
    }
    let skip = async |stream: &mut BufReader<TcpStream>, length: u64| {
        let mut sink = tokio::io::sink();
        tokio::io::copy(&mut stream.take(length), &mut sink).await.is_ok_and(|read| read == length)
    };
    if is_chunked {
        loop {
            let Some(size) = self::line(stream).await? else { return Ok(None) };
            let digits = size.split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(digits, 16).map_err(|_| format!("chunk {size:?}"))?;
            if size == 0 {
                break;
            }
            if !skip(stream, size).await {
                return Ok(None);
            }
            match self::line(stream).await? {
                Some(end) if end.is_empty() => {}
                Some(other) => return Err(format!("after a chunk: {other:?}")),
                None => return Ok(None),
            }
        }
        while let Some(trailer) = self::line(stream).await? {
            if trailer.is_empty() {
                return Ok(Some(target.to_owned()));
            }
        }
        Ok(None)
    } else if skip(stream, length.unwrap_or(0)).await {
        Ok(Some(target.to_owned()))
    } else {
        Ok(None)
    }
}

/// A line that ends with CRLF.
async fn line(stream: &mut BufReader<TcpStream>) -> Result<Option<String>, String> {
    let mut bytes = Vec::new();
    if stream.read_until(b'\n', &mut bytes).await.is_err() || bytes.last() != Some(&b'\n') {
        return Ok(None);
    }
    let text = super::scripted::text(&bytes);
    let line = text.strip_suffix("\r\n").ok_or_else(|| format!("bare LF: {text:?}"))?;
    if line.contains('\r') { Err(format!("bare CR: {text:?}")) } else { Ok(Some(line.to_owned())) }
}
