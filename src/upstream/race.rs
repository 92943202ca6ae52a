//! Several addresses of one name (RFC 8305, section 5): the next one is tried as soon as the last has failed, or after a
//! moment without an answer, and the first connection wins. A dead address costs that moment and no more.

use std::future::{Future, poll_fn};
use std::iter::Peekable;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::sleep;

/// Attempts of which the first that succeeds counts. Those that are left end with it.
pub(super) struct Race<I, F>
where
    I: Iterator<Item = F>,
{
    waiting: Peekable<I>,
    running: Vec<Pin<Box<F>>>,
}

impl<I, F, T, E> Race<I, F>
where
    I: Iterator<Item = F>,
    F: Future<Output = Result<T, E>>,
{
    /// A race of these, in their order.
    pub(super) fn of(attempts: I) -> Self {
        Self { waiting: attempts.peekable(), running: Vec::new() }
    }

    /// How many are there that have neither failed nor won.
    pub(super) fn left(&self) -> usize {
        self.running.len() + self.waiting.size_hint().0
    }

    /// The next success; what the last failure was when there is none any more, and nothing if there was no attempt left.
    pub(super) async fn next(&mut self) -> Option<Result<T, E>> {
        let mut failure = None;
        loop {
            self.running.extend(self.waiting.next().map(Box::pin));
            if self.running.is_empty() {
                return failure.map(Err);
            }
            match self.event().await {
                Some(Ok(won)) => return Some(Ok(won)),
                Some(Err(error)) => failure = Some(error),
                None => {}
            }
        }
    }

    /// What becomes of one that runs; `None`: it is time for another.
    async fn event(&mut self) -> Option<Result<T, E>> {
        let mut moment = pin!(sleep(DELAY));
        poll_fn(|cx| {
            for at in 0..self.running.len() {
                if let Some(attempt) = self.running.get_mut(at)
                    && let Poll::Ready(result) = attempt.as_mut().poll(cx)
                {
                    drop(self.running.remove(at));
                    return Poll::Ready(Some(result));
                }
            }
            if self.waiting.peek().is_none() {
                return Poll::Pending;
            }
            moment.as_mut().poll(cx).map(|()| None)
        })
        .await
    }
}

/// How long one is alone (RFC 8305, section 8: Connection Attempt Delay).
const DELAY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    /// When each attempt began, and what came of the race and when. An attempt ends after so many milliseconds.
    async fn run(attempts: &[(u64, Result<u8, u8>)]) -> (Vec<u64>, Option<Result<u8, u8>>, u64) {
        let (started, began) = (Instant::now(), RefCell::new(Vec::new()));
        let millis = || u64::try_from(started.elapsed().as_millis()).unwrap();
        let race = attempts.iter().map(|&(after, result)| {
            let began = &began;
            async move {
                began.borrow_mut().push(millis());
                sleep(Duration::from_millis(after)).await;
                result
            }
        });
        let result = Race::of(race).next().await;
        let at = millis();
        (began.take(), result, at)
    }

    const NEVER: u64 = 1_000_000;

    #[tokio::test(start_paused = true)]
    async fn one_that_answers_at_once_is_alone() {
        assert_eq!(run(&[(10, Ok(1)), (10, Ok(2))]).await, (vec![0], Some(Ok(1)), 10));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_begins_after_a_moment_or_with_a_failure_and_the_first_wins() {
        assert_eq!(run(&[(NEVER, Ok(1)), (10, Ok(2))]).await, (vec![0, 250], Some(Ok(2)), 260));
        assert_eq!(run(&[(10, Err(1)), (10, Ok(2))]).await, (vec![0, 10], Some(Ok(2)), 20));
        assert_eq!(run(&[(300, Ok(1)), (100, Ok(2))]).await, (vec![0, 250], Some(Ok(1)), 300), "late and still first");
        let dead = [(NEVER, Ok(1)), (NEVER, Ok(2)), (5, Err(3)), (5, Ok(4))];
        assert_eq!(run(&dead).await, (vec![0, 250, 500, 505], Some(Ok(4)), 510));
        let first_fails_late = [(260, Err(1)), (NEVER, Ok(2)), (1, Ok(3))];
        assert_eq!(run(&first_fails_late).await, (vec![0, 250, 260], Some(Ok(3)), 261));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_the_last_says_why() {
        assert_eq!(run(&[(20, Err(1)), (10, Err(2))]).await, (vec![0, 20], Some(Err(2)), 30));
        assert_eq!(run(&[]).await, (vec![], None, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_where_a_winner_is_of_no_use() {
        let attempts = [(300, Ok(1)), (10, Ok(2)), (10, Err(3))];
        let mut race = Race::of(attempts.iter().map(|&(after, result): &(u64, Result<u8, u8>)| async move {
            sleep(Duration::from_millis(after)).await;
            result
        }));
        assert_eq!(race.left(), 3);
        assert_eq!((race.next().await, race.left()), (Some(Ok(2)), 2));
        assert_eq!((race.next().await, race.left()), (Some(Ok(1)), 0));
        assert_eq!(race.next().await, None);
    }
}
