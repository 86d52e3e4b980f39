//! STATUS: what became of these orders?
//!
//! The server asks for an operator; nothing in the session depends on it. The device answers from what it holds, in one
//! frame of the same numbers in the same order.
//!
//! ```text
//! server                          device
//!   │── STATUS 7, 9 (question) ───▶│
//!   │◀─────── STATUS 7, 9 (answer) │
//! ```
//!
//! Header: flag DURABLE says which log; `aux16` the count of rows n, 1 to 16; `aux32` 0 question, 1 answer. Body of a
//! question:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 n | numbers | the orders meant, each never 0 |
//! | 8 n | 4 | checksum | CRC-32C of the body before it |
//!
//! Body of an answer:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 16 n | states | rows as below |
//! | 16 n | 4 | checksum | CRC-32C of the body before it |
//!
//! A state:
//!
//! | offset | size | field | rule |
//! | --- | --- | --- | --- |
//! | 0 | 8 | number | the order's number, never 0 |
//! | 8 | 1 | state | 0 unknown, 1 received, 2 started, 3 ended, 4 forgotten: at or below a floor, so if it ever came it has ended |
//! | 9 | 1 | code | state 3: the outcome's code; else 0 |
//! | 10 | 2 | zero | zero |
//! | 12 | 4 | elapsed ms | milliseconds since it came into this state, 0 if not known |

use super::outcome::Code;
use super::rows::{Numbers, Row, Rows};
use super::{Flags, Header, Kind, Raw, emit_checked, emit_count, parse_number};
use crate::bytes::{Reader, Writer};
use crate::error::{EmitError, Fault, ParseError};

/// Orders of one frame: one default window.
pub const ROWS_MAX: usize = 16;
/// Bytes of one row of an answer.
pub const STATE_LEN: usize = 16;
/// Bytes of the largest body.
pub const BODY_MAX: usize = ROWS_MAX * STATE_LEN + super::CHECKSUM_LEN;
const QUESTION: u32 = 0;
const ANSWER: u32 = 1;

/// What a device knows of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Never heard of it.
    Unknown,
    /// Received, not begun.
    Received,
    /// Begun.
    Started,
    /// Ended so.
    Ended(Code),
    /// Ended; how is forgotten.
    Forgotten,
}

impl State {
    /// The name for logs and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Received => "received",
            Self::Started => "started",
            Self::Ended(_) => "ended",
            Self::Forgotten => "forgotten",
        }
    }

    const fn numbers(self) -> (u8, u8) {
        match self {
            Self::Unknown => (0, 0),
            Self::Received => (1, 0),
            Self::Started => (2, 0),
            Self::Ended(code) => (3, code.0),
            Self::Forgotten => (4, 0),
        }
    }
}

impl core::fmt::Display for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Ended(code) => code.fmt(f),
            other => f.pad(other.name()),
        }
    }
}

/// The state of one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateEntry {
    /// The order's number.
    pub number: u64,
    /// What the device knows of it.
    pub state: State,
    /// Milliseconds since it came into this state, 0 if not known.
    pub elapsed_ms: u32,
}

impl Row<STATE_LEN> for StateEntry {
    fn parse(bytes: &[u8; STATE_LEN]) -> Result<Self, ParseError> {
        let mut reader = Reader::new(bytes);
        let number = parse_number(&mut reader)?;
        let at = reader;
        let state = reader.u8("state")?;
        let at_code = reader;
        let code = Code(reader.u8("code")?);
        let state = match state {
            0 => State::Unknown,
            1 => State::Received,
            2 => State::Started,
            3 if !code.is_wire() => return Err(at_code.error("code", Fault::Range)),
            3 => State::Ended(code),
            4 => State::Forgotten,
            _ => return Err(at.error("state", Fault::Range)),
        };
        if state.numbers().1 != code.0 {
            return Err(at_code.error("code", Fault::NotZero));
        }
        reader.zeros("zero", 2)?;
        Ok(Self { number, state, elapsed_ms: reader.u32("elapsed ms")? })
    }

    fn emit(&self) -> [u8; STATE_LEN] {
        let mut bytes = [0; STATE_LEN];
        let mut writer = Writer::new(&mut bytes);
        let (state, code) = self.state.numbers();
        writer.u64(self.number);
        writer.u8(state);
        writer.u8(code);
        writer.u16(0);
        writer.u32(self.elapsed_ms);
        bytes
    }
}

/// The states of an answer.
pub type States<'a> = Rows<'a, StateEntry, STATE_LEN>;

/// A question about orders of one log, or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status<'a> {
    /// The durable log is meant.
    pub durable: bool,
    /// Which of the two it is.
    pub rows: StatusRows<'a>,
}

