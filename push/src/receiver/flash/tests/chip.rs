//! A flash memory that clears bits, is worn by erasing, and loses its power where it is told to.

use wire_format::rng::Rng;

use crate::receiver::flash::{FlashPages, FlashShape};

/// The power is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no power")]
pub(super) struct Cut;

#[derive(Clone, Debug)]
pub(super) struct Chip {
    pub(super) shape: FlashShape,
    pub(super) bytes: Vec<Vec<u8>>,
    /// How often each page was erased.
    pub(super) erases: Vec<u32>,
    /// Whether each unit was programmed since its page was erased.
    programmed: Vec<Vec<bool>>,
    /// Units programmed and pages erased.
    pub(super) steps: u64,
    /// The step at which the power goes.
    cut_at: Option<u64>,
    dark: bool,
    rng: Rng,
}

impl Chip {
    pub(super) fn new(shape: FlashShape) -> Self {
        let (pages, bytes) = (shape.pages as usize, shape.page_bytes as usize);
        Self {
            shape,
            bytes: vec![vec![0xFF; bytes]; pages],
            erases: vec![0; pages],
            programmed: vec![vec![false; bytes / shape.unit_bytes as usize]; pages],
            steps: 0,
            cut_at: None,
            dark: false,
            rng: Rng::new(1),
        }
    }

    /// The power goes in the middle of the `steps`th step from now, counted from 0.
    pub(super) fn cut_after(&mut self, steps: u64, seed: u64) {
        self.cut_at = Some(self.steps + steps);
        self.rng = Rng::new(seed);
    }

    pub(super) fn is_dark(&self) -> bool {
        self.dark
    }

    /// The power is back.
    pub(super) fn boot(&mut self) {
        (self.dark, self.cut_at) = (false, None);
    }

    /// True if the power goes in this step.
    fn step(&mut self) -> Result<bool, Cut> {
        if self.dark {
            return Err(Cut);
        }
        self.dark = self.cut_at == Some(self.steps);
        self.steps += 1;
        Ok(self.dark)
    }

    /// A few bits, none, or nearly all.
    fn some_bits(&mut self) -> u8 {
        let [a, b, c, ..] = self.rng.next_u64().to_le_bytes();
        match c % 4 {
            0 => 0,
            1 => a & b,
            2 => a | b,
            _ => 0xFF,
        }
    }
}

impl FlashPages for Chip {
    type Error = Cut;

    fn shape(&self) -> FlashShape {
        self.shape
    }

    fn erase(&mut self, page: u32) -> Result<(), Cut> {
        let cut = self.step()?;
        let page = page as usize;
        self.erases[page] += 1;
        for at in 0..self.bytes[page].len() {
            self.bytes[page][at] |= if cut { self.some_bits() } else { 0xFF };
        }
        // Half erased is not erased.
        self.programmed[page].fill(cut);
        if cut { Err(Cut) } else { Ok(()) }
    }

    fn program(&mut self, page: u32, offset: u32, bytes: &[u8]) -> Result<(), Cut> {
        let (page, unit) = (page as usize, self.shape.unit_bytes as usize);
        assert_eq!((offset as usize % unit, bytes.len() % unit), (0, 0), "whole units only");
        for (at, bytes) in bytes.chunks(unit).enumerate() {
            let cut = self.step()?;
            let at = offset as usize / unit + at;
            assert!(!std::mem::replace(&mut self.programmed[page][at], true), "a unit is programmed once");
            for (place, byte) in (at * unit..).zip(bytes) {
                let not_yet = if cut { self.some_bits() } else { 0 };
                self.bytes[page][place] &= byte | not_yet;
            }
            if cut {
                // What still reads as erased may be programmed.
                self.programmed[page][at] =
                    self.bytes[page][at * unit..][..unit].iter().any(|byte| *byte != 0xFF);
                return Err(Cut);
            }
        }
        Ok(())
    }

    fn read(&mut self, page: u32, offset: u32, into: &mut [u8]) -> Result<(), Cut> {
        if self.dark {
            return Err(Cut);
        }
        into.copy_from_slice(&self.bytes[page as usize][offset as usize..][..into.len()]);
        Ok(())
    }
}
