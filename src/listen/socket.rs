//! Listening sockets, and the loop that accepts from one.
//!
//! Each address has one socket, cloned into every worker's runtime. Running out of descriptors pauses the
//! loop instead of ending or spinning it, and whoever waits for longer than a pause is told so; a worker well above the
//! average lets others accept.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::door::{ClientSocket, Door};
use super::full::{self, Spare, Spoken, is_out_of_descriptors};
use crate::message::connection::{ConnInfo, Stop};
use crate::metrics::Counter;

/// Binds `address`, ready to be cloned into each worker.
///
/// # Errors
/// When the address is in use, may not be bound, or is not this machine's.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the connections of the last run to time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Client connections, counted over all workers.
#[derive(Debug)]
pub struct Census {
    limit: AtomicUsize,
    /// How many that are refused may have a moment to read why; each holds a descriptor meanwhile.
    lingering: AtomicUsize,
    total: AtomicUsize,
    workers: Vec<AtomicUsize>,
    refused: Arc<Counter>,
}

impl Census {
    /// Counts for `workers` workers, which may have `limit` connections together.
    pub fn new(limit: usize, workers: usize) -> Arc<Self> {
        Self::counting(limit, workers, Arc::default())
    }

    /// The same; those that are refused are counted in `refused`.
    pub fn counting(limit: usize, workers: usize, refused: Arc<Counter>) -> Arc<Self> {
        let workers = (0..workers.max(1)).map(|_| AtomicUsize::new(0)).collect();
        let (limit, lingering) = (AtomicUsize::new(limit), AtomicUsize::new(LINGERING));
        Arc::new(Self { limit, lingering, total: AtomicUsize::new(0), workers, refused })
    }

    /// From now on there may be `limit` connections; more that are open stay so.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    /// From now on the same goes for `files` descriptors in all: a small part of them is for those that are refused.
    pub fn set_files(&self, files: usize) {
        self.lingering.store((files / 64).min(LINGERING), Relaxed);
    }

    /// Open connections.
    pub fn open(&self) -> usize {
        self.total.load(Relaxed)
    }

    /// Counts one more connection of `worker`; `None`: there are too many.
    pub fn admit(self: &Arc<Self>, worker: usize) -> Option<Admitted> {
        if self.total.fetch_add(1, Relaxed) >= self.limit.load(Relaxed) {
            self.total.fetch_sub(1, Relaxed);
            self.refused.count();
            return None;
        }
        let worker = worker % self.workers.len();
        self.workers[worker].fetch_add(1, Relaxed);
        Some(Admitted { census: self.clone(), worker })
    }

    /// Whether `worker` has so many connections that others should accept the next: an eighth and a few
    /// more than the average.
    fn is_crowded(&self, worker: usize) -> bool {
        let average = self.total.load(Relaxed) / self.workers.len();
        let own = self.workers[worker % self.workers.len()].load(Relaxed);
        own > average + average / 8 + SLACK
    }
}

/// One counted connection, until it is dropped.
#[derive(Debug)]
pub struct Admitted {
    census: Arc<Census>,
    worker: usize,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.census.workers[self.worker].fetch_sub(1, Relaxed);
        self.census.total.fetch_sub(1, Relaxed);
    }
}

/// Accepts from `listener` until `stop` rises, and spawns what `connection` makes of each connection. Those that stand
/// already when it drains are served too: the system would break them off with the socket.
///
/// Call it in `worker`'s runtime with that worker's clone of the socket. `spoken` is what its clients speak now.
///
/// # Errors
/// When the socket can't be registered with the runtime.
pub async fn accept<F, A>(
    listener: impl Into<Door>,
    worker: usize,
    census: Arc<Census>,
    mut stop: watch::Receiver<Stop>,
    spoken: impl Fn() -> Spoken,
    connection: F,
) -> io::Result<()>
where
    F: Fn(ClientSocket, ConnInfo, Admitted) -> A,
    A: Future<Output = ()> + Send + 'static,
{
    let listener = listener.into().open()?;
    let (mut trouble, mut spare) = (Trouble::default(), Spare::new());
    let begin = |stream: ClientSocket, info: ConnInfo, trouble: &mut Trouble| {
        let Some(admitted) = census.admit(worker) else {
            return refuse(stream, spoken(), census.lingering.load(Relaxed), trouble);
        };
        // Whoever serves it holds on to its place in the count: a task around it would take its size once more.
        tokio::spawn(connection(stream, info, admitted));
    };
    loop {
        match *stop.borrow_and_update() {
            Stop::Run => {}
            Stop::Drain => {
                for (stream, info) in listener.into_waiting()? {
                    begin(stream, info, &mut trouble);
                }
                return Ok(());
            }
            Stop::Now => return Ok(()),
        }
        let accepted = tokio::select! {
            biased;
            changed = stop.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return Ok(()),
            },
            accepted = listener.accept() => accepted,
        };
        let (stream, info) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Not after the first pause: then there were descriptors again, mostly.
                if is_out_of_descriptors(&error) && trouble.lasts() {
                    census.refused.add(spare.shed(&listener, spoken()).await as u64);
                }
                if let Some(pause) = trouble.pause(&error, Instant::now()) {
                    tokio::time::sleep(pause).await;
                }
                continue;
            }
        };
        trouble.is_over();
        begin(stream, info, &mut trouble);
        if census.is_crowded(worker) {
            tokio::time::sleep(STEP_BACK).await;
        }
    }
}

