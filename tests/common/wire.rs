//! A TCP connection read by hand: heads, chunks and whole answers, strict about framing (RFC 9112).

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::DEADLINE;

/// One end of a connection, with what was read ahead.
pub(crate) struct Wire {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Wire {
    /// Connects to `address`.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect_timeout(&address, DEADLINE).expect("the address accepts"))
    }

    /// Takes a connection that stands.
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self { stream, ahead: Vec::new() }
    }

    /// The connection itself, for what is not worth a method.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends `bytes`. A peer that has closed already is no failure: its answer is still to be read.
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        drop(self.try_write(bytes.as_ref()));
    }

    /// Sends `bytes`.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Whether the peer closes without sending anything more.
    pub(crate) fn is_closed(&mut self) -> bool {
        if !self.ahead.is_empty() {
            return false;
        }
        match self.stream.read(&mut [0]) {
            Ok(0) => true,
            Err(error) => matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
            Ok(_) => false,
        }
    }

    /// Everything until the peer closes; a reset counts as the end.
    pub(crate) fn read_to_end(&mut self) -> Result<Vec<u8>> {
        let mut all = std::mem::take(&mut self.ahead);
        match self.stream.read_to_end(&mut all) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error),
            _ => Ok(all),
        }
    }

    /// Some bytes, at least one; none at the end.
    pub(crate) fn read_some(&mut self) -> Result<Vec<u8>> {
        if self.ahead.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Exactly `count` bytes.
    pub(crate) fn read_exact(&mut self, count: usize) -> Result<Vec<u8>> {
        while self.ahead.len() < count {
            if !self.fill()? {
                return Err(Error::new(ErrorKind::UnexpectedEof, "cut within a body"));
            }
        }
        Ok(self.ahead.drain(..count).collect())
    }

    /// One line with its CRLF.
    pub(crate) fn read_line(&mut self) -> Result<Vec<u8>> {
        self.read_through(b"\r\n")
    }

    /// A head with the empty line that ends it.
    pub(crate) fn read_head(&mut self) -> Result<Vec<u8>> {
        self.read_through(b"\r\n\r\n")
    }

    /// One chunk's data; empty for the last. `raw` takes the bytes as they came.
    pub(crate) fn read_chunk(&mut self, raw: &mut Vec<u8>) -> Result<Vec<u8>> {
        let line = self.read_line()?;
        raw.extend(&line);
        let digits = std::str::from_utf8(&line).unwrap_or_default().trim_end();
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = usize::from_str_radix(digits, 16).ok().filter(|_| plain);
        let size = size.ok_or_else(|| Error::other(format!("chunk size {digits:?}")))?;
        if size == 0 {
            return Ok(Vec::new());
        }
        let data = self.read_exact(size)?;
        raw.extend(&data);
        let end = self.read_exact(2)?;
        raw.extend(&end);
        if end != b"\r\n" {
            return Err(Error::other("no CRLF after a chunk"));
        }
        Ok(data)
    }

    /// The lines after the last chunk, through the empty one.
    pub(crate) fn read_trailers(&mut self, raw: &mut Vec<u8>) -> Result<Vec<String>> {
        let mut trailers = Vec::new();
        loop {
            let line = self.read_line()?;
            raw.extend(&line);
            if line == b"\r\n" {
                return Ok(trailers);
            }
            trailers.push(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    }

    /// The head of an answer, interim answers aside.
    pub(crate) fn read_answer_head(&mut self) -> Result<Response> {
        loop {
            let head = self.read_head()?;
            let response = Response::of_head(&head)?;
            if response.status != 100 {
                return Ok(response);
            }
        }
    }

    /// A whole answer to a request with `method`. Whatever is not exactly framed is an error.
    pub(crate) fn read_answer(&mut self, method: &str) -> Result<Response> {
        let mut response = self.read_answer_head()?;
        let lengths = response.all("content-length");
        let codings = response.all("transfer-encoding");
        if lengths.len() + codings.len() > 1 {
            return Err(Error::other("more than one statement of the length"));
        }
        let bodiless = method == "HEAD" || matches!(response.status, 101 | 204 | 304);
        if bodiless {
            return Ok(response);
        }
        if let [length] = lengths[..] {
            let length = length.parse().map_err(|_| Error::other(format!("length {length:?}")))?;
            response.body = self.read_exact(length)?;
        } else if let [coding] = codings[..] {
            if coding != "chunked" {
                return Err(Error::other(format!("coding {coding:?}")));
            }
            let mut raw = Vec::new();
            loop {
                let data = self.read_chunk(&mut raw)?;
                if data.is_empty() {
                    break;
                }
                response.body.extend(data);
            }
            response.trailers = self.read_trailers(&mut raw)?;
        } else if response.closes {
            response.body = self.read_to_end()?;
        } else {
            return Err(Error::other("an answer of unknown length on a connection that stays open"));
        }
        Ok(response)
    }

    fn read_through(&mut self, end: &[u8]) -> Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let found = self.ahead[searched..].windows(end.len()).position(|part| part == end);
            if let Some(at) = found {
                return Ok(self.ahead.drain(..searched + at + end.len()).collect());
            }
            searched = (self.ahead.len() + 1).saturating_sub(end.len());
            if !self.fill()? {
                let left = String::from_utf8_lossy(&self.ahead);
                return Err(Error::new(ErrorKind::UnexpectedEof, format!("closed after {left:?}")));
            }
        }
    }

    fn fill(&mut self) -> Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let count = self.stream.read(&mut buffer)?;
        self.ahead.extend(&buffer[..count]);
        Ok(count > 0)
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<String>,
    /// Whether the connection is said to close after it.
    pub(crate) closes: bool,
}

