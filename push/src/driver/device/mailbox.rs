//! What other tasks hand to the device's task: under one lock, in buffers that go round, so that nothing is allocated per
//! order after warm-up.

use core::ops::Range;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::sync::oneshot;
use wire_format::ids::OrderKind;

use super::handle::{Answer, AskError, HandOverError};
use crate::receiver::{AnswerCode, QuestionId, Stats, Ticket, Verdict};

/// Things handed over that wait for the device's task. It takes them within a turn, and no more than eight orders and four
/// questions are open at a time: more wait only if the task does not run.
pub const POSTS_MAX: usize = 1_024;
/// Bytes of results, questions and answers that wait for the device's task: 16 results of the largest size.
pub const POSTED_BYTES_MAX: usize = 256 << 10;

/// One thing handed over. Payloads stand in [`Posts::bytes`].
#[derive(Debug)]
pub(super) enum Post {
    Complete { ticket: Ticket, verdict: Verdict, result: Option<Range<usize>> },
    Progress { ticket: Ticket, per_mille: u16, phase: u16 },
    Ask { kind: OrderKind, schema: u16, within: Duration, payload: Range<usize>, answer: AnswerTo },
    Reply { question: QuestionId, code: AnswerCode, schema: u16, age: Duration, payload: Range<usize> },
    Stats(oneshot::Sender<Box<Stats>>),
    Leave { within: Duration },
}

/// Whoever asked the server something.
pub(super) type AnswerTo = oneshot::Sender<Result<Answer, AskError>>;

/// Everything handed over since the task looked last.
#[derive(Debug, Default)]
pub(super) struct Posts {
    pub(super) list: VecDeque<Post>,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Inner {
    posts: Posts,
    waker: Option<Waker>,
    stopped: bool,
}

/// The box between the handles and the task.
#[derive(Debug, Default)]
pub(super) struct Mailbox(Mutex<Inner>);

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what `post` makes of the place of `payload`, and wakes the task.
    pub(super) fn hand(
        &self,
        payload: &[u8],
        post: impl FnOnce(Range<usize>) -> Post,
    ) -> Result<(), HandOverError> {
        let waker = {
            let mut inner = self.lock();
            if inner.stopped {
                return Err(HandOverError::Stopped);
            }
            let posts = &mut inner.posts;
            let start = posts.bytes.len();
            let end = start.saturating_add(payload.len());
            if posts.list.len() >= POSTS_MAX || end > POSTED_BYTES_MAX {
                return Err(HandOverError::Full);
            }
            posts.bytes.extend_from_slice(payload);
            posts.list.push_back(post(start..end));
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Swaps what was handed over with the empty `posts`. If there is nothing, `waker` is woken by the next post.
    pub(super) fn take(&self, posts: &mut Posts, waker: &Waker) {
        let mut inner = self.lock();
        if !inner.posts.list.is_empty() {
            core::mem::swap(&mut inner.posts, posts);
        } else if !inner.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            inner.waker = Some(waker.clone());
        }
    }

    /// Takes nothing more. Whoever waits learns it from the dropped post.
    pub(super) fn close(&self) {
        let unread = {
            let mut inner = self.lock();
            inner.stopped = true;
            core::mem::take(&mut inner.posts)
        };
        drop(unread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop(_: Range<usize>) -> Post {
        Post::Leave { within: Duration::ZERO }
    }

    #[test]
    fn posts_at_their_limits_and_one_past_each() {
        let mailbox = Mailbox::default();
        for _ in 0..POSTS_MAX {
            assert_eq!(mailbox.hand(&[], stop), Ok(()));
        }
        assert_eq!(mailbox.hand(&[], stop), Err(HandOverError::Full));
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.hand(&vec![0; POSTED_BYTES_MAX], stop), Ok(()));
        assert_eq!(mailbox.hand(&[0], stop), Err(HandOverError::Full));
        assert_eq!(mailbox.hand(&[], stop), Ok(()));
    }

    #[test]
    fn buffers_go_round_and_a_closed_box_takes_nothing() {
        let mailbox = Mailbox::default();
        let mut posts = Posts::default();
        let waker = Waker::noop();
        mailbox.take(&mut posts, waker);
        mailbox.hand(b"abc", stop).unwrap();
        mailbox
            .hand(b"de", |at| {
                assert_eq!(at, 3..5);
                stop(0..0)
            })
            .unwrap();
        mailbox.take(&mut posts, waker);
        assert_eq!((posts.list.len(), &posts.bytes[..]), (2, &b"abcde"[..]));
        posts.list.clear();
        posts.bytes.clear();
        mailbox.close();
        assert_eq!(mailbox.hand(&[], stop), Err(HandOverError::Stopped));
    }
}
