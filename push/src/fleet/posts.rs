//! What is said between the server and one device beside orders: questions of either side, their answers, STATUS.
//!
//! Few are under way at a time, so one table holds those of all devices and is searched from end to end; a device has no
//! more of them than [`QUESTIONS_MAX`] each way. An entry of this side's is in one of these stages:
//!
//! ```text
//!  ask ──▶ Waiting ──written──▶ Open ──REPLY──▶ (free)
//!             └─cut─▶ Cut ──rest──▶┘  └─ deadline, end of the session ─▶ told as Unanswered ─▶ (free)
//! ```
//!
//! One of a device's: `Asked` until the application replies, then `Waiting` until its REPLY has left.

use wire_format::frame::reply::Code;
use wire_format::frame::{Reply, header};
use wire_format::ids::OrderKind;
use wire_format::time::Instant;

use super::DeviceIndex;
use crate::config::{POSTS_MAX, QUESTIONS_MAX};

/// A question this side asked; told again with its answer or its end. Never the same twice in one fleet's life (of fewer
/// than 2^32 questions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AskId {
    /// What the ASK states as correlation.
    pub correlation: u32,
    /// What the ASK states as generation.
    pub generation: u32,
}

/// A question a device asked, to be answered with [`super::Fleet::reply`]. 24 bytes; worthless once its session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    pub(super) device: DeviceIndex,
    pub(super) post: u8,
    /// This side's number for the entry.
    pub(super) ours: u32,
    pub(super) correlation: u32,
    pub(super) generation: u32,
    pub(super) kind: OrderKind,
}

impl Question {
    /// Who asked.
    #[must_use]
    pub const fn device(&self) -> DeviceIndex {
        self.device
    }

    /// What was asked.
    #[must_use]
    pub const fn kind(&self) -> OrderKind {
        self.kind
    }

    /// The answer's frame: encode it and hand it to [`super::Fleet::reply`]. `age_ms`: how long ago it was true.
    #[must_use]
    pub const fn reply<'a>(&self, code: Code, schema: u16, age_ms: u32, payload: &'a [u8]) -> Reply<'a> {
        let Self { correlation, generation, kind, .. } = *self;
        Reply { correlation, generation, kind, schema, code, age_ms, payload }
    }
}

/// Why a question is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// There is no open session with the device, or one of the two sides is about to end it.
    #[error("the device has no open session")]
    NotConnected,
    /// The device did not declare that it answers this.
    #[error("the device does not answer such questions")]
    Unsupported,
    /// As many questions to the device as may be are open.
    #[error("{limit} questions to the device are open already")]
    TooMany {
        /// How many may be: [`QUESTIONS_MAX`], one of them a STATUS.
        limit: u8,
    },
    /// The table of all devices is full.
    #[error("{limit} questions and answers are under way already")]
    Full {
        /// Its size: [`POSTS_MAX`].
        limit: usize,
    },
    /// The frame is larger than the device accepts.
    #[error("the question is larger than the {limit} bytes the device accepts")]
    TooLarge {
        /// The largest body it accepts.
        limit: u32,
    },
    /// What was handed in is no such frame, or not under the correlation and generation given.
    #[error("the frame is not the question that was announced")]
    Frame,
}

/// Why an answer is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The question is over: its time, or its session, or it was answered.
    #[error("nobody waits for the answer any more")]
    Over,
    /// The frame is larger than the device accepts. The question is still open.
    #[error("the answer is larger than the {limit} bytes the device accepts")]
    TooLarge {
        /// The largest body it accepts.
        limit: u32,
    },
    /// The frame is no REPLY to this question. The question is still open.
    #[error("the frame is not the answer to this question")]
    Frame,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Its time is over.
    Late,
    /// The session ended.
    SessionEnded,
}

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// An ASK of this side.
    Ask,
    /// A STATUS of this side.
    Status,
    /// The answer to an ASK of the device.
    Reply,
    /// The answer "busy", made when it is written: there is no frame for it.
    Busy { correlation: u32, generation: u32, kind: OrderKind },
    /// Nobody waits for it any more; only the rest of its frame has to leave.
    Rest,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Free,
    /// A device asked, the application has not answered.
    Asked {
        kind: OrderKind,
    },
    /// To be written.
    Waiting(Sort),
    /// Written in part.
    Cut(Sort),
    /// Written, to be answered.
    Open(Sort),
    /// A question without an answer, to be told.
    Over,
}

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Post<B> {
    pub(super) stage: Stage,
    /// Why there is no answer, as long as it was not told. (A cut entry is told before its rest has left.)
    pub(super) untold: Option<Unanswered>,
    pub(super) device: u32,
    /// Which use of the entry this is; as the ASK states it.
    pub(super) generation: u32,
    pub(super) deadline: Instant,
    pub(super) frame: Option<B>,
}

impl<B> Post<B> {
    const FREE: Self = Self {
        stage: Stage::Free,
        untold: None,
        device: 0,
        generation: 0,
        deadline: Instant::NEVER,
        frame: None,
    };

    /// This side waits for an answer: it counts against the limit of its device.
    pub(super) const fn is_question(&self) -> bool {
        let (Stage::Waiting(sort) | Stage::Cut(sort) | Stage::Open(sort)) = self.stage else { return false };
        matches!(sort, Sort::Ask | Sort::Status)
    }