impl Response {
    fn of_head(head: &[u8]) -> Result<Self> {
        let bad = || Error::other(format!("bad head {:?}", String::from_utf8_lossy(head)));
        let text = String::from_utf8(head.to_vec()).map_err(|_| bad())?;
        let mut lines = text.strip_suffix("\r\n\r\n").ok_or_else(bad)?.split("\r\n");
        let status_line = lines.next().ok_or_else(bad)?;
        let status = status_line.strip_prefix("HTTP/1.1 ").ok_or_else(bad)?;
        let status = status.get(..3).and_then(|digits| digits.parse().ok()).ok_or_else(bad)?;
        let mut headers = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':').ok_or_else(bad)?;
            if name.is_empty() || name.contains([' ', '\t']) || line.contains(['\r', '\n']) {
                return Err(bad());
            }
            headers.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        let mut response = Self { status, headers, body: Vec::new(), trailers: Vec::new(), closes: false };
        response.closes = response.all("connection").iter().any(|value| value.eq_ignore_ascii_case("close"));
        Ok(response)
    }

    /// Every value of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let of_name = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.headers.iter().filter(of_name).map(|(_, value)| value.as_str()).collect()
    }

    /// The one value of a header, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} is there {} times: {all:?}", all.len());
        all.first().copied()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
    }

    /// The member `detail` of a problem.
    pub(crate) fn detail(&self) -> String {
        self.json()["detail"].as_str().expect("a problem has a detail").to_owned()
    }

    /// Fails unless the answer has `status`.
    #[track_caller]
    pub(crate) fn assert_status(&self, status: u16, context: &str) -> &Self {
        let text = self.text();
        let shown = text.get(..400).unwrap_or(&text);
        assert_eq!(self.status, status, "{context}\n{:?}\n{shown}", self.headers);
        self
    }
}

/// Sends `bytes` and gives everything that comes back until the peer closes.
pub(crate) fn raw(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut wire = Wire::connect(address);
    wire.write(bytes);
    wire.read_to_end().expect("the connection is closed in time")
}
