//! Do tags match? Told without keeping their names, however deep they are nested.

use super::limits::DEPTH_MAX;

/// Checks that tags match without keeping their names: hashes, exact to `DEPTH_MAX`, and below that
/// one sum that only comes back to where it was if every tag matched.
#[derive(Default)]
pub struct Names {
    current: u64,
    open: Vec<u64>,
    deep: u64,
}

impl Names {
    /// FNV-1a of nothing.
    const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;
    const FNV_PRIME: u64 = 0x0100_0000_01b3;
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    /// `FACTOR * FACTOR_INVERSE == 1`.
    const FACTOR_INVERSE: u64 = 0xf1de_83e1_9937_733d;

    /// A tag begins.
    pub fn start(&mut self) {
        self.current = Self::EMPTY;
    }

    /// Takes one more byte of the current tag's name.
    pub fn push_byte(&mut self, byte: u8) {
        self.current = (self.current ^ u64::from(byte)).wrapping_mul(Self::FNV_PRIME);
    }

    /// The current tag opens an element inside `depth` others.
    pub fn open(&mut self, depth: usize) {
        if depth <= DEPTH_MAX {
            self.open.push(self.current);
        } else {
            self.deep = self.deep.wrapping_mul(Self::FACTOR);
            self.deep = self.deep.wrapping_add(self.current);
        }
    }

    /// Whether the tag that ends at `depth` has the name it began with.
    pub fn close(&mut self, depth: usize) -> bool {
        if depth <= DEPTH_MAX {
            return self.open.pop() == Some(self.current) && self.deep == 0;
        }
        self.deep = self.deep.wrapping_sub(self.current);
        self.deep = self.deep.wrapping_mul(Self::FACTOR_INVERSE);
        true
    }
}
