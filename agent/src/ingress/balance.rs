//! Which thread takes a new connection. The kernel spreads them by a hash of their addresses, and of some dozens one thread may get twice as many as
//! another, which then answers late. So a thread that has clearly more than the one with the fewest gives a new connection to that one.

use std::net::{IpAddr, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use super::thread::Thread;

/// Given away and not taken up yet: with more, a thread that is stuck keeps what comes to others.
const UNDER_WAY: usize = 64;

/// A connection that another thread has accepted.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) stream: TcpStream,
    pub(crate) from: IpAddr,
    pub(crate) listen: u16,
}

/// What all threads have.
#[derive(Debug)]
pub(crate) struct Balance(Vec<Desk>);

/// One thread's.
#[derive(Debug)]
struct Desk {
    connections: AtomicUsize,
    give: mpsc::Sender<Arrival>,
    /// Until its thread takes it.
    take: Mutex<Option<mpsc::Receiver<Arrival>>>,
}

impl Balance {
    pub(crate) fn new(threads: usize) -> Self {
        let desk = |_| {
            let (give, take) = mpsc::channel(UNDER_WAY);
            Desk { connections: AtomicUsize::new(0), give, take: Mutex::new(Some(take)) }
        };
        Self((0..threads).map(desk).collect())
    }

    /// What others give to this thread; asked for once.
    pub(crate) fn arrivals(&self, thread: usize) -> Option<mpsc::Receiver<Arrival>> {
        self.0[thread].take.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The thread with the fewest connections, if `thread` has clearly more: at least two, and an eighth.
    pub(crate) fn lighter(&self, thread: usize) -> Option<usize> {
        let count = |desk: &Desk| desk.connections.load(Ordering::Relaxed);
        let (least, lightest) = self.0.iter().enumerate().map(|(at, desk)| (count(desk), at)).min()?;
        (count(&self.0[thread]) >= least + 2 + least / 8).then_some(lightest)
    }

    /// Gives it back where the other thread has enough to take up.
    pub(crate) fn give(&self, thread: usize, arrival: Arrival) -> Result<(), Arrival> {
        self.0[thread].give.try_send(arrival).map_err(|error| match error {
            mpsc::error::TrySendError::Full(arrival) | mpsc::error::TrySendError::Closed(arrival) => arrival,
        })
    }
}

/// A connection that a thread has, as long as this lives.
pub(crate) struct Present(Rc<Thread>);

impl Present {
    pub(crate) fn at(thread: Rc<Thread>) -> Self {
        thread.shared.balance.0[thread.number].connections.fetch_add(1, Ordering::Relaxed);
        Self(thread)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.shared.balance.0[self.0.number].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(counts: &[usize]) -> Balance {
        let balance = Balance::new(counts.len());
        for (desk, count) in balance.0.iter().zip(counts) {
            desk.connections.store(*count, Ordering::Relaxed);
        }
        balance
    }

    #[test]
    fn only_who_has_clearly_more_gives_away() {
        assert_eq!(with(&[1, 0]).lighter(0), None);
        assert_eq!(with(&[2, 0]).lighter(0), Some(1));
        assert_eq!(with(&[2, 0]).lighter(1), None);
        assert_eq!(with(&[21, 17]).lighter(0), Some(1));
        assert_eq!(with(&[20, 17]).lighter(0), None);
        assert_eq!(with(&[1100, 1000]).lighter(0), None);
        assert_eq!(with(&[9, 3, 7]).lighter(2), Some(1));
        assert_eq!(with(&[5]).lighter(0), None);
    }

    #[test]
    fn what_is_given_arrives_and_what_is_too_much_comes_back() {
        let balance = Balance::new(2);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let arrival = || {
            let stream = TcpStream::connect_timeout(&address, std::time::Duration::from_secs(10)).expect("connected");
            Arrival { stream, from: address.ip(), listen: address.port() }
        };
        for _ in 0..UNDER_WAY {
            balance.give(1, arrival()).expect("room");
        }
        assert_eq!(balance.give(1, arrival()).expect_err("no room").listen, address.port());
        let mut arrivals = balance.arrivals(1).expect("asked for once");
        assert!(balance.arrivals(1).is_none());
        assert_eq!(arrivals.try_recv().expect("it arrived").listen, address.port());
    }
}
