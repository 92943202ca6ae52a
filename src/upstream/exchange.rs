//! One request with no body, or a small one, and its answer, over a connection that speaks HTTP/1.1 (RFC 9112).
//!
//! Whoever waits for the answer reads and writes the connection itself: no task, no channel and no copy of the head stands
//! in between. What a server sends wakes the client's own task.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Weak;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use super::BUFFER;
use super::answer::{self, Answer, Fault, Length};
use super::chunks::{Chunks, Piece};
use super::connect::Wire;
use super::http1::Unused;
use crate::message::added::Added;
use crate::message::body::{Cut, Source};

/// A connection that takes one request at a time.
pub(super) struct Connection {
    wire: Wire,
    /// What was read and belongs to nobody yet.
    read: BytesMut,
    /// What is sent: a head, and the body that goes with it.
    out: Vec<u8>,
    /// How much is read at once.
    room: usize,
}

impl Connection {
    pub(super) fn new(wire: Wire) -> Box<Self> {
        Box::new(Self { wire, read: BytesMut::new(), out: Vec::new(), room: LEAST_ROOM })
    }

    /// What the bytes go over, with nothing read of what comes next.
    pub(super) fn into_wire(self) -> Wire {
        self.wire
    }

    /// Whether all that was read belonged to the last exchange.
    pub(super) fn has_read_all(&self) -> bool {
        self.read.is_empty()
    }

    /// Whether nothing has come that nobody asked for, be it the end. Wakes nobody later.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut into = ReadBuf::new(&mut byte);
        // A task that has had its turn would be told to wait whatever has come.
        let read = pin!(unconstrained(poll_fn(|cx| Pin::new(&mut self.wire).poll_read(cx, &mut into))));
        self.read.is_empty() && read.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Sends a request and its `body`, and reads as far as the end of the head of its answer.
    ///
    /// # Errors
    /// When there is none. The connection is of no use then.
    pub(super) async fn ask(
        &mut self,
        method: &Method,
        target: &PathAndQuery,
        fields: (&HeaderMap, &Added),
        body: &[u8],
    ) -> Result<Answer, Fault> {
        write_request(&mut self.out, (method, target), fields, body);
        let (mut sent, mut looked) = (Sent::Bytes(0), 0);
        let is_head = *method == Method::HEAD;
        poll_fn(|cx| {
            if let Poll::Ready(Err(fault)) = self.poll_send(&mut sent, cx) {
                if fault.is_unsent() {
                    return Poll::Ready(Err(fault));
                }
                // The server may have said why it takes no more.
                sent = Sent::Broken(fault);
            }
            loop {
                if let Some(mut answer) = answer::read(&mut self.read, &mut looked, is_head)? {
                    // One that did not wait for the whole request leaves the server waiting for the rest.
                    answer.stays_open &= matches!(sent, Sent::All);
                    return Poll::Ready(Ok(answer));
                }
                let fault = match ready!(self.poll_fill(cx)) {
                    Ok(0) => Fault::Ended,
                    Ok(_) => continue,
                    Err(error) => Fault::Io(error),
                };
                return Poll::Ready(Err(match std::mem::replace(&mut sent, Sent::All) {
                    Sent::Broken(first) => first,
                    Sent::All | Sent::Bytes(_) => fault,
                }));
            }
        })
        .await
    }

    /// Sends what is left to be sent.
    fn poll_send(&mut self, sent: &mut Sent, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let Sent::Bytes(count) = sent else { return Poll::Ready(Ok(())) };
        while let Some(left) = self.out.get(*count..).filter(|left| !left.is_empty()) {
            match ready!(Pin::new(&mut self.wire).poll_write(cx, left)) {
                Ok(0) => return Poll::Ready(Err(Fault::Io(io::ErrorKind::WriteZero.into()))),
                Ok(more) => *count += more,
                // Of what TLS was given a part may have left before it failed.
                Err(error) if *count == 0 && !self.wire.is_tls() => return Poll::Ready(Err(Fault::Unsent(error))),
                Err(error) => return Poll::Ready(Err(Fault::Io(error))),
            }
        }
        ready!(Pin::new(&mut self.wire).poll_flush(cx)).map_err(Fault::Io)?;
        *sent = Sent::All;
        self.out.clear();
        self.out.shrink_to(LEAST_ROOM);
        Poll::Ready(Ok(()))
    }