/// Answers a connection that is one too many. It is not counted, so that it gets one moment only; while `lingering` have
/// one already, not even that.
fn refuse(mut stream: ClientSocket, spoken: Spoken, lingering: usize, trouble: &mut Trouble) {
    if trouble.may_tell(Instant::now()) {
        tracing::warn!("too many client connections");
    }
    if trouble.refusing.load(Relaxed) >= lingering {
        return full::tell(&stream, spoken);
    }
    trouble.refusing.fetch_add(1, Relaxed);
    let refusing = trouble.refusing.clone();
    tokio::spawn(async move {
        let answer = async {
            stream.write_all(spoken.farewell()).await?;
            stream.shutdown().await?;
            while stream.read(&mut [0; 1024]).await? > 0 {}
            io::Result::Ok(())
        };
        // Whether it was read is the client's affair.
        let _ = tokio::time::timeout(Duration::from_millis(500), answer).await;
        refusing.fetch_sub(1, Relaxed);
    });
}

/// What goes wrong while accepting.
#[derive(Debug, Default)]
struct Trouble {
    told: Option<Instant>,
    refusing: Arc<AtomicUsize>,
    /// Whether the last one that was to be accepted could not be, for want of descriptors.
    is_out: bool,
}

impl Trouble {
    /// How long to wait before the next try. A connection that its client gave up meanwhile is no reason to.
    fn pause(&mut self, error: &io::Error, now: Instant) -> Option<Duration> {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return None;
        }
        if self.may_tell(now) {
            tracing::error!(%error, "can't accept connections");
        }
        Some(BACK_OFF)
    }

    /// Notes that there was no descriptor; whether there was none the last time already.
    const fn lasts(&mut self) -> bool {
        std::mem::replace(&mut self.is_out, true)
    }

    const fn is_over(&mut self) {
        self.is_out = false;
    }

    /// Whether a second has passed since the last message.
    fn may_tell(&mut self, now: Instant) -> bool {
        let due = self.told.is_none_or(|told| now >= told + Duration::from_secs(1));
        if due {
            self.told = Some(now);
        }
        due
    }
}

const BACKLOG: i32 = 1024;
const BACK_OFF: Duration = Duration::from_millis(75);
const STEP_BACK: Duration = Duration::from_millis(2);
const SLACK: usize = 4;
const LINGERING: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_descriptors_pauses_and_is_told_once_a_second() {
        let mut trouble = Trouble::default();
        let start = Instant::now();
        for code in [24, 23, 105, 12] {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!(trouble.pause(&error, start), Some(BACK_OFF), "{error}");
        }
        assert_eq!(trouble.told, Some(start));
        assert!(!trouble.may_tell(start + Duration::from_millis(999)));
        assert!(trouble.may_tell(start + Duration::from_secs(1)));
        for code in [103, 104, 4] {
            assert_eq!(trouble.pause(&io::Error::from_raw_os_error(code), start), None);
        }
    }

    #[test]
    fn counts_what_is_open_and_refuses_one_too_many() {
        let refused = Arc::<Counter>::default();
        let census = Census::counting(2, 2, refused.clone());
        let first = census.admit(0).unwrap();
        let _second = census.admit(1).unwrap();
        assert!(census.admit(0).is_none());
        drop(first);
        assert_eq!((census.open(), refused.value()), (1, 1));
        assert!(census.admit(0).is_some());
    }

    #[test]
    fn a_worker_well_above_the_average_steps_back() {
        let census = Census::new(1000, 2);
        let own: Vec<_> = (0..20).map(|_| census.admit(0).unwrap()).collect();
        assert!(census.is_crowded(0));
        assert!(!census.is_crowded(1));
        let _others: Vec<_> = (0..20).map(|_| census.admit(1).unwrap()).collect();
        assert!(!census.is_crowded(0), "{}", own.len());
    }

    #[tokio::test]
    async fn who_has_connected_already_is_served_when_the_socket_goes() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (drain, stop) = watch::channel(Stop::Drain);
        let mut clients: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let connection = |mut stream: ClientSocket, _, _| async move { stream.write_all(b"served").await.unwrap() };
        accept(listener, 0, Census::new(100, 1), stop, || Spoken::Http1, connection).await.unwrap();
        assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
        let reading = tokio::task::spawn_blocking(move || {
            for client in &mut clients {
                let mut text = String::new();
                io::Read::read_to_string(client, &mut text).unwrap();
                assert_eq!(text, "served");
            }
        });
        reading.await.unwrap();
        drop(drain);
    }

    #[test]
    fn an_address_is_bound_once() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(bind(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