    /// It is there because the device asked.
    pub(super) const fn is_answer(&self) -> bool {
        match self.stage {
            Stage::Asked { .. } => true,
            Stage::Waiting(sort) | Stage::Cut(sort) => matches!(sort, Sort::Reply | Sort::Busy { .. }),
            Stage::Free | Stage::Open(_) | Stage::Over => false,
        }
    }
}

/// The entries of all devices.
#[derive(Debug)]
pub(super) struct Posts<B> {
    entries: [Post<B>; POSTS_MAX],
    /// Entries in use: with none, nothing is searched.
    pub(super) used: u16,
    /// Of these, entries with an end to tell.
    pub(super) untold: u16,
    /// The number given last.
    generation: u32,
    /// No entry has a deadline before.
    pub(super) next: Instant,
}

/// How many entries there are of each sort that is limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Questions to the device; of these, STATUS.
    pub(super) questions: u8,
    pub(super) status: u8,
    /// Questions of the device, and of all.
    pub(super) answers: u8,
    pub(super) all_answers: u16,
}

impl<B> Posts<B> {
    pub(super) const fn new() -> Self {
        Self {
            entries: [const { Post::FREE }; POSTS_MAX],
            used: 0,
            untold: 0,
            generation: 0,
            next: Instant::NEVER,
        }
    }

    pub(super) fn at(&self, post: u8) -> Option<&Post<B>> {
        self.entries.get(usize::from(post))
    }

    pub(super) fn at_mut(&mut self, post: u8) -> Option<&mut Post<B>> {
        self.entries.get_mut(usize::from(post))
    }

    /// Entries in use, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u8, &Post<B>)> {
        let entries = if self.used == 0 { &[] } else { self.entries.as_slice() };
        (0..=u8::MAX).zip(entries).filter(|(_, post)| post.stage != Stage::Free)
    }

    pub(super) fn counts(&self, device: u32) -> Counts {
        let mut counts = Counts::default();
        for (_, post) in self.iter() {
            let here = post.device == device;
            counts.questions = counts.questions.saturating_add(u8::from(here && post.is_question()));
            let status = matches!(
                post.stage,
                Stage::Waiting(Sort::Status) | Stage::Cut(Sort::Status) | Stage::Open(Sort::Status)
            );
            counts.status = counts.status.saturating_add(u8::from(here && status));
            counts.answers = counts.answers.saturating_add(u8::from(here && post.is_answer()));
            counts.all_answers = counts.all_answers.saturating_add(u16::from(post.is_answer()));
        }
        counts
    }

    /// The number the next entry will have, and its place.
    pub(super) fn vacant(&self) -> Option<(u8, u32)> {
        let at = self.entries.iter().position(|post| post.stage == Stage::Free)?;
        let next = self.generation.wrapping_add(1).max(1);
        u8::try_from(at).ok().map(|at| (at, next))
    }

    /// Takes the vacant place.
    pub(super) fn take(&mut self, at: u8, entry: Post<B>) {
        self.generation = entry.generation;
        self.next = self.next.min(entry.deadline);
        self.used = self.used.saturating_add(1);
        if let Some(post) = self.at_mut(at) {
            *post = entry;
        }
    }

    /// Empties an entry, if nothing of it has to be told.
    pub(super) fn free(&mut self, at: u8) {
        let Some(post) = self.at_mut(at) else { return };
        if post.untold.is_some() {
            post.stage = Stage::Over;
            post.frame = None;
        } else if post.stage != Stage::Free {
            *post = Post::FREE;
            self.used = self.used.saturating_sub(1);
        }
    }

    /// The entry of this device that is written next: the oldest that waits.
    pub(super) fn waiting(&self, device: u32, after: Option<u32>) -> Option<(u8, u32, Sort)> {
        let waiting = self.iter().filter_map(|(at, post)| match post.stage {
            Stage::Waiting(sort) if post.device == device => Some((at, post.generation, sort)),
            _ => None,
        });
        let age = |generation: u32| self.generation.wrapping_sub(generation);
        let later =
            waiting.filter(|&(_, generation, _)| after.is_none_or(|last| age(generation) < age(last)));
        later.max_by_key(|&(_, generation, _)| age(generation))
    }

    /// The frame of an entry; empty for one that has none.
    pub(super) fn frame(&self, at: u8) -> &[u8]
    where
        B: AsRef<[u8]>,
    {
        self.at(at).and_then(|post| post.frame.as_ref()).map_or(&[], AsRef::as_ref)
    }

    /// The entry under this number of this device, in this stage.
    pub(super) fn find(&self, at: u8, generation: u32, device: u32, stage: Stage) -> bool {
        self.at(at)
            .is_some_and(|post| post.generation == generation && post.device == device && post.stage == stage)
    }
}

/// Bytes of a REPLY without a payload.
pub(super) const BUSY_LEN: usize =
    header::LEN + wire_format::frame::ask::FIXED_LEN + wire_format::frame::CHECKSUM_LEN;

const _: () = assert!(POSTS_MAX == 1 << 8, "an entry's number is a byte");
const _: () = assert!(QUESTIONS_MAX as usize <= POSTS_MAX);