    /// Reads more: how much, nothing at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let spare = self.read.capacity() - self.read.len();
        // What was read before may still be on its way to the client; room behind it is as good as new room.
        if spare < self.room / 4 {
            self.read.reserve(self.room);
        }
        let spare = self.read.capacity() - self.read.len();
        let count = ready!(pin!(self.wire.read_buf(&mut self.read)).poll(cx))?;
        if count == spare {
            self.room = (self.room * 2).min(BUFFER);
        }
        Poll::Ready(Ok(count))
    }

    /// How much room it holds on to.
    #[cfg(test)]
    pub(super) fn room_kept(&self) -> usize {
        self.read.capacity() + self.out.capacity()
    }

    /// Tells a server over TLS that nothing more comes (RFC 8446, section 6.1), if that can be done at once.
    fn say_goodbye(&mut self) {
        if self.wire.is_tls() {
            let mut unheard = Context::from_waker(Waker::noop());
            let _at_once_or_not_at_all = Pin::new(&mut self.wire).poll_shutdown(&mut unheard);
        }
    }

    /// Gives up room that a large body has needed. Nothing is left in it.
    fn slim(&mut self) {
        if self.room > LEAST_ROOM {
            self.read = BytesMut::new();
            self.room = LEAST_ROOM;
        }
    }
}

/// Makes ready what is sent. How the body is framed is said here alone, whatever `headers` say of it.
fn write_request(
    out: &mut Vec<u8>,
    (method, target): (&Method, &PathAndQuery),
    (headers, added): (&HeaderMap, &Added),
    body: &[u8],
) {
    out.clear();
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_str().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut says_length = !body.is_empty();
    for (name, value) in headers {
        // By the length first, which no other field of most heads has.
        match name.as_str().len() {
            14 if name == CONTENT_LENGTH => {
                says_length = true;
                continue;
            }
            17 if name == TRANSFER_ENCODING => continue,
            _ if added.replaces(name) => continue,
            _ => {}
        }
        write_field(out, name, value);
    }
    for (name, value) in added.iter() {
        write_field(out, name, value);
    }
    if says_length {
        out.extend_from_slice(b"content-length: ");
        out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

fn write_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.reserve(name.as_str().len() + value.len() + 4);
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// How much of a request was sent.
enum Sent {
    Bytes(usize),
    All,
    /// No more can be.
    Broken(Fault),
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("wire", &self.wire).finish_non_exhaustive()
    }
}

/// What comes behind the head of an answer.
#[derive(Debug)]
pub(super) enum Rest {
    /// All of it is there.
    Whole(Bytes),
    /// It is read as it comes.
    Coming(Coming),
}

/// The body of an answer, and the connection that it comes over, which takes another request when the body is over.
#[derive(Debug)]
pub(super) struct Coming {
    /// `None`: the body is over.
    connection: Option<Box<Connection>>,
    left: Left,
    stays_open: bool,
    unused: Weak<Unused>,
}

/// What is left of a body.
#[derive(Debug)]
enum Left {
    Bytes(u64),
    Chunks(Chunks),
    /// Whatever comes.
    Connection,
    /// It broke off.
    Broken,
}

/// The body behind the head of `answer`, which was there at `back`. A connection that takes another request goes to `unused`
/// behind it.
pub(super) fn rest(mut connection: Box<Connection>, answer: &Answer, back: Instant, unused: Weak<Unused>) -> Rest {
    let left = match answer.length {
        Length::Bytes(length) => match usize::try_from(length) {
            Ok(length) if length <= connection.read.len() => {
                let whole = connection.read.split_to(length).freeze();
                over(connection, answer.stays_open, back, &unused);
                return Rest::Whole(whole);
            }
            Ok(length) => {
                connection.room = length.clamp(LEAST_ROOM, BUFFER);
                Left::Bytes(length as u64)
            }
            Err(_) => Left::Bytes(length),
        },
        Length::Chunked => Left::Chunks(Chunks::default()),
        Length::Connection => Left::Connection,
    };
    Rest::Coming(Coming { connection: Some(connection), left, stays_open: answer.stays_open, unused })
}

/// The exchange is over at `now`. What came behind the answer is nobody's, and a connection on which anything did is not used again.
fn over(mut connection: Box<Connection>, stays_open: bool, now: Instant, unused: &Weak<Unused>) {
    if !stays_open {
        return connection.say_goodbye();
    }
    if connection.has_read_all()
        && let Some(unused) = unused.upgrade()
    {
        connection.slim();
        unused.put(connection, now);
    }
}

impl Coming {
    /// The body is over: whoever comes next may have the connection.
    fn end(&mut self) {
        if let Some(connection) = self.connection.take() {
            over(connection, self.stays_open, Instant::now(), &self.unused);
        }
    }

    /// What there is of the body in what was read; `None`: more must be read.
    fn take(left: &mut Left, read: &mut BytesMut) -> Result<Option<Piece>, Fault> {
        Ok(match left {
            Left::Bytes(0) => Some(Piece::End(HeaderMap::new())),
            Left::Chunks(chunks) => chunks.take(read)?,
            Left::Bytes(_) | Left::Connection if read.is_empty() => None,
            Left::Bytes(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                *left -= here as u64;
                Some(Piece::Data(read.split_to(here).freeze()))
            }
            Left::Connection => Some(Piece::Data(read.split().freeze())),
            Left::Broken => Some(Piece::End(HeaderMap::new())),
        })
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(Piece::End(HeaderMap::new()))) };
        loop {
            if let Some(piece) = Self::take(&mut self.left, &mut connection.read)? {
                return Poll::Ready(Ok(piece));
            }
            if ready!(connection.poll_fill(cx)).map_err(Fault::Io)? == 0 {
                return Poll::Ready(match self.left {
                    Left::Connection | Left::Broken => Ok(Piece::End(HeaderMap::new())),
                    Left::Bytes(_) | Left::Chunks(_) => Err(Fault::Ended),
                });
            }
        }
    }
}