/// The rows of a [`Status`], 1 to 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusRows<'a> {
    /// The server asks about these orders.
    Question(Numbers<'a>),
    /// The device answers.
    Answer(States<'a>),
}

impl<'a> Status<'a> {
    /// Reads a STATUS frame.
    pub fn parse(raw: &Raw<'a>) -> Result<Self, ParseError> {
        raw.header.expect(Kind::STATUS, Flags::DURABLE)?;
        let rows = match raw.header.aux32 {
            QUESTION => StatusRows::Question(raw.rows(ROWS_MAX)?),
            ANSWER => StatusRows::Answer(raw.rows(ROWS_MAX)?),
            _ => return Err(ParseError::new("aux32", 8, Fault::Range)),
        };
        Ok(Self { durable: raw.header.flags.contains(Flags::DURABLE), rows })
    }

    /// Writes the frame; bytes written.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let (aux32, count) = match &self.rows {
            StatusRows::Question(numbers) => (QUESTION, numbers.len()),
            StatusRows::Answer(states) => (ANSWER, states.len()),
        };
        let header = Header {
            flags: Flags::NONE.with_if(Flags::DURABLE, self.durable),
            aux16: emit_count(count, ROWS_MAX)?,
            aux32,
            ..Header::new(Kind::STATUS, 0)
        };
        match &self.rows {
            StatusRows::Question(numbers) => numbers.check()?,
            StatusRows::Answer(states) => states.check()?,
        }
        emit_checked(header, buffer, |writer| match &self.rows {
            StatusRows::Question(numbers) => numbers.emit(writer),
            StatusRows::Answer(states) => states.emit(writer),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::{Just, Strategy, prop_oneof};

    const STATES: [StateEntry; 2] = [
        StateEntry { number: 7, state: State::Ended(Code::APPLIED), elapsed_ms: 900 },
        StateEntry { number: 9, state: State::Started, elapsed_ms: 20 },
    ];

    fn answer(states: &[StateEntry]) -> Status<'_> {
        Status { durable: true, rows: StatusRows::Answer(States::from(states)) }
    }

    fn question(numbers: &[u64]) -> Status<'_> {
        Status { durable: true, rows: StatusRows::Question(Numbers::from(numbers)) }
    }

    fn check(status: &Status<'_>) {
        let bytes = testing::emit(|buffer| status.emit(buffer));
        assert_eq!(Status::parse(&Raw::parse(&bytes).unwrap()), Ok(*status));
        testing::frame(&bytes, |raw, buffer| Ok(Status::parse(raw)?.emit(buffer)));
    }

    #[test]
    fn golden_vectors() {
        let asked = testing::emit(|buffer| question(&[7, 9]).emit(buffer));
        assert_eq!(asked, testing::vector("STATUS"));
        let told = testing::emit(|buffer| answer(&STATES).emit(buffer));
        assert_eq!(told, testing::vector("STATUS answer"));
    }

    #[test]
    fn what_is_refused_and_where() {
        let fault = |at: usize, byte| {
            let mut bytes = testing::vector("STATUS answer");
            bytes[at] = byte;
            testing::repair(&mut bytes);
            Status::parse(&Raw::parse(&bytes).unwrap()).unwrap_err()
        };
        let error = ParseError::new;
        assert_eq!(fault(6, 3), error("aux16", 6, Fault::Length));
        assert_eq!(fault(8, 2), error("aux32", 8, Fault::Range));
        assert_eq!(fault(16, 0), error("number", 16, Fault::Range));
        assert_eq!(fault(24, 5), error("state", 24, Fault::Range));
        assert_eq!(fault(25, 0), error("code", 25, Fault::Range));
        assert_eq!(fault(25, 32), error("code", 25, Fault::Range));
        assert_eq!(fault(41, 1), error("code", 41, Fault::NotZero));
        assert_eq!(fault(27, 1), error("zero", 26, Fault::NotZero));
    }

    #[test]
    fn limits_and_one_past_each() {
        let numbers = [1; ROWS_MAX + 1];
        let states = [STATES[0]; ROWS_MAX + 1];
        check(&question(&numbers[..ROWS_MAX]));
        check(&answer(&states[..ROWS_MAX]));
        let mut buffer = [0; 512];
        let too_many = Err(EmitError::TooLarge { field: "aux16", limit: ROWS_MAX });
        assert_eq!(question(&numbers).emit(&mut buffer), too_many);
        assert_eq!(answer(&states).emit(&mut buffer), too_many);
        let invalid = |field| Err(EmitError::Invalid { field });
        assert_eq!(question(&[]).emit(&mut buffer), invalid("aux16"));
        assert_eq!(question(&[0]).emit(&mut buffer), invalid("number"));
        let wrong = [StateEntry { state: State::Ended(Code::POISON), ..STATES[0] }];
        assert_eq!(answer(&wrong).emit(&mut buffer), invalid("code"));
    }

    #[test]
    fn states_have_names() {
        let shown = STATES.map(|entry| entry.state.to_string());
        assert_eq!(shown, ["applied", "started"]);
        assert_eq!(STATES[0].state.name(), "ended");
    }

    fn state() -> impl Strategy<Value = StateEntry> {
        let state = prop_oneof![
            Just(State::Unknown),
            Just(State::Received),
            Just(State::Started),
            Just(State::Forgotten),
            prop_oneof![1_u8..=9, 16_u8..=18].prop_map(|code| State::Ended(Code(code))),
        ];
        (1_u64.., state, 0_u32..).prop_map(|(number, state, elapsed_ms)| StateEntry {
            number,
            state,
            elapsed_ms,
        })
    }

    proptest::proptest! {
        #![proptest_config(testing::config())]
        #[test]
        fn round_trip(
            numbers in proptest::collection::vec(1_u64.., 1..=ROWS_MAX),
            states in proptest::collection::vec(state(), 1..=ROWS_MAX),
        ) {
            check(&question(&numbers));
            check(&answer(&states));
        }
    }
}
