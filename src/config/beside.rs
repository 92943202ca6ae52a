//! Two things done side by side, where there is enough to do for a thread of its own.

use std::panic::resume_unwind;
use std::thread;

/// What `other` and `own` come to. `other` has a thread of its own, if the system gives one.
pub(super) fn both<A: Send, B>(other: impl Fn() -> A + Sync, own: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let beside = thread::Builder::new().spawn_scoped(scope, &other);
        let own = own();
        let other = match beside {
            Ok(beside) => beside.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => other(),
        };
        (other, own)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_to_what_it_comes_to_alone() {
        let here = thread::current().id();
        let (there, own) = both(|| thread::current().id(), || thread::current().id());
        assert!(there != here && own == here);
    }
}