impl Source for Coming {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let frame = match ready!(self.poll_piece(cx)) {
            Ok(Piece::Data(data)) => {
                if matches!(self.left, Left::Bytes(0)) {
                    self.end();
                }
                Some(Ok(Frame::data(data)))
            }
            Ok(Piece::End(trailers)) => {
                self.end();
                (!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers)))
            }
            Err(fault) => {
                (self.connection, self.left) = (None, Left::Broken);
                Some(Err(fault.into()))
            }
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.connection.is_none() && !matches!(self.left, Left::Broken)
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            Left::Bytes(left) => SizeHint::with_exact(left),
            Left::Chunks(_) | Left::Connection | Left::Broken => SizeHint::default(),
        }
    }
}

/// How much is read at once to begin with, and kept by a connection that waits.
const LEAST_ROOM: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 7] = [
        "host",
        "x-forwarded-user",
        "x-forwarded-uses",
        "x_forwarded_user",
        "content-length",
        "transfer-encoding",
        "x",
    ];

    fn field() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
        (proptest::sample::select(&NAMES[..]), "[a-z]{0,3}")
            .prop_map(|(name, value)| (HeaderName::from_static(name), HeaderValue::try_from(value).unwrap()))
    }

    proptest! {
        /// What is sent is what the map has once what is added was put into it, but for how the body is framed.
        #[test]
        fn what_is_added_is_sent_as_if_it_were_in_the_map(
            fields in prop::collection::vec(field(), 0..8),
            said in prop::collection::vec(field(), 0..5),
            body in "[a-z]{0,2}",
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(name, value);
            }
            let mut added = Added::with_room();
            let of_ours = |(name, _): &(HeaderName, HeaderValue)| *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING;
            said.into_iter().filter(of_ours).for_each(|(name, value)| added.set(&name, value));
            let mut out = Vec::new();
            let line = (&Method::GET, &PathAndQuery::from_static("/"));
            write_request(&mut out, line, (&headers, &added), body.as_bytes());

            let mut room = [httparse::EMPTY_HEADER; 20];
            let mut sent = httparse::Request::new(&mut room);
            let end = sent.parse(&out).unwrap().unwrap();
            prop_assert_eq!(&out[end..], body.as_bytes());
            let (mut came, mut lengths) = (HeaderMap::new(), Vec::new());
            for field in &*sent.headers {
                let name = HeaderName::from_bytes(field.name.as_bytes()).unwrap();
                if name == CONTENT_LENGTH {
                    lengths.push(field.value.to_vec());
                } else {
                    came.append(name, HeaderValue::from_bytes(field.value).unwrap());
                }
            }
            let says_length = !body.is_empty() || headers.contains_key(CONTENT_LENGTH);
            let length = body.len().to_string().into_bytes();
            prop_assert_eq!(lengths, says_length.then_some(length).into_iter().collect::<Vec<_>>());
            added.settle(&mut headers);
            headers.remove(CONTENT_LENGTH);
            headers.remove(TRANSFER_ENCODING);
            prop_assert_eq!(came, headers);
        }
    }
}
